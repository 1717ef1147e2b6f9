/**
 * What the relay's thread and the forwarding worker say to each other (steps 7 and 8 of the path). Plain data only.
 */
import type { Position, Schema } from '@rejoin/shared'
import type { SinkSpec } from '../sinks/sink.ts'
import type { SinkStatus } from './forwarder.ts'
import type { SlowDocument } from '../view/turns.ts'
import type { DocumentState, Misfit } from '../view/view.ts'

/** What the worker is started with. */
export interface WorkerSetup {
  /** Folder of the log's files. */
  readonly logDirectory: string
  /** The view's file. */
  readonly viewPath: string
  readonly schema: Schema
  readonly sinks: Readonly<Record<string, SinkSpec>>
  /** Set to 1 by a poke, back to 0 by the worker before it looks: many pokes are one message. */
  readonly poked: Int32Array
  /** Where the worker tells which document it works on. */
  readonly turn: SharedArrayBuffer
  /** What the workers before it were ended for and could not remember themselves. */
  readonly slow: readonly SlowDocument[]
}

/** To the worker. */
export type Ask = { readonly type: 'poke' } | { readonly type: 'status'; readonly id: number } | { readonly type: 'close' }

/** From the worker. 'ready' once, 'status' for each ask, 'closed' last. */
export type Tell =
  | { readonly type: 'ready' }
  | { readonly type: 'status'; readonly id: number; readonly status: WorkerStatus }
  | { readonly type: 'closed' }

/** What the worker knows of itself. */
export interface WorkerStatus {
  readonly view: ViewStatus
  readonly sinks: Readonly<Record<string, SinkStatus>>
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
