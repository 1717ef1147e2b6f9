/**
 * A destination's rows against T (step 8 of the path): digests first, bucket by bucket, then the keys of the buckets that differ. The relay goes on meanwhile: the survey names the version
 * that the digest has to be of, and a row that was written since is held against T as of its own stamp.
 */
import { BUCKETS, bucketOf } from '../sinks/digest.ts'
import type { Key, Parked, Sink, SinkProof } from '../sinks/sink.ts'
import { keyText } from '../view/view.ts'
import type { Pace } from './pace.ts'
import type { Standing } from './proof-keys.ts'
import { bucketsAtOnce, compareRows, compareSome, recompute } from './proof-keys.ts'
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

/** Surveys, when keys change as fast as they are looked at. */
const ROUNDS = 6
/** Of differing keys, how many are looked for before the rest is counted by buckets only. */
const WANTED = 100
/** Keys that are handed on to be repaired between two commits. */
const WRITTEN = 5_000

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

/** Hands every key that is to be repaired to `write`, some thousands at a time; strangers only where the sink's options say that they go. Returns how many they were. */
export async function eachDifference(parts: ProverParts, pace: Pace, write: (keys: readonly Key[]) => Promise<void>): Promise<number> {
  return withProof(parts, async (proof) => {
    if (typeof proof === 'string') return 0
    const standing = await look(parts, proof, pace)
    if (typeof standing === 'string') return 0
    // Against T itself: what was kept may be what is wrong.
    const expected = await recompute(parts, proof, standing.version, undefined, pace)
    const buckets = differing(expected.buckets, standing.survey.buckets)
    const step = bucketsAtOnce(Math.max(standing.survey.rows, expected.count))
    let found = 0
    for (let at = 0; at < buckets.length; at += step) {
      const { wrong, open } = await compareSome(parts, proof, standing, { buckets: buckets.slice(at, at + step), pace })
      // Writing what was right already does no harm.
      const keys = [...wrong, ...open]
        .filter(({ what }) => what !== 'stranger' || parts.forward.strangers === 'delete')
        .map(({ key }) => key)
      for (let i = 0; i < keys.length; i += WRITTEN) await write(keys.slice(i, i + WRITTEN))
      found += keys.length
    }
    return found
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
