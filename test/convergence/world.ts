/**
 * A world: devices with tabs, one relay, a hostile network, disks that crash, one process, virtual time. The shipped modules run in it with only clock,
 * chance, disk and socket replaced. One seed, one history.
 */
import type { DocumentId } from '@rejoin/shared'
import { DEFAULT_LIMITS, SyncError } from '@rejoin/shared'
import type { RelayFrame } from '@rejoin/shared/wire'
import type { Client } from '#client/client.js'
import { assembleClient } from '#client/client.js'
import type { MemoryDisk as DeviceDisk, MemoryTab } from '#client/stores/memory.js'
import { createMemoryDisk as createDeviceDisk } from '#client/stores/memory.js'
import type { Compactor } from '#server/log/compactor.js'
import { createCompactor } from '#server/log/compactor.js'
import type { Log } from '#server/log/log.js'
import { createCompactionWork } from '#server/log/work.js'
import { absorbTrusted, createAdmission, encodeAdmission } from '#server/relay/admission.js'
import { OPEN_GRANT } from '#server/relay/grant.js'
import { createRelayCore } from '#server/relay/relay.js'
import { createMemoryDisk } from '#server/storage/memory-disk.js'
import { createMemoryLog } from '#server/storage/memory.js'
import type { Chance } from './chance.ts'
import { createChance } from './chance.ts'
import type { ProcessClock } from './clock.ts'
import { createVirtualClock } from './clock.ts'
import { scribble } from './edits.ts'
import type { Access } from './network.ts'
import { createNetwork } from './network.ts'
import { checkAcked, checkAllAcked, checkDevice, checkEnd, checkStream, type Ledger, newLedger } from './oracle.ts'

/** How large and how hostile a world is. */
export interface WorldOptions {
  readonly devices?: number | undefined
  readonly documents?: number | undefined
  readonly actions?: number | undefined
  /** Whether the relay's log is put back to an older state once, as from a backup. @default drawn */
  readonly restore?: boolean | undefined
  /** Prints what happens. */
  readonly trace?: ((line: string) => void) | undefined
}

/** What a run leaves for a look. */
export interface Outcome {
  readonly edits: number
  readonly acked: number
  readonly entries: number
  readonly frames: number
}

interface Tab {
  readonly name: string
  readonly store: MemoryTab
  readonly client: Client
  readonly access: Access
  readonly replicas: Map<string, ReturnType<Client['open']>>
  readonly loaded: Set<string>
  readonly clock: ProcessClock
}

interface Device {
  readonly name: string
  readonly disk: DeviceDisk
  readonly tabs: Set<Tab>
  online: boolean
  opened: number
}

/** Time in which every half-open link has been found out and redialled, in ms of the world. */
const CALM_MS = 120_000
/** Time to become quiet once nothing hostile happens any more, in ms of the world. */
const QUIET_MS = 10 * 60_000

/** Runs the world of `seed` to its end and checks it. Throws an `Error` that says what was broken. */
export async function runWorld(seed: number, options: WorldOptions = {}): Promise<Outcome> {
  const chance = createChance(seed)
  const world = new World(chance, options)
  await world.live(options.actions ?? 30 + chance.below(50))
  await world.end()
  return world.outcome()
}

class World {
  readonly #chance: Chance
  readonly #trace: (line: string) => void
  readonly #clock = createVirtualClock()
  readonly #ledger: Ledger = newLedger()
  readonly #network
  readonly #logDisk
  readonly #devices: Device[]
  readonly #documents: readonly DocumentId[]
  readonly #mayRestore: boolean
  #relayClock: ProcessClock | undefined
  #backup: ReturnType<typeof structuredClone> | undefined
  #frames = 0
  #edits = 0

  constructor(chance: Chance, options: WorldOptions) {
    this.#chance = chance
    this.#trace = options.trace ?? (() => {})
    this.#network = createNetwork(this.#clock, chance.fork(), (socket, frame) => this.#tap(socket, frame))
    const diskChance = chance.fork()
    this.#logDisk = createMemoryDisk({ clock: this.#clock, random: diskChance.random, randomBytes: diskChance.bytes })
    this.#documents = Array.from({ length: options.documents ?? 1 + chance.below(2) }, (_, i) => `doc-${i}` as DocumentId)
    this.#devices = Array.from({ length: options.devices ?? 2 + chance.below(3) }, (_, i) => this.#newDevice(`d${i}`))
    this.#mayRestore = options.restore ?? chance.maybe(0.15)
    this.#startRelay()
  }

  async live(actions: number): Promise<void> {
    for (let i = 0; i < actions; i++) {
      this.#act()
      await this.#clock.run(this.#chance.maybe(0.1) ? this.#chance.below(90_000) : this.#chance.below(1500))
    }
  }

