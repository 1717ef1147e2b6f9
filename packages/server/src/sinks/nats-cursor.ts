/**
 * The NATS sink's cursor: one entry of a key-value bucket, changed only on the condition that nobody else has changed it, which makes it a fence.
 */
import { SyncError } from '@rejoin/shared'
import type { Link } from './nats-link.ts'
import type { SinkContext, SinkPlace } from './sink.ts'

/** What the entry holds. */
export interface Cursor {
  readonly log: string
  readonly fence: number
  /** Undefined: everything has to be written. */
  readonly place?: SinkPlace | undefined
  /** The highest version that may have been written. */
  readonly attempted: number
  /** What the messages look like, and the stream they lie in: when it was made, and its last seq when the cursor moved. */
  readonly declared: string
  readonly created: string
  readonly lastSeq: number
}

export interface CursorEntry {
  readonly cursor: Cursor
  /** Its seq. */
  readonly revision: number
}

/** Where it lies. */
export interface CursorPlace {
  readonly stream: string
  readonly subject: string
}

export type CursorContext = Pick<SinkContext, 'name' | 'log' | 'adopt'> & {
  readonly forward: Pick<SinkContext['forward'], 'strategy' | 'consistency'>
}

export async function readCursor(link: Link, { stream, subject }: CursorPlace): Promise<CursorEntry | undefined> {
  const { seq, data } = await link.last(stream, subject)
  return data.length === 0 ? undefined : { cursor: JSON.parse(new TextDecoder().decode(data)) as Cursor, revision: seq }
}

/** The cursor while it is ours. */
export interface HeldCursor {
  take(entry: CursorEntry): Cursor
  /** Replaces it, or (undefined) only looks whether it is still ours. One change after another, whatever lane they come from. */
  move(change: (cursor: Cursor) => Cursor | undefined): Promise<'fenced' | 'lost' | undefined>
}

export function createHeldCursor(place: CursorPlace, open: () => Promise<Link>): HeldCursor {
  let entry: CursorEntry | undefined
  let turn: Promise<unknown> = Promise.resolve()
  const step = async (change: (cursor: Cursor) => Cursor | undefined): Promise<'fenced' | 'lost' | undefined> => {
    if (entry === undefined) throw new SyncError('closed', 'the sink is not open')
    const link = await open()
    const next = change(entry.cursor)
    if (next === undefined) return isOurs(await readCursor(link, place), entry)
    const found = await replaceCursor(link, place, next, entry.revision)
    if (typeof found === 'string') return found
    entry = found
    return undefined
  }
  return {
    take: (taken) => {
      entry = taken
      turn = Promise.resolve()
      return taken.cursor
    },
    move: (change) => {
      const moved = turn.then(() => step(change))
      turn = moved.catch(() => undefined)
      return moved
    },
  }
}

function isOurs(there: CursorEntry | undefined, { cursor, revision }: CursorEntry): 'fenced' | 'lost' | undefined {
  if (there !== undefined && there.cursor.fence > cursor.fence) return 'fenced'
  // Another revision of ours: put back to a copy, or an attempt of which nobody heard.
  return there === undefined || there.cursor.fence < cursor.fence || there.revision !== revision ? 'lost' : undefined
}

/** Replaces the entry if it is still `revision`; otherwise says who was faster. */
async function replaceCursor(link: Link, place: CursorPlace, cursor: Cursor, revision: number): Promise<CursorEntry | 'fenced' | 'lost'> {
  const data = new TextEncoder().encode(JSON.stringify(cursor))
  const seq = await link.publish(place.stream, place.subject, { data, headers: {}, after: revision })
  if (seq !== 'changed') return { cursor, revision: seq }
  return isOurs(await readCursor(link, place), { cursor, revision }) ?? 'lost'
}

/** Takes the next fence. */
export async function takeFence(
  link: Link,
  place: CursorPlace,
  { name, log, adopt }: CursorContext,
  next: (before: Cursor | undefined) => Omit<Cursor, 'log' | 'fence'>,
): Promise<CursorEntry> {
  for (let attempt = 0; attempt < 5; attempt++) {
    // Also of an entry that was deleted the seq is needed.
    const { seq, data } = await link.last(place.stream, place.subject)
    const before = data.length === 0 ? undefined : (JSON.parse(new TextDecoder().decode(data)) as Cursor)
    if (before !== undefined && before.log !== log && !adopt) {
      throw new SyncError(
        'bad_option',
        `sink ${name}: ${place.subject} belongs to another log (${before.log}; this is ${log}); write another bucket or stream, or adopt it`,
      )
    }
    const cursor: Cursor = { ...next(before), log, fence: (before?.fence ?? 0) + 1 }
    const revision = await link.publish(place.stream, place.subject, {
      data: new TextEncoder().encode(JSON.stringify(cursor)),
      headers: {},
      after: seq,
    })
    if (revision !== 'changed') return { cursor, revision }
  }
  throw new SyncError('overloaded', `sink ${name}: other forwarders take the fence again and again`)
}
