/**
 * What others see of a running forwarder (step 8 of the path): its status, what an operator may ask of it, and what proofs and rungs ask. Types only.
 */
import type { Clock, Random } from '@rejoin/shared'
import type { Transform } from '../projection/transform.ts'
import type { SinkNotes } from '../sinks/notes.ts'
import type { Consistency, Forward, Key, Parked, Sink, SinkContext, Strategy } from '../sinks/sink.ts'
import type { View } from '../view/view.ts'

/** What the forwarder asks of the view. */
export type ForwardedView = View & {
  /** Versions given from now on are above `version`: a destination already carries it as a stamp. */
  raise(version: number): void
}

export interface ForwarderOptions {
  readonly view: ForwardedView
  readonly transform: Transform
  readonly forward: Forward
  /** Id of the log, for event ids. */
  readonly log: string
  readonly notes: SinkNotes
  /** Opens the destination: at the start, and again after every failure. */
  readonly open: (how: Pick<SinkContext, 'adopt'>) => Promise<Sink>
  readonly clock: Clock
  readonly random: Random
  /** The cursor of the sink that this one may not pass (`Forward.after`), by its `cursor()`. `poke` this one when that one has committed. */
  readonly ceiling?: (() => number | undefined) | undefined
  /** Rows parked beyond which a commit that adds to them stops the sink. @default MAX_PARKED */
  readonly maxParked?: number | undefined
  /** How often an idle forwarder looks whether the destination is still there and ours, in ms. @default 1_000 */
  readonly idle?: number | undefined
  /** After a small commit the next one is gathered for so long, in ms: many sinks would share a disk with the relay's log. Not with consistency 'every'. @default 0 */
  readonly linger?: number | undefined
  /** After each commit, and whenever the status changed otherwise. Must not throw. */
  readonly onCommit?: (() => void) | undefined
}

/** A running forwarder of one sink. */
export interface Forwarder {
  /** A hint that the view has grown. Cheap. */
  poke(): void
  status(): SinkStatus
  /** The version at which the destination is whole, parked keys aside; undefined while it is not known, or being written for the first time or anew. */
  cursor(): number | undefined
  /** Resolves after the first attempt to begin, successful or not: if it was, the view's versions are now above the destination's stamps. At once when it is paused. */
  readonly begun: Promise<void>
  /** Versions from here on are still asked of the view; undefined when that is not known. */
  needs(): number | undefined
  /** Whether everything up to `version` is in the destination. `records`: what changed there; 'parked' names the first that is not in because it is parked. */
  reached(
    version: number,
    records: readonly Key[],
  ): { readonly type: 'reached' } | { readonly type: 'behind' } | { readonly type: 'parked'; readonly parked: Parked }
  /** Every key that is parked, for the proofs. */
  parked(): readonly Parked[]
  /**
   * Bucket → sum of the hashes (`SinkProof.hash`) of all rows that T gave as of `version`, parked ones included: what commits counted up, not T made again.
   * Undefined when that is not known: not a version this sink stood at within its last 1,000 commits, a destination that cannot be read back, strategy 'actions', or not counted yet.
   */
  digestAt(version: number): BigUint64Array | undefined
  /** Counts the digest anew, from T: it was found wrong. Takes a while, in which `digestAt` says undefined. */
  recount(): Promise<void>
  /** A repair: these keys of the destination are written between two commits as T gives them where the sink stands, whatever stamps lie there; a key that T does not give is removed. Rejects with `SyncError`. */
  write(keys: readonly Key[], how: { readonly force: true }): Promise<void>
  /** Stays as it is until `resume`, also across restarts. The destination is let go of. */
  pause(): Promise<void>
  /** Goes on: after a pause, a poison row, being fenced or cut off. A sink of mode 'refresh-once' is refreshed once more. */
  resume(): Promise<void>
  /**
   * Strategy 'state': what changed since is written again. 'actions': events since are sent again, under the same ids, marked as replay; 'now' leaves them out.
   * Rejects with `SyncError('bad_option')` that names the oldest version there is when it asks for older.
   */
  rewind(to: RewindTarget): Promise<void>
  /** Strategy 'state': everything is written again. Rejects with `SyncError('bad_option')` for 'actions'. */
  refresh(): Promise<void>
  /** The destination belongs to another log: it is this one's from now on. */
  adopt(): Promise<void>
  /** Pauses, and removes all that Rejoin made there. */
  drop(): Promise<void>
  /** Tries dead letters again, all without ids, and answers how many are in now. Of an event that blocks its key: with all that is held behind it, in order. */
  requeue(ids?: readonly string[]): Promise<number>
  /** Forgets dead letters of strategy 'actions', all without ids; what was held behind them is sent. How many were forgotten. */
  discard(ids?: readonly string[]): Promise<number>
  /** Ends after the stage under way and closes the destination. */
  stop(): Promise<void>
}

/** A version, a time in ms since 1970, or an end of what is kept. */
export type RewindTarget = 'oldest' | 'now' | number | { readonly time: number }

/**
 * 'starting': the destination or the view is not ready · 'refreshing': writing everything, or what an operator asked for again · 'migrating': the same because the projection has another revision ·
 * 'behind': writing what changed · 'current' · 'paused' · 'failing': `error` says why, it tries again · 'cut-off': versions it needs are not kept any more or belong to another history, `error` says
 * what to do · 'poisoned': stopped at a row that the destination refuses, `error` names it · 'fenced': another forwarder has taken over · 'stopped'.
 */
export type SinkState =
  | 'starting'
  | 'refreshing'
  | 'migrating'
  | 'behind'
  | 'current'
  | 'paused'
  | 'failing'
  | 'cut-off'
  | 'poisoned'
  | 'fenced'
  | 'stopped'

/** What to know about a sink. Plain data. */
export interface SinkStatus {
  readonly state: SinkState
  readonly strategy: Strategy
  readonly consistency: Consistency
  /** The version below which everything is in the destination, or parked. 0 until that is known, and while everything is written for the first time or anew. */
  readonly cursor: number
  /** What the view has above the cursor; `seconds`: age of the oldest entry of it. */
  readonly lag: { readonly entries: number; readonly seconds: number; readonly bytes: number }
  /** Rows a second, over the last ten. */
  readonly rate: number
  /** Since this process began. */
  readonly commits: number
  readonly rows: number
  readonly parked: { readonly total: number; readonly first: readonly Parked[] }
  /** Dead letters: refused, and held behind a refused one. */
  readonly letters: number
  /** A commit up to this version may have happened without its cursor. */
  readonly attempted?: number | undefined
  readonly warning?: string | undefined
  readonly error?: string | undefined
}
