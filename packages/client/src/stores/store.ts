/**
 * The port of the device's store (step 2 of the path): updates, cursor and outbox of every document, committed together. One adapter a file beside this.
 */
import type { Cursor, DocumentId, IncarnationId } from '@rejoin/shared'

/** An edit that the relay has not acknowledged: exactly the bytes that its local transaction emitted. */
export interface OutboxRow {
  readonly incarnation: IncarnationId
  /** 1, 2, 3 … within the incarnation. */
  readonly n: number
  readonly update: Uint8Array
  /** Set when the relay refused it for good: the row is in quarantine and is never sent. */
  readonly refused?: { readonly code: string; readonly message: string; readonly at: number } | undefined
}

/** All a device holds of one document. */
export interface Loaded {
  /** Every stored update, in any order; applying all of them gives the replica. */
  readonly updates: readonly Uint8Array[]
  /** Of the stored updates. Absent when there is none or when it cannot be trusted. */
  readonly cursor?: Cursor | undefined
  /** Rows of every incarnation, ordered by incarnation and n. */
  readonly outbox: readonly OutboxRow[]
  /** True when rows were found that Rejoin did not write (an app that used y-indexeddb) or that could not be read: the cursor is then absent. */
  readonly foreign: boolean
}

/** One transaction. All of it commits, durably, or none. */
export interface Commit {
  /** Appended to the stored updates. */
  readonly updates?: readonly Uint8Array[] | undefined
  /** New or changed outbox rows. */
  readonly put?: readonly OutboxRow[] | undefined
  /** Removes the rows of the incarnation with n ≤ through. */
  readonly acked?: readonly { readonly incarnation: IncarnationId; readonly through: number }[] | undefined
  /** Removes one row: a discarded quarantined edit. */
  readonly discard?: { readonly incarnation: IncarnationId; readonly n: number } | undefined
  /**
   * The cursor after `updates`. When the stored cursor has the same lineage and epoch and is already at or beyond it, another tab was faster: neither it nor `relayUpdates` are written.
   */
  readonly cursor?: Cursor | undefined
  /** Updates that came from the relay, up to `cursor`. */
  readonly relayUpdates?: readonly Uint8Array[] | undefined
}

/** What another tab of this device tells after its transaction completed. */
export interface Notice {
  readonly document: DocumentId
  /** Edits made in that tab, to be shown here. */
  readonly updates: readonly Uint8Array[]
  /** Incarnations whose outbox changed. */
  readonly incarnations: readonly IncarnationId[]
}

/** What `status.storage.name` says while the store works. 'ephemeral': persistent but the platform may evict it. */
export type Durability = 'durable' | 'ephemeral' | 'memory'

/** Opened once per client. Rejects with SyncError `store_in_use` or `store_failed`. */
export interface Store {
  readonly durability: Durability
  /** The document's rows. A fresh handle; the client opens each document at most once at a time. */
  open(document: DocumentId): Promise<DocumentStore>
  /** Documents with outbox rows, with their counts (quarantined rows apart), open or not: the outbox of the whole device. */
  pending(): Promise<readonly { readonly document: DocumentId; readonly rows: number; readonly refused: number }[]>
  /** Tells of other tabs' commits on any document; returns the unsubscribe. A store of one process never calls it. */
  watch(listener: (notice: Notice) => void): () => void
  close(): Promise<void>
}

export interface DocumentStore {
  load(): Promise<Loaded>
  /** Resolves when the transaction is as durable as `Store.durability` says. Calls commit in the order made. Rejects with SyncError `store_failed` (with the cause) and then nothing was written. */
  commit(commit: Commit): Promise<void>
  /**
   * Holds an incarnation for as long as this process or tab lives, or until the returned release is called. Resolves when it is held: at once for a new one, or when the tab that held it is gone.
   * Rejects with `aborted` when the signal fires first.
   */
  hold(incarnation: IncarnationId, signal: AbortSignal): Promise<() => void>
  /** Reads the outbox again: after a Notice, or after `hold` of another tab's incarnation. */
  outbox(): Promise<readonly OutboxRow[]>
  /** Folds the stored updates into one: called by the replica when there are many. Returns at once when another tab trims. */
  trim(fold: (updates: readonly Uint8Array[]) => Uint8Array): Promise<void>
  close(): Promise<void>
}

/** Makes a store when the client starts: what `indexeddb()`, `sqlite({ path })` and `memory()` return. */
export interface StoreFactory {
  readonly name: string
  open(): Promise<Store>
}
