/**
 * The port of a sink (step 8 of the path): one destination that the forwarder keeps equal to the view. One adapter a file beside this.
 */
import type { Collections, RecordValue } from '@rejoin/shared'
import type { Key } from '../view/view.ts'

export type { Key } from '../view/view.ts'

/** What a config says of a sink: data only, so that it can cross to the worker that runs it. */
export interface SinkSpec {
  /** URL of the adapter's module, which exports `openSink`. */
  readonly module: string
  /** Plain data, given to `openSink`. */
  readonly options: Readonly<Record<string, unknown>>
}

/** What the module of a `SinkSpec` exports. Rejects with `SyncError('bad_option')` when the options are wrong. */
export type OpenSink = (options: Readonly<Record<string, unknown>>, context: SinkContext) => Promise<Sink>

/** What an adapter is told when it is opened. */
export interface SinkContext {
  /** The sink's name in the config. */
  readonly name: string
  readonly collections: Collections
  /** Id of the log; a destination written from another refuses. */
  readonly log: string
}

/** How far a destination has come in the versions of one view. */
export interface SinkPlace {
  readonly view: string
  /** Everything up to this version is in the destination, or parked there; while it is being refreshed, only as far as `refreshed`. */
  readonly version: number
  /** Under way with everything as of `version`: keys up to this one, null for none yet. Undefined: whole. */
  readonly refreshed?: Key | null | undefined
}

/** Where the destination says it is, and that it is now ours. */
export interface SinkStanding {
  /** Undefined: it is new, was wiped, or was changed (a table was dropped, a column added): everything has to be written. */
  readonly place: SinkPlace | undefined
  /** The highest stamp it may carry; what is written from now on is stamped as high or higher. */
  readonly stamp: number
  readonly parked: readonly Parked[]
}

/** The state of one key as of the cut: null means that it must not be there. */
export interface SinkRow {
  readonly key: Key
  readonly value: RecordValue | null
}

/** A key that the destination refuses, and why. It stays parked until it is written. */
export interface Parked {
  readonly key: Key
  readonly reason: string
}

/** One transaction. */
export interface SinkCommit {
  /** Each key at most once. A row is written where the stored stamp is not above `to.version`. */
  readonly rows: readonly SinkRow[]
  /** Where the forwarder believes the destination to be. */
  readonly from: SinkPlace | undefined
  readonly to: SinkPlace
}

/**
 * 'committed', with the keys of this commit that were refused. 'fenced': another forwarder has begun after us, never write again. 'lost': the destination is not
 * where it was left (wiped, restored, changed): begin again. With the last two nothing was written.
 */
export type SinkOutcome =
  | { readonly type: 'committed'; readonly parked: readonly Parked[] }
  | { readonly type: 'fenced' }
  | { readonly type: 'lost' }

/** One destination. Called by one forwarder, one call at a time. Any call may reject; the forwarder then waits, and begins again. */
export interface Sink {
  /** Prepares the destination (additive migrations) and takes a new fence, higher than every one before. */
  begin(): Promise<SinkStanding>
  /** Rows and place in one transaction, provided that the fence is still ours and the place still `from`. Without rows and with from = to it only checks that. */
  commit(commit: SinkCommit): Promise<SinkOutcome>
  /** Keys that lie in the destination, in the order of keys, at most `limit`, behind `from`. */
  keys(limit: number, from?: Key): Promise<readonly Key[]>
  close(): Promise<void>
}
