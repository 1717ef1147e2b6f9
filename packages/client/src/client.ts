/**
 * Joins store, network and replicas (steps 1 to 3 of the path); nothing else in the package joins.
 */
import { checkOptions } from '#options-check'
import { createReadable, parseDocumentId, toSyncError } from '@rejoin/shared'
import type { Clock, DocumentId, Random, RandomBytes, Readable, Schema } from '@rejoin/shared'
import { createHandle } from './handle.ts'
import type { Replica } from './handle.ts'
import type { Network, NetworkOptions } from './network.ts'
import { SharedReplica } from './replica.ts'
import type { Status, StorageStatus } from './status.ts'
import { quietStatus, sameStatus } from './status.ts'
import { createSteadyClock } from './steady.ts'
import type { Store, StoreFactory } from './stores/store.ts'
import { Tending, closedError } from './tending.ts'
import type { WaitOptions } from './waits.ts'
import { abortable, rungOf } from './waits.ts'

/** Options of `createClient`. */
export interface ClientOptions {
  /** The relay: `http:`, `https:`, `ws:` or `wss:`. `/sync` is added unless the path ends in it. */
  readonly url: string
  /**
   * What the relay is told of the user: a token, or a function that gives a fresh one. It is asked at every dial and when the relay asks for renewal. A `SyncError` with code `unauthorized` thrown by it shows as
   * `needs-auth`; anything else it throws counts as being offline. @default none
   */
  readonly token?: string | (() => string | Promise<string>) | undefined
  /** Where this device keeps documents. @default `indexeddb()` in browsers; elsewhere it must be given */
  readonly store?: StoreFactory | undefined
  /** What the application's records are like: `defineSchema` of `@rejoin/shared`. Taken here for the typed collections to come; nothing reads it yet. */
  readonly schema?: Schema | undefined
}

/** What differs between a browser, Node and a simulated world. */
export interface Platform {
  readonly clock: Clock
  readonly random: Random
  readonly randomBytes: RandomBytes
  readonly network: (options: NetworkOptions) => Network
  readonly defaultStore?: (() => StoreFactory) | undefined
}

/** One device's connection to one relay, and its documents. */
export interface Client {
  readonly status: Readable<Status>
  /** A handle on the document's replica, at once. Throws `bad_document`, `closed`. */
  open(document: string): Replica
  /** Waits for every edit so far, of every document on this device. Rejects with the first one that was refused for good; stays pending while offline. */
  wait(options?: WaitOptions): Promise<void>
  /** Commits what was made and ends everything. With `waitFor: 'relay'` it first waits for the relay, until the signal fires or an edit is refused. `unsent`: edits on this device that the relay has not acknowledged. */
  close(options?: {
    readonly waitFor?: 'relay' | undefined
    readonly signal?: AbortSignal | undefined
  }): Promise<{ readonly unsent: number }>
}

interface Entry {
  readonly replica: SharedReplica
  handles: number
  /** What it adds to the client's status now. */
  counted: Status
}

/** What a tab had no time to tell before it died is found by looking, this often, in ms. */
const LOOK_MS = 60_000

const EMPTY: Status = quietStatus({ name: 'connecting' }, { name: 'memory' })

/** A client from its parts. Throws `bad_option`. */
export function createClientOn(options: ClientOptions, platform: Platform): Client {
  checkOptions(options, platform.defaultStore)
  return new RejoinClient(options, platform)
}

class RejoinClient implements Client {
  readonly status: Readable<Status>
  readonly #setStatus: (status: Status) => void
  readonly #platform: Platform
  readonly #network: Network
  readonly #store: Promise<Store>
  readonly #tending: Tending
  readonly #entries = new Map<DocumentId, Entry>()
  /** Replicas on their way out: a new one of the same document waits for its end. */
  readonly #leaving = new Map<DocumentId, Promise<void>>()
  readonly #sums = { local: 0, relay: 0, quarantined: 0, held: 0 }
  #storage: StorageStatus = { name: 'memory', reason: 'the store is being opened' }
  #closing: Promise<{ readonly unsent: number }> | undefined
  #cancelLook: () => void = () => undefined

