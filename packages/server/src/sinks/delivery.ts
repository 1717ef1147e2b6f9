/**
 * Destinations without transactions (step 8 of the path): an adapter says how rows are delivered, and this makes a sink of it, with the cursor in the relay's notes (and a copy in the destination where it keeps one),
 * lanes by key, `attempted` before the first byte is sent, and dead letters before the cursor passes them.
 *
 * The fence is a generation in the notes: the log's lock lets one process have a data folder, and of the forwarders in it only the one that began last may move the cursor.
 */
import type { Clock, JsonValue } from '@rejoin/shared'
import { SyncError, canonicalJson, systemClock } from '@rejoin/shared'
import { hashText } from './digest.ts'
import type { DeadLetter, NotesChanges, SinkNotes } from './notes.ts'
import type { Key, Parked, Sink, SinkCommit, SinkContext, SinkOutcome, SinkPlace, SinkProof, SinkRow, SinkStanding } from './sink.ts'
import { compareKeys, isSamePlace, keyText } from './sink.ts'

/** What an adapter without transactions implements. Any call may reject: it is then unknown what happened, and the same rows come again. */
export interface Delivery {
  /** Connects, prepares the destination. The copy of the cursor that it keeps, if it keeps one: it is believed. `isNew`: nothing that was delivered lies there any more; so says a destination that keeps a copy and has none. */
  begin(): Promise<{ readonly place?: SinkPlace | undefined; readonly stamp?: number | undefined; readonly isNew?: boolean | undefined }>
  /**
   * Delivers rows in order, each key at most once in a call. Resolves when the destination has confirmed them, with those that it refuses for good. Calls overlap up to `lanes`, never with a key in common.
   * When it rejects with `SyncError` of a code that means these bytes will never be taken (too_large, bad_bytes, bad_key, bad_document) the rows are halved until the guilty ones are found;
   * any other rejection is the destination's trouble: the rows come again, later.
   */
  deliver(rows: readonly SinkRow[], commit: Pick<SinkCommit, 'to' | 'force'>, signal: AbortSignal): Promise<Delivered>
  /** Nothing has changed for a while: whether the destination is still there and where it was left. Absent: the next delivery will tell. */
  check?(): Promise<'fenced' | 'lost' | undefined>
  /** Everything up to `place` is delivered or parked: keeps a copy. */
  moved?(place: SinkPlace): Promise<void>
  /** Asked while nothing is to be written: whether the destination is still where it was left, if it can tell. */
  check?(): Promise<'fenced' | 'lost' | undefined>
  /** Keys that lie in the destination, in the order of keys; absent: what was confirmed is remembered in the relay's notes. */
  keys?(limit: number, from?: Key): Promise<readonly Key[]>
  readonly proof?: SinkProof | undefined
  plan?(): Promise<readonly string[]>
  drop?(): Promise<void>
  close(): Promise<void>
}

/** The rows that were refused for good; or, where the destination can tell, what `SinkOutcome` says: another forwarder has begun after us, or the destination is not where it was left. Then nothing counts as confirmed. */
export type Delivered = readonly Refusal[] | 'fenced' | 'lost'

/** A row that the destination will never take as it is. */
export interface Refusal {
  readonly row: SinkRow
  readonly reason: string
}

/** What `begin` learned, kept until the next one. */
interface Session {
  readonly generation: number
  readonly abort: AbortController
  place: SinkPlace | undefined
  attempted: number
  /** Keys with a dead letter. */
  readonly parked: Set<string>
  /** Of a whole commit that was refused: these lie there already, and are not sent again with the rest. */
  done: WeakSet<SinkRow>
}

