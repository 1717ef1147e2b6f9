/**
 * The connection of the Redis sink: scripts by their hash, an answer within a time or the connection goes, and a cursor that every mode keeps alike.
 */
import { createHash } from 'node:crypto'
import type { Clock } from '@rejoin/shared'
import { SyncError, canonicalJson } from '@rejoin/shared'
import { missingPeer } from './connection.ts'
import { BEGIN, CHECK, MOVED } from './redis-scripts.ts'
import type { Key, SinkContext, SinkPlace } from './sink.ts'

/** What a command answers, in the second revision of the protocol. */
export type Reply = string | number | null | readonly Reply[]

export interface Link {
  command(...parts: readonly string[]): Promise<Reply>
  /** Several at once, answers in their order. */
  commands(list: readonly (readonly string[])[]): Promise<readonly Reply[]>
  /** A script of redis-scripts.ts. */
  run(script: string, keys: readonly string[], given: readonly string[]): Promise<Reply>
  close(): void
}

/** Connects, by the optional peer `@redis/client`. It never connects again by itself: the forwarder begins anew. */
export async function connectRedis(url: string, timeout: number, clock: Clock): Promise<Link> {
  const { createClient } = await loadClient()
  const client = createClient({ url, RESP: 2, disableOfflineQueue: true, socket: { reconnectStrategy: false, connectTimeout: timeout } })
  // Whatever breaks the connection also rejects what waits for an answer: one report is enough.
  client.on('error', () => undefined)
  const host = new URL(url).host
  const close = (): void => {
    if (client.isOpen) client.destroy()
  }
  const limited = <T>(promise: Promise<T>): Promise<T> =>
    new Promise((resolve, reject) => {
      const stop = clock.after(timeout, () => {
        // A late answer would be taken for the next one's; and what was not answered may still happen.
        close()
        reject(new SyncError('timeout', `Redis at ${host} did not answer within ${timeout} ms`))
      })
      promise.then(resolve, (error: unknown) => reject(failure(error, host))).finally(stop)
    })
  const command = (...parts: readonly string[]): Promise<Reply> => limited(client.sendCommand<Reply>([...parts]))
  try {
    await limited(client.connect())
  } catch (error) {
    close()
    throw error
  }
  return {
    command,
    commands: (list) => Promise.all(list.map((parts) => command(...parts))),
    run: async (script, keys, given) => {
      const rest = [`${keys.length}`, ...keys, ...given]
      try {
        return await command('EVALSHA', createHash('sha1').update(script).digest('hex'), ...rest)
      } catch (error) {
        if (!(error instanceof SyncError) || !error.reason.includes('NOSCRIPT')) throw error
        return command('EVAL', script, ...rest)
      }
    },
    close,
  }
}

async function loadClient() {
  try {
    return await import('@redis/client')
  } catch (error) {
    throw missingPeer(error, 'redis()', '@redis/client')
  }
}

function failure(error: unknown, host: string): SyncError {
  const words = error instanceof Error ? error.message || error.name : String(error)
  return new SyncError('timeout', `Redis at ${host}: ${words}`)
}

/** Names of what the sink keeps beside the rows. */
export interface Names {
  readonly cursor: string
  readonly graves: string
  readonly recent: string
  index(target: string): string
}

export function namesOf(prefix: string, sink: string): Names {
  const own = `${prefix}rejoin:${sink}`
  return { cursor: `${own}:cursor`, graves: `${own}:graves`, recent: `${own}:recent`, index: (target) => `${own}:keys:${target}` }
}

/** What of a sink's context the cursor is kept by. */
export type CursorContext = Pick<SinkContext, 'name' | 'log' | 'adopt'> & { readonly forward: Pick<SinkContext['forward'], 'strategy'> }

/** The cursor while it is ours: what each script is given first, by which it knows us. */
export interface HeldCursor {
  begin(): Promise<{ readonly place: SinkPlace | undefined; readonly stamp: number; readonly isNew: boolean }>
  /** Fence and place. */
  known(): readonly [string, string]
  moved(place: SinkPlace): Promise<void>
  check(): Promise<'fenced' | 'lost' | undefined>
}

/** `declared`: what the rows look like; when it changed everything has to be written. */
export function createHeldCursor(open: () => Promise<Link>, names: Names, context: CursorContext, declared: string): HeldCursor {
  const { name, log, adopt, forward } = context
  let fence = 0
  let at = ''
  return {
    begin: async () => {
      const [type, given, fields] = listOf(await (await open()).run(BEGIN, [names.cursor], [log, adopt ? '1' : '', declared]))
      if (type !== 'begun') {
        throw new SyncError(
          'bad_option',
          `sink ${name}: ${names.cursor} belongs to another log (${String(given)}; this is ${log}); write another prefix, or adopt it`,
        )
      }
      const cursor = fieldsOf(fields)
      const place = placeOf(cursor)
      fence = Number(given)
      at = placeText(place)
      return {
        place,
        stamp: Math.max(Number(cursor.get('attempted') ?? 0), place?.version ?? 0),
        // Events are never written anew: where they go on is the relay's to say.
        isNew: place === undefined && forward.strategy === 'state',
      }
    },
    known: () => [`${fence}`, at],
    moved: async (place) => {
      const { view, version, mark, refreshed } = place
      const given = [view, `${version}`, mark ?? '', refreshedText(refreshed), `${GRAVES}`]
      const answer = await (await open()).run(MOVED, [names.cursor, names.graves, names.recent], [`${fence}`, at, ...given])
      if (answer === 'ok') at = placeText(place)
    },
    check: async () => {
      const answer = await (await open()).run(CHECK, [names.cursor], [`${fence}`, at])
      return answer === 'fenced' || answer === 'lost' ? answer : undefined
    },
  }
}

/** Graves of deleted keys that are kept: many more than can be on their way. */
const GRAVES = 10_000

export async function readPlace(link: Link, names: Names): Promise<SinkPlace | undefined> {
  return placeOf(fieldsOf(await link.command('HGETALL', names.cursor)))
}

function placeText(place: SinkPlace | undefined): string {
  return place === undefined ? '//' : `${place.view}/${place.version}/${refreshedText(place.refreshed)}`
}

function refreshedText(refreshed: Key | null | undefined): string {
  return refreshed === undefined ? '' : canonicalJson(refreshed)
}

function placeOf(cursor: ReadonlyMap<string, string>): SinkPlace | undefined {
  const [view, version, mark, refreshed] = ['view', 'version', 'mark', 'refreshed'].map((name) => cursor.get(name) ?? '')
  if (view === undefined || view === '') return undefined
  return {
    view,
    version: Number(version),
    ...(mark === '' || mark === undefined ? {} : { mark }),
    ...(refreshed === '' || refreshed === undefined ? {} : { refreshed: JSON.parse(refreshed) as Key | null }),
  }
}

/** A flat list of names and values. */
export function fieldsOf(reply: Reply | undefined): ReadonlyMap<string, string> {
  const list = listOf(reply)
  const fields = new Map<string, string>()
  for (let i = 0; i + 1 < list.length; i += 2) fields.set(String(list[i]), String(list[i + 1]))
  return fields
}

export function listOf(reply: Reply | undefined): readonly Reply[] {
  return Array.isArray(reply) ? (reply as readonly Reply[]) : []
}
