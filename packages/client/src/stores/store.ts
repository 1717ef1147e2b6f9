/**
 * The port of the device's store (step 2 of the path): updates, cursor and outbox of every document, committed together; and what every adapter owes alike. One adapter a file beside this.
 */
import type { Cursor, DocumentId, IncarnationId } from '@rejoin/shared'
import { SyncError, abortError, toSyncError } from '@rejoin/shared'
import { decodeUpdate } from 'yjs'

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
  /**
   * True when rows were found that Rejoin did not write (an app that used y-indexeddb), that cannot be read, or that are gone: the cursor is then absent. It stays so at every load until this handle commits a
   * cursor, which says that the relay has all that was loaded here; what cannot be read is then set aside inside the database, never thrown away.
   */
  readonly foreign: boolean
}

/** One transaction. All of it commits, durably, or none. Applied in the order of the fields. */
export interface Commit {
  /** Appended to the stored updates. */
  readonly updates?: readonly Uint8Array[] | undefined
  /** New or changed outbox rows. */
  readonly put?: readonly OutboxRow[] | undefined
  /** Removes the rows of the incarnation with n ≤ through, except refused ones: those stay until they are put again without `refused`, to be sent. */
  readonly acked?: readonly { readonly incarnation: IncarnationId; readonly through: number }[] | undefined
  /**
   * The cursor after `updates` and `relayUpdates`. When the stored cursor is the very same, hash included, another tab was faster: neither it nor `relayUpdates` are written. A stored cursor that is merely
   * further says nothing: the relay may have been put back to an older state since, and what follows there is another history. So the last writer's cursor stands, which is true because whatever a tab has in
   * memory is in the store by then.
   */
  readonly cursor?: Cursor | undefined
  /** Updates that came from the relay, up to `cursor`. Without a cursor they are always written. */
  readonly relayUpdates?: readonly Uint8Array[] | undefined
}

/** What another tab of this device tells after its transaction completed. */
export interface Notice {
  readonly document: DocumentId
  /** Edits made in that tab (`Commit.updates`), to be shown here. */
  readonly updates: readonly Uint8Array[]
  /** Incarnations whose outbox changed. */
  readonly incarnations: readonly IncarnationId[]
}

/** What `status.storage.name` says while the store works. 'ephemeral': persistent but the platform may evict it. */
export type Durability = 'durable' | 'ephemeral' | 'memory'

/** A document with outbox rows. */
export interface Pending {
  readonly document: DocumentId
  /** Rows that wait to be sent or acknowledged. */
  readonly rows: number
  /** Rows in quarantine. */
  readonly refused: number
}

/** Opened once per client. Rejects with SyncError `store_in_use` or `store_failed`. */
export interface Store {
  readonly durability: Durability
  /** The document's rows. A fresh handle; the client opens each document at most once at a time. */
  open(document: DocumentId): Promise<DocumentStore>
  /** Documents with outbox rows, open or not: the outbox of the whole device. */
  pending(): Promise<readonly Pending[]>
  /** Tells of other tabs' commits on any document; returns the unsubscribe. A store of one process never calls it. */
  watch(listener: (notice: Notice) => void): () => void
  /** Commits what was asked for, then closes every document. */
  close(): Promise<void>
}

export interface DocumentStore {
  /** `verify` decodes every row instead of the foreign ones only: for the second try when applying a row threw. */
  load(options?: { readonly verify?: boolean | undefined }): Promise<Loaded>
  /**
   * Resolves when the transaction is as durable as `Store.durability` says. Calls commit in the order made. Rejects with SyncError `store_failed` (with the cause) and then nothing was written, neither of it nor
   * of the calls made after it and before the rejection: what is on the disk is always a prefix.
   */
  commit(commit: Commit): Promise<void>
  /**
   * Holds an incarnation for as long as this process or tab lives, or until the returned release or `close` is called. Resolves when it is held: at once for a new one, or when the tab that held it is gone.
   * Rejects with `aborted` when the signal fires first.
   */
  hold(incarnation: IncarnationId, signal: AbortSignal): Promise<() => void>
  /** Reads the outbox again: after a Notice, or after `hold` of another tab's incarnation. */
  outbox(): Promise<readonly OutboxRow[]>
  /** Folds the stored updates into one where there are at least `rows` of them (default `TRIM_ROWS`). Returns at once when another tab trims. Rows that are not ours, or not readable, are left alone. */
  trim(fold: (updates: Uint8Array[]) => Uint8Array, rows?: number): Promise<void>
  /** Commits what was asked for, and releases what it holds. */
  close(): Promise<void>
}

/** Makes a store when the client starts: what `indexeddb()`, `sqlite({ path })` and `memory()` return. */
export interface StoreFactory {
  readonly name: string
  open(): Promise<Store>
}

