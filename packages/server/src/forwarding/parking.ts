/**
 * Keys that are not in the destination, and their dead letters (step 8 of the path). With strategy 'state' a key is parked until it is written; with 'actions' a refused event blocks its key, and
 * what comes later for it is held, in order, until an operator has seen to it.
 */
import type { Clock, JsonValue } from '@rejoin/shared'
import type { Transform } from '../projection/transform.ts'
import { letterId, lettersOf } from '../sinks/delivery.ts'
import type { DeadLetter, SinkNotes } from '../sinks/notes.ts'
import type { Key, Parked, SinkEvent, SinkRow } from '../sinks/sink.ts'
import type { View } from '../view/view.ts'
import { keyText } from '../view/view.ts'
import type { PoisonedKey } from './derive.ts'

/** Held behind one refused event. Beyond, the sink stops: somebody has to look. */
export const MAX_HELD = 1_000
/** Of one sink, parked or held. A commit that makes it more stops the sink: it is not a row that is wrong but the destination, or T. One that does not, such as deletes, passes. */
export const MAX_PARKED = 100_000

/** What is parked of one sink. */
export interface Parking {
  /** Starts from what the destination says ('state') and what the notes hold. */
  load(stored: readonly Parked[]): void
  readonly size: number
  has(key: Key): boolean
  all(): readonly Parked[]
  /** The first parked key whose row is made from one of these records. */
  among(sources: readonly Key[]): Parked | undefined
  /** State: select failed on these: noted before the commit that passes them over. */
  fail(poisoned: readonly PoisonedKey[], version: number): void
  /** State: what a commit did. */
  settle(rows: readonly SinkRow[], refused: readonly Parked[], more: { readonly version: number; readonly freed: readonly Key[] }): void
  /** Actions: which of these events may be sent. The others, behind a blocked key or failed, are noted. 'full' when there is no room for them; nothing is noted then. */
  sift(rows: readonly SinkRow[], failed: ReadonlyMap<SinkRow, string>): readonly SinkRow[] | 'full'
  /** Actions: the destination refused these; what is left to send of `rows`. */
  block(rows: readonly SinkRow[], refused: readonly Parked[]): readonly SinkRow[] | 'full'
  /** Letters that are out: sent at last, or discarded. */
  remove(letters: readonly DeadLetter[]): void
  /** State: keys on which select does not fail any more. */
  recheck(view: View, version: number): Promise<void>
}

interface ParkingParts {
  readonly notes: SinkNotes
  readonly transform: Transform
  readonly clock: Clock
  readonly isState: boolean
}

type Spot = Parked & { readonly letters: number; readonly failed: boolean }

