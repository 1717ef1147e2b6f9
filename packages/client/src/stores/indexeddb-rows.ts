/**
 * Which rows of y-indexeddb's `updates` are ours, for the browser's store: the exact set of their keys, kept as ranges, so that rows of others, and rows that are gone, show.
 */
import { isReadable } from './store.ts'

/** Keys from…to, both included, ascending. */
export type Ranges = readonly (readonly [from: number, to: number])[]

/** Ranges kept. Each is a time when somebody else wrote between two of our transactions; beyond this the oldest rows count as foreign, which costs a full exchange and loses nothing. */
const MAX_RANGES = 1000

/** Ranges of the keys, in any order. */
export function toRanges(keys: Iterable<number>): Ranges {
  const ranges: [number, number][] = []
  for (const key of [...keys].toSorted((a, b) => a - b)) {
    const last = ranges.at(-1)
    if (last?.[1] === key - 1) last[1] = key
    else ranges.push([key, key])
  }
  return ranges.slice(-MAX_RANGES)
}

/** The keys of the ranges. */
export function toKeys(ranges: Ranges): Set<number> {
  const keys = new Set<number>()
  for (const [from, to] of ranges) for (let key = from; key <= to; key++) keys.add(key)
  return keys
}

/** `ranges` with from…to, which lie behind them. */
export function extend(ranges: Ranges, from: number, to: number): Ranges {
  const last = ranges.at(-1)
  if (last?.[1] === from - 1) return [...ranges.slice(0, -1), [last[0], to]]
  return [...ranges, [from, to] as const].slice(-MAX_RANGES)
}

/** What the rows of `updates` are. */
export interface Sorted {
  /** Updates to apply. */
  readonly updates: readonly Uint8Array[]
  /** Keys of readable rows that somebody else wrote. */
  readonly foreign: readonly number[]
  /** Keys of rows that are no Yjs updates. */
  readonly unreadable: readonly number[]
  /** Keys of our rows that are gone: y-indexeddb folded them into one of its own, or something is broken. */
  readonly missing: readonly number[]
  /** Whether the stored cursor is the cursor of these rows. */
  readonly trusted: boolean
}

/** Sorts rows by who wrote them. Ours are not decoded unless `verify` says so: that costs half of what applying them does. */
export function sortRows(keys: readonly IDBValidKey[], values: readonly unknown[], own: ReadonlySet<number>, verify: boolean): Sorted {
  const updates: Uint8Array[] = []
  const foreign: number[] = []
  const unreadable: number[] = []
  const missing = new Set(own)
  let odd = false
  for (const [i, key] of keys.entries()) {
    const value = values[i]
    const ours = typeof key === 'number' && missing.delete(key)
    const readable = ours && !verify ? value instanceof Uint8Array && value.length > 0 : isReadable(value)
    if (readable) updates.push(value as Uint8Array)
    if (ours && readable) continue
    // y-indexeddb writes the state of its empty document at every open: nothing new in it.
    if (readable && isEmpty(value as Uint8Array)) continue
    if (typeof key !== 'number') odd = true
    else if (readable) foreign.push(key)
    else unreadable.push(key)
  }
  return { updates, foreign, unreadable, missing: [...missing], trusted: !odd && foreign.length + unreadable.length + missing.size === 0 }
}

/** The update of an empty document: no structs, no deletes. */
function isEmpty(update: Uint8Array): boolean {
  return update.length === 2 && update[0] === 0 && update[1] === 0
}
