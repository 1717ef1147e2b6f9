/**
 * `/v1/sinks`: what an operator sees and does of the sinks, over HTTP. Only for grants with `admin`, and for who can read the data folder.
 */
import type { Context, Hono } from 'hono'
import type { Clock, ErrorCode, JsonValue } from '@rejoin/shared'
import { SyncError } from '@rejoin/shared'
import type { AuthRequest, Grant } from '../relay/grant.ts'
import { authRequest, refusalBody } from './answer.ts'
import type { ReceiptParts } from './receipts.ts'
import { answerReceipt, createReceiptGate } from './receipts.ts'

/** What the routes call. Rejects with `SyncError`: `not_found` for a sink or command that there is none, `bad_option` for arguments that cannot be meant. */
export interface SinkControl {
  list(): Promise<readonly { readonly name: string }[]>
  /** Does it, and answers plain data. An abort gives up what can be given up. */
  command(sink: string, command: string, body: JsonValue | undefined, signal: AbortSignal): Promise<unknown>
}

/** What the routes are made of. */
export interface SinkRouteParts {
  /** Who it is; the secret of the data folder counts as an administrator. */
  readonly authorize: (request: AuthRequest) => Promise<Grant>
  readonly sinks: SinkControl
  readonly receipts: ReceiptParts
  /** Why the relay takes no requests now. */
  readonly unready: () => ErrorCode | undefined
}

const MAX_BODY = 1 << 20
const NO_STORE = { 'Cache-Control': 'no-store' }

/** Adds the routes. */
export function addSinkRoutes(app: Hono, parts: SinkRouteParts): void {
  const { sinks, receipts } = parts
  const gate = createReceiptGate()
  app.get('/v1/sinks', async (c) => {
    await forAdmins(c, parts)
    return c.json({ sinks: await sinks.list() }, 200, NO_STORE)
  })
  app.get('/v1/sinks/:name', async (c) => {
    const name = c.req.param('name')
    // Who waits for their own edit is no operator.
    if (c.req.query('after') !== undefined) {
      refuseUnready(parts)
      return answerReceipt(c, name, receipts, gate)
    }
    await forAdmins(c, parts)
    const found = (await sinks.list()).find((sink) => sink.name === name)
    if (found === undefined) throw new SyncError('not_found', `there is no sink ${JSON.stringify(name.slice(0, 100))}`)
    return c.json(found, 200, NO_STORE)
  })
  app.get('/v1/sinks/:name/dead', async (c) => {
    await forAdmins(c, parts)
    const { limit, ...rest } = c.req.query()
    const body = { ...rest, ...(limit === undefined ? {} : { limit: Number(limit) }) }
    return answered(c, await sinks.command(c.req.param('name'), 'dead', body, c.req.raw.signal))
  })
  app.post('/v1/sinks/:name/:command', async (c) => {
    await forAdmins(c, parts)
    const { name, command } = c.req.param()
    return answerInTime(c, sinks.command(name, command, await bodyOf(c), c.req.raw.signal), receipts.clock)
  })
}

/** Throws unless the request comes from an administrator. */
async function forAdmins(c: Context, parts: SinkRouteParts): Promise<Grant> {
  refuseUnready(parts)
  const grant = await parts.authorize(authRequest(c))
  if (grant.admin !== true)
    throw new SyncError(
      'forbidden',
      `${grant.principal} is no administrator: this needs a token with admin, or the secret in the data folder`,
    )
  return grant
}

function refuseUnready({ unready }: SinkRouteParts): void {
  const code = unready()
  if (code !== undefined) throw new SyncError(code, 'the relay takes no requests now')
}

/** How long an answer may take before its headers are sent, and between two signs of life after that, in ms: clients and proxies give up on silence. */
const SILENCE_MS = 20_000

/** The answer; one that takes long is 200 and spaces, then the answer, or `{ error }`, as JSON has it. */
async function answerInTime(c: Context, work: Promise<unknown>, clock: Clock): Promise<Response> {
  let cancel = (): void => undefined
  const late = new Promise<undefined>((resolve) => {
    cancel = clock.after(SILENCE_MS, () => resolve(undefined))
  })
  const first = await Promise.race([work.then((answer) => ({ answer })), late]).finally(() => cancel())
  if (first !== undefined) return answered(c, first.answer)
  const encoder = new TextEncoder()
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      const beat = (): void => {
        controller.enqueue(encoder.encode(' '))
        cancel = clock.after(SILENCE_MS, beat)
      }
      beat()
      void work.catch(refusalBody).then((answer) => {
        cancel()
        controller.enqueue(encoder.encode(JSON.stringify(answer)))
        controller.close()
      })
    },
    // What is under way is given up by the request's own signal.
    cancel: () => cancel(),
  })
  return c.body(body, 200, { ...NO_STORE, 'Content-Type': 'application/json' })
}

function answered(c: Context, answer: unknown): Response {
  return c.json(answer as object, 200, NO_STORE)
}

async function bodyOf(c: Context): Promise<JsonValue | undefined> {
  if (Number(c.req.header('content-length') ?? 0) > MAX_BODY) throw new SyncError('too_large', `the body is above ${MAX_BODY} bytes`)
  const text = await c.req.text()
  if (text.length > MAX_BODY) throw new SyncError('too_large', `the body is above ${MAX_BODY} bytes`)
  if (text.trim() === '') return undefined
  try {
    return JSON.parse(text) as JsonValue
  } catch (cause) {
    throw new SyncError('bad_option', 'the body is no JSON', { cause })
  }
}