  constructor(options: ClientOptions, platform: Platform) {
    const { random, randomBytes, defaultStore } = platform
    const clock = createSteadyClock(platform.clock)
    const factory = options.store ?? defaultStore?.()
    this.#platform = { ...platform, clock }
    this.#network = platform.network({ url: options.url, token: options.token, clock, random, randomBytes })
    const { readable, set } = createReadable<Status>({ ...EMPTY, storage: this.#storage })
    this.status = readable
    this.#setStatus = set
    this.#store = openStore(factory)
    this.#tending = new Tending(this.#store, clock, random, {
      isOpen: (document) => this.#entries.has(document) || this.#leaving.has(document),
      open: (document) => void this.#entry(document),
      changed: () => this.#tell(),
      trouble: (error) => this.#troubled(error),
    })
    this.#store.then(
      (store) => this.#opened(store),
      (thrown: unknown) => this.#troubled(thrown, 'failed'),
    )
    this.#network.status.subscribe(() => this.#tell())
    this.#network.start()
  }

  open(document: string): Replica {
    const id = parseDocumentId(document)
    if (this.#closing !== undefined) throw closedError()
    const entry = this.#entry(id)
    entry.handles += 1
    return createHandle(entry.replica, () => {
      entry.handles -= 1
      this.#onChange(entry)
    })
  }

  async wait(options: WaitOptions = {}): Promise<void> {
    const to = rungOf(options)
    const { signal } = options
    await Promise.all([...this.#entries.values()].map(({ replica }) => replica.waitAll(options)))
    if (to === 'local') return
    await this.#tending.begun(signal)
    // Of documents that are closed, or open in other tabs only.
    while (this.#tending.rows > 0) {
      const { parked } = this.#tending
      if (parked !== undefined) throw parked
      await abortable<void>(signal, (resolve) => {
        const end = this.status.subscribe(() => {
          end()
          resolve()
        })
        return end
      })
      await Promise.all([...this.#entries.values()].map(({ replica }) => replica.waitAll(options)))
    }
  }

  close(options: Parameters<Client['close']>[0] = {}): Promise<{ readonly unsent: number }> {
    this.#closing ??= this.#close(options)
    return this.#closing
  }

  async #close({ waitFor, signal }: NonNullable<Parameters<Client['close']>[0]>): Promise<{ readonly unsent: number }> {
    // Whatever ends the wait, closing goes on; `unsent` says what is left.
    if (waitFor !== undefined) await this.wait({ to: waitFor, signal }).catch(() => undefined)
    this.#tending.close()
    this.#cancelLook()
    const entries = [...this.#entries.values()]
    await Promise.all([...entries.map(({ replica }) => this.#end(replica)), ...this.#leaving.values()])
    const unsent = this.status.get().pending.relay
    this.#network.close()
    // Without a store there is nothing to close.
    const store = await this.#store.catch(() => undefined)
    await store?.close().catch((thrown: unknown) => this.#troubled(thrown))
    this.#tell()
    return { unsent }
  }

  #entry(document: DocumentId): Entry {
    const found = this.#entries.get(document)
    if (found !== undefined && !found.replica.isDestroyed) return found
    if (found !== undefined) this.#leave(found)
    const { clock, random, randomBytes } = this.#platform
    const before = Promise.all([this.#leaving.get(document), this.#tending.yield(document)])
    const replica: SharedReplica = new SharedReplica({
      document,
      network: this.#network,
      store: before.then(() => this.#store),
      clock,
      random,
      randomBytes,
      onChange: () => this.#onChange(entry),
    })
    const entry: Entry = { replica, handles: 0, counted: EMPTY }
    this.#entries.set(document, entry)
    return entry
  }

  /** Counts what changed; closes a replica that nobody looks at and that has nothing left to do. */
  #onChange(entry: Entry): void {
    const { replica } = entry
    const now = replica.status.get()
    this.#count(entry.counted, -1)
    this.#count(now, 1)
    entry.counted = now
    if (entry.handles === 0 && replica.isIdle && this.#closing === undefined && this.#entries.get(replica.document) === entry)
      this.#leave(entry)
    this.#tell()
  }

  #leave(entry: Entry): void {
    const { document } = entry.replica
    this.#entries.delete(document)
    const left = this.#end(entry.replica).finally(() => {
      const { pending, quarantined } = entry.counted
      this.#count(entry.counted, -1)
      entry.counted = EMPTY
      if (this.#leaving.get(document) === left) this.#leaving.delete(document)
      this.#tending.left(document, { rows: pending.relay, refused: quarantined })
      this.#tell()
    })
    this.#leaving.set(document, left)
  }

  /** Closes a replica. A store that fails at it keeps neither the others nor the next replica of the document. */
  #end(replica: SharedReplica): Promise<void> {
    return replica.close().catch((thrown: unknown) => this.#troubled(thrown))
  }

  #count({ pending, quarantined, held }: Status, sign: 1 | -1): void {
    this.#sums.local += sign * pending.local
    this.#sums.relay += sign * pending.relay
    this.#sums.quarantined += sign * quarantined
    this.#sums.held += held ? sign : 0
  }

  #opened(store: Store): void {
    this.#storage = { name: store.durability }
    store.watch((notice) => {
      this.#entries.get(notice.document)?.replica.notice(notice)
      this.#tending.notice(notice.document)
    })
    this.#tending.look()
    this.#lookLater()
    this.#tell()
  }

  #lookLater(): void {
    if (this.#closing !== undefined) return
    this.#cancelLook = this.#platform.clock.after(LOOK_MS, () => {
      this.#tending.look()
      for (const { replica } of this.#entries.values()) replica.look()
      this.#lookLater()
    })
  }

  /** Nothing thrown: the store works again. With the name it has now, it works, but not at this. */
  #troubled(thrown: unknown, name: StorageStatus['name'] = this.#storage.name): void {
    this.#storage = thrown === undefined ? { name } : { name, reason: toSyncError(thrown, 'store_failed').reason }
    this.#tell()
  }

  #tell(): void {
    const failed = [...this.#entries.values()].find(({ counted }) => counted.storage.name === 'failed')
    const next: Status = {
      connection: this.#network.status.get(),
      storage: failed?.counted.storage ?? this.#storage,
      pending: { local: this.#sums.local, relay: this.#sums.relay + this.#tending.rows },
      held: this.#sums.held > 0,
      quarantined: this.#sums.quarantined + this.#tending.refused,
    }
    if (!sameStatus(this.status.get(), next)) this.#setStatus(next)
  }
}

/** Whoever waits for it makes a SyncError of what it rejects with, or of what a factory of the application throws. */
async function openStore(factory: StoreFactory | undefined): Promise<Store> {
  // The check of options has refused that there is none; without it, status says that the store failed.
  return (factory as StoreFactory).open()
}
