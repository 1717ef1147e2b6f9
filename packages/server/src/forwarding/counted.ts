/**
 * The digest of what T gave (step 8 of the path), counted up by each commit, so that a destination can be proved against it: bucket → sum of the rows' hashes. The sums of the last 1,000 commits can be told.
 *
 * Kept in the notes now and then. After a restart it is rolled forward from there to where the destination is; when that cannot be, it is counted anew from T, a slice at a time between commits.
 */
import type { Transform } from '../projection/transform.ts'
import { BUCKETS, bucketOf } from '../sinks/digest.ts'
import type { SinkNotes } from '../sinks/notes.ts'
import type { Key, SinkPlace, SinkProof, SinkRow } from '../sinks/sink.ts'
import type { View } from '../view/view.ts'
import { compareKeys, compareText } from '../view/view.ts'
import type { DerivedState } from './derive.ts'
import { chooseCut, deriveState, digestDelta } from './derive.ts'
import { pagesOfT } from './refresh.ts'

const REMEMBERED = 1_000
/** Commits between two writings of it to the notes. */
const KEEP_EVERY = 1_000
/** Records of a slice. */
const SLICE = 500

/** The digest of one sink. */
export interface Counted {
  /** The destination stands there. `proof` undefined: nothing is counted. */
  begin(place: SinkPlace | undefined, proof: SinkProof | undefined): void
  /** A commit of what T changed from one version to another. */
  advance(from: SinkPlace, to: SinkPlace, derived: Pick<DerivedState, 'rows' | 'poisoned'>): void
  /** A page of a refresh: what T gives for keys up to `to.refreshed`. */
  visit(from: SinkPlace | undefined, to: SinkPlace, page: { readonly rows: readonly SinkRow[]; readonly isFirst: boolean }): void
  /** The sink moved without T. */
  move(): void
  /** Does a slice of what is still to be counted. False when there is nothing to do. */
  work(at: SinkPlace | undefined): Promise<boolean>
  /** The version that it still reads, while it counts. */
  needs(): number | undefined
  at(version: number): BigUint64Array | undefined
  /** Writes it to the notes. */
  keep(): void
}

interface Delta {
  readonly from: number
  readonly to: number
  readonly buckets: ReadonlyMap<number, bigint>
}

/** Sums as of `version`, over keys up to `refreshed` during a refresh. */
interface Sums {
  readonly buckets: BigUint64Array
  version: number
  refreshed: SinkPlace['refreshed']
}

/** Counting that is under way: `base` grows to `version`, commits since then are added when it is there. */
interface Counting {
  readonly version: number
  readonly base: BigUint64Array
  readonly since: Delta[]
  readonly step: () => Promise<boolean>
}

