/**
 * The deleted clocks of one Yjs client: ranges in order, none touching another (step 4 of the path). Flat, so that 100,000 of them are 800 KB.
 */

/** `pairs` holds start and end (exclusive) of `count` ranges, then room to grow. */
export interface Ranges {
  pairs: Uint32Array
  count: number
}

/** Below this many additions, putting in each by itself moves less than merging all. */
const FEW = 16

export function createRanges(capacity = 4): Ranges {
  return { pairs: new Uint32Array(capacity * 2), count: 0 }
}

/** Whether every clock of [start, end) is in. */
export function covers(ranges: Ranges, start: number, end: number): boolean {
  const { pairs } = ranges
  const at = firstEndingFrom(ranges, start + 1) * 2
  return at < ranges.count * 2 && (pairs[at] as number) <= start && end <= (pairs[at + 1] as number)
}

/** Adds [start, end). */
export function insert(ranges: Ranges, start: number, end: number): void {
  const { count } = ranges
  const from = firstEndingFrom(ranges, start)
  if (from === count) {
    append(ranges, start, end)
    return
  }
  const { pairs } = ranges
  let to = from
  while (to < count && (pairs[to * 2] as number) <= end) to++
  if (to === from) {
    const roomy = withRoom(ranges, 1)
    roomy.copyWithin(from * 2 + 2, from * 2, count * 2)
    roomy[from * 2] = start
    roomy[from * 2 + 1] = end
    ranges.count = count + 1
    return
  }
  pairs[from * 2] = Math.min(start, pairs[from * 2] as number)
  pairs[from * 2 + 1] = Math.max(end, pairs[to * 2 - 1] as number)
  pairs.copyWithin(from * 2 + 2, to * 2, count * 2)
  ranges.count = count - (to - from - 1)
}

/** Adds the ranges of `triples` (of client, start, end) in [from, to), whose starts ascend. */
export function insertAll(ranges: Ranges, triples: readonly number[], from: number, to: number): void {
  if (to - from <= FEW * 3) {
    for (let i = from; i < to; i += 3) insert(ranges, triples[i + 1] as number, triples[i + 2] as number)
    return
  }
  const { pairs } = ranges
  const last = ranges.count * 2
  const merged = new Uint32Array(last + ((to - from) / 3) * 2)
  let length = 0
  let old = 0
  for (let i = from; i < to || old < last;) {
    const isOld = i >= to || (old < last && (pairs[old] as number) <= (triples[i + 1] as number))
    const start = (isOld ? pairs[old] : triples[i + 1]) as number
    const end = (isOld ? pairs[old + 1] : triples[i + 2]) as number
    if (isOld) old += 2
    else i += 3
    if (length > 0 && start <= (merged[length - 1] as number)) {
      if (end > (merged[length - 1] as number)) merged[length - 1] = end
    } else {
      merged[length++] = start
      merged[length++] = end
    }
  }
  ranges.pairs = merged
  ranges.count = length / 2
}

/** Adds a range whose start is not below that of the last. */
export function append(ranges: Ranges, start: number, end: number): void {
  const last = ranges.count * 2 - 1
  if (last > 0 && start <= (ranges.pairs[last] as number)) {
    if (end > (ranges.pairs[last] as number)) ranges.pairs[last] = end
    return
  }
  const pairs = withRoom(ranges, 1)
  pairs[last + 1] = start
  pairs[last + 2] = end
  ranges.count++
}

/** Index of the first range whose end is at least `clock`. */
function firstEndingFrom(ranges: Ranges, clock: number): number {
  const { pairs } = ranges
  let low = 0
  let high = ranges.count
  // Typing deletes near the end more often than anywhere else.
  if (high > 0 && (pairs[high * 2 - 1] as number) < clock) return high
  while (low < high) {
    const middle = (low + high) >>> 1
    if ((pairs[middle * 2 + 1] as number) < clock) low = middle + 1
    else high = middle
  }
  return low
}

function withRoom(ranges: Ranges, more: number): Uint32Array {
  const needed = (ranges.count + more) * 2
  if (needed > ranges.pairs.length) {
    const grown = new Uint32Array(Math.max(needed, ranges.pairs.length * 2))
    grown.set(ranges.pairs.subarray(0, ranges.count * 2))
    ranges.pairs = grown
  }
  return ranges.pairs
}
