/**
 * Keys of a destination that are not as T gives them (step 8 of the path): T is made again for the buckets that differ, and each row that lies there is held against it.
 */
import type { SourceAt, SourceRows } from '../projection/transform.ts'
import { BUCKETS, bucketOf } from '../sinks/digest.ts'
import type { FoundRow, Key, Parked, SinkProof, Survey } from '../sinks/sink.ts'
import { keyText } from '../view/view.ts'
import type { Pace } from './pace.ts'
import type { Difference, ProverParts } from './proof.ts'

/** A key that is not as T gives it. `text` is its `keyText`. */
export interface WrongKey {
  readonly key: Key
  readonly text: string
  readonly what: Difference['what']
}

/** The destination at one moment, and what was kept of T as of its version. */
export interface Standing {
  readonly survey: Survey
  readonly version: number
  readonly kept: BigUint64Array | undefined
  readonly parked: readonly Parked[]
  /** Keys that are wrong if they are not right by now. */
  readonly sure: ReadonlySet<string>
}

/** Records of one slice. */
const PAGE = 250
/** Buckets that are looked at together when it is not known how much T gives for them. */
const STEP = 100
/** Rows that are remembered while the keys of differing buckets are compared. */
const REMEMBERED = 100_000

/** How many buckets to look at together where so many rows are in all of them. */
export function bucketsAtOnce(rows: number): number {
  return Math.max(1, Math.floor((REMEMBERED * BUCKETS) / Math.max(1, rows)))
}

export interface Recomputed {
  readonly buckets: BigUint64Array
  /** Of the wanted buckets: keyText → key and hash. */
  readonly rows: Map<string, { readonly key: Key; readonly hash: bigint }>
  readonly failed: readonly Parked[]
  readonly count: number
}

/** Everything that T gives as of a version: its digest, and the rows of some buckets. */
export async function recompute(
  { view, transform }: ProverParts,
  proof: SinkProof,
  version: number,
  wanted: ReadonlySet<number> | undefined,
  pace: Pace,
): Promise<Recomputed> {
  const buckets = new BigUint64Array(BUCKETS)
  const rows: Recomputed['rows'] = new Map()
  const failed: Parked[] = []
  let count = 0
  for (let from: Key | undefined; ;) {
    const keys = view.keys(version, PAGE, from)
    from = keys.at(-1)
    if (from === undefined) return { buckets, rows, failed, count }
    const asked = keys.filter((source) => isWanted(transform, source, wanted)).map((source) => ({ source, version }))
    for (const made of asked.length === 0 ? [] : await transform.rows(view, asked)) {
      for (const { key, value } of made.rows) {
        const bucket = bucketOf(key)
        if (wanted !== undefined && !wanted.has(bucket)) continue
        const hash = proof.hash(key, value)
        count++
        buckets[bucket] = (buckets[bucket] ?? 0n) + hash
        if (wanted !== undefined) rows.set(keyText(key), { key, hash })
      }
      for (const { key, reason } of made.poison) failed.push({ key, reason })
    }
    await pace.breathe()
  }
}

/** Whether a record may have a row in these buckets. */
function isWanted({ sources }: ProverParts['transform'], source: Key, wanted: ReadonlySet<number> | undefined): boolean {
  for (const [target, { collection, parts }] of sources) {
    if (collection !== source.collection) continue
    if (wanted === undefined || parts || wanted.has(bucketOf({ ...source, collection: target }))) return true
  }
  return false
}

export interface Compared {
  readonly wrong: readonly WrongKey[]
  /** Keys that cannot be judged now. */
  readonly open: readonly WrongKey[]
  /** Buckets that differ, though each of their keys is as it should be. */
  readonly unexplained: readonly number[]
  /** Buckets that were not looked at. */
  readonly unread: number
}

export interface Search {
  readonly buckets: readonly number[]
  readonly pace: Pace
  readonly expected?: BigUint64Array
}

/** The keys of differing buckets, some buckets at a time. */
export async function compareRows(
  parts: ProverParts,
  proof: SinkProof,
  standing: Standing,
  search: Search & { readonly limit: number },
): Promise<Compared> {
  const { buckets, limit } = search
  const step = Math.min(STEP, bucketsAtOnce(standing.survey.rows))
  const wrong: WrongKey[] = []
  const unexplained: number[] = []
  const open: WrongKey[] = []
  let at = 0
  for (; at < buckets.length && wrong.length < limit; at += step) {
    const found = await compareSome(parts, proof, standing, { ...search, buckets: buckets.slice(at, at + step) })
    wrong.push(...found.wrong)
    unexplained.push(...found.unexplained)
    open.push(...found.open)
  }
  return { wrong, open, unexplained, unread: Math.max(0, buckets.length - at) }
}

