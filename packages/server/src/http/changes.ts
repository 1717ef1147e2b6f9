/**
 * `GET /v1/changes`: every change of every record as it comes, as server-sent events, lines of JSON, or batches of CloudEvents. A page is read when the reader has taken the one before.
 */
import type { Context, Hono } from 'hono'
import { accepts } from 'hono/accepts'
import type { Clock, DocumentId, ErrorCode } from '@rejoin/shared'
import { SyncError, toSyncError } from '@rejoin/shared'
import type { AuthRequest, Grant } from '../relay/grant.ts'
import { accessOf } from '../relay/grant.ts'
import { authRequest } from './answer.ts'

/** Reads pages of the feed. Rejects with `SyncError`: `bad_option` for what is no cursor, `cut_off` for one that cannot be continued from. */
export type ReadChanges = (
  request: {
    readonly after: string
    readonly format: 'json' | 'cloudevents' | 'debezium'
    readonly limit: number
    readonly characters: number
    readonly wait: number
  },
  signal: AbortSignal,
) => Promise<ChangesPage>

interface ChangesPage {
  readonly changes: readonly { readonly document: DocumentId; readonly cursor: string; readonly text: string }[]
  readonly cursor: string
  readonly ended: boolean
}

/** What the feeds are made of. */
export interface ChangeFeedParts {
  readonly authorize: (request: AuthRequest) => Promise<Grant>
  readonly read: ReadChanges
  readonly clock: Clock
  /** How long a feed waits for a change before it says that it is there, in ms. @default 15_000 */
  readonly heartbeat?: number | undefined
  /** Feeds at once. @default 100 */
  readonly maxFeeds?: number | undefined
}

/** The feeds that are open. */
export interface ChangeFeeds {
  addTo(app: Hono, unready: () => ErrorCode | undefined): void
  /** Holds the feeds of `principal` to another grant; null ends them. */
  regrant(principal: string, grant: Grant | null): void
}

/** Of one page. */
const PAGE = { limit: 500, characters: 1 << 19 }
const MAX_BATCH = 1_000
/** A reader that takes nothing for so long, in ms, has gone. */
const STALL_MS = 300_000

type Feed = { grant: Grant; end: (error: SyncError) => void }

/** None is open. */
export function createChangeFeeds({ authorize, read, clock, heartbeat = 15_000, maxFeeds = 100 }: ChangeFeedParts): ChangeFeeds {
  const feeds = new Set<Feed>()

  const answer = async (c: Context): Promise<Response> => {
    const grant = await authorize(authRequest(c))
    const everything = grant.documents['*']
    if (grant.admin !== true && everything !== 'read' && everything !== 'write')
      throw new SyncError('forbidden', `${grant.principal} may not read every document ("*"), which the feed of changes needs`)
    const wanted = wantedBy(c)
    if (feeds.size >= maxFeeds) throw new SyncError('too_many', `${maxFeeds} feeds of changes are open already`)
    const ended = new AbortController()
    const feed: Feed = { grant, end: (error) => ended.abort(error) }
    feeds.add(feed)
    const close = (): void => void feeds.delete(feed)
    try {
      // A cursor that is none, or of no use, is an answer of its own.
      const first = await read({ ...wanted, ...pageOf(wanted.limit), wait: 0 }, AbortSignal.any([ended.signal, c.req.raw.signal]))
      if (wanted.as === 'batch') {
        close()
        const events = visible(first, feed.grant).map(({ text }) => text)
        return c.body(`[${events.join(',')}]`, 200, headersOf('application/cloudevents-batch+json', first.cursor))
      }
      const body = streamOf({ wanted, first, feed, read, clock, heartbeat, ended, close })
      return c.body(body, 200, headersOf(wanted.as === 'sse' ? 'text/event-stream' : 'application/x-ndjson', first.cursor))
    } catch (thrown) {
      close()
      throw thrown
    }
  }

  return {
    addTo: (app, unready) =>
      void app.get('/v1/changes', (c) => {
        const unable = unready()
        if (unable !== undefined) throw new SyncError(unable, 'the relay takes no requests now')
        return answer(c)
      }),
    regrant: (principal, grant) => {
      for (const feed of feeds) {
        if (feed.grant.principal !== principal) continue
        if (grant === null) feed.end(new SyncError('forbidden', 'the grant was taken back'))
        else feed.grant = grant
      }
    },
  }
}

/** What a request asks for. */
interface Wanted {
  readonly after: string
  readonly as: 'sse' | 'lines' | 'batch'
  readonly format: 'json' | 'cloudevents' | 'debezium'
  readonly follow: boolean
  /** How many changes at most. */
  readonly limit: number
}

