/**
 * Devices of the world: each has a disk and tabs, and each tab runs the shipped client.
 */
import type { DocumentId, IncarnationId } from '@rejoin/shared'
import { SyncError } from '@rejoin/shared'
import type { Client } from '#client/client.js'
import { assembleClient } from '#client/assembly.js'
import type { Replica } from '#client/handle.js'
import type { MemoryDisk, MemoryTab } from '#client/stores/memory.js'
import { createMemoryDisk } from '#client/stores/memory.js'
import type { Chance } from './chance.ts'
import type { ProcessClock, VirtualClock } from './clock.ts'
import { scribble } from './edits.ts'
import type { History } from './history.ts'
import type { Access, Network } from './network.ts'
import type { Ledger, Made } from './oracle.ts'
import { checkAcked, taintOf } from './oracle.ts'
import { TOO_LONG_A_KEY } from './relay.ts'
import type { Watch } from './wire.ts'

/** What a device stands in. */
export interface Surroundings {
  readonly clock: VirtualClock
  readonly network: Network
  readonly watch: Watch
  readonly history: History
  readonly ledger: Ledger
  readonly trace: (line: string) => void
}

/** How an edit is made. `guilty`: so that the relay must refuse it. `bytes`: it holds this much text. */
export interface Manner {
  readonly guilty?: boolean | undefined
  readonly bytes?: number | undefined
}

/** In this time every tab of a device has heard what another tab did, in ms. */
const NEWS_MS = 1000
/** And in this time of what a tab did that died before it could tell. */
const LATE_NEWS_MS = 62_000

export class Device {
  readonly name: string
  readonly disk: MemoryDisk
  readonly tabs = new Set<Tab>()
  online: boolean
  /** Probability that its store refuses a write. */
  failing = 0
  #opened = 0
  /** Rows of its outbox → since when they have been seen. */
  #rows = new Map<string, number>()
  readonly #chance: Chance
  readonly surroundings: Surroundings

  constructor(name: string, surroundings: Surroundings, chance: Chance) {
    this.name = name
    this.surroundings = surroundings
    this.#chance = chance
    this.online = chance.maybe(0.8)
    const { random } = chance.fork()
    this.disk = createMemoryDisk({
      clock: surroundings.clock,
      random,
      durability: 'durable',
      failure: () => (this.failing > 0 && random() < this.failing ? new Error('the quota is used up') : undefined),
    })
  }

  open(): Tab {
    const tab = new Tab(`${this.name}.${this.#opened++}`, this, this.surroundings, this.#chance.fork())
    this.tabs.add(tab)
    return tab
  }

  setOnline(online: boolean, silently: boolean): void {
    this.surroundings.trace(`${this.name} goes ${online ? 'online' : 'offline'}`)
    this.online = online
    for (const { access } of this.tabs) {
      access.online = online
      if (!online) access.cut(silently)
    }
  }

  /** P5: what every tab's status shows is never better than what is, for its own edits and for the whole device. */
  checkStatus(documents: readonly DocumentId[]): void {
    const { clock, history, ledger } = this.surroundings
    const now = clock.now()
    const rows = new Map<string, number>()
    let waiting = 0
    for (const document of documents) {
      for (const { incarnation, n, refused } of this.disk.read(document).outbox) {
        const since = this.#rows.get(`${incarnation}/${n}`) ?? now
        rows.set(`${incarnation}/${n}`, since)
        if (
          refused === undefined &&
          now - since > (this.#isAlive(incarnation) ? NEWS_MS : LATE_NEWS_MS) &&
          history.ackedOf(document, incarnation) < n
        )
          waiting++
      }
    }
    this.#rows = rows
    // Of a log that was put back only the device knows what it had acknowledged.
    for (const tab of this.tabs) tab.checkStatus(ledger.restored ? 0 : waiting)
  }

  #isAlive(incarnation: IncarnationId): boolean {
    return [...this.tabs].some(({ incarnations }) => incarnations.has(incarnation))
  }

  /** Power is lost. */
  crash(): void {
    this.surroundings.trace(`${this.name} loses power`)
    this.disk.crash()
    for (const tab of this.tabs) tab.vanish(true)
    this.tabs.clear()
  }
}

export class Tab {
  readonly name: string
  readonly device: Device
  readonly store: MemoryTab
  readonly client: Client
  readonly access: Access
  readonly clock: ProcessClock
  readonly replicas = new Map<DocumentId, Replica>()
  readonly loaded = new Set<DocumentId>()
  readonly incarnations = new Set<IncarnationId>()
  /** Own edits that were not told to be local, or to be at the relay. */
  readonly #unstored = new Set<Made>()
  readonly #unacked = new Set<Made>()
  readonly #surroundings: Surroundings
  readonly #chance: Chance
  #wake: () => void = () => {}
  #edits = 0
  /** Since when it runs. */
  #awake: number

  constructor(name: string, device: Device, surroundings: Surroundings, chance: Chance) {
    this.name = name
    this.device = device
    this.#surroundings = surroundings
    this.#chance = chance
    const { watch, network, trace } = surroundings
    trace(`${name} opens`)
    this.store = device.disk.tab()
    this.access = network.access({
      up: (socket, bytes) => watch.up(socket, this, bytes),
      down: (socket, bytes) => watch.down(socket, bytes),
    })
    this.access.online = device.online
    this.clock = surroundings.clock.process()
    this.#awake = surroundings.clock.now()
    this.client = assembleClient(
      { url: 'ws://relay', store: this.store, token: device.name },
      {
        clock: this.clock,
        random: chance.random,
        randomBytes: chance.bytes,
        transport: this.access.transport,
        wake: (listener) => {
          this.#wake = listener
          return () => {
            this.#wake = () => {}
          }
        },
      },
    )
  }