/** The sink of a delivery. */
export function deliverySink(delivery: Delivery, context: SinkContext, clock: Clock = systemClock): Sink {
  const { notes } = context
  let session: Session | undefined
  const end = (): void => {
    session?.abort.abort(new SyncError('closed', `sink ${context.name} began again or was closed`))
    session = undefined
  }
  return {
    begin: async () => {
      end()
      const begun = await begin(delivery, context)
      session = begun.session
      return begun.standing
    },
    commit: async (commit) => {
      if (session === undefined) throw new SyncError('closed', `sink ${context.name} is not open`)
      return write(delivery, context, { session, now: clock.now() }, commit)
    },
    keys: async (limit, from) => (delivery.keys === undefined ? notes.keys(limit, from) : delivery.keys(limit, from)),
    proof: delivery.proof,
    ...(delivery.plan === undefined ? {} : { plan: () => delivery.plan?.() ?? Promise.resolve([]) }),
    drop: async () => {
      end()
      await delivery.drop?.()
      notes.write({ clear: 'images', values: { place: undefined, attempted: undefined } })
    },
    close: async () => {
      end()
      await delivery.close()
    },
  }
}

async function begin(
  delivery: Delivery,
  { notes, forward, adopt }: SinkContext,
): Promise<{ readonly session: Session; readonly standing: SinkStanding }> {
  const generation = numberOf(notes.get('generation')) + 1
  notes.write({ values: { generation } })
  const found = await delivery.begin()
  const isNew = found.isNew === true || adopt
  const own = placeOf(notes.get('place'))
  const place = isNew ? undefined : believed(own, found.place, forward.strategy === 'actions')
  const stamp = Math.max(numberOf(notes.get('attempted')), found.stamp ?? 0, own?.version ?? 0, found.place?.version ?? 0)
  const parked: Parked[] = []
  if (forward.strategy === 'state' && !isNew)
    for (const { key, reason, state } of lettersOf(notes)) if (state === 'refused') parked.push({ key, reason })
  notes.write({ values: { place: jsonOf(place), attempted: stamp }, ...(isNew ? { clear: 'images' } : {}) })
  return {
    session: {
      generation,
      abort: new AbortController(),
      place,
      attempted: stamp,
      parked: new Set(parked.map(({ key }) => keyText(key))),
      done: new WeakSet(),
    },
    standing: {
      place,
      stamp,
      parked,
      // Also what a destination had that was then restored from a copy: keys that changed up to there are written whatever they were.
      attempted: place !== undefined && stamp > place.version ? stamp : undefined,
    },
  }
}

/**
 * What the destination says of itself, where it can: it is told last. Behind the relay's notes, something was lost there; ahead of them, or of another history (its mark), the relay was restored, which is seen by asking the view for that
 * mark. Of two places in one refresh the lower.
 */
function believed(own: SinkPlace | undefined, copy: SinkPlace | undefined, isActions: boolean): SinkPlace | undefined {
  // Without notes it is not known what was sent beyond the copy. Events may come twice; rows are written anew.
  if (own === undefined) return isActions ? copy : undefined
  if (copy === undefined) return own
  if (copy.view !== own.view || copy.version !== own.version || copy.mark !== own.mark) return copy
  if (copy.refreshed === undefined || own.refreshed === undefined) return copy.refreshed === undefined ? own : copy
  if (copy.refreshed === null || own.refreshed === null) return copy.refreshed === null ? copy : own
  return compareKeys(copy.refreshed, own.refreshed) < 0 ? copy : own
}

async function write(
  delivery: Delivery,
  context: SinkContext,
  { session, now }: { readonly session: Session; readonly now: number },
  commit: SinkCommit,
): Promise<SinkOutcome> {
  const { notes, forward } = context
  const { rows, from, to, whole } = commit
  if (numberOf(notes.get('generation')) !== session.generation) return { type: 'fenced' }
  if (!isSamePlace(session.place, from)) return { type: 'lost' }
  if (rows.length === 0 && isSamePlace(from, to)) {
    const ended = await delivery.check?.()
    return ended === undefined ? { type: 'committed', parked: [] } : { type: ended }
  }
  const pending = rows.filter((row) => !session.done.has(row))
  const announced = delivery.keys === undefined && forward.strategy === 'state' ? unknownKeys(notes, pending) : []
  if (pending.length > 0 && (to.version > session.attempted || announced.length > 0)) {
    session.attempted = Math.max(session.attempted, to.version)
    // With the keys: one that was sent and never confirmed has to be known, should it have to go.
    notes.write({ values: { attempted: session.attempted }, images: announced.map((key) => ({ key, hash: ATTEMPTED })) })
  }
  const refusals = await deliverAll(delivery, forward, pending, commit, session.abort.signal)
  if (typeof refusals === 'string') return { type: refusals }
  if (session.abort.signal.aborted || numberOf(notes.get('generation')) !== session.generation) return { type: 'fenced' }
  const refused = new Map(refusals.map(({ row, reason }) => [row, reason]))
  const parked: Parked[] = refusals.flatMap(({ row: { key, event }, reason }) =>
    // What came behind a refused event was not sent, and is told of by that event.
    reason === undefined ? [] : [{ key, reason, ...(event === undefined ? {} : { event: event.id }) }],
  )
  if (whole === true && parked.length > 0) {
    for (const row of pending) if (!refused.has(row)) session.done.add(row)
    return { type: 'refused', parked }
  }
  notes.write(changesOf(commit, parked, { session, now, isState: forward.strategy === 'state', keepImages: delivery.keys === undefined }))
  session.place = to
  session.done = new WeakSet()
  if (!isSamePlace(from, to)) await delivery.moved?.(to)
  return { type: 'committed', parked }
}

