/**
 * Documents on this device that nobody has open here but whose edits are not sent (step 2 of the path): counted, and opened in the background when their tab is gone.
 */
import { SyncError, backoff, toSyncError } from '@rejoin/shared'
import type { Clock, DocumentId, Random } from '@rejoin/shared'
import type { DocumentStore, Store } from './stores/store.ts'
import { Gate } from './waits.ts'

export interface TendingHost {
  /** Whether a replica of the document lives in this client. */
  isOpen(document: DocumentId): boolean
  /** Open a replica that nobody looks at: it sends what nobody holds, and closes. */
  open(document: DocumentId): void
  changed(): void
  /** The store could not be read; undefined: it can be again. */
  trouble(error: SyncError | undefined): void
}

/** Replicas opened in the background at once. */
const AT_ONCE = 8

interface Counted {
  readonly rows: number
  readonly refused: number
}

export class Tending {
  readonly #store: Promise<Store>
  readonly #host: TendingHost
  #isClosed = false
  readonly #begun = new Gate()
  /** By the store's last count. */
  #counts = new Map<DocumentId, Counted>()
  /** Documents whose holders are waited for, with the way to end that. */
  readonly #watched = new Map<DocumentId, { readonly stop: () => void; readonly stopped: Promise<void> }>()
  readonly #opened = new Set<DocumentId>()
  /** Documents that were opened in the background once: what is left, if anything, waits behind a refused edit. */
  readonly #parked = new Set<DocumentId>()
  readonly #clock: Clock
  readonly #random: Random
  #counting = false
  #stale = false
  /** Counts that failed in a row. */
  #attempt = 0
  #cancel: (() => void) | undefined

  constructor(store: Promise<Store>, clock: Clock, random: Random, host: TendingHost) {
    this.#store = store
    this.#clock = clock
    this.#random = random
    this.#host = host
  }

  /** Edits that wait in documents that have no replica here. */
  get rows(): number {
    return this.#sum('rows')
  }

  get refused(): number {
    return this.#sum('refused')
  }

  /** Why edits of a closed document cannot be sent. */
  get parked(): SyncError | undefined {
    if (this.#isClosed) return closedError()
    for (const document of this.#parked) {
      const { rows, refused } = this.#counts.get(document) ?? { rows: 0, refused: 0 }
      if (rows === 0 || this.#host.isOpen(document)) continue
      const why = refused > 0 ? 'wait behind one that was refused' : 'cannot be read'
      return new SyncError(refused > 0 ? 'limit' : 'store_failed', `edits of "${document}" ${why}: open it`)
    }
    return undefined
  }

  /** Resolves after the first count. */
  begun(signal: AbortSignal | undefined): Promise<void> {
    return this.#begun.wait(signal)
  }

  /** Another tab committed something. */
  notice(document: DocumentId): void {
    this.#parked.delete(document)
    this.#recount()
  }

  /** Counts: at first, and again in case somebody died before telling. */
  look(): void {
    this.#recount()
  }

  /** A replica of the document is about to be opened: the store's handle on it must be free. */
  async yield(document: DocumentId): Promise<void> {
    const watch = this.#watched.get(document)
    watch?.stop()
    await watch?.stopped
  }

  /** A replica of the document has closed, and this was left. */
  left(document: DocumentId, counted: Counted): void {
    this.#counts.set(document, counted)
    if (this.#opened.delete(document)) this.#parked.add(document)
    this.#recount()
  }

  close(): void {
    this.#isClosed = true
    this.#cancel?.()
    this.#begun.fail(closedError())
    for (const { stop } of this.#watched.values()) stop()
  }

  #sum(key: keyof Counted): number {
    let sum = 0
    for (const [document, counted] of this.#counts) if (!this.#host.isOpen(document)) sum += counted[key]
    return sum
  }

  #recount(): void {
    this.#stale = true
    if (!this.#counting) void this.#count()
  }

  async #count(): Promise<void> {
    this.#counting = true
    let store: Store | undefined
    try {
      store = await this.#store
      while (this.#stale && !this.#isClosed) {
        this.#stale = false
        const counts = await store.pending()
        this.#counts = new Map(counts.map(({ document, rows, refused }) => [document, { rows, refused }]))
        // Nothing is left that waits behind a refused edit: what comes next is tended.
        for (const document of this.#parked) if (!this.#counts.has(document)) this.#parked.delete(document)
        if (this.#attempt > 0) this.#host.trouble(undefined)
        this.#attempt = 0
        this.#begun.open()
        this.#host.changed()
        this.#tend(store)
      }
    } catch (thrown) {
      this.#failed(store, toSyncError(thrown, 'store_failed'))
    } finally {
      this.#counting = false
    }
  }

  /** What was counted before stands, and the store is asked again. */
  #failed(store: Store | undefined, error: SyncError): void {
    if (this.#isClosed) return
    this.#begun.fail(error)
    // It could not even be opened, which is told where it was tried.
    if (store === undefined) return
    this.#host.trouble(error)
    this.#cancel?.()
    this.#cancel = this.#clock.after(1000 + backoff(this.#attempt, this.#random, { cap: 60_000 }), () => this.#recount())
    this.#attempt += 1
  }

  #tend(store: Store): void {
    if (this.#isClosed) return
    for (const [document, { rows }] of this.#counts) {
      if (rows === 0 || this.#host.isOpen(document) || this.#watched.has(document) || this.#parked.has(document)) continue
      if (this.#watched.size + this.#opened.size >= AT_ONCE) return
      this.#watch(store, document)
    }
  }

  /** Waits until an incarnation of the document is free, without building the document. */
  #watch(store: Store, document: DocumentId): void {
    const abort = new AbortController()
    const { signal } = abort
    const stopped = this.#awaitFree(store, document, signal).then((free) => {
      this.#watched.delete(document)
      if (free && !signal.aborted && !this.#host.isOpen(document)) {
        this.#opened.add(document)
        this.#host.open(document)
      }
    })
    this.#watched.set(document, { stop: () => abort.abort(), stopped })
  }

  async #awaitFree(store: Store, document: DocumentId, signal: AbortSignal): Promise<boolean> {
    let rows: DocumentStore | undefined
    try {
      const opened = await store.open(document)
      rows = opened
      const incarnations = new Set((await opened.outbox()).map(({ incarnation }) => incarnation))
      const release = await Promise.any([...incarnations].map((incarnation) => opened.hold(incarnation, signal)))
      release()
      return true
    } catch {
      // Aborted, or nothing is left, or the store fails: a replica that is opened says so in its status.
      return false
    } finally {
      // What it does not say by closing, it says when it is opened.
      await rows?.close().catch(() => undefined)
    }
  }
}

/** Who asks comes too late. */
export function closedError(): SyncError {
  return new SyncError('closed', 'the client is closed')
}
