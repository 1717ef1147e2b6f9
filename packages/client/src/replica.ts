/**
 * One document on this device (steps 1 to 3 of the path), shared by all its handles: loads it, captures its edits, commits them, and hands them to the exchange.
 */
import { SyncError, createReadable, newIncarnationId, toSyncError } from '@rejoin/shared'
import type { DocumentId, IncarnationId, Readable } from '@rejoin/shared'
import * as Y from 'yjs'
import { Adoption } from './adoption.ts'
import type { Batch } from './capture.ts'
import { Capture, ORIGINS, applyUpdates, foldUpdates, isAtRest } from './capture.ts'
import { Commits } from './commits.ts'
import { loadDocument } from './load.ts'
import type { Line, LineHost, Whereabouts } from './network.ts'
import { Outbox } from './outbox.ts'
import { PresenceChannel } from './presence.ts'
import { brokenError, closedError, refusedError } from './reasons.ts'
import type { Progress, ReplicaOptions } from './replica-options.ts'
import type { ConnectionStatus, Status, StorageStatus } from './status.ts'
import { quietStatus, sameStatus } from './status.ts'
import type { DocumentStore, Loaded, Notice, OutboxRow } from './stores/store.ts'
import type { WaitOptions } from './waits.ts'
import { Gate, Waits, rungOf } from './waits.ts'

/** Rows that make it worth asking the store for a trim; it goes by its own count. */
const TRIM_AFTER = 500

/** One document on this device. Applications see it through handles (handle.ts). */
export class SharedReplica {
  readonly document: DocumentId
  readonly ydoc: Y.Doc
  readonly incarnation: IncarnationId
  readonly outbox: Outbox = new Outbox()
  readonly presence: PresenceChannel
  readonly loaded: Gate = new Gate()
  readonly synced: Gate = new Gate()
  readonly status: Readable<Status>
  readonly progress: Readable<Progress | undefined>
  whereabouts: Whereabouts | undefined
  /** Whether `ydoc` was destroyed: there will be no more edits, what is pending is still sent. */
  isDestroyed = false
  readonly #options: ReplicaOptions
  readonly #line: Line
  readonly #commits: Commits
  readonly #capture: Capture
  readonly #local = new Waits()
  readonly #relay = new Waits()
  readonly #setStatus: (status: Status) => void
  readonly #setProgress: (progress: Progress | undefined) => void
  readonly #abort = new AbortController()
  readonly #unsubscribe: () => void
  #store: DocumentStore | undefined
  #adoption: Adoption | undefined
  #storage: StorageStatus = { name: 'memory', reason: 'the store is being opened' }
  #working: StorageStatus = this.#storage
  #storeError: SyncError | undefined
  /** Yjs failed on the document: this replica takes and exchanges nothing more. */
  #broken: { readonly error: SyncError; readonly connection: ConnectionStatus } | undefined
  /** Last number given to an edit, last one in the store, last one in the outbox. */
  #last = 0
  #committed = 0
  #offered = 0
  #isNew = true
  #rows = 0
  #isNoticed = false
  #closing: Promise<void> | undefined
  readonly #loading: Promise<void>

