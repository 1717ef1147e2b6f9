/**
 * Rows as NATS messages, a subject each: in a stream for its readers, or in a bucket as the value of a key, which can be listed and proved.
 */
import { SyncError, canonicalJson } from '@rejoin/shared'
import { createConnection } from './connection.ts'
import type { Delivered, Delivery, Refusal } from './delivery.ts'
import { messageOf } from './message.ts'
import type { Cursor, CursorContext, CursorEntry, CursorPlace } from './nats-cursor.ts'
import { createHeldCursor, readCursor, takeFence } from './nats-cursor.ts'
import type { Last, Link } from './nats-link.ts'
import { KEY_HEADER, STAMP_HEADER, keyHeader, subjectOf } from './nats-names.ts'
import { createListing, proofOf } from './nats-proof.ts'
import type { SinkCommit, SinkContext, SinkPlace, SinkRow } from './sink.ts'

/** What differs between the two modes. */
export interface Shape {
  readonly as: 'stream' | 'kv'
  readonly stream: string
  /** Subjects are `<root>.<target>.<address>`. */
  readonly root: string
  readonly replicas: number
  /** The stream of the cursor's bucket, and its subject. */
  readonly cursor: CursorPlace
}

/** Messages on their way at once, where order between keys is not asked for. */
const WINDOW = 64
/** What is known of subjects, at most. */
const MAX_KNOWN = 100_000
const ATTEMPTS = 5

/** What a subject's last message was: its seq, version and id. */
interface Known {
  readonly seq: number
  readonly stamp: number
  readonly id: string | undefined
}

/** The delivery. `connect` is asked for a new link at each begin. */
export function createNatsDelivery(
  shape: Shape,
  context: CursorContext & Pick<SinkContext, 'collections'>,
  connect: () => Promise<Link>,
): Delivery {
  const { stream, root, as } = shape
  const isKv = as === 'kv'
  const declared = canonicalJson({ as, stream, root, collections: isKv ? context.collections : null })
  const known = new Map<string, Known>()
  const link = createConnection(connect)
  const open = (): Promise<Link> => link.open()
  const held = createHeldCursor(shape.cursor, open)
  const listing = createListing(shape, Object.keys(context.collections), open)

  const send = (row: SinkRow, commit: Pick<SinkCommit, 'to' | 'force'>): Promise<Refusal | undefined> =>
    sendRow({ shape, known, open }, row, commit)
  return {
    begin: async () => {
      await link.renew()
      known.clear()
      const { place, attempted } = held.take(await beginNats(await open(), shape, context, declared))
      return { place, stamp: Math.max(attempted, place?.version ?? 0), isNew: place === undefined && context.forward.strategy === 'state' }
    },
    deliver: async (rows, commit, signal): Promise<Delivered> => {
      try {
        const { version } = commit.to
        const ended = await held.move((cursor) => (cursor.attempted >= version ? undefined : { ...cursor, attempted: version }))
        return ended ?? (await sendAll(rows, context.forward.consistency === 'key' ? WINDOW : 1, (row) => send(row, commit), signal))
      } catch (error) {
        // A stream that is gone answers nothing.
        if (
          await (await open()).lastSeq(stream).then(
            (seq) => seq === undefined,
            () => false,
          )
        )
          return 'lost'
        throw error
      }
    },
    moved: async (place) => {
      const lastSeq = await (await open()).lastSeq(stream)
      await held.move((cursor) => ({ ...cursor, place, attempted: Math.max(cursor.attempted, place.version), lastSeq: lastSeq ?? 0 }))
    },
    check: async () => ((await (await open()).lastSeq(stream)) === undefined ? 'lost' : held.move(() => undefined)),
    ...(isKv
      ? {
          keys: (limit, from) => listing.keys(limit, from),
          proof: proofOf(listing, async () => (await readCursor(await open(), shape.cursor))?.cursor.place),
        }
      : {}),
    plan: async () => ((await (await open()).lastSeq(stream)) !== undefined ? [] : planOf(shape, Object.keys(context.collections))),
    drop: async () => {
      await (await open()).remove(stream)
      await (await open()).purge(shape.cursor.stream, shape.cursor.subject)
    },
    close: () => link.close(),
  }
}

async function sendAll(
  rows: readonly SinkRow[],
  window: number,
  send: (row: SinkRow) => Promise<Refusal | undefined>,
  signal: AbortSignal,
): Promise<readonly Refusal[]> {
  const refused: Refusal[] = []
  for (let i = 0; i < rows.length; i += window) {
    signal.throwIfAborted()
    // None is left running behind a failure.
    for (const each of await Promise.allSettled(rows.slice(i, i + window).map(send))) {
      if (each.status === 'rejected') throw each.reason
      if (each.value !== undefined) refused.push(each.value)
    }
  }
  return refused
}

function planOf({ stream, root }: Shape, targets: readonly string[]): readonly string[] {
  return [`make the stream ${stream} for ${targets.map((target) => `${root}.${target}.>`).join(', ')}`]
}

