/**
 * A destination's rows against T (step 8 of the path): digests first, bucket by bucket, then the keys of the buckets that differ. The relay goes on meanwhile: the survey names the version
 * that the digest has to be of, and a row that was written since is held against T as of its own stamp.
 */
import type { SourceAt, SourceRows } from '../projection/transform.ts'
import { BUCKETS, bucketOf } from '../sinks/digest.ts'
import type { FoundRow, Key, Parked, Sink, SinkProof, Survey } from '../sinks/sink.ts'
import { keyText } from '../view/view.ts'
import type { Pace } from './pace.ts'
import type { Difference, ProofName, ProverParts, Verdict } from './proof.ts'

export interface RowsProof {
  readonly version: number
  /** Rows that lie there. */
  readonly count: number
  readonly parked: readonly Parked[]
  readonly rows: Verdict
  readonly projection: Verdict
  /** The first of them. */
  readonly differences: readonly Difference[]
  readonly total: number
  readonly reasons: readonly string[]
}

/** A key that is not as T gives it. `text` is its `keyText`. */
export interface WrongKey {
  readonly key: Key
  readonly text: string
  readonly what: Difference['what']
}

/** Records of one slice. */
const PAGE = 250
/** Surveys, when keys change as fast as they are looked at. */
const ROUNDS = 6
/** Of differing keys, how many are looked for before the rest is counted by buckets only. */
const WANTED = 100
/** Rows that are remembered while the keys of differing buckets are compared. */
const REMEMBERED = 100_000

/** Both proofs that need the destination. */
export async function proveRows(parts: ProverParts, asked: ReadonlySet<ProofName>, pace: Pace): Promise<RowsProof> {
  return withProof(parts, async (proof) => {
    if (typeof proof === 'string') return cannot(parts, asked, proof)
    let before: Doubts | undefined
    for (let round = 1; ; round++) {
      const standing = await look(parts, proof, pace)
      if (typeof standing === 'string') {
        // On its way from one place to another: a moment later it has one.
        if (round === ROUNDS) return cannot(parts, asked, standing)
        await pace.rest(50 << round)
        continue
      }
      // It did not move while its rows were read: what was in doubt then is wrong.
      const sure = before?.version === standing.version ? before.keys : NONE
      const judged = await judge(parts, proof, { ...standing, sure }, { asked, pace, isLast: round === ROUNDS })
      if ('rows' in judged) return judged
      before = judged
      await pace.rest(20 << round)
    }
  })
}

/** Keys to repair, at most about `limit`, strangers among them only where the sink's options say that they go. */
export async function findDifferences(parts: ProverParts, pace: Pace, limit: number): Promise<readonly WrongKey[]> {
  return withProof(parts, async (proof) => {
    if (typeof proof === 'string') return []
    const standing = await look(parts, proof, pace)
    if (typeof standing === 'string') return []
    // Against T itself: what was kept may be what is wrong.
    const expected = await recompute(parts, proof, standing.version, undefined, pace)
    const buckets = differing(expected.buckets, standing.survey.buckets)
    const { wrong, open } = await compareRows(parts, proof, standing, { buckets, limit, pace })
    // Writing what was right already does no harm.
    return [...wrong, ...open].filter(({ what }) => what !== 'stranger' || parts.forward.strangers === 'delete')
  })
}

async function withProof<T>(parts: ProverParts, run: (proof: SinkProof | string) => Promise<T>): Promise<T> {
  if (parts.forward.strategy === 'actions')
    return run("strategy 'actions': what lies there depends on where the sink began and on whoever applies the events")
  const sink: Sink = await parts.open()
  try {
    return await run(sink.proof ?? 'this destination cannot be read back')
  } finally {
    await sink.close()
  }
}

function cannot({ forwarder }: ProverParts, asked: ReadonlySet<ProofName>, reason: string): RowsProof {
  const verdict = (name: ProofName): Verdict => (asked.has(name) ? 'cannot' : 'not asked')
  return {
    version: forwarder.cursor() ?? 0,
    count: 0,
    parked: forwarder.parked(),
    rows: verdict('rows'),
    projection: verdict('projection'),
    differences: [],
    total: 0,
    reasons: [reason],
  }
}

/** Keys, by `keyText`, that could not be judged when the destination was at this version. */
interface Doubts {
  readonly version: number
  readonly keys: ReadonlySet<string>
}

const NONE: ReadonlySet<string> = new Set()

/** The destination at one moment, and what was kept of T as of its version. */
interface Standing {
  readonly survey: Survey
  readonly version: number
  readonly kept: BigUint64Array | undefined
  readonly parked: readonly Parked[]
  /** Keys that are wrong if they are not right by now. */
  readonly sure: ReadonlySet<string>
}

/** Reads the destination; why there is nothing to compare it with otherwise. */
async function look({ view, forward, forwarder }: ProverParts, proof: SinkProof, pace: Pace): Promise<Standing | string> {
  const survey = await proof.survey({ strangers: forward.strangers !== 'ignore', breathe: () => pace.breathe() })
  const { place } = survey
  if (place === undefined) return 'the destination is new, or was wiped or changed: everything is still to be written'
  if (place.refreshed !== undefined) return 'the destination is being written anew'
  const head = view.head()
  if (head === undefined) return 'the view is being made'
  if (
    place.view !== view.id ||
    place.version > head ||
    place.version < view.oldest() ||
    (place.mark !== undefined && place.mark !== view.mark(place.version))
  )
    return `the destination is at a version (${place.version}) that the view does not have`
  const parked = new Map([...forwarder.parked(), ...(survey.parked ?? [])].map((each) => [keyText(each.key), each]))
  return { survey, version: place.version, kept: forwarder.digestAt(place.version)?.slice(), parked: [...parked.values()], sure: NONE }
}

