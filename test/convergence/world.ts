/**
 * A world: devices with tabs, one relay, a hostile network, disks that crash, one process, virtual time. The shipped modules run in it with only clock,
 * chance, disk and socket replaced. One seed, one history.
 */
import type { DocumentId, IncarnationId } from '@rejoin/shared'
import type { Chance } from './chance.ts'
import { createChance } from './chance.ts'
import { createVirtualClock } from './clock.ts'
import type { Surroundings, Tab } from './device.ts'
import { Device } from './device.ts'
import type { Network } from './network.ts'
import { createNetwork } from './network.ts'
import type { Final, Ledger } from './oracle.ts'
import { checkAllAcked, checkDevice, checkEnd, checkOutbox, newLedger, taintOf } from './oracle.ts'
import { RelaySite } from './relay.ts'
import { Stranger } from './stranger.ts'
import type { Sights } from './wire.ts'

/** How large and how hostile a world is. What is not given is drawn. */
export interface WorldOptions {
  readonly devices?: number | undefined
  readonly documents?: number | undefined
  readonly actions?: number | undefined
  readonly tabs?: number | undefined
  readonly climate?: Partial<Climate> | undefined
  /** Prints what happens. */
  readonly trace?: ((line: string) => void) | undefined
}

/** What does not befall every world. */
export interface Climate {
  /** The relay's log is put back to an older state, as from a backup. */
  readonly restores: boolean
  /** Grants are taken and given. */
  readonly grants: boolean
  /** Edits are made that the relay must refuse for good. */
  readonly guilty: boolean
  /** Stores of devices refuse writes for a while. */
  readonly failing: boolean
  /** Edits of more than a frame holds. */
  readonly large: boolean
  /** A y-websocket client takes part. */
  readonly stranger: boolean
  /** Tokens live for a minute. */
  readonly tokens: boolean
  /** Clocks of devices are set. */
  readonly jumps: boolean
  /** The relay's window is small, and its disk slow to read. */
  readonly narrow: boolean
}

/** What a run leaves for a look. */
export interface Outcome {
  readonly edits: number
  readonly acked: number
  readonly entries: number
  readonly sights: Sights
}

/** Time in which every half-open link has been found out and redialled, in ms of the world. */
const CALM_MS = 120_000
/** Time to become quiet once nothing hostile happens any more, in ms of the world. */
const QUIET_MS = 10 * 60_000
/** More than one frame of the client's holds. */
const LARGE_BYTES = 600 * 1024

/** Runs the world of `seed` to its end and checks it. Throws an `Error` that says what was broken. */
export async function runWorld(seed: number, options: WorldOptions = {}): Promise<Outcome> {
  const chance = createChance(seed)
  const world = new World(chance, options)
  await world.live(options.actions ?? 25 + chance.below(40))
  await world.end()
  return world.outcome()
}

function drawClimate(chance: Chance): Climate {
  return {
    restores: chance.maybe(0.15),
    grants: chance.maybe(0.25),
    guilty: chance.maybe(0.1),
    failing: chance.maybe(0.2),
    large: chance.maybe(0.02),
    stranger: chance.maybe(0.2),
    tokens: chance.maybe(0.1),
    jumps: chance.maybe(0.2),
    narrow: chance.maybe(0.3),
  }
}

class World {
  readonly #chance: Chance
  readonly #trace: (line: string) => void
  readonly #climate: Climate
  readonly #clock = createVirtualClock()
  readonly #ledger: Ledger = newLedger()
  readonly #network: Network
  readonly #relay: RelaySite
  readonly #surroundings: Surroundings
  readonly #devices: readonly Device[]
  readonly #documents: readonly DocumentId[]
  readonly #stranger: Stranger | undefined
  readonly #maxTabs: number

  constructor(chance: Chance, options: WorldOptions) {
    this.#chance = chance
    const trace = options.trace ?? (() => {})
    this.#trace = trace
    const climate = { ...drawClimate(chance), ...options.climate }
    // A relay that was put back is told what it lost by a state, which holds a refused edit before anybody knows which it is: the two together wait for ever.
    this.#climate = { ...climate, guilty: climate.guilty && !climate.restores }
    const { large, narrow, tokens, stranger } = this.#climate
    const clock = this.#clock
    const network = createNetwork(clock, chance.fork())
    this.#network = network
    this.#maxTabs = options.tabs ?? 3
    this.#documents = Array.from({ length: options.documents ?? 1 + chance.below(2) }, (_, i) => `doc-${i}` as DocumentId)
    const limits = { ...(narrow ? { window: 2048 } : {}), ...(large ? { fragment: 64 * 1024, outbound: 256 * 1024 } : {}) }
    const relay = new RelaySite(
      { clock, chance: chance.fork(), network, trace },
      { limits, tokens: tokens ? 60_000 : undefined, seek: narrow ? 200 : 2 },
    )
    this.#relay = relay
    this.#surroundings = { clock, network, watch: relay.watch, history: relay.history, ledger: this.#ledger, trace }
    this.#devices = Array.from(
      { length: options.devices ?? 2 + chance.below(3) },
      (_, i) => new Device(`d${i}`, this.#surroundings, chance.fork()),
    )
    const [document] = this.#documents
    this.#stranger =
      stranger && document !== undefined
        ? new Stranger('s0', document, { clock, network, address: () => relay.addressOf(document), chance: chance.fork() })
        : undefined
  }

