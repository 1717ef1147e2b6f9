/**
 * What a proof of a sink is made of and what it says (step 8 of the path). Types only, but for the names.
 */
import type { Clock, DocumentId, Schema } from '@rejoin/shared'
import type { Transform } from '../projection/transform.ts'
import type { SinkNotes } from '../sinks/notes.ts'
import type { Forward, Key, Parked, Sink } from '../sinks/sink.ts'
import type { LogSource } from '../view/source.ts'
import type { ViewStore } from '../view/view.ts'
import type { Forwarder } from './control.ts'

/**
 * 'rows': the destination's own columns against the kept digest of what T gave. 'projection': T made again as of the destination's version against that digest. 'view': documents folded from the log against the view.
 */
export type ProofName = 'rows' | 'projection' | 'view'
export const PROOFS: readonly ProofName[] = ['rows', 'projection', 'view']

/** 'cannot': `reasons` says why, such as a destination that cannot be read back. */
export type Verdict = 'equal' | 'different' | 'not asked' | 'cannot'

/** What was found where it should not be, or not found. */
export interface Difference {
  readonly proof: ProofName
  /** 'missing': T gives a row that is not there. 'differs': another row lies there. 'surplus': T gives none. 'stranger': surplus that Rejoin never wrote. */
  readonly what: 'missing' | 'differs' | 'surplus' | 'stranger'
  /** Of 'rows': the destination's key. Of 'view': the record's. Undefined: as much as `bucket`, or `document`, tells. */
  readonly key?: Key | undefined
  readonly bucket?: number | undefined
  readonly document?: DocumentId | undefined
}

/** Plain data: it crosses threads, is kept in the notes, and is printed. */
export interface ProofResult {
  readonly sink: string
  /** Of the view, at which the destination was read. */
  readonly version: number
  /** That lie in the destination. */
  readonly rows: number
  /** Keys that are taken out on both sides, and why. */
  readonly parked: { readonly total: number; readonly first: readonly Parked[] }
  readonly proofs: Readonly<Record<ProofName, Verdict>>
  /** All three were asked, and all three hold. */
  readonly equal: boolean
  /** At most 100 of them; strangers that the sink ignores are not among them. */
  readonly differences: { readonly total: number; readonly first: readonly Difference[] }
  /** Why a proof could not be made, or what stays out of it, in words. */
  readonly reasons: readonly string[]
  /** How long it took, and when it ended, in ms since 1970. */
  readonly ms: number
  readonly at: number
}

export interface ProofOptions {
  /** @default all three */
  readonly proofs?: readonly ProofName[] | undefined
  /** Gives up; the promise rejects with `SyncError('aborted')`. */
  readonly signal?: AbortSignal | undefined
}

/** Of one sink; lives in the worker that forwards. One proof at a time: a second call waits for the first. */
export interface Prover {
  /** Rejects with `SyncError`: 'aborted', 'closed', or what the destination said. */
  verify(options?: ProofOptions): Promise<ProofResult>
  /** Verifies, writes what differs through the forwarder (forced, behind its fence), deletes strangers where the sink's `strangers` says so, and verifies again. */
  repair(options?: ProofOptions): Promise<RepairResult>
  /** The last result, also of a run of this process's predecessor. */
  last(): ProofResult | undefined
  /** Ends what runs. */
  stop(): Promise<void>
}

export interface RepairResult {
  /** Keys that were written or removed. */
  readonly repaired: number
  readonly before: ProofResult
  readonly after: ProofResult
}

/** What proofs are made of. */
export interface ProverParts {
  readonly name: string
  readonly schema: Schema
  readonly forward: Forward
  readonly log: Pick<LogSource, 'documents' | 'head' | 'load'>
  readonly view: ViewStore
  readonly transform: Transform
  readonly forwarder: Pick<Forwarder, 'digestAt' | 'write' | 'recount' | 'parked' | 'cursor'>
  /** Opens the sink for reading: it is never begun, and closed afterwards. */
  readonly open: () => Promise<Sink>
  readonly notes: SinkNotes
  readonly clock: Clock
  /** No version that there is now is trimmed until the function it gives is called. */
  readonly hold: () => () => void
}