  /** Peace: everything is up, every device has one tab with every document; then everything must be equal. */
  async end(): Promise<void> {
    this.#trace('— peace')
    this.#network.calm = true
    if (this.#network.listening === undefined) this.#startRelay()
    this.#logDisk.full = false
    for (const device of this.#devices) {
      device.online = true
      for (const tab of device.tabs) tab.access.online = true
      const tab = device.tabs.values().next().value ?? this.#openTab(device)
      for (const document of this.#documents) this.#replica(tab, document)
    }
    const clients = this.#devices.flatMap((device) => [...device.tabs].map((tab) => tab))
    await this.#clock.run(CALM_MS)
    for (let waited = 0; ; waited += 5000) {
      await this.#clock.run(5000)
      const busy = clients.filter(({ client }) => client.status.get().pending.relay > 0 || client.status.get().pending.local > 0)
      const unsynced = clients.filter(({ replicas }) => [...replicas.values()].some((replica) => replica.status.get().connection.name !== 'connected'))
      if (busy.length === 0 && unsynced.length === 0) break
      if (waited > QUIET_MS) {
        const states = clients.map(({ name, client }) => `${name} ${JSON.stringify(client.status.get())}`)
        throw new Error(`not quiet after ${QUIET_MS} ms: ${states.join('; ')}`)
      }
    }
    await this.#clock.run(5000)
    checkAllAcked(this.#ledger, this.#logDisk.image, this.#documents)
    if (this.#ledger.violation !== undefined) throw this.#ledger.violation
    for (const device of this.#devices) checkDevice(this.#ledger, device.name, device.disk, this.#documents, this.#logDisk.image)
    checkEnd(
      this.#ledger,
      this.#logDisk.image,
      this.#documents,
      clients.flatMap(({ name, replicas }) => [...replicas].map(([document, replica]) => ({ name, document: document as DocumentId, doc: replica.ydoc }))),
    )
  }

  outcome(): Outcome {
    const entries = [...this.#logDisk.image.documents.values()].reduce((sum, { seq }) => sum + seq, 0)
    return { edits: this.#edits, acked: this.#ledger.acked.size, entries, frames: this.#frames }
  }

  #act(): void {
    const device = this.#chance.pick(this.#devices)
    const tab = this.#chance.maybe(0.9) ? [...device.tabs][this.#chance.below(Math.max(1, device.tabs.size))] : undefined
    const draw = this.#chance.below(100)
    if (tab === undefined) this.#openTab(device)
    else if (draw < 62) this.#edit(tab)
    else if (draw < 68) this.#replica(tab, this.#chance.pick(this.#documents))
    else if (draw < 73) this.#goOffline(device)
    else if (draw < 79) this.#goOnline(device)
    else if (draw < 82) this.#cut(tab)
    else if (draw < 85) this.#killTab(device, tab)
    else if (draw < 87) this.#closeTab(device, tab)
    else if (draw < 89) this.#crashDevice(device)
    else if (draw < 91 && device.tabs.size < 3) this.#openTab(device)
    else if (draw < 95) this.#crashRelay()
    else if (draw < 97) this.#fillDisk()
    else this.#copyLog()
  }

  #newDevice(name: string): Device {
    const chance = this.#chance.fork()
    return { name, disk: createDeviceDisk({ clock: this.#clock, random: chance.random, durability: 'durable' }), tabs: new Set(), online: this.#chance.maybe(0.8), opened: 0 }
  }

  #openTab(device: Device): Tab {
    const store = device.disk.tab()
    const access = this.#network.access()
    access.online = device.online
    const chance = this.#chance.fork()
    const clock = this.#clock.process()
    const client = assembleClient(
      { url: 'ws://relay', store },
      { clock, random: chance.random, randomBytes: chance.bytes, transport: access.transport, wake: () => () => {} },
    )
    const tab: Tab = { name: `${device.name}.${device.opened++}`, store, client, access, replicas: new Map(), loaded: new Set(), clock }
    device.tabs.add(tab)
    this.#trace(`${tab.name} opens`)
    this.#replica(tab, this.#chance.pick(this.#documents))
    return tab
  }

  #replica(tab: Tab, document: DocumentId): ReturnType<Client['open']> {
    const found = tab.replicas.get(document)
    if (found !== undefined) return found
    const replica = tab.client.open(document)
    tab.replicas.set(document, replica)
    replica.whenLoaded().then(
      () => tab.loaded.add(document),
      // Only the end of the tab keeps a replica from loading here.
      () => {},
    )
    return replica
  }

  #edit(tab: Tab): void {
    const [document, replica] = this.#chance.pick([...tab.replicas])
    if (!tab.loaded.has(document)) return
    const mark = `${tab.name}/${++this.#edits}`
    const edit = replica.edit(() => scribble(replica.ydoc, mark, this.#chance))
    this.#trace(`${mark} in ${document}: ${edit.id}`)
    const made = { document: document as DocumentId, mark, device: tab.name.split('.')[0] ?? '' }
    this.#ledger.made.set(mark, made)
    // A tab that dies leaves these pending for ever, as it should.
    edit.wait({ to: 'local' }).then(
      () => this.#ledger.local.set(mark, made),
      () => {},
    )
    edit.wait({ to: 'relay' }).then(
      () => {
        this.#ledger.acked.set(mark, made)
        this.#ledger.violation ??= checkAcked(this.#ledger, this.#logDisk.image, made)
      },
      (error: unknown) => {
        // Nothing here may be refused for good; only a client that is closed gives up.
        if (!(error instanceof SyncError && error.code === 'closed')) this.#ledger.violation ??= new Error(`P2: ${mark} was refused`, { cause: error })
      },
    )
  }

  #goOffline(device: Device): void {
    this.#trace(`${device.name} goes offline`)
    device.online = false
    const silently = this.#chance.maybe(0.5)
    for (const tab of device.tabs) {
      tab.access.online = false
      tab.access.cut(silently)
    }
  }

  #goOnline(device: Device): void {
    this.#trace(`${device.name} comes online`)
    device.online = true
    for (const tab of device.tabs) tab.access.online = true
  }

  #cut(tab: Tab): void {
    const silently = this.#chance.maybe(0.5)
    this.#trace(`${tab.name} is cut${silently ? ' silently' : ''}`)
    tab.access.cut(silently)
  }

  #killTab(device: Device, tab: Tab): void {
    this.#trace(`${tab.name} is killed`)
    tab.clock.end()
    tab.store.crash()
    tab.access.online = false
    tab.access.cut(this.#chance.maybe(0.5))
    device.tabs.delete(tab)
  }

  #closeTab(device: Device, tab: Tab): void {
    this.#trace(`${tab.name} is closed`)
    device.tabs.delete(tab)
    void tab.client.close()
  }

  #crashDevice(device: Device): void {
    this.#trace(`${device.name} loses power`)
    device.disk.crash()
    for (const tab of device.tabs) {
      tab.clock.end()
      tab.access.online = false
      tab.access.cut(true)
    }
    device.tabs.clear()
    checkDevice(this.#ledger, device.name, device.disk, this.#documents, this.#logDisk.image)
  }

  #startRelay(): void {
    const clock = this.#clock.process()
    this.#relayClock = clock
    const log = createMemoryLog(this.#logDisk)
    const relay = createRelayCore({
      log,
      clock,
      random: this.#chance.fork().random,
      limits: { ...DEFAULT_LIMITS, outbound: 8 * 1024, fragment: 512 },
      authorize: async () => OPEN_GRANT,
      compactor: this.#startCompactor(log, clock),
      fatal: (error) => {
        throw error
      },
      report: (what, details) => this.#trace(`relay: ${what} ${JSON.stringify(details)}`),
    })
    this.#network.listening = { connect: (socket) => relay.connect(socket, { url: '/sync', headers: {} }) }
  }

  /** The shipped compactor without its thread. It folds far sooner than it would elsewhere, and keeps for a while or not at all. */
  #startCompactor(log: Log, clock: ProcessClock): Compactor {
    return createCompactor({
      log,
      work: createCompactionWork({ reader: log, admissionOf }),
      clock,
      retain: this.#chance.pick([0, 5000, 3_600_000]),
      thresholds: { bytes: 300, entries: 6, share: 0.1, bytesPerEntry: 1000 },
      report: (what, details) => this.#trace(`relay: ${what} ${JSON.stringify(details)}`),
    })
  }

  #crashRelay(): void {
    if (this.#network.listening === undefined) return
    this.#trace('the relay is killed')
    this.#network.listening = undefined
    this.#relayClock?.end()
    this.#logDisk.crash()
    this.#network.relayDied()
    this.#ledger.streams.clear()
    const restores = this.#mayRestore && this.#backup !== undefined && this.#chance.maybe(0.5)
    if (restores) this.#restoreLog()
    else checkAllAcked(this.#ledger, this.#logDisk.image, this.#documents)
    this.#clock.after(this.#chance.below(20_000), () => {
      if (this.#network.listening === undefined) this.#startRelay()
    })
  }

  #fillDisk(): void {
    this.#trace('the disk of the relay is full')
    this.#logDisk.full = true
    this.#clock.after(this.#chance.below(10_000), () => {
      this.#logDisk.full = false
    })
  }

  #copyLog(): void {
    if (this.#mayRestore) this.#backup = structuredClone(this.#logDisk.image)
  }

  #restoreLog(): void {
    this.#trace('the log is put back to an older state')
    const { image } = this.#logDisk
    const backup = structuredClone(this.#backup) as typeof image
    image.position = backup.position
    image.trimmed = backup.trimmed
    image.journal = backup.journal
    image.documents.clear()
    for (const [document, stored] of backup.documents) image.documents.set(document, stored)
    this.#ledger.restored = true
    this.#ledger.durable.clear()
  }

  #tap(socket: number, frame: RelayFrame): void {
    this.#frames++
    checkStream(this.#ledger, socket, frame)
  }
}


function admissionOf(update: Uint8Array): Uint8Array {
  const state = createAdmission()
  absorbTrusted(state, update)
  return encodeAdmission(state)
}