  async live(actions: number): Promise<void> {
    for (let i = 0; i < actions; i++) {
      this.#act()
      await this.#clock.run(this.#pause())
      this.#check()
      // At any moment the power may fail: a look at a disk is what would be found then.
      if (this.#chance.maybe(0.15)) checkDevice(this.#ledger, this.#chance.pick(this.#devices), this.#documents, this.#relay.history)
    }
  }

  /** Mostly some messages long; sometimes so short that what was begun is under way, sometimes so long that everybody noticed. */
  #pause(): number {
    const draw = this.#chance.below(10)
    if (draw === 0) return this.#chance.below(90_000)
    return this.#chance.below(draw < 4 ? 30 : 1500)
  }

  /** Peace: everything is up, every device has one tab with every document; then everything must be equal. */
  async end(): Promise<void> {
    this.#makePeace()
    await this.#clock.run(CALM_MS)
    // What waits in documents that nobody has open is sent all the same.
    if (this.#chance.maybe(0.3)) await this.#becomeQuiet()
    this.#openAll()
    // Which edit is to blame shows when they have been tried one by one.
    if (this.#ledger.tainted.size > 0) await this.#clock.run(CALM_MS)
    await this.#becomeQuiet()
    await this.#clock.run(5000)
    this.#check()
    const { history, disk } = this.#relay
    checkAllAcked(this.#ledger, disk.image, this.#documents)
    for (const device of this.#devices) checkDevice(this.#ledger, device, this.#documents, history)
    checkEnd(this.#ledger, history, disk.image, this.#documents, this.#finals(), this.#devices)
  }

  /** P12. */
  async #becomeQuiet(): Promise<void> {
    for (let waited = 0; ; waited += 5000) {
      await this.#clock.run(5000)
      this.#check()
      const busy = this.#tabs().filter((tab) => !this.#isQuiet(tab))
      if (busy.length === 0) break
      if (waited > QUIET_MS) {
        const states = busy.map(
          ({ name, client, replicas }) =>
            `${name} ${JSON.stringify(client.status.get())} ${JSON.stringify([...replicas.values()].map((replica) => replica.status.get().pending))}`,
        )
        throw new Error(`P12: not quiet after ${QUIET_MS} ms: ${states.join('; ')}`)
      }
    }
  }

  outcome(): Outcome {
    const entries = [...this.#relay.disk.image.documents.values()].reduce((sum, { seq }) => sum + seq, 0)
    return { edits: this.#ledger.made.size, acked: this.#ledger.acked.size, entries, sights: this.#relay.watch.sights }
  }

  #tabs(): readonly Tab[] {
    return this.#devices.flatMap(({ tabs }) => [...tabs])
  }

  /** What must hold at every moment. */
  #check(): void {
    const { watch, history } = this.#relay
    if (watch.violation !== undefined) throw watch.violation
    checkOutbox(this.#ledger, history, this.#devices)
    for (const device of this.#devices) device.checkStatus(this.#documents)
  }

  #makePeace(): void {
    this.#trace('— peace')
    this.#network.calm = true
    this.#relay.start()
    this.#relay.disk.full = false
    for (const device of this.#devices) {
      device.online = true
      device.failing = 0
      for (const document of this.#documents) this.#relay.grant(device.name, document, 'write')
      for (const tab of device.tabs) {
        tab.access.online = true
        tab.thaw()
      }
      if (device.tabs.size === 0) this.#open(device)
    }
    if (this.#stranger !== undefined) this.#stranger.access.online = true
  }

  #openAll(): void {
    for (const device of this.#devices) {
      for (const document of this.#documents) {
        const [first, ...others] = device.tabs
        first?.replica(document)
        // A quarantine shows in the tab that has it.
        if (this.#ledger.tainted.has(taintOf(device.name, document))) for (const other of others) other.replica(document)
      }
    }
  }

  /** Connected, and nothing waits but what waits behind a refused edit. */
  #isQuiet({ device, client, replicas }: Tab): boolean {
    const isTainted = (document: DocumentId): boolean => this.#ledger.tainted.has(taintOf(device.name, document))
    for (const [document, replica] of replicas) {
      const { connection, pending } = replica.status.get()
      if (connection.name !== 'connected' || (!isTainted(document) && pending.local + pending.relay > 0)) return false
    }
    const { pending } = client.status.get()
    return this.#documents.some(isTainted) || pending.local + pending.relay === 0
  }

  #finals(): readonly Final[] {
    const finals: Final[] = this.#tabs().flatMap(({ name, device, replicas }) =>
      [...replicas].map(([document, replica]) => ({
        name,
        device: device.name,
        document,
        doc: replica.ydoc,
        quarantine: replica.quarantine.list().map(({ id }) => id),
      })),
    )
    const stranger = this.#stranger
    return stranger === undefined
      ? finals
      : [...finals, { name: stranger.name, device: stranger.name, document: stranger.document, doc: stranger.doc, quarantine: [] }]
  }

  // What happens

  #act(): void {
    if (this.#stranger !== undefined && this.#chance.maybe(0.1)) this.#editAs(this.#stranger)
    const device = this.#chance.pick(this.#devices)
    const tab = this.#chance.maybe(0.9) ? [...device.tabs][this.#chance.below(Math.max(1, device.tabs.size))] : undefined
    const draw = this.#chance.below(100)
    if (tab === undefined || (draw >= 96 && device.tabs.size < this.#maxTabs)) this.#open(device)
    else if (draw < 62) for (let strokes = this.#chance.maybe(0.2) ? 5 : 1; strokes > 0; strokes--) this.#edit(tab)
    else if (draw < 70) this.#befallNetwork(device, tab)
    else if (draw < 79) this.#befallTab(device, tab)
    else if (draw < 88) this.#befallRelay()
    else this.#befallClimate(device)
  }

  #open(device: Device): void {
    device.open().replica(this.#chance.pick(this.#documents))
  }

  #edit(tab: Tab): void {
    const documents = [...tab.replicas.keys()]
    if (tab.clock.frozen || documents.length === 0) return
    const document = this.#chance.pick(documents)
    const { guilty, large } = this.#climate
    tab.edit(document, { guilty: guilty && this.#chance.maybe(0.05), bytes: large && this.#chance.maybe(0.04) ? LARGE_BYTES : 0 })
  }

  #editAs(stranger: Stranger): void {
    const { document, name } = stranger
    const mark = stranger.edit()
    this.#trace(`${mark} in ${document}`)
    this.#ledger.made.set(mark, { document, mark, device: name, incarnation: '' as IncarnationId, n: 0, guilty: false })
  }

  #befallNetwork(device: Device, tab: Tab): void {
    const draw = this.#chance.below(10)
    if (draw < 3) device.setOnline(false, this.#chance.maybe(0.5))
    else if (draw < 6) device.setOnline(true, false)
    else if (draw < 8) tab.access.cut(this.#chance.maybe(0.5))
    else tab.dawdle(this.#chance.below(60_000))
  }

  #befallTab(device: Device, tab: Tab): void {
    const draw = this.#chance.below(20)
    if (draw < 4) tab.kill(this.#chance.maybe(0.5))
    else if (draw < 7) tab.close()
    else if (draw < 10) {
      device.crash()
      checkDevice(this.#ledger, device, this.#documents, this.#relay.history)
    } else if (draw < 13) tab.freeze(this.#chance.below(300_000))
    else if (draw < 16 && tab.replicas.size > 1) tab.leave(this.#chance.pick([...tab.replicas.keys()]))
    else tab.replica(this.#chance.pick(this.#documents))
  }

  #befallRelay(): void {
    const relay = this.#relay
    const draw = this.#chance.below(10)
    if (draw < 4) this.#killRelay()
    else if (draw < 6)
      relay.drain().then(
        () => this.#restartRelay(),
        (error: unknown) => relay.watch.broken(error),
      )
    else if (draw < 8) relay.fill(this.#chance.below(10_000))
    else if (this.#climate.restores) relay.copy()
  }

  #killRelay(): void {
    const relay = this.#relay
    if (!relay.isUp) return
    relay.crash()
    if (this.#climate.restores && this.#chance.maybe(0.5) && relay.restore()) this.#ledger.restored = true
    else checkAllAcked(this.#ledger, relay.disk.image, this.#documents)
    this.#restartRelay()
  }

  #restartRelay(): void {
    this.#clock.after(this.#chance.below(20_000), () => this.#relay.start())
  }

  /** What only some worlds know. */
  #befallClimate(device: Device): void {
    const { grants, failing, jumps } = this.#climate
    const chance = this.#chance
    const stranger = this.#stranger
    if (grants && chance.maybe(0.7)) {
      const [document, access] = [chance.pick(this.#documents), chance.pick(['none', 'read', 'read', 'write', 'write'] as const)]
      this.#trace(`${device.name} is granted ${access} on ${document}`)
      this.#relay.grant(device.name, document, access)
    }
    if (failing && chance.maybe(0.7)) {
      device.failing = chance.pick([0, 0.5, 1])
      this.#clock.after(chance.below(20_000), () => {
        device.failing = 0
      })
    }
    if (jumps) for (const { clock } of device.tabs) clock.jump(chance.pick([-1, 1]) * chance.below(24 * 3_600_000))
    if (stranger !== undefined) {
      stranger.access.online = chance.maybe(0.8)
      if (chance.maybe(0.5)) stranger.access.cut(chance.maybe(0.5))
    }
  }
}