  constructor(options: ReplicaOptions) {
    const { document, clock, random, randomBytes, network } = options
    this.#options = options
    this.document = document
    this.ydoc = new Y.Doc()
    // Never a stored client id: two documents that write under one diverge for ever.
    this.ydoc.clientID = new DataView(randomBytes(4).slice().buffer).getUint32(0)
    this.incarnation = newIncarnationId(randomBytes)
    const status = createReadable<Status>(quietStatus(network.status.get(), this.#storage))
    this.status = status.readable
    this.#setStatus = status.set
    const progress = createReadable<Progress | undefined>(undefined)
    this.progress = progress.readable
    this.#setProgress = progress.set
    this.#commits = new Commits(clock, random, {
      committed: (rows) => this.#onCommitted(rows),
      uncommitted: (rows, error) => this.#onUncommitted(rows, error),
      recovered: () => this.#onRecovered(),
    })
    this.#capture = new Capture(this.ydoc, {
      edit: (update) => this.#onEdit(update),
      pending: (update) => this.#commits.add({ updates: [update] }),
      broken: () => this.#onBroken(),
    })
    this.#line = network.join(this.#host())
    this.presence = new PresenceChannel(this.ydoc, clock, (awareness) => this.#line.announce(awareness))
    this.#unsubscribe = network.status.subscribe(() => this.#changed())
    this.ydoc.on('destroy', () => {
      this.isDestroyed = true
      options.onChange()
    })
    this.outbox.admit(this.incarnation, true, 0)
    this.#loading = this.#load()
  }

  /** The batch that an edit made now is part of, and its number when it has none yet. */
  get batch(): { readonly batch: Batch; readonly next: number } {
    return { batch: this.#capture.batch, next: this.#last + 1 }
  }

  /** Runs a change of the application. */
  transact<T>(change: () => T): T {
    return this.#capture.transact(change)
  }

  /** Throws unless edits may be made. */
  assertEditable(): void {
    if (this.#broken !== undefined) throw this.#broken.error
    if (this.#closing !== undefined || this.isDestroyed) throw closedError(this.document)
    if (this.loaded.isOpen) return
    throw this.loaded.error ?? new SyncError('not_loaded', `the replica of "${this.document}" is not loaded yet`)
  }

  /** Waits for one edit of this incarnation. */
  async wait(incarnation: IncarnationId, n: number, options?: WaitOptions): Promise<void> {
    const to = rungOf(options)
    const signal = options?.signal
    if (to.startsWith('sink:')) {
      await this.wait(incarnation, n, { signal })
      // Whoever is asked where edits are comes with the first connection.
      await this.synced.wait(signal)
      return this.whereabouts?.reach(to, incarnation, n, signal)
    }
    if (this.#closing !== undefined) throw closedError(this.document)
    const acked = this.outbox.ackedOf(incarnation)
    if (n <= acked) return undefined
    if (to === 'local') {
      if (incarnation !== this.incarnation || n <= this.#committed) return undefined
      if (this.#storeError !== undefined) throw this.#storeError
      return this.#local.wait(incarnation, n, signal)
    }
    const refused = this.outbox.refusedOf(incarnation, n)
    if (refused !== undefined) throw refusedError(refused, n)
    if (this.#line.isReplaced) throw new SyncError('replaced', `"${this.document}" was deleted or reset`)
    if (this.#broken !== undefined) throw this.#broken.error
    return this.#relay.wait(incarnation, n, signal)
  }

  /** Waits for every edit so far, those of tabs that are gone included. */
  async waitAll(options: WaitOptions): Promise<void> {
    // Before that nobody knows what an earlier life left in the outbox.
    if (!this.loaded.isOpen) await this.loaded.wait(options.signal)
    const ends = new Map([[this.incarnation, this.#last]])
    for (const { incarnation, n } of this.outbox.rows()) ends.set(incarnation, Math.max(n, ends.get(incarnation) ?? 0))
    await Promise.all([...ends].map(([incarnation, n]) => this.wait(incarnation, n, options)))
  }

  /** Another tab committed. */
  notice({ updates, incarnations }: Notice): void {
    if (this.#closing !== undefined || this.#broken !== undefined) return
    if (updates.length > 0) {
      this.#isNew = false
      applyUpdates(this.ydoc, updates, ORIGINS.store, false)
    }
    this.#isNoticed = true
    if (incarnations.length > 0) this.#adoption?.reread()
  }

  /** Another tab may have died between its commit and its notice. */
  look(): void {
    this.#adoption?.reread()
  }

  /** Sends a refused edit again, for example after a limit was raised. Returns whether there is one. */
  retry(incarnation: IncarnationId, n: number): boolean {
    const row = this.outbox.retry(incarnation, n)
    if (row === undefined) return false
    this.#commits.add({ put: [row] })
    this.#line.want()
    this.#changed()
    return true
  }

  /** Whether nothing is left to do once nobody looks at it. What waits behind a refused edit is not waited for. */
  get isIdle(): boolean {
    if (this.loaded.error !== undefined) return true
    const isCommitted =
      this.loaded.isOpen && this.#offered === this.#last && (this.#storeError !== undefined || this.status.get().pending.local === 0)
    return isCommitted && (this.#broken !== undefined || ((this.#adoption?.elsewhere ?? 0) === 0 && this.outbox.count().free === 0))
  }

  /** Ends it: what was made so far is committed first. */
  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    this.#capture.end()
    this.#line.end()
    this.presence.destroy()
    await this.#loading
    await this.#commits.close()
    this.#abort.abort()
    this.#unsubscribe()
    const error = closedError(this.document)
    for (const waits of [this.#local, this.#relay]) waits.end(error)
    for (const gate of [this.loaded, this.synced]) gate.fail(error)
    await this.#store?.close()
    this.#changed()
  }

  #host(): LineHost {
    const isNew = (): boolean => this.#isNew
    return {
      document: this.document,
      ydoc: this.ydoc,
      outbox: this.outbox,
      get isNew() {
        return isNew()
      },
      commit: (commit) => {
        this.#rows += (commit.updates?.length ?? 0) + (commit.relayUpdates?.length ?? 0)
        this.#commits.add(commit)
      },
      acked: (incarnation, n) => this.#onAcked(incarnation, n),
      refused: (row) => {
        this.#relay.failed(row.incarnation, row.n, refusedError(row, row.n))
        this.#changed()
      },
      presence: (awareness) => this.presence.receive(awareness),
      present: (online) => {
        this.presence[online ? 'online' : 'offline']()
        if (!online) this.synced.shut()
      },
      caughtUp: () => this.synced.open(),
      replaced: (error) => {
        this.synced.fail(error)
        this.#relay.end(error)
      },
      progress: (progress) => this.#setProgress(progress),
      met: (whereabouts) => {
        this.whereabouts = whereabouts
      },
      changed: () => this.#changed(),
    }
  }

  async #load(): Promise<void> {
    try {
      const store = await this.#options.store
      this.#store = await store.open(this.document)
      await this.#store.hold(this.incarnation, this.#abort.signal)
      const { updates, outbox, cursor } = await loadDocument(this.#store, this.ydoc)
      this.#capture.loaded()
      this.#storage = this.#working = { name: store.durability }
      this.#rows = updates.length
      if (updates.length > 0) this.#isNew = false
      this.#commits.attach(this.#store)
      this.#adoption = new Adoption(this.#store, this.outbox, this.#abort.signal, {
        adopted: (rows) => this.#onAdopted(rows),
        changed: () => this.#changed(),
        trouble: (thrown) => this.#storeTrouble(thrown),
      })
      this.#adoption.count(outbox)
      if (!isAtRest(this.ydoc)) this.#onBroken()
      if (this.#broken !== undefined) return this.#changed()
      this.#adoption.meet(outbox)
      // What another tab told while this one was reading may not be in what it read.
      if (this.#isNoticed) this.#adoption.reread()
      this.#begin(cursor)
    } catch (thrown) {
      this.#loadFailed(toSyncError(thrown, 'store_failed'))
    }
  }

  #begin(cursor: Loaded['cursor']): void {
    if (this.#closing !== undefined || this.#broken !== undefined) return
    this.loaded.open()
    this.#line.begin(cursor)
    this.#changed()
  }

  /** Another process owns the store: going on in memory would hide that. Anything else: better in memory than not at all, and status says so. */
  #loadFailed(error: SyncError): void {
    if (this.#closing !== undefined) return
    this.#storeError = error
    this.#storage = { name: 'failed', reason: error.reason }
    this.#local.end(error)
    this.#commits.abandon(error)
    if (error.code === 'store_in_use') {
      for (const gate of [this.loaded, this.synced]) gate.fail(error)
      this.#changed()
    } else {
      this.#begin(undefined)
    }
  }

  /** What was made so far is committed, and stays in the store. */
  #onBroken(): void {
    if (this.#closing !== undefined || this.#broken !== undefined) return
    const error = brokenError(this.document)
    this.#broken = { error, connection: { name: 'closed', reason: error.reason } }
    this.#capture.refuse(error)
    this.#line.end()
    this.presence.offline()
    this.#relay.end(error)
    this.synced.shut()
    for (const gate of [this.loaded, this.synced]) gate.fail(error)
    this.#changed()
  }

  #onEdit(update: Uint8Array): number {
    this.#last += 1
    this.#rows += 1
    this.#commits.add({ updates: [update], put: [{ incarnation: this.incarnation, n: this.#last, update }] })
    this.#changed()
    return this.#last
  }

  #onCommitted(rows: readonly OutboxRow[]): void {
    const end = this.#offer(rows)
    if (end > 0) {
      this.#committed = Math.max(this.#committed, end)
      this.#local.reached(this.incarnation, end)
    }
    this.#line.want()
    this.#changed()
    this.#trim()
  }

  /** The store failed: the relay gets the edits from memory, so that they are safe somewhere. */
  #onUncommitted(rows: readonly OutboxRow[], error: SyncError): void {
    this.#storeError = error
    this.#storage = { name: 'failed', reason: error.reason }
    this.#local.end(error)
    this.#offer(rows)
    this.#line.want()
    this.#changed()
  }

  #onRecovered(): void {
    this.#storeError = undefined
    this.#storage = this.#working
    this.#changed()
  }

  /** Makes own rows ready to be sent; returns the last n of them. */
  #offer(rows: readonly OutboxRow[]): number {
    const own = rows.filter(({ incarnation }) => incarnation === this.incarnation)
    this.outbox.add(this.incarnation, own)
    const end = own.at(-1)?.n ?? 0
    this.#offered = Math.max(this.#offered, end)
    return end
  }

  #onAcked(incarnation: IncarnationId, n: number): void {
    this.#isNew = false
    this.#relay.reached(incarnation, n)
    this.#local.reached(incarnation, n)
    // The acks must be in the store before another tab may take what is left.
    if (this.outbox.isEmpty(incarnation)) void this.#commits.settled().then(() => this.#adoption?.release(incarnation))
    this.#changed()
  }

  /** Rows of a tab that is gone. They may have been committed after this replica was loaded, by a tab that had no time to tell. */
  #onAdopted(rows: readonly OutboxRow[]): void {
    this.#isNew = false
    const updates = rows.map(({ update }) => update)
    applyUpdates(this.ydoc, updates, ORIGINS.store, false)
    this.#line.want()
  }

  #trim(): void {
    if (this.#rows < TRIM_AFTER || this.#store === undefined) return
    this.#rows = 1
    this.#store.trim(foldUpdates).catch((thrown: unknown) => this.#storeTrouble(thrown))
  }

  /** A read or a trim failed; commits say by themselves whether they work. */
  #storeTrouble(thrown: unknown): void {
    const error = toSyncError(thrown, 'store_failed')
    if (this.#closing !== undefined || error.code === 'aborted') return
    this.#storage = { ...this.#storage, reason: error.reason }
    this.#changed()
  }

  #changed(): void {
    const { outbox } = this
    const { pending, refused } = outbox.count()
    const relay = pending + (this.#adoption?.elsewhere ?? 0) + (this.#last - this.#offered)
    const local = this.#last - Math.max(this.#committed, outbox.ackedOf(this.incarnation))
    const closed = this.#closing !== undefined
    const next: Status = {
      connection: closed ? { name: 'closed' } : (this.#broken?.connection ?? this.#options.network.status.get()),
      storage: this.#storage,
      pending: { local, relay },
      held: relay > 0 && this.#line.isHeld,
      quarantined: refused,
    }
    if (!sameStatus(this.status.get(), next)) this.#setStatus(next)
    this.#options.onChange()
  }
}
