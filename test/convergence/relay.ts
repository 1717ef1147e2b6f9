/**
 * The world's relay: the shipped relay, log and compactor on a disk that crashes, with grants that change.
 */
import type { Access, DocumentId, Limits } from '@rejoin/shared'
import { DEFAULT_LIMITS } from '@rejoin/shared'
import type { Compactor } from '#server/log/compactor.js'
import { createCompactor } from '#server/log/compactor.js'
import type { Append, Log } from '#server/log/log.js'
import { createCompactionWork } from '#server/log/work.js'
import { absorbTrusted, createAdmission, encodeAdmission } from '#server/relay/admission.js'
import type { Grant } from '#server/relay/grant.js'
import type { SocketListener, RelaySocket } from '#server/relay/peer.js'
import { createPresence } from '#server/relay/presence.js'
import type { RelayCore } from '#server/relay/relay.js'
import { createRelayCore } from '#server/relay/relay.js'
import { YPeer } from '#server/relay/y-peer.js'
import type { LogImage, MemoryDisk } from '#server/storage/memory-disk.js'
import { createMemoryDisk } from '#server/storage/memory-disk.js'
import { createMemoryLog } from '#server/storage/memory.js'
import type { Chance } from './chance.ts'
import type { ProcessClock, VirtualClock } from './clock.ts'
import { History } from './history.ts'
import type { Listening, Network } from './network.ts'
import { Watch } from './wire.ts'

/** What may befall the relay of one world. */
export interface RelayClimate {
  readonly limits: Partial<Limits>
  /** Life of a token, in ms. */
  readonly tokens: number | undefined
  /** Longest read of the disk, in ms. */
  readonly seek: number
}

export interface RelayPorts {
  readonly clock: VirtualClock
  readonly chance: Chance
  readonly network: Network
  readonly trace: (line: string) => void
}

interface Granted {
  readonly at: number
  readonly access: Access
}

/** Small, so that slow readers and pieces are common. */
const LIMITS: Limits = { ...DEFAULT_LIMITS, outbound: 8 * 1024, fragment: 512 }
/** What keeps a whole edit out for good. */
export const TOO_LONG_A_KEY: string = 'k'.repeat(LIMITS.key + 1)

export class RelaySite {
  readonly disk: MemoryDisk
  readonly history: History
  readonly watch: Watch
  readonly #ports: RelayPorts
  readonly #climate: RelayClimate
  /** Principal and document → what was granted since when; before the first, everything. */
  readonly #grants = new Map<string, Granted[]>()
  #clock: ProcessClock | undefined
  #core: RelayCore | undefined
  #listenY: ((document: DocumentId, socket: RelaySocket) => SocketListener) | undefined
  #backup: LogImage | undefined

  constructor(ports: RelayPorts, climate: RelayClimate) {
    this.#ports = ports
    this.#climate = climate
    const chance = ports.chance.fork()
    this.disk = createMemoryDisk({ clock: ports.clock, random: chance.random, randomBytes: chance.bytes, seek: climate.seek })
    this.history = new History(this.disk.image)
    this.watch = new Watch(this.disk.image, this.history)
    this.start()
  }

  get isUp(): boolean {
    return this.#core !== undefined
  }

  /** Where y-websocket clients of the document connect. */
  addressOf(document: DocumentId): Listening | undefined {
    const listen = this.#listenY
    return listen === undefined ? undefined : { connect: (socket) => listen(document, socket) }
  }

  start(): void {
    if (this.isUp) return
    const { chance, network, trace } = this.#ports
    const clock = this.#ports.clock.process()
    const limits = { ...LIMITS, ...this.#climate.limits }
    const log = this.#observed(createMemoryLog(this.disk))
    const compactor = this.#startCompactor(log, clock)
    const presence = createPresence({ clock, limits })
    const report = (what: string, details: Readonly<Record<string, unknown>>): void => {
      this.watch.see(`report: ${what}`)
      trace(`relay: ${what} ${JSON.stringify(details)}`)
    }
    const core = createRelayCore({
      log,
      clock,
      random: chance.fork().random,
      limits,
      authorize: async ({ token }) => this.#grantOf(token),
      compactor,
      presence,
      fatal: (error) => this.watch.broken(error),
      report,
    })
    this.#clock = clock
    this.#core = core
    network.listening = { connect: (socket) => core.connect(socket, { url: '/sync', headers: {} }) }
    const ports = { clock, randomBytes: chance.fork().bytes, limits, presence, state: compactor.state, gone: () => {}, report }
    this.#listenY = (document, socket) => {
      // As http/ywebsocket.ts does: what arrives before the document is open waits.
      const early: Uint8Array[] = []
      let peer: YPeer | undefined
      let closed = false
      core.hold(document).then(
        (held) => {
          if (closed) {
            held.release()
            return
          }
          peer = new YPeer(ports, socket, held, { principal: STRANGER, documents: { '*': 'write' } })
          for (const bytes of early) peer.message(bytes)
        },
        () => socket.close(4503, 'not now'),
      )
      return {
        message: (bytes) => (peer === undefined ? void early.push(bytes) : peer.message(bytes)),
        drained: () => peer?.drained(),
        closed: () => {
          closed = true
          peer?.closed()
        },
      }
    }
  }