export async function compareSome(
  parts: ProverParts,
  proof: SinkProof,
  standing: Standing,
  { buckets, pace, expected }: Search,
): Promise<Compared> {
  const { version } = standing
  const right = await recompute(parts, proof, version, new Set(buckets), pace)
  const taken = takenOut(parts, [...standing.parked, ...right.failed])
  const wrong: WrongKey[] = []
  const doubtful: WrongKey[] = []
  const explained = new Set<number>()
  const later: FoundRow[] = []
  for await (const page of proof.rows(buckets, () => pace.breathe())) {
    for (const row of page) {
      const text = keyText(row.key)
      const wanted = right.rows.get(text)
      right.rows.delete(text)
      if (wanted?.hash === row.hash) continue
      const one = { key: row.key, text, what: wanted !== undefined ? 'differs' : row.stamp === 0 ? 'stranger' : 'surplus' } as const
      if (taken(row.key)) explained.add(bucketOf(row.key))
      else if (row.stamp > version) later.push(row)
      else wrong.push(one)
    }
  }
  for (const [text, { key }] of right.rows) {
    if (taken(key)) explained.add(bucketOf(key))
    else doubtful.push({ key, text, what: 'missing' })
  }
  for (const row of await unlike(parts, proof, later)) doubtful.push({ key: row.key, text: keyText(row.key), what: 'differs' })
  const settled = settle(parts, standing, doubtful)
  wrong.push(...settled.wrong)
  const hit = new Set([...wrong, ...settled.open].map(({ key }) => bucketOf(key)))
  const keptWrong = expected === undefined ? [] : buckets.filter((bucket) => expected[bucket] !== right.buckets[bucket])
  const unexplained = buckets.filter((bucket) => !hit.has(bucket) && (!explained.has(bucket) || keptWrong.includes(bucket)))
  return { wrong, open: settled.open, unexplained, unread: 0 }
}

/** Whether a key is parked, or is of a record for which select fails. */
function takenOut({ transform }: ProverParts, parked: readonly Parked[]): (key: Key) => boolean {
  const texts = new Set(parked.map(({ key }) => keyText(key)))
  return (key) => {
    if (texts.has(keyText(key))) return true
    const source = transform.sourceOf(key)
    return source !== undefined && texts.has(keyText({ ...source, collection: key.collection }))
  }
}

/** Rows that were written after the survey and are not what T gave then. */
async function unlike({ view, transform }: ProverParts, proof: SinkProof, rows: readonly FoundRow[]): Promise<readonly FoundRow[]> {
  const head = view.head() ?? 0
  const asked = rows.flatMap((row): (SourceAt & { readonly row: FoundRow })[] => {
    const source = row.stamp > head ? undefined : transform.sourceOf(row.key)
    return source === undefined ? [] : [{ source, version: row.stamp, row }]
  })
  const made: readonly SourceRows[] = await transform.rows(view, asked)
  const like = new Set<FoundRow>()
  for (const [i, { row }] of asked.entries()) {
    const value = made[i]?.rows.find(({ key }) => keyText(key) === keyText(row.key))?.value
    if (value !== undefined && proof.hash(row.key, value) === row.hash) like.add(row)
  }
  return rows.filter((row) => !like.has(row))
}

/** What did not change since the survey is wrong; of the rest nothing is known. */
function settle(
  { view, transform }: ProverParts,
  { version, sure }: Standing,
  doubtful: readonly WrongKey[],
): { wrong: readonly WrongKey[]; open: readonly WrongKey[] } {
  const head = view.head() ?? version
  if (doubtful.length === 0 || head === version) return { wrong: doubtful, open: [] }
  const changed = new Set(transform.affected(view, view.dirty(version, head), head).map(keyText))
  const isOpen = ({ key, text }: WrongKey): boolean => {
    if (sure.has(text)) return false
    const source = transform.sourceOf(key)
    return source !== undefined && changed.has(keyText(source))
  }
  return { wrong: doubtful.filter((one) => !isOpen(one)), open: doubtful.filter(isOpen) }
}