function wantedBy(c: Context): Wanted {
  const { after, format, envelope, follow, limit, ...rest } = c.req.query()
  const other = Object.keys(rest)[0]
  if (other !== undefined) throw wrong(`there is no ${other.slice(0, 50)}; there are after, format, envelope, follow and limit`)
  const type = accepts(c, {
    header: 'Accept',
    supports: ['application/x-ndjson', 'text/event-stream', 'application/cloudevents-batch+json'],
    default: 'application/x-ndjson',
  })
  const as = type === 'text/event-stream' ? 'sse' : type === 'application/x-ndjson' ? 'lines' : 'batch'
  const asked = format ?? envelope ?? (as === 'batch' ? 'cloudevents' : 'json')
  if (asked !== 'json' && asked !== 'cloudevents' && asked !== 'debezium') throw wrong('format is json, cloudevents or debezium')
  if (as === 'batch' && asked !== 'cloudevents') throw wrong('a batch is of CloudEvents')
  if (limit !== undefined && !/^[1-9]\d{0,8}$/u.test(limit)) throw wrong('limit is a whole number of changes')
  const most = limit === undefined ? Number.POSITIVE_INFINITY : Number(limit)
  return {
    // A browser that comes back repeats the address, and says in a header where it was.
    after: c.req.header('last-event-id') ?? after ?? 'oldest',
    as,
    format: asked,
    follow: as === 'sse' || follow === '1' || follow === 'true',
    limit: as === 'batch' ? Math.min(most, MAX_BATCH) : most,
  }
}

interface StreamParts extends Pick<ChangeFeedParts, 'read' | 'clock'> {
  readonly heartbeat: number
  readonly wanted: Wanted
  readonly first: ChangesPage
  readonly feed: Feed
  readonly ended: AbortController
  readonly close: () => void
}

/** The pages behind `first`, one at a time, and how the feed ended when that was not its reader's wish. */
function streamOf({ wanted, first, feed, read, clock, heartbeat, ended, close }: StreamParts): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder()
  const { as, follow } = wanted
  let page: ChangesPage | undefined = first
  let left = wanted.limit
  let after = first.cursor
  let cancelStall = (): void => undefined
  const finish = (controller: ReadableStreamDefaultController<Uint8Array>): void => {
    close()
    controller.close()
  }
  /** What to write next; undefined: it is over. */
  const next = async (): Promise<string | undefined> => {
    for (;;) {
      if (left <= 0) return undefined
      const { expiresAt } = feed.grant
      if (expiresAt !== undefined && expiresAt <= clock.now()) throw new SyncError('expired', 'the grant is over')
      page ??= await read({ ...wanted, after, ...pageOf(left), wait: follow ? heartbeat : 0 }, ended.signal)
      const { cursor, ended: atEnd } = page
      const shown = visible(page, feed.grant)
      const isFirst = page === first
      page = undefined
      after = cursor
      left -= shown.length
      if (shown.length > 0) return shown.map((change) => frame(as, change)).join('')
      if (atEnd && !follow) return undefined
      // It is there, and has come so far: others' changes count as well.
      if (atEnd || isFirst) return as === 'sse' ? `id: ${cursor}\n: alive\n\n` : '\n'
    }
  }
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        cancelStall()
        try {
          const text = await next()
          if (text === undefined) return finish(controller)
          controller.enqueue(encoder.encode(text))
          cancelStall = clock.after(STALL_MS, () => {
            close()
            controller.error(new Error('the reader takes nothing'))
          })
        } catch (thrown) {
          const { code, reason, hint } = toSyncError(ended.signal.aborted ? ended.signal.reason : thrown)
          const error = JSON.stringify({ error: { code, message: reason, hint } })
          controller.enqueue(encoder.encode(as === 'sse' ? `event: error\ndata: ${error}\n\n` : `${error}\n`))
          finish(controller)
        }
      },
      cancel() {
        cancelStall()
        close()
        ended.abort(new SyncError('aborted', 'the reader has gone'))
      },
    },
    // Nothing is read ahead of the reader.
    { highWaterMark: 0 },
  )
}

function frame(as: Wanted['as'], { cursor, text }: ChangesPage['changes'][number]): string {
  return as === 'sse' ? `id: ${cursor}\ndata: ${text}\n\n` : `${text}\n`
}

/** What the grant may see. */
function visible({ changes }: ChangesPage, grant: Grant): ChangesPage['changes'] {
  return grant.admin === true ? changes : changes.filter(({ document }) => accessOf(grant, document) !== 'none')
}

function pageOf(left: number): { readonly limit: number; readonly characters: number } {
  return { ...PAGE, limit: Math.min(PAGE.limit, left) }
}

function headersOf(type: string, cursor: string): Record<string, string> {
  // A proxy that gathers the answer would hold the feed back.
  return { 'Content-Type': type, 'Rejoin-Cursor': cursor, 'Cache-Control': 'no-store', 'X-Accel-Buffering': 'no', Vary: 'Accept' }
}

function wrong(rule: string): SyncError {
  return new SyncError('bad_option', rule)
}
