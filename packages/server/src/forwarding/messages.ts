/**
 * What the relay's thread and the forwarding worker say to each other (steps 7 and 8 of the path). Plain data only.
 */
import type { Position, Schema } from '@rejoin/shared'
import type { SelectInput } from '../projection/select.ts'
import type { SlowDocument } from '../view/turns.ts'
import type { DocumentState, Misfit } from '../view/view.ts'
import type { Outcome } from './calls.ts'
import type { ChangesRequest } from './changes.ts'
import type { SinkCommand, SinkReport } from './commands.ts'
import type { SlowSelect } from './guard.ts'
import type { PlainSpec } from './plain.ts'
import type { AwaitAsk, AwaitTell } from './rungs.ts'

/** What the worker is started with. */
export interface WorkerSetup {
  /** Folder of the log's files. */
  readonly logDirectory: string
  /** The view's file. What the relay remembers of its sinks lies beside it. */
  readonly viewPath: string
  readonly schema: Schema
  /** Without their functions. */
  readonly sinks: Readonly<Record<string, PlainSpec>>
  /** The file that has the functions; undefined: the other thread has them. */
  readonly config: string | undefined
  /** How long versions are kept, in ms. */
  readonly historyMs: number
  /** Set to 1 by a poke, back to 0 by the worker before it looks: many pokes are one message. */
  readonly poked: Int32Array
  /** Where the worker tells which document it works on. */
  readonly turn: SharedArrayBuffer
  /** Where it tells which record a select function of the config file is busy with. */
  readonly selectTurn: SharedArrayBuffer
  /** What the workers before it were ended for and could not remember themselves. */
  readonly slow: readonly SlowDocument[]
  readonly slowSelects: readonly SlowSelect[]
}

/** To the worker. What has an id is answered by 'reply'. */
export type Ask =
  | { readonly type: 'poke' }
  | { readonly type: 'status'; readonly id: number }
  | { readonly type: 'command'; readonly id: number; readonly sink: string; readonly command: SinkCommand }
  | { readonly type: 'changes'; readonly id: number; readonly request: ChangesRequest }
  /** Nobody waits for the answer any more. */
  | { readonly type: 'cancel'; readonly id: number }
  | AwaitAsk
  /** Answers a 'call'. */
  | { readonly type: 'called'; readonly id: number; readonly outcome: Outcome }
  | { readonly type: 'close' }

/** From the worker. 'ready' once, 'closed' last. */
export type Tell =
  | { readonly type: 'ready' }
  | { readonly type: 'reply'; readonly id: number; readonly outcome: Outcome }
  | AwaitTell
  /** Functions that this thread does not have. */
  | { readonly type: 'call'; readonly id: number; readonly call: FunctionCall }
  /** The signal given to the call was aborted. */
  | { readonly type: 'abort'; readonly id: number }
  /** For whoever runs the relay. */
  | { readonly type: 'warning'; readonly message: string }
  | { readonly type: 'closed' }

/** A call of what an application gave: the select function of a projection for many records, or a function by name. */
export type FunctionCall =
  | { readonly type: 'select'; readonly sink: string; readonly projection: number; readonly inputs: readonly SelectInput[] }
  /** `signals`: where an AbortSignal stood: [index of the argument, name of its property or null]. */
  | {
      readonly type: 'function'
      readonly sink: string
      readonly name: string
      readonly args: readonly unknown[]
      readonly signals: readonly (readonly [index: number, property: string | null])[]
    }

/** What the worker knows of itself. */
export interface WorkerStatus {
  readonly view: ViewStatus
  readonly sinks: Readonly<Record<string, SinkReport>>
}

/** What to know about the view. */
export interface ViewStatus {
  /** 'starting': taking stock of every document · 'current': has projected all it has heard of · 'failing': `error` says why, it tries again. */
  readonly state: 'starting' | 'projecting' | 'current' | 'failing' | 'stopped'
  /** The highest version a sink can be at. */
  readonly version: number
  /** Partition → position up to which entries were projected. Entries behind it are still needed. */
  readonly positions: Readonly<Record<number, Position>>
  /** Documents whose records are not up to date, and why. */
  readonly parked: { readonly total: number; readonly first: readonly DocumentState[] }
  /** Records and fields that do not fit the schema. */
  readonly misfits: { readonly total: number; readonly first: readonly Misfit[] }
  readonly error?: string | undefined
}
