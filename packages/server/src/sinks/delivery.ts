/**
 * Destinations without transactions (step 8 of the path): an adapter says how rows are delivered, and this makes a sink of it, with the cursor in the relay's notes (and a copy in the destination where it keeps one),
 * lanes by key, `attempted` before the first byte is sent, and dead letters before the cursor passes them.
 */
import type { Key } from '../view/view.ts'
import { SyncError } from '@rejoin/shared'
import type { Sink, SinkCommit, SinkContext, SinkPlace, SinkProof, SinkRow } from './sink.ts'

/** What an adapter without transactions implements. Any call may reject: it is then unknown what happened, and the same rows come again. */
export interface Delivery {
  /** Connects, prepares the destination. The copy of the cursor that it keeps, if it keeps one: the lower of both is believed. */
  begin(): Promise<{ readonly place?: SinkPlace | undefined; readonly stamp?: number | undefined; readonly isNew?: boolean | undefined }>
  /**
   * Delivers rows in order, each key at most once in a call. Resolves when the destination has confirmed them, with those that it refuses for good. Calls overlap up to `lanes`, never with a key in common.
   */
  deliver(rows: readonly SinkRow[], commit: Pick<SinkCommit, 'to' | 'force'>, signal: AbortSignal): Promise<Delivered>
  /** Everything up to `place` is delivered or parked: keeps a copy. */
  moved?(place: SinkPlace): Promise<void>
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

/** The sink of a delivery. */
export function deliverySink(delivery: Delivery, { name }: SinkContext): Sink {
  throw new SyncError('internal', `sink ${name}: ${typeof delivery.deliver}`)
}