/** Instead of a hash, until the destination has confirmed the key. */
const ATTEMPTED = ''

function unknownKeys(notes: SinkNotes, rows: readonly SinkRow[]): readonly Key[] {
  return rows.flatMap(({ key, value }) => (value !== null && notes.image(key) === undefined ? [key] : []))
}

/** The cursor, together with what may not be lost when it moves on. */
function changesOf(
  { rows, to }: SinkCommit,
  parked: readonly Parked[],
  {
    session,
    now,
    isState,
    keepImages,
  }: { readonly session: Session; readonly now: number; readonly isState: boolean; readonly keepImages: boolean },
): NotesChanges {
  if (!isState) return { values: { place: jsonOf(to) } }
  const reasons = new Map(parked.map(({ key, reason }) => [keyText(key), reason]))
  const putLetters: DeadLetter[] = []
  const removeLetters: string[] = []
  const images: { readonly key: Key; readonly hash: string | null }[] = []
  for (const { key, value } of rows) {
    const text = keyText(key)
    const reason = reasons.get(text)
    if (reason !== undefined) {
      putLetters.push({ id: letterId(key), key, value, version: to.version, reason, state: 'refused', at: now })
      session.parked.add(text)
      continue
    }
    if (session.parked.delete(text)) removeLetters.push(letterId(key))
    if (keepImages) images.push({ key, hash: value === null ? null : hashText(canonicalJson(value)).toString(16) })
  }
  return { values: { place: jsonOf(to) }, putLetters, removeLetters, images }
}

/** A row that was not taken; without a reason, one that was not sent because an earlier one of its key was refused. */
interface Held {
  readonly row: SinkRow
  readonly reason: string | undefined
}

/** All lanes side by side. The first that fails ends the others. */
async function deliverAll(
  delivery: Delivery,
  { lanes, batch }: SinkContext['forward'],
  rows: readonly SinkRow[],
  commit: SinkCommit,
  signal: AbortSignal,
): Promise<readonly Held[] | 'fenced' | 'lost'> {
  const abort = new AbortController()
  const ended = AbortSignal.any([signal, abort.signal])
  const send = async (lane: readonly SinkRow[]): Promise<readonly Held[] | 'fenced' | 'lost'> => {
    try {
      const found = await deliverLane(delivery, lane, { commit, items: batch.items, signal: ended })
      if (typeof found === 'string') abort.abort(new SyncError('aborted', `another lane found the destination ${found}`))
      return found
    } catch (error) {
      abort.abort(error)
      throw error
    }
  }
  // None is left running behind a commit that failed: it would write into the next one.
  const settled = await Promise.allSettled(lanesOf(rows, lanes).map(send))
  const outcomes = settled.flatMap((each) => (each.status === 'fulfilled' ? [each.value] : []))
  const end = outcomes.find((each) => typeof each === 'string')
  if (end !== undefined) return end
  const failed = settled.find((each) => each.status === 'rejected')
  if (failed !== undefined) throw abort.signal.aborted ? abort.signal.reason : failed.reason
  return outcomes.flatMap((each) => (typeof each === 'string' ? [] : each))
}