  replica(document: DocumentId): Replica {
    const found = this.replicas.get(document)
    if (found !== undefined) return found
    const replica = this.client.open(document)
    this.replicas.set(document, replica)
    replica.whenLoaded().then(
      () => {
        if (this.replicas.get(document) === replica) this.loaded.add(document)
      },
      // Only the end of the tab, or of the handle, keeps a replica from loading here.
      () => {},
    )
    return replica
  }

  /** Nobody looks at the document any more; what waits is sent all the same. */
  leave(document: DocumentId): void {
    this.#surroundings.trace(`${this.name} closes ${document}`)
    this.replicas.get(document)?.close()
    this.replicas.delete(document)
    this.loaded.delete(document)
  }

  edit(document: DocumentId, { guilty = false, bytes = 0 }: Manner = {}): void {
    const replica = this.replicas.get(document)
    if (replica === undefined || !this.loaded.has(document)) return
    const { ledger, watch, history, trace } = this.#surroundings
    const mark = `${this.name}/${++this.#edits}`
    const edit = replica.edit(() => {
      scribble(replica.ydoc, mark, this.#chance)
      if (guilty) replica.ydoc.getMap('records').set(TOO_LONG_A_KEY, mark)
      if (bytes > 0) replica.ydoc.getText('text').insert(0, 'x'.repeat(bytes))
    })
    trace(`${mark} in ${document}: ${edit.id}${guilty ? ', guilty' : ''}`)
    const [incarnation, n] = edit.id.split('/')
    const made: Made = { document, mark, device: this.device.name, incarnation: incarnation as IncarnationId, n: Number(n), guilty }
    const taint = taintOf(made.device, document)
    ledger.made.set(mark, made)
    if (guilty) ledger.tainted.add(taint)
    this.incarnations.add(made.incarnation)
    this.#unstored.add(made)
    this.#unacked.add(made)
    // A tab that dies leaves these pending for ever, as it should.
    edit.wait({ to: 'local' }).then(
      () => {
        this.#unstored.delete(made)
        ledger.local.set(mark, made)
        ledger.waiting.add(made)
      },
      // The store refused it, and status says so.
      () => this.#unstored.delete(made),
    )
    edit.wait({ to: 'relay' }).then(
      () => {
        this.#unacked.delete(made)
        ledger.acked.set(mark, made)
        try {
          checkAcked(ledger, history, made)
        } catch (error) {
          watch.broken(error)
        }
      },
      (error: unknown) => {
        this.#unacked.delete(made)
        // A client that is closed gives up; only what is made beside a guilty edit may be refused for good.
        const code = error instanceof SyncError ? error.code : 'internal'
        if (code !== 'closed' && !(code === 'bad_key' && ledger.tainted.has(taint)))
          watch.broken(new Error(`P2: ${mark} was refused`, { cause: error }))
      },
    )
  }

  /** For the watch: whether the device would remember having sent this. */
  isStored(document: DocumentId, incarnation: IncarnationId, n: number): boolean {
    if (this.device.disk.read(document).outbox.some((row) => row.incarnation === incarnation && row.n === n)) return true
    // While its store refuses, edits go out from memory, so that they are safe somewhere; and what is sent twice is at the relay.
    const isFailing = this.device.failing > 0 || this.client.status.get().storage.name === 'failed'
    return isFailing || this.#surroundings.history.ackedOf(document, incarnation) >= n
  }

  /** `waiting`: edits in the device's outbox that every tab must have heard of. */
  checkStatus(waiting: number): void {
    const { pending, storage, quarantined } = this.client.status.get()
    if (!this.clock.frozen && this.#surroundings.clock.now() - this.#awake > NEWS_MS && pending.relay + quarantined < waiting) {
      throw new Error(`P5: ${this.name} shows ${pending.relay} pending, and ${waiting} wait in the outbox of ${this.device.name}`)
    }
    if (pending.relay < this.#unacked.size)
      throw new Error(`P5: ${this.name} shows ${pending.relay} pending and made ${this.#unacked.size} edits that are not acknowledged`)
    if (pending.local < this.#unstored.size && storage.name !== 'failed') {
      throw new Error(`P5: ${this.name} shows ${pending.local} not stored and made ${this.#unstored.size} that are not`)
    }
  }

  // Its life

  /** In the background for a while, or its laptop sleeps: nothing of it runs. */
  freeze(ms: number): void {
    this.#surroundings.trace(`${this.name} is frozen`)
    this.clock.freeze()
    this.access.freeze()
    this.#surroundings.clock.after(ms, () => this.thaw())
  }

  thaw(): void {
    if (!this.clock.frozen) return
    this.#surroundings.trace(`${this.name} thaws`)
    this.#awake = this.#surroundings.clock.now()
    this.clock.thaw()
    this.access.thaw()
    if (this.#chance.maybe(0.7)) this.#wake()
  }

  /** Reads slowly for a while. */
  dawdle(ms: number): void {
    this.access.slow = true
    this.#surroundings.clock.after(ms, () => {
      this.access.slow = false
    })
  }

  close(): void {
    this.#surroundings.trace(`${this.name} is closed`)
    this.device.tabs.delete(this)
    this.client.close().catch((error: unknown) => this.#surroundings.watch.broken(error))
  }

  /** The browser ends it. */
  kill(silently: boolean): void {
    this.#surroundings.trace(`${this.name} is killed`)
    this.store.crash()
    this.vanish(silently)
    this.device.tabs.delete(this)
  }

  /** Nothing of it runs any more. */
  vanish(silently: boolean): void {
    this.clock.end()
    this.access.online = false
    this.access.cut(silently)
  }
}
