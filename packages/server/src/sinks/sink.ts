/**
 * The port of a sink (step 8 of the path): one destination that the forwarder keeps equal to the view. One adapter a file beside this.
 */
import type { CollectionSchema } from '@rejoin/shared'
import type { Key, RecordValue } from '../view/view.ts'

/** What a config says of a sink: data only, so that it can cross to the worker that runs it. `module` exports `openSink(options, context)`. */
export interface SinkSpec {
  /** `import.meta.url` of the adapter's module. */
  readonly module: string
  /** Plain data, given to `openSink`. */
  readonly options: Readonly<Record<string, unknown>>
}

/** What an adapter is told when it is opened. */
export interface SinkContext {
  /** The sink's name in the config. */
  readonly name: string
  readonly collections: Readonly<Record<string, CollectionSchema>>
  /** Id of the log; a destination written from another refuses. */
  readonly log: string
}

/** Where the destination says it is. `fence` grows at each `begin`; the holder of the highest may write. */
export interface SinkCursor {
  readonly version: number
  readonly fence: number
}

/** The state of one key as of the cut: null means that it must not be there. */
export interface SinkRow {
  readonly key: Key
  readonly value: RecordValue | null
}

/** One destination. Called by the forwarder only, one call at a time. */
export interface Sink {
  /** Prepares the destination (additive migrations), takes a new fence, and tells the stored cursor. */
  begin(): Promise<SinkCursor>
  /**
   * Writes the rows stamped `cut` and moves the cursor from `from` to `cut` in one transaction, provided that the fence is still ours and the cursor still `from`.
   * 'lost': another forwarder has taken over or the cursor is elsewhere; nothing was written.
   */
  commit(rows: readonly SinkRow[], from: number, cut: number): Promise<'committed' | 'lost'>
  close(): Promise<void>
}

/** What the module of a `SinkSpec` exports. */
export type OpenSink = (options: Readonly<Record<string, unknown>>, context: SinkContext) => Promise<Sink>
