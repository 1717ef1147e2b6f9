/**
 * What a sink would do (step 8 of the path): statements before its first row, and how many rows a refresh would change. Looks, and changes nothing.
 */
import { SyncError, systemClock } from '@rejoin/shared'
import type { Transform } from '../projection/transform.ts'
import { BUCKETS, bucketOf } from '../sinks/digest.ts'
import type { Sink, SinkProof } from '../sinks/sink.ts'
import { keyText } from '../sinks/sink.ts'
import type { View } from '../view/view.ts'
import type { SinkPlan } from './commands.ts'
import { pagesOfT } from './refresh.ts'

/** Rows of the destination that are compared; of more, a share of the buckets is. */
const MAX_ROWS = 50_000
const PAGE = 1_000
/** How long T may be made for, in ms. Beyond, what was seen so far is told, and that it was not all. */
const MAKING_MS = 10_000

export interface PlanParts {
  readonly view: View
  readonly transform: Transform
  /** Rows of the destination are not to be compared with T: it holds events, not states. */
  readonly ignoreStrangers: boolean
  readonly signal: AbortSignal
}

/** The plan of a sink that was opened and has not begun. */
export async function planSink(sink: Sink, parts: PlanParts): Promise<Omit<SinkPlan, 'state'>> {
  const statements = (await sink.plan?.()) ?? []
  const rows = sink.proof === undefined || parts.ignoreStrangers ? null : await changedRows(sink.proof, parts)
  return { statements, rows }
}

async function changedRows(proof: SinkProof, { view, transform, signal }: PlanParts): Promise<SinkPlan['rows']> {
  const head = view.head()
  if (head === undefined) throw new SyncError('overloaded', 'the view is being made: it is ready when every document has been read')
  const survey = await proof.survey({ strangers: true })
  const share = Math.max(1, Math.min(BUCKETS, Math.floor((BUCKETS * MAX_ROWS) / Math.max(1, survey.rows))))
  const buckets = Array.from({ length: share }, (_, bucket) => bucket)
  const there = new Map<string, bigint>()
  for await (const page of proof.rows(buckets)) for (const { key, hash } of page) there.set(keyText(key), hash)
  const found = there.size
  let [changed, looked] = [0, 0]
  const until = systemClock.now() + MAKING_MS
  let whole = share === BUCKETS
  for await (const page of pagesOfT(view, transform, head, PAGE)) {
    signal.throwIfAborted()
    for (const { key, value } of page.flatMap(({ rows }) => rows)) {
      if (bucketOf(key) >= share) continue
      looked++
      if (there.get(keyText(key)) !== proof.hash(key, value)) changed++
      there.delete(keyText(key))
    }
    if (systemClock.now() > until) {
      whole = false
      // What was not reached says nothing about rows that lie there.
      return { changed, looked: Math.max(looked, found - there.size), whole }
    }
  }
  return { changed: changed + there.size, looked: looked + there.size, whole }
}
