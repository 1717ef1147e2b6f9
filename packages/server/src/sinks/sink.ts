/**
 * The port of a sink (step 8 of the path): one destination that the forwarder keeps equal to the view. One adapter a file beside this.
 */
import type { Collections, DocumentId, Fields, Position, RecordValue, Seq } from '@rejoin/shared'
import type { Key } from '../view/view.ts'
import { compareKeys } from '../view/view.ts'
import type { SinkNotes } from './notes.ts'

export type { Key } from '../view/view.ts'
export { compareKeys, compareText, keyText } from '../view/view.ts'

/** What a config says of a sink. `module` and `options` are data only, so that they can cross to the worker that runs it; functions stand in `forward` and `functions`. */
export interface SinkSpec {
  /** URL of the adapter's module, which exports `openSink`. */
  readonly module: string
  /** Plain data, given to `openSink`. */
  readonly options: Readonly<Record<string, unknown>>
  /** What the forwarder is to do, alike for every sink; checked against the adapter's traits by `sinkSpec`. */
  readonly forward: Forward
  /** Functions of the application by name, such as a handler's. They run in the worker when the config is a module it can load, otherwise on the thread that made them. */
  readonly functions?: Readonly<Record<string, (...args: readonly never[]) => unknown>> | undefined
}

/** What an adapter can do; `sinkSpec` refuses options that ask for more. */
export interface SinkTraits {
  /** Rows and cursor move in one fenced transaction of the destination. */
  readonly transactional: boolean
  readonly strategies: readonly Strategy[]
  /** What lies there can be read back, so that it can be proved and repaired. */
  readonly readable: boolean
}

/** 'state': a row as of the cut is written. 'actions': every change is applied or published, in order. */
export type Strategy = 'state' | 'actions'
/** 'every': one destination commit per entry of the log. 'latest': one commit per cut. 'key': order per key only. */
export type Consistency = 'every' | 'latest' | 'key'

/** What the forwarder is told of a sink, with every default filled in. */
export interface Forward {
  readonly projections: readonly Projection[]
  readonly strategy: Strategy
  readonly consistency: Consistency
  /** How many batches may be on their way at once, divided by source key. Above 1 only with `key`. */
  readonly lanes: number
  /** Where a sink begins that never ran. 'refresh': with everything there is. 'now': with what changes from now on. 'beginning': with the oldest change that is kept. */
  readonly from: 'refresh' | 'now' | 'beginning'
  /** 'changes': follows without a refresh. 'refresh-once': refreshes, then pauses. 'both'. */
  readonly mode: 'changes' | 'refresh-once' | 'both'
  /** What becomes of a row that the destination refuses: 'park' it, 'block' its key (actions), or 'stop'. */
  readonly onPoison: 'park' | 'block' | 'stop'
  /** Of one commit: rows, and bytes of their canonical JSON. */
  readonly batch: { readonly items: number; readonly bytes: number }
  /** Rows a second at most; Infinity for no cap. */
  readonly rate: number
  /** Rows in the destination that Rejoin never wrote. */
  readonly strangers: 'report' | 'delete' | 'ignore'
  /** May not pass the cursor of this other sink. */
  readonly after: string | undefined
  /** How often the three proofs are made by themselves, in ms; undefined: on demand only. */
  readonly verifyEvery: number | undefined
}

/** T, from records to the destination's rows: made by `defineProjection`, one for each target. */
export interface Projection {
  /** Table, index, topic … in the destination. */
  readonly to: string
  /** Collection of the records it is made from. */
  readonly from: string
  /** Names of the select function's arguments: of the record itself, and of each joined record. */
  readonly as: string
  readonly join: Readonly<Record<string, Ref>>
  /** Fields of the rows; undefined: not declared, which destinations with columns refuse. */
  readonly fields: Fields | undefined
  readonly revision: number
  /** Whether select returns a list of parts `{ part, value }`, rows of ids `<id>/<part>`. */
  readonly parts: boolean
  /** Of the functions' source text: warns when T changed and its revision did not. */
  readonly source: string
  /** The row of one record, of the same id: its value, or null for none. With `parts` a list. Pure. */
  readonly select: (input: Readonly<Record<string, unknown>>) => unknown
}