export function createCounted({
  view,
  transform,
  notes,
}: {
  readonly view: View
  readonly transform: Transform
  readonly notes: SinkNotes
}): Counted {
  let hash: SinkProof['hash'] | undefined
  let sums: Sums | undefined
  let counting: Counting | undefined
  let deltas: Delta[] = []
  let unkept = 0

  const forget = (): void => {
    sums = undefined
    counting = undefined
    deltas = []
  }
  const stored = (): Sums | undefined => {
    const found = notes.get('digest') as
      | { readonly view: string; readonly revision: string; readonly version: number; readonly buckets: string }
      | undefined
    const buckets = found?.view === view.id && found.revision === transform.revision ? decode(found.buckets) : undefined
    return found === undefined || buckets === undefined ? undefined : { version: found.version, refreshed: undefined, buckets }
  }
  const startRolling = (from: Sums, to: number): Counting => {
    let at = from.version
    const counted: Counting = {
      version: to,
      base: from.buckets,
      since: [],
      step: async () => {
        const cut = chooseCut(view, transform, at, { items: SLICE, bytes: 1 << 20 })
        // A cut beyond the end: the end is one as well.
        const derived =
          cut.to > to || cut.to <= at
            ? await deriveState(view, transform, { from: at, to })
            : await deriveState(view, transform, { ...cut, from: at })
        add(counted.base, deltaOf(derived) ?? new Map())
        at = cut.to > to || cut.to <= at ? to : cut.to
        return at < to
      },
    }
    return counted
  }
  const startCounting = (version: number): Counting => {
    const pages = pagesOfT(view, transform, version, SLICE)
    const base = new BigUint64Array(BUCKETS)
    return {
      version,
      base,
      since: [],
      step: async () => {
        const page = await pages.next()
        if (page.done === true) return false
        for (const { rows } of page.value) for (const { key, value } of rows) plus(base, bucketOf(key), hash?.(key, value) ?? 0n)
        return true
      },
    }
  }
  const deltaOf = (derived: Pick<DerivedState, 'rows' | 'poisoned'>): ReadonlyMap<number, bigint> | undefined =>
    hash === undefined ? undefined : digestDelta(derived, hash)?.buckets
  const keep = (): void => {
    unkept = 0
    if (hash === undefined || sums === undefined || sums.refreshed !== undefined) return
    const { version, buckets } = sums
    notes.write({ values: { digest: { view: view.id, revision: transform.revision, version, buckets: encode(buckets) } } })
  }

  return {
    begin: (place, proof) => {
      hash = proof === undefined ? undefined : (key, value) => proof.hash(key, value)
      if (hash === undefined || place?.view !== view.id) return forget()
      if (sums?.version === place.version && isSame(sums.refreshed, place.refreshed)) return
      const kept = sums?.refreshed === undefined ? (sums ?? stored()) : stored()
      forget()
      if (place.refreshed !== undefined || place.version < view.oldest()) return
      if (kept?.version === place.version) sums = kept
      else if (kept !== undefined && kept.version < place.version && kept.version >= view.oldest())
        counting = startRolling(kept, place.version)
    },
    advance: (from, to, derived) => {
      if (hash === undefined || (sums === undefined && counting === undefined)) return
      // What a refresh has not come to yet is counted when it comes.
      const rows =
        sums?.refreshed === undefined ? derived.rows : derived.rows.filter(({ key }) => isVisited(transform, key, sums?.refreshed))
      const poisoned =
        sums?.refreshed === undefined ? derived.poisoned : derived.poisoned.filter(({ key }) => isVisited(transform, key, sums?.refreshed))
      const buckets = deltaOf({ rows, poisoned })
      if (buckets === undefined) return forget()
      const delta = { from: from.version, to: to.version, buckets }
      if (counting !== undefined) counting.since.push(delta)
      // It would take more memory than it saves time: it starts again, later.
      if (counting !== undefined && counting.since.length > REMEMBERED) return forget()
      if (sums === undefined) return
      add(sums.buckets, buckets)
      sums.version = to.version
      deltas.push(delta)
      if (deltas.length > REMEMBERED) deltas.shift()
      if (++unkept >= KEEP_EVERY) keep()
    },
    visit: (from, to, { rows, isFirst }) => {
      if (hash === undefined) return
      if (isFirst) {
        forget()
        sums = { buckets: new BigUint64Array(BUCKETS), version: to.version, refreshed: to.refreshed }
      } else if (sums === undefined || sums.version !== from?.version || !isSame(sums.refreshed, from.refreshed)) return forget()
      else sums.refreshed = to.refreshed
      for (const { key, value } of rows) if (value !== null) plus(sums.buckets, bucketOf(key), hash(key, value))
      if (to.refreshed !== undefined) return
      // Counted while the refresh was under way, over a part of the keys: they say nothing of what was before.
      deltas = []
      keep()
    },
    move: forget,
    work: async (at) => {
      if (hash === undefined || at === undefined || at.refreshed !== undefined || sums !== undefined) return false
      counting ??= startCounting(at.version)
      const now = counting
      if (await now.step()) return true
      if (counting !== now) return true
      for (const { buckets } of now.since) add(now.base, buckets)
      sums = { buckets: now.base, version: now.since.at(-1)?.to ?? now.version, refreshed: undefined }
      deltas = now.since
      counting = undefined
      keep()
      return false
    },
    needs: () => counting?.version,
    at: (version) => {
      if (sums === undefined || sums.refreshed !== undefined || version > sums.version) return undefined
      const buckets = sums.buckets.slice()
      let at = sums.version
      for (let i = deltas.length - 1; i >= 0 && at > version; i--) {
        const delta = deltas[i]
        if (delta === undefined) break
        for (const [bucket, change] of delta.buckets) plus(buckets, bucket, -change)
        at = delta.from
      }
      return at === version ? buckets : undefined
    },
    keep,
  }
}

/** Whether a refresh that has come to `refreshed` has been at this key. */
function isVisited(transform: Transform, key: Key, refreshed: SinkPlace['refreshed']): boolean {
  if (refreshed === null || refreshed === undefined) return refreshed === undefined
  if (transform.sources.get(key.collection)?.parts !== true) return compareKeys(key, refreshed) <= 0
  // Parts are written on the second way over their target, record by record.
  const order = compareText(refreshed.collection, `${key.collection}/`)
  const source = transform.sourceOf(key)
  return order > 0 || (order === 0 && source !== undefined && compareKeys({ ...source, collection: refreshed.collection }, refreshed) <= 0)
}

function isSame(a: SinkPlace['refreshed'], b: SinkPlace['refreshed']): boolean {
  return a === b || (a !== undefined && b !== undefined && a !== null && b !== null && compareKeys(a, b) === 0)
}

function plus(buckets: BigUint64Array, bucket: number, change: bigint): void {
  // Stored modulo 2^64.
  buckets[bucket] = (buckets[bucket] ?? 0n) + change
}

function add(buckets: BigUint64Array, changes: ReadonlyMap<number, bigint>): void {
  for (const [bucket, change] of changes) plus(buckets, bucket, change)
}

function encode(buckets: BigUint64Array): string {
  return Buffer.from(buckets.buffer, buckets.byteOffset, buckets.byteLength).toString('base64')
}

function decode(text: string): BigUint64Array | undefined {
  const bytes = Uint8Array.from(Buffer.from(text, 'base64'))
  return bytes.byteLength === BUCKETS * 8 ? new BigUint64Array(bytes.buffer) : undefined
}