function stateOf(link: Link, { stream, root, replicas, as }: Shape) {
  return link.ensure({ name: stream, subjects: [`${root}.>`], replicas, isBucket: as === 'kv' })
}

/** Streams made, fence taken, and the cursor lowered where the stream holds less than it knows of. */
async function beginNats(link: Link, shape: Shape, context: CursorContext, declared: string): Promise<CursorEntry> {
  const { created, lastSeq, isNew } = await stateOf(link, shape)
  await link.ensure({
    name: shape.cursor.stream,
    subjects: [`$KV.${shape.cursor.stream.slice(3)}.>`],
    replicas: shape.replicas,
    isBucket: true,
  })
  const newest = Number((await link.newest(shape.stream)).headers[STAMP_HEADER]) || 0
  const isActions = context.forward.strategy === 'actions'
  const placeFrom = (before: Cursor): SinkPlace | undefined => {
    const { place } = before
    if (place === undefined || (before.log !== context.log && context.adopt) || context.adopt) return undefined
    if (isActions) return lastSeq < before.lastSeq && newest > 0 ? below(place, newest) : place
    if (before.declared !== declared || before.created !== created || isNew) return undefined
    return lastSeq < before.lastSeq ? (newest > 0 ? below(place, newest) : undefined) : place
  }
  return takeFence(link, shape.cursor, context, (before) => ({
    place: before === undefined ? undefined : placeFrom(before),
    attempted: Math.max(before?.attempted ?? 0, newest),
    declared,
    created,
    lastSeq,
  }))
}

/** A stream that was put back to an older state ends somewhere in `version`. */
function below({ view, version }: SinkPlace, newest: number): SinkPlace {
  return { view, version: Math.min(version, Math.max(0, newest - 1)) }
}

interface Sending {
  readonly shape: Shape
  readonly known: Map<string, Known>
  readonly open: () => Promise<Link>
}

/** Publishes a row behind what lies on its subject, unless that is newer or the same. */
async function sendRow(
  { shape, known, open }: Sending,
  row: SinkRow,
  { to, force }: Pick<SinkCommit, 'to' | 'force'>,
): Promise<Refusal | undefined> {
  const { stream, root, as } = shape
  const link = await open()
  const subject = subjectOf(root, row.key)
  const { data, headers, id } = as === 'kv' ? valueOf(row, to) : messageData(row, to)
  const stamp = Number(headers[STAMP_HEADER])
  const bytes = data.length + Object.entries(headers).reduce((sum, [name, value]) => sum + name.length + value.length + 4, 256)
  if (bytes > link.maxPayload) return { row, reason: `its message of ${bytes} bytes is above the server's limit of ${link.maxPayload}` }
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const last = known.get(subject) ?? knownOf(await link.last(stream, subject))
    const isThere =
      row.event?.replay === true ? last.id === id : last.stamp > stamp || (id !== undefined && last.stamp === stamp && last.id === id)
    if (isThere && force !== true) return remember(known, subject, last)
    const seq = await link.publish(stream, subject, { data, headers, id, after: last.seq })
    if (seq !== 'changed') return remember(known, subject, { seq, stamp, id })
    known.delete(subject)
  }
  throw new SyncError('overloaded', `NATS: somebody else writes ${subject} again and again`)
}

function remember(known: Map<string, Known>, subject: string, last: Known): undefined {
  if (known.size >= MAX_KNOWN) known.clear()
  known.set(subject, last)
}

function knownOf({ seq, headers }: Last): Known {
  return { seq, stamp: Number(headers[STAMP_HEADER]) || 0, id: headers['Nats-Msg-Id'] }
}

interface Data {
  readonly data: Uint8Array
  readonly headers: Readonly<Record<string, string>>
  readonly id: string | undefined
}

const utf8 = new TextEncoder()

/** A message as readers of a stream get it. A replay has an id of its own, or the server would take it for a twin. */
function messageData(row: SinkRow, to: SinkPlace): Data {
  const message = messageOf(row, to)
  const id = encodeURIComponent(message.event?.replay === true ? `${message.id}/replay/${to.version}` : message.id)
  const headers = { [STAMP_HEADER]: `${message.version}`, [KEY_HEADER]: keyHeader(row.key), 'Nats-Msg-Id': id }
  return { data: utf8.encode(JSON.stringify(message)), headers, id }
}

/** The value of a key: the record and nothing else, or the marker of a deleted key. */
function valueOf({ key, value, event }: SinkRow, { version }: SinkPlace): Data {
  const headers = { [STAMP_HEADER]: `${event?.version ?? version}`, [KEY_HEADER]: keyHeader(key) }
  if (value === null) return { data: new Uint8Array(), headers: { ...headers, 'KV-Operation': 'DEL' }, id: undefined }
  return { data: utf8.encode(canonicalJson(value)), headers, id: undefined }
}