/** Follows `field` of the record to the record of `collection` with this id. */
export interface Ref {
  readonly field: string
  readonly collection: string
  /** Where that record lives: undefined: in the same document. A fixed document, or the field that names it. */
  readonly document: { readonly id: DocumentId } | { readonly field: string } | undefined
}

/** What the module of a `SinkSpec` exports. Rejects with `SyncError('bad_option')` when the options are wrong. */
export type OpenSink = (options: Readonly<Record<string, unknown>>, context: SinkContext) => Promise<Sink>

/** What an adapter is told when it is opened. */
export interface SinkContext {
  /** The sink's name in the config. */
  readonly name: string
  /** Target (table, index, topic …) → its fields; one for each collection unless there are projections. */
  readonly collections: Collections
  /** Targets among them whose fields are not declared (they stand there with none). */
  readonly untyped: readonly string[]
  /** Id of the log; a destination written from another refuses, unless `adopt`. */
  readonly log: string
  /** An operator said that a destination of another log is to be this one's: what lies there is refreshed. */
  readonly adopt: boolean
  readonly forward: Forward
  /** What the relay itself remembers of this sink. */
  readonly notes: SinkNotes
  /** Of `SinkSpec.functions`, wherever they run. */
  readonly functions: Readonly<Record<string, (...args: readonly unknown[]) => Promise<unknown>>>
}

/** How far a destination has come in the versions of one view. */
export interface SinkPlace {
  readonly view: string
  /** Everything up to this version is in the destination, or parked there; while it is being refreshed, only as far as `refreshed`. */
  readonly version: number
  /** Tells two histories apart that reached the same version: what `View.mark` says of it. */
  readonly mark?: string | undefined
  /** Under way with everything as of `version`: keys up to this one, null for none yet. Undefined: whole. */
  readonly refreshed?: Key | null | undefined
}

/** Whether two places are the same one, whichever way they were stored in between. Undefined is the same as undefined only. */
export function isSamePlace(a: SinkPlace | undefined, b: SinkPlace | undefined): boolean {
  if (a === undefined || b === undefined) return a === b
  return a.view === b.view && a.version === b.version && a.mark === b.mark && isSameKey(a.refreshed, b.refreshed)
}

function isSameKey(a: Key | null | undefined, b: Key | null | undefined): boolean {
  if (a === undefined || b === undefined || a === null || b === null) return a === b
  return compareKeys(a, b) === 0
}

/** Where the destination says it is, and that it is now ours. */
export interface SinkStanding {
  /** Undefined: it is new, was wiped, or was changed (a table was dropped, a column added): everything has to be written. */
  readonly place: SinkPlace | undefined
  /** The highest stamp it may carry; what is written from now on is stamped as high or higher. */
  readonly stamp: number
  readonly parked: readonly Parked[]
  /** A commit up to this version may have happened, wholly or in part, without its cursor: keys that changed since `place` are written whatever they were. Undefined in transactional sinks. */
  readonly attempted?: number | undefined
}

/** One row to write: the state of a key as of the cut, or with strategy 'actions' after `event`. null: it must not be there. */
export interface SinkRow {
  readonly key: Key
  readonly value: RecordValue | null
  /** With strategy 'actions' only; keys may then occur several times in a commit, in order. */
  readonly event?: SinkEvent | undefined
  /** With strategy 'state': what T gave as of the cursor, when that is known; undefined during a refresh. */
  readonly before?: RecordValue | null | undefined
}

/** A change, for strategy 'actions'. */
export interface SinkEvent {
  /** The same after any replay: (log, epoch, document, seq, index, revision). */
  readonly id: string
  readonly op: 'create' | 'update' | 'delete'
  readonly before: RecordValue | null
  readonly version: number
  readonly origin: {
    readonly partition: number
    readonly position: Position
    readonly epoch: number
    readonly seq: Seq
    readonly document: DocumentId
    readonly actor: string
    readonly at: number
  }
  /** Sent again because an operator rewound the sink. */
  readonly replay: boolean
}