/** Rows of one source share a lane: they leave in their order. */
function lanesOf(rows: readonly SinkRow[], count: number): readonly (readonly SinkRow[])[] {
  if (count === 1 || rows.length < 2) return rows.length === 0 ? [] : [rows]
  const lanes: SinkRow[][] = Array.from({ length: count }, () => [])
  for (const row of rows) lanes[laneOf(row.key, count)]?.push(row)
  return lanes.filter(({ length }) => length > 0)
}

/** FNV-1a over the document and the id. */
function laneOf({ document, id }: Key, count: number): number {
  let hash = 0x811c9dc5
  for (const text of [document, '\u001f', id])
    for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193) >>> 0
  return hash % count
}

interface LaneOptions {
  readonly commit: SinkCommit
  readonly items: number
  readonly signal: AbortSignal
}

/** Calls of at most `items` rows, no key twice in one; what stands behind a refused row of the same key is held. */
async function deliverLane(
  delivery: Delivery,
  rows: readonly SinkRow[],
  { commit, items, signal }: LaneOptions,
): Promise<readonly Held[] | 'fenced' | 'lost'> {
  const held: Held[] = []
  const blocked = new Set<string>()
  let call: SinkRow[] = []
  let keys = new Set<string>()
  const flush = async (): Promise<'fenced' | 'lost' | undefined> => {
    const sent = call
    call = []
    keys = new Set()
    if (sent.length === 0) return undefined
    const refusals = await deliverHalving(delivery, sent, commit, signal)
    if (typeof refusals === 'string') return refusals
    for (const { row, reason } of refusals) {
      held.push({ row, reason })
      blocked.add(keyText(row.key))
    }
    return undefined
  }
  for (const row of rows) {
    const text = keyText(row.key)
    if (keys.has(text) || call.length >= items) {
      const ended = await flush()
      if (ended !== undefined) return ended
    }
    if (blocked.has(text)) {
      held.push({ row, reason: undefined })
      continue
    }
    call.push(row)
    keys.add(text)
  }
  return (await flush()) ?? held
}

/** Codes that say something of the bytes, not of the destination's health. */
const NEVER: ReadonlySet<string> = new Set(['too_large', 'bad_bytes', 'bad_key', 'bad_document'])

async function deliverHalving(delivery: Delivery, rows: readonly SinkRow[], commit: SinkCommit, signal: AbortSignal): Promise<Delivered> {
  const { to, force } = commit
  try {
    signal.throwIfAborted()
    return await delivery.deliver(rows, { to, force }, signal)
  } catch (error) {
    if (!(error instanceof SyncError) || !NEVER.has(error.code)) throw error
    const [only, ...others] = rows
    if (only !== undefined && others.length === 0) return [{ row: only, reason: error.reason }]
    const middle = Math.ceil(rows.length / 2)
    const refusals: Refusal[] = []
    for (const half of [rows.slice(0, middle), rows.slice(middle)]) {
      const found = await deliverHalving(delivery, half, commit, signal)
      if (typeof found === 'string') return found
      refusals.push(...found)
    }
    return refusals
  }
}

/** Id of the dead letter of a key, with strategy 'state': a key has one at most. */
export function letterId({ collection, document, id }: Key): string {
  return [collection, document, id].map((part) => encodeURIComponent(part.replace(/\p{Surrogate}/gu, '\ufffd'))).join('/')
}

/** All dead letters, a page at a time. */
export function* lettersOf(notes: SinkNotes): Generator<DeadLetter> {
  for (let from: string | undefined; ;) {
    const { first } = notes.letters(1_000, from)
    yield* first
    from = first.at(-1)?.id
    if (from === undefined) return
  }
}

function jsonOf(place: SinkPlace | undefined): JsonValue | undefined {
  if (place === undefined) return undefined
  const { view, version, mark, refreshed } = place
  const at = refreshed === undefined || refreshed === null ? refreshed : { ...refreshed }
  return { view, version, ...(mark === undefined ? {} : { mark }), ...(at === undefined ? {} : { refreshed: at }) }
}

function placeOf(json: JsonValue | undefined): SinkPlace | undefined {
  return json === undefined || json === null ? undefined : (json as unknown as SinkPlace)
}

function numberOf(json: JsonValue | undefined): number {
  return typeof json === 'number' ? json : 0
}