/** Nothing is known until `load`. */
export function createParking({ notes, transform, clock, isState }: ParkingParts): Parking {
  const spots = new Map<string, Spot>()
  let bySource: Map<string, Parked> | undefined
  const set = (spot: Spot): void => {
    spots.set(keyText(spot.key), spot)
    bySource = undefined
  }
  const free = (key: Key): boolean => {
    bySource = undefined
    return spots.delete(keyText(key))
  }
  const total = (): number => [...spots.values()].reduce((sum, { letters }) => sum + letters, 0)
  const letter = (row: SinkRow, state: DeadLetter['state'], reason: string, version: number): DeadLetter => ({
    id: row.event?.id ?? letterId(row.key),
    key: row.key,
    value: row.value,
    version: row.event?.version ?? version,
    reason,
    state,
    at: clock.now(),
    ...(row.event === undefined ? {} : { event: row.event as unknown as JsonValue }),
  })

  /** Events in order: `stop` says why one may not be sent. */
  const divide = (
    rows: readonly SinkRow[],
    stop: (row: SinkRow) => Pick<DeadLetter, 'state' | 'reason'> | undefined,
  ): readonly SinkRow[] | 'full' => {
    const sent: SinkRow[] = []
    const letters: DeadLetter[] = []
    const added = new Map<string, Spot>()
    for (const row of rows) {
      const text = keyText(row.key)
      const spot = added.get(text) ?? spots.get(text)
      const why = spot === undefined ? stop(row) : { state: 'held' as const, reason: `behind a refused event of its key: ${spot.reason}` }
      if (why === undefined) {
        sent.push(row)
        continue
      }
      // It was noted before, and the commit behind it failed.
      if (spot !== undefined && notes.letter(row.event?.id ?? '') !== undefined) continue
      letters.push(letter(row, why.state, why.reason, 0))
      const next = spot ?? { key: row.key, reason: why.reason, event: row.event?.id, letters: 0, failed: false }
      added.set(text, { ...next, letters: next.letters + 1 })
    }
    const isFull =
      [...added.values()].some((spot) => spot.letters > MAX_HELD + 1) || (letters.length > 0 && total() + letters.length > MAX_PARKED)
    if (isFull) return 'full'
    if (letters.length > 0) notes.write({ putLetters: letters })
    for (const spot of added.values()) set(spot)
    return sent
  }

  return {
    load: (stored) => {
      spots.clear()
      bySource = undefined
      const known = new Set(stored.map(({ key }) => letterId(key)))
      const stale: string[] = []
      for (const { key, reason } of stored) set({ key, reason, letters: 1, failed: false })
      for (const { id, key, reason, state } of lettersOf(notes)) {
        const spot = spots.get(keyText(key))
        if (isState) {
          if (state === 'failed') set({ key, reason, letters: 1, failed: true })
          else if (!known.has(id)) stale.push(id)
          known.delete(id)
        } else
          set(
            spot === undefined
              ? { key, reason, event: id, letters: 1, failed: state === 'failed' }
              : { ...spot, letters: spot.letters + 1 },
          )
      }
      const missing = isState ? stored.filter(({ key }) => known.has(letterId(key))) : []
      const putLetters = missing.map(({ key, reason }) => letter({ key, value: null }, 'refused', reason, 0))
      if (stale.length > 0 || putLetters.length > 0) notes.write({ removeLetters: stale, putLetters })
    },
    get size() {
      return spots.size
    },
    has: (key) => spots.has(keyText(key)),
    all: () => [...spots.values()].map(({ key, reason, event }) => ({ key, reason, ...(event === undefined ? {} : { event }) })),
    among: (sources) => {
      bySource ??= new Map(
        [...spots.values()].flatMap((spot) =>
          [transform.sourceOf(spot.key), recordOf(transform, spot.key)].flatMap((key) =>
            key === undefined ? [] : [[keyText(key), spot] as const],
          ),
        ),
      )
      for (const source of sources) {
        const found = bySource.get(keyText(source))
        if (found !== undefined) return { key: found.key, reason: found.reason }
      }
      return undefined
    },
    fail: (poisoned, version) => {
      if (poisoned.length === 0) return
      notes.write({
        putLetters: poisoned.map(({ key, reason, before }) => letter({ key, value: before ?? null }, 'failed', reason, version)),
      })
      for (const { key, reason } of poisoned) set({ key, reason, letters: 1, failed: true })
    },
    settle: (rows, refused, { version, freed }) => {
      if (spots.size === 0 && refused.length === 0) return
      const reasons = new Map(refused.map(({ key, reason }) => [keyText(key), reason]))
      const putLetters: DeadLetter[] = []
      const removeLetters: string[] = []
      for (const row of rows) {
        const reason = reasons.get(keyText(row.key))
        if (reason !== undefined) {
          putLetters.push(letter(row, 'refused', reason, version))
          set({ key: row.key, reason, letters: 1, failed: false })
        } else if (free(row.key)) removeLetters.push(letterId(row.key))
      }
      // On what select fails no more the destination may say no.
      for (const key of freed) if (!reasons.has(keyText(key)) && free(key)) removeLetters.push(letterId(key))
      if (putLetters.length + removeLetters.length > 0) notes.write({ putLetters, removeLetters })
    },
    sift: (rows, failed) =>
      divide(rows, (row) => {
        const reason = failed.get(row)
        return reason === undefined ? undefined : { state: 'failed', reason }
      }),
    block: (rows, refused) => {
      const reasons = new Map(refused.map(({ key, event, reason }) => [event ?? keyText(key), reason]))
      const left = divide(rows, (row) => {
        const reason = reasons.get(row.event?.id ?? '') ?? reasons.get(keyText(row.key))
        return reason === undefined ? undefined : { state: 'refused', reason }
      })
      if (left !== 'full' && left.length === rows.length) throw new Error('the sink refused what was not sent')
      return left
    },
    remove: (letters) => {
      notes.write({ removeLetters: letters.map(({ id }) => id) })
      for (const { key } of letters) {
        const spot = spots.get(keyText(key))
        if (spot === undefined) continue
        if (spot.letters <= 1) free(key)
        else set({ ...spot, letters: spot.letters - 1 })
      }
    },
    recheck: async (view, version) => {
      const asked = [...spots.values()].flatMap(({ key, failed }) =>
        failed && isState ? [{ key, source: recordOf(transform, key), version }] : [],
      )
      const known = asked.flatMap(({ key, source }) => (source === undefined ? [] : [{ key, source, version }]))
      const made = known.length === 0 ? [] : await transform.rows(view, known)
      const cured = asked.filter(({ key, source }) => {
        const found = made.find((each) => each.source === source)
        return found === undefined || !found.poison.some((each) => keyText(each.key) === keyText(key))
      })
      if (cured.length > 0) notes.write({ removeLetters: cured.map(({ key }) => letterId(key)) })
      for (const { key } of cured) free(key)
    },
  }
}

/** The record that a failed select is told by: its own id, whatever its parts. */
function recordOf({ sources }: Transform, { collection, document, id }: Key): Key | undefined {
  const source = sources.get(collection)
  return source === undefined ? undefined : { collection: source.collection, document, id }
}

/** The row of a dead letter, to be sent again. */
export function rowOf({ key, value, event }: DeadLetter): SinkRow {
  return event === undefined ? { key, value } : { key, value, event: event as unknown as SinkEvent }
}