/** A key that the destination refuses, and why. It stays parked until it is written. */
export interface Parked {
  readonly key: Key
  readonly reason: string
  /** With strategy 'actions': id of the event that was refused. Later events of the key in the same commit were not tried. */
  readonly event?: string | undefined
}

/** One transaction, or with a destination that has none, one round of deliveries. */
export interface SinkCommit {
  /** Deletes before others; each key at most once with strategy 'state'. A row is written where the stored stamp is not above `to.version`. */
  readonly rows: readonly SinkRow[]
  /** Where the forwarder believes the destination to be. */
  readonly from: SinkPlace | undefined
  readonly to: SinkPlace
  /** A repair: rows are written whatever stamp is stored. The fence holds as ever. */
  readonly force?: boolean | undefined
  /** All rows or none: when the destination refuses any, nothing is written, the place stays, and the outcome is 'refused'. With onPoison 'stop' and 'block'. */
  readonly whole?: boolean | undefined
}

/**
 * 'committed', with the keys of this commit that were refused. 'fenced': another forwarder has begun after us, never write again. 'lost': the destination is not
 * where it was left (wiped, restored, changed): begin again. With the last two nothing was written.
 */
export type SinkOutcome =
  | {
      readonly type: 'committed'
      readonly parked: readonly Parked[]
      /** Parked by earlier commits, and let in now by the destination: a child whose parent came, a unique value that became free. */
      readonly landed?: readonly Key[] | undefined
    }
  /** Only of a `whole` commit, with what was refused: at least one, of each key only the first event. A destination without transactions may have taken the others; it is not given them twice. */
  | { readonly type: 'refused'; readonly parked: readonly Parked[] }
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
  /** Present when what lies there can be read back. */
  readonly proof?: SinkProof | undefined
  /** What `begin` would change in the destination, in the destination's own words, such as DDL. Changes nothing; may be called before `begin`. */
  plan?(): Promise<readonly string[]>
  /** Removes all that Rejoin made there. */
  drop?(): Promise<void>
  close(): Promise<void>
}

/** Reading the destination back: beside whatever the forwarder does, on connections of its own, also of a sink that was opened only for this and never begun. */
export interface SinkProof {
  /** 64 bits of what the row is once it lies there: of key and columns, never of the stamp. Pure; `survey` and `rows` give the same for a row that is as it should be. */
  hash(key: Key, value: RecordValue): bigint
  /** The destination's own columns, in one snapshot together with its place. `strangers`: whether rows that Rejoin never wrote count. */
  survey(options: { readonly strangers: boolean; readonly breathe?: Breathe | undefined }): Promise<Survey>
  /** What lies there now in these buckets (digest.ts), strangers included, a page at a time. */
  rows(buckets: readonly number[], breathe?: Breathe): AsyncIterable<readonly FoundRow[]>
}

/** Awaited by whatever keeps the thread busy, after every few ms of work: others take their turn, and a proof that is nobody's hurry waits longer. */
export type Breathe = () => Promise<void>

/** A destination as of one moment, in sums: 8 bytes a bucket, however many rows there are. A bucket whose sum is not the view's holds a row that differs. */
export interface Survey {
  readonly place: SinkPlace | undefined
  /** As of the same moment, where the destination keeps them. */
  readonly parked?: readonly Parked[] | undefined
  readonly rows: number
  /** Bucket → sum of the rows' hashes, modulo 2^64. */
  readonly buckets: BigUint64Array
}

/** One row as it lies in the destination: its key, 64 bits of what `SinkProof.hash` covers, and the version it was stamped with. */
export interface FoundRow {
  readonly key: Key
  readonly hash: bigint
  /** 0: Rejoin never wrote it. */
  readonly stamp: number
}

/** With strategy 'actions' a key may come several times: what one entry of the log did is applied together, entries one after the other. */
export function groupsOf(rows: readonly SinkRow[]): readonly (readonly SinkRow[])[] {
  const groups: SinkRow[][] = []
  let version: number | undefined
  for (const row of rows) {
    const last = groups.at(-1)
    if (last === undefined || row.event?.version !== version) groups.push([row])
    else last.push(row)
    version = row.event?.version
  }
  return groups
}