  /** Kill -9 or power loss. */
  crash(): void {
    this.#ports.trace('the relay is killed')
    this.#leave()
    this.disk.crash()
    this.#ports.network.relayDied()
  }

  /** SIGTERM: everybody is told when to come back. */
  async drain(): Promise<void> {
    const core = this.#core
    if (core === undefined) return
    this.#ports.trace('the relay drains')
    await core.drain()
    // Killed in the meantime.
    if (this.#core !== core) return
    this.#ports.trace('the relay has drained')
    const { waiting } = core.stats()
    if (waiting > 0) throw new Error(`P2: the relay went down in order and left ${waiting} pushes without an answer`)
    this.#leave()
    this.disk.crash()
    // Peers of y-websocket are not the core's.
    this.#ports.network.relayDied()
  }

  #leave(): void {
    this.#clock?.end()
    this.#core = undefined
    this.#listenY = undefined
    this.#ports.network.listening = undefined
  }

  // Grants

  /** What the principal may do with the document from now on. */
  grant(principal: string, document: DocumentId, access: Access): void {
    const key = `${principal}/${document}`
    const granted = this.#grants.get(key) ?? []
    this.#grants.set(key, granted)
    granted.push({ at: this.#ports.clock.now(), access })
    this.#core?.regrant(principal, this.#grantOf(principal))
  }

  #grantOf(principal: string): Grant {
    const documents: Record<string, Access> = { '*': 'write' }
    for (const [key, granted] of this.#grants) {
      const [of, document] = key.split('/')
      if (of === principal && document !== undefined) documents[document] = granted.at(-1)?.access ?? 'write'
    }
    const { tokens } = this.#climate
    return { principal, documents, expiresAt: tokens === undefined ? undefined : (this.#clock?.now() ?? 0) + tokens }
  }

  /** P3: whoever wrote it might, in the step that took it. */
  #checkGranted({ actor, document, at, incarnation, hi }: Append): void {
    const granted = this.#grants.get(`${actor}/${document}`) ?? []
    const now = granted.findLast((one) => one.at < at)?.access ?? 'write'
    if (now !== 'write' && !granted.some((one) => one.at === at))
      this.watch.broken(new Error(`P3: edit ${hi} of ${incarnation} was taken from ${actor}, who had ${now} on ${document}`))
  }

  // The disk

  fill(ms: number): void {
    this.#ports.trace('the disk of the relay is full')
    this.disk.full = true
    this.#ports.clock.after(ms, () => {
      this.disk.full = false
    })
  }

  copy(): void {
    this.#backup = structuredClone(this.disk.image)
  }

  /** Puts back what was copied, as an operator does with a backup while the relay is down. False when there is none. */
  restore(): boolean {
    if (this.#backup === undefined) return false
    this.#ports.trace('the log is put back to an older state')
    const { image } = this.disk
    this.history.refresh()
    const backup = structuredClone(this.#backup)
    image.position = backup.position
    image.trimmed = backup.trimmed
    image.journal = backup.journal
    image.documents.clear()
    for (const [document, stored] of backup.documents) image.documents.set(document, stored)
    this.history.rewind()
    return true
  }

  /** The log, watched: nothing is asked of it that P3 forbids, and nothing is trimmed unseen. */
  #observed(log: Log): Log {
    return {
      ...log,
      append: (batch) => {
        for (const append of batch) this.#checkGranted(append)
        return log.append(batch)
      },
      trim: (before, keepAfter) => {
        this.history.refresh()
        return log.trim(before, keepAfter)
      },
    }
  }

  /** The shipped compactor without its thread. It folds far sooner than it would elsewhere, and keeps for a while or not at all. */
  #startCompactor(log: Log, clock: ProcessClock): Compactor {
    return createCompactor({
      log,
      work: createCompactionWork({ reader: log, admissionOf }),
      clock,
      retain: this.#ports.chance.pick([0, 5000, 3_600_000]),
      thresholds: { bytes: 300, entries: 6, share: 0.1, bytesPerEntry: 1000 },
      patience: 1,
      report: (what, details) => this.#ports.trace(`relay: ${what} ${JSON.stringify(details)}`),
    })
  }
}

/** Who comes by y-websocket. */
const STRANGER = 'stranger'

function admissionOf(update: Uint8Array): Uint8Array {
  const state = createAdmission()
  absorbTrusted(state, update)
  return encodeAdmission(state)
}