/** Doubts: what was found may be as it should be by now, look again. */
async function judge(
  parts: ProverParts,
  proof: SinkProof,
  standing: Standing,
  { asked, pace, isLast }: { readonly asked: ReadonlySet<ProofName>; readonly pace: Pace; readonly isLast: boolean },
): Promise<RowsProof | Doubts> {
  const { survey, version, kept } = standing
  const again = asked.has('projection') || kept === undefined ? await recompute(parts, proof, version, undefined, pace) : undefined
  const expected = kept ?? again?.buckets ?? new BigUint64Array(BUCKETS)
  const buckets = asked.has('rows') ? differing(expected, survey.buckets) : []
  const { wrong, open, unexplained, unread } = await compareRows(parts, proof, standing, { buckets, limit: WANTED, pace, expected })
  const told = wrong.filter(({ what }) => what !== 'stranger' || parts.forward.strangers !== 'ignore')
  if (told.length === 0 && (open.length > 0 || unexplained.length > 0) && !isLast)
    return { version, keys: new Set(open.map(({ text }) => text)) }
  const rowsWrong: readonly Difference[] = [
    ...told.map(({ key, what }) => ({ proof: 'rows' as const, what, key, bucket: bucketOf(key) })),
    ...unexplained.map((bucket) => ({ proof: 'rows' as const, what: 'differs' as const, bucket })),
  ]
  const madeWrong =
    kept === undefined || again === undefined
      ? []
      : differing(kept, again.buckets).filter((bucket) => !again.failed.some(({ key }) => mayBeIn(parts, key, bucket)))
  const projection: Verdict = !asked.has('projection')
    ? 'not asked'
    : madeWrong.length > 0
      ? 'different'
      : kept === undefined && !asked.has('rows')
        ? 'cannot'
        : 'equal'
  return {
    version,
    count: survey.rows,
    parked: [
      ...standing.parked,
      ...(again?.failed.filter(({ key }) => !standing.parked.some((each) => keyText(each.key) === keyText(key))) ?? []),
    ],
    rows: !asked.has('rows') ? 'not asked' : rowsWrong.length > 0 ? 'different' : open.length > 0 ? 'cannot' : 'equal',
    projection,
    differences: [...rowsWrong, ...madeWrong.map((bucket) => ({ proof: 'projection' as const, what: 'differs' as const, bucket }))],
    total: rowsWrong.length + madeWrong.length,
    reasons: [
      ...(kept === undefined ? ['no digest of that version was kept: T was made again and the rows were compared with that'] : []),
      ...(open.length > 0 ? [`rows: ${open.length} keys changed each time they were looked at`] : []),
      ...(unread > 0 ? [`rows: ${unread} more buckets of ${BUCKETS} differ, their keys were not looked at`] : []),
      ...(madeWrong.length > 0
        ? ['projection: T gives something else than it gave: its functions are not pure, or changed without a new revision']
        : []),
    ],
  }
}

function differing(a: BigUint64Array, b: BigUint64Array): readonly number[] {
  return Array.from({ length: BUCKETS }, (_, bucket) => bucket).filter((bucket) => a[bucket] !== b[bucket])
}

/** A record for which select fails has its rows, of whatever parts, in any bucket; one without parts in its own. */
function mayBeIn({ transform }: ProverParts, key: Key, bucket: number): boolean {
  return transform.sources.get(key.collection)?.parts === true || bucketOf(key) === bucket
}

interface Recomputed {
  readonly buckets: BigUint64Array
  /** Of the wanted buckets: keyText → key and hash. */
  readonly rows: Map<string, { readonly key: Key; readonly hash: bigint }>
  readonly failed: readonly Parked[]
}

/** Everything that T gives as of a version: its digest, and the rows of some buckets. */
async function recompute(
  { view, transform }: ProverParts,
  proof: SinkProof,
  version: number,
  wanted: ReadonlySet<number> | undefined,
  pace: Pace,
): Promise<Recomputed> {
  const buckets = new BigUint64Array(BUCKETS)
  const rows: Recomputed['rows'] = new Map()
  const failed: Parked[] = []
  for (let from: Key | undefined; ;) {
    const keys = view.keys(version, PAGE, from)
    from = keys.at(-1)
    if (from === undefined) return { buckets, rows, failed }
    const asked = keys.filter((source) => isWanted(transform, source, wanted)).map((source) => ({ source, version }))
    for (const made of asked.length === 0 ? [] : await transform.rows(view, asked)) {
      for (const { key, value } of made.rows) {
        const bucket = bucketOf(key)
        if (wanted !== undefined && !wanted.has(bucket)) continue
        const hash = proof.hash(key, value)
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

interface Compared {
  readonly wrong: readonly WrongKey[]
  /** Keys that cannot be judged now. */
  readonly open: readonly WrongKey[]
  /** Buckets that differ, though each of their keys is as it should be. */
  readonly unexplained: readonly number[]
  /** Buckets that were not looked at. */
  readonly unread: number
}

interface Search {
  readonly buckets: readonly number[]
  readonly limit: number
  readonly pace: Pace
  readonly expected?: BigUint64Array
}

/** The keys of differing buckets, some buckets at a time. */
async function compareRows(parts: ProverParts, proof: SinkProof, standing: Standing, search: Search): Promise<Compared> {
  const { buckets, limit } = search
  const perBucket = Math.max(1, standing.survey.rows / BUCKETS)
  const step = Math.max(1, Math.floor(REMEMBERED / perBucket))
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

async function compareSome(
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
