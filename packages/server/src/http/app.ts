/**
 * What the relay answers over plain HTTP: its health, its numbers, and whole documents as of a seq. Sockets are beside this, in socket.ts.
 */
import { Hono } from 'hono'
import type { Context } from 'hono'
import { accepts } from 'hono/accepts'
import type { DocumentId, ErrorCode, Seq } from '@rejoin/shared'
import { ERRORS, SyncError, parseDocumentId, toSyncError } from '@rejoin/shared'
import type { AuthRequest, Grant } from '../relay/grant.ts'
import { accessOf } from '../relay/grant.ts'
import { authRequest, refusal } from './answer.ts'
import type { ChangeFeeds } from './changes.ts'
import type { Metrics } from './metrics.ts'
import type { OriginPolicy } from './origin.ts'
import { originProblem } from './origin.ts'
import type { SinkRouteParts } from './sinks.ts'
import { addSinkRoutes } from './sinks.ts'

/** Reads whole documents, durable entries only, away from the main thread. Undefined: nobody ever wrote to it. Rejects with `SyncError`. */
export interface DocumentReader {
  /** The document as one Yjs update (v1) as of `seq`. */
  state(document: DocumentId): Promise<{ readonly seq: Seq; readonly update: Uint8Array } | undefined>
  /** Its records as of `seq`, ready to send: JSON `{ collections: { pets: { id: record } }, violations: […] }`. Absent when the relay has no schema. */
  readonly collections?: ((document: DocumentId) => Promise<{ readonly seq: Seq; readonly json: string } | undefined>) | undefined
}

/** What the app is made of. */
export interface AppParts {
  readonly authorize: (request: AuthRequest) => Promise<Grant>
  /** `/v1/documents/<id>`; absent where there are none to be read. */
  readonly documents?: DocumentReader | undefined
  readonly origin: OriginPolicy
  readonly metrics: Metrics
  /** `/v1/sinks`; absent when the relay has no schema, and so no sinks. */
  readonly control?: Omit<SinkRouteParts, 'unready'> | undefined
  /** `/v1/changes`; likewise. */
  readonly changes?: ChangeFeeds | undefined
  /** Why the relay takes no requests now (`draining`, `storage_failed`, …), or undefined when it does. */
  readonly unready: () => ErrorCode | undefined
  /** Told of errors that are nobody's fault but ours. */
  readonly failed: (error: SyncError) => void
}

const DOCUMENTS = '/v1/documents/'

/** The relay's HTTP app: `/healthz`, `/readyz`, `/metrics`, `GET /v1/documents/<id>`. Errors are `{ error: { code, message, hint } }` from the one table. */
export function createApp(parts: AppParts): Hono {
  const app = new Hono()
  app.onError((thrown) => {
    const error = toSyncError(thrown)
    if (ERRORS[error.code].http >= 500) parts.failed(error)
    return refusal(thrown instanceof SyncError ? error : new SyncError('internal', 'the relay failed at this request'))
  })
  app.notFound((c) => refusal(new SyncError('not_found', `there is nothing at ${c.req.path.slice(0, 200)}`)))
  app.use(async (c, next) => {
    const origin = c.req.header('origin')
    // HTTP/2 and Hono's own test requests have no Host header: the address stands for it.
    const problem = originProblem({ host: c.req.header('host') ?? new URL(c.req.url).host, origin }, parts.origin)
    if (problem !== undefined) throw new SyncError('forbidden', problem)
    await next()
    // A page whose Origin was let through may read the answer.
    if (origin !== undefined) {
      c.header('Access-Control-Allow-Origin', origin)
      c.header('Access-Control-Expose-Headers', 'Rejoin-Seq, Rejoin-Cursor')
      c.header('Vary', 'Origin', { append: true })
    }
  })
  app.get('/healthz', (c) => c.json({ ok: true }))
  app.get('/readyz', (c) => {
    const code = parts.unready()
    return code === undefined ? c.json({ ready: true }) : refusal(new SyncError(code, 'the relay is not ready'))
  })
  app.get('/metrics', async (c) => c.body(await parts.metrics.read(), 200, { 'Content-Type': parts.metrics.contentType }))
  for (const path of [`${DOCUMENTS}*`, '/v1/changes', '/v1/sinks/*'])
    app.options(path, (c) =>
      c.body(null, 204, {
        'Access-Control-Allow-Headers': 'Authorization, Last-Event-ID',
        'Access-Control-Allow-Methods': 'GET',
        'Access-Control-Max-Age': '600',
      }),
    )
  const { documents } = parts
  if (documents !== undefined) app.get(`${DOCUMENTS}*`, (c) => answerDocument(c, { ...parts, documents }))
  parts.changes?.addTo(app, parts.unready)
  if (parts.control !== undefined) addSinkRoutes(app, { ...parts.control, unready: parts.unready })
  return app
}

async function answerDocument(
  c: Context,
  { authorize, documents, unready }: AppParts & { readonly documents: DocumentReader },
): Promise<Response> {
  const unable = unready()
  if (unable !== undefined) throw new SyncError(unable, 'the relay takes no requests now')
  const grant = await authorize(authRequest(c))
  const document = documentOf(c.req.url)
  if (accessOf(grant, document) === 'none') throw new SyncError('forbidden', `${grant.principal} may not read ${JSON.stringify(document)}`)
  const type = accepts(c, {
    header: 'Accept',
    supports: ['application/octet-stream', 'application/json'],
    default: 'application/octet-stream',
  })
  if (type === 'application/json') {
    if (documents.collections === undefined)
      throw new SyncError('not_found', 'this relay has no schema and so knows no collections; accept application/octet-stream')
    const { seq, json } = found(await documents.collections(document), document)
    return c.body(json, 200, documentHeaders('application/json', seq))
  }
  const { seq, update } = found(await documents.state(document), document)
  return c.body(new Uint8Array(update), 200, documentHeaders('application/octet-stream', seq))
}

function documentHeaders(type: string, seq: Seq): Record<string, string> {
  return { 'Content-Type': type, 'Rejoin-Seq': String(seq), 'Cache-Control': 'no-store', Vary: 'Accept' }
}

/** The rest of the path behind /v1/documents/, once decoded: slashes may stand as they are or as %2F. */
function documentOf(url: string): DocumentId {
  const { pathname } = new URL(url)
  const raw = pathname.slice(pathname.indexOf(DOCUMENTS) + DOCUMENTS.length)
  let decoded: string
  try {
    decoded = decodeURIComponent(raw)
  } catch (cause) {
    throw new SyncError('bad_document', 'a document id in an address is percent-encoded UTF-8', { cause })
  }
  return parseDocumentId(decoded)
}

function found<T>(value: T | undefined, document: DocumentId): T {
  if (value === undefined) throw new SyncError('not_found', `nobody has written to ${JSON.stringify(document)} yet`)
  return value
}