/** From this many rows of a document on, folding them is worth a transaction. y-indexeddb uses the same number. */
export const TRIM_ROWS = 500

/** Whether `stored` is `next` already: then another tab was faster (see `Commit.cursor`). */
export function isStored(next: Cursor, stored: Cursor | undefined): boolean {
  return (
    stored !== undefined &&
    stored.seq === next.seq &&
    stored.hash === next.hash &&
    stored.lineage === next.lineage &&
    stored.epoch === next.epoch
  )
}

/** Whether a stored value is a Yjs update that decodes. */
export function isReadable(value: unknown): value is Uint8Array {
  if (!(value instanceof Uint8Array)) return false
  try {
    decodeUpdate(value)
    return true
  } catch {
    return false
  }
}

/** The notice of a transaction of several commits, or undefined when other tabs need not know. */
export function noticeOf(document: DocumentId, commits: readonly Commit[]): Notice | undefined {
  const updates = commits.flatMap((commit) => commit.updates ?? [])
  const incarnations = new Set<IncarnationId>()
  for (const { put, acked } of commits) {
    for (const row of put ?? []) incarnations.add(row.incarnation)
    for (const range of acked ?? []) incarnations.add(range.incarnation)
  }
  return updates.length === 0 && incarnations.size === 0 ? undefined : { document, updates, incarnations: [...incarnations] }
}

/** The error of a store's failure, with its cause. */
export function storeFailed(what: string, cause: unknown): SyncError {
  if (cause instanceof SyncError) return cause
  return new SyncError('store_failed', `${what}: ${toSyncError(cause).reason}`, { cause })
}

/** Commits that wait for the transaction under way, and become the next one. */
export interface CommitQueue<T> {
  add(item: T): Promise<void>
  /** Resolves when nothing waits. */
  idle(): Promise<void>
}

/** Items in one transaction: so many that the cost of a transaction is shared, so few that it ends. */
const BATCH = 1000
/** Items that may wait. An edit is a row of some hundred bytes; a disk that is this far behind does not work. */
const BACKLOG = 100_000

/**
 * Group commit: what is added while `write` runs is written by the next `write`, in order. When one fails, it and all that waits are rejected.
 * `start` says when the first of a burst begins: at once unless given.
 */
export function createCommitQueue<T>(
  write: (items: readonly T[]) => Promise<void>,
  start: (run: () => void) => void = (run) => run(),
): CommitQueue<T> {
  let waiting: { readonly item: T; readonly resolve: () => void; readonly reject: (error: unknown) => void }[] = []
  let running = false
  const onIdle: (() => void)[] = []

  async function drain(): Promise<void> {
    while (waiting.length > 0) {
      const batch = waiting.splice(0, BATCH)
      try {
        await write(batch.map(({ item }) => item))
        for (const { resolve } of batch) resolve()
      } catch (error) {
        const lost = [...batch, ...waiting]
        waiting = []
        for (const { reject } of lost) reject(error)
      }
    }
    running = false
    for (const resolve of onIdle.splice(0)) resolve()
  }

  return {
    add: (item) =>
      new Promise((resolve, reject) => {
        if (waiting.length >= BACKLOG) return reject(new SyncError('store_failed', `${BACKLOG} commits wait for the device's store`))
        waiting.push({ item, resolve, reject })
        if (running) return
        running = true
        start(() => void drain())
      }),
    idle: () => (running ? new Promise((resolve) => onIdle.push(resolve)) : Promise.resolve()),
  }
}

/** Who holds what inside one process: Web Locks for stores that have one process only. */
export interface Holds {
  /** As `DocumentStore.hold`. */
  hold(name: string, signal: AbortSignal): Promise<() => void>
}

/** An empty table of holds. */
export function createHolds(): Holds {
  /** Held names → who waits, in order. */
  const held = new Map<string, (() => void)[]>()

  function release(name: string): void {
    const next = held.get(name)?.shift()
    if (next === undefined) held.delete(name)
    else next()
  }

  return {
    hold: (name, signal) =>
      new Promise((resolve, reject) => {
        if (signal.aborted) return reject(abortError(signal))
        let over = false
        const granted = (): void => {
          signal.removeEventListener('abort', aborted)
          resolve(() => {
            if (!over) release(name)
            over = true
          })
        }
        const waiters = held.get(name)
        const aborted = (): void => {
          const at = waiters?.indexOf(granted) ?? -1
          if (at >= 0) waiters?.splice(at, 1)
          reject(abortError(signal))
        }
        if (waiters === undefined) {
          held.set(name, [])
          return granted()
        }
        waiters.push(granted)
        signal.addEventListener('abort', aborted, { once: true })
      }),
  }
}
