/**
 * A hostile network between devices and the relay: late, cut in the middle, half open, slow to read. What it delivers it delivers in order, as TCP does.
 */
import type { Clock } from '@rejoin/shared'
import type { Transport, TransportListener, TransportSocket } from '#client/transports/transport.js'
import type { RelaySocket, SocketListener } from '#server/relay/peer.js'
import type { Chance } from './chance.ts'

/** What listens at the relay's address, while it runs. */
export interface Listening {
  connect(socket: RelaySocket): SocketListener
}

/** One tab's way to the relay. */
export interface Access {
  readonly transport: Transport
  online: boolean
  /** Whether it reads as slowly as it can. */
  slow: boolean
  /** Breaks what is open. `silently`: neither side is told; they must find out. */
  cut(silently: boolean): void
  /** While it is frozen nothing reaches the tab; it then comes all at once. */
  freeze(): void
  thaw(): void
}

/** Told of every message at the moment it is handed to the network, with a number for the socket. */
export interface Tap {
  up(socket: number, bytes: Uint8Array): void
  down(socket: number, bytes: Uint8Array): void
}

/** The network. */
export interface Network {
  /** Undefined while no relay runs. */
  listening: Listening | undefined
  /** `address`: where what is dialled listens, when it is not `listening`. */
  access(tap?: Tap, address?: () => Listening | undefined): Access
  /** The relay's process is gone: every socket breaks. */
  relayDied(): void
  /** While true nothing hostile happens any more. */
  calm: boolean
}

interface Wire {
  cut(silently: boolean): void
  relayDied(): void
}

export function createNetwork(clock: Clock, chance: Chance): Network {
  const wires = new Set<Wire>()
  let sockets = 0
  const network: Network = {
    listening: undefined,
    calm: false,
    relayDied: () => {
      for (const wire of [...wires]) wire.relayDied()
    },
    access: (tap, address = () => network.listening) => {
      const own = new Set<Wire>()
      let waiting: (() => void)[] | undefined
      const deliver = (run: () => void): void => {
        if (waiting === undefined) run()
        else waiting.push(run)
      }
      const access: Access = {
        online: true,
        slow: false,
        cut: (silently) => {
          for (const wire of [...own]) wire.cut(silently)
        },
        freeze: () => {
          waiting ??= []
        },
        thaw: () => {
          const late = waiting ?? []
          waiting = undefined
          for (const run of late) run()
        },
        transport: (_url, listener) => dial({ clock, chance, tap, network, address, access, wires, own, deliver, id: sockets++ }, listener),
      }
      return access
    },
  }
  return network
}

interface Dial {
  readonly clock: Clock
  readonly chance: Chance
  readonly tap: Tap | undefined
  readonly network: Network
  readonly address: () => Listening | undefined
  readonly access: Access
  readonly wires: Set<Wire>
  readonly own: Set<Wire>
  /** Runs what the tab is told, once it is not frozen. */
  readonly deliver: (run: () => void) => void
  readonly id: number
}

/** Longest way of a message, in ms. */
const LATENCY_MS = 120
/** Longest stall of a reader, in ms. */
const STALL_MS = 4000

function dial(
  { clock, chance, tap, network, address, access, wires, own, deliver, id }: Dial,
  listener: TransportListener,
): TransportSocket {
  let client: 'dialling' | 'open' | 'closed' = 'dialling'
  let relay: SocketListener | undefined
  /** Nothing arrives any more, and nobody is told. */
  let severed = false
  let upAt = 0
  let downAt = 0
  let downBuffered = 0
  let paused = false
  const held: Uint8Array[] = []

  const later = (earliest: number, run: () => void): number => {
    const at = Math.max(earliest, clock.now() + chance.random() * LATENCY_MS)
    clock.after(at - clock.now(), run)
    return at
  }

  function endClient(code: number, reason: string): void {
    if (client === 'closed') return
    client = 'closed'
    wires.delete(wire)
    own.delete(wire)
    deliver(() => listener.closed(code, reason))
  }

  function endRelay(): void {
    const gone = relay
    relay = undefined
    gone?.closed()
  }

  const wire: Wire = {
    cut: (silently) => {
      severed = true
      if (silently) return
      later(0, endRelay)
      later(0, () => endClient(1006, 'the network broke'))
    },
    relayDied: () => {
      // A dead process is not told of its own death.
      relay = undefined
      if (!severed) later(downAt, () => endClient(1006, 'the relay died'))
    },
  }

  const relaySocket: RelaySocket = {
    get buffered() {
      return downBuffered
    },
    send: (bytes) => {
      if (relay === undefined && client !== 'dialling') return
      tap?.down(id, bytes)
      downBuffered += bytes.length
      // A reader that stalls for a while: the relay sees its buffer grow.
      const stalls = !network.calm && chance.maybe(access.slow ? 0.5 : 0.02)
      const stall = stalls ? chance.random() * STALL_MS : 0
      downAt = later(Math.max(downAt, clock.now() + stall), () => {
        if (severed) return
        downBuffered -= bytes.length
        if (downBuffered === 0) relay?.drained()
        // The relay may send the same bytes to many: each gets its own.
        if (client !== 'closed') deliver(() => listener.message(bytes.slice()))
      })
    },
    pause: () => {
      paused = true
    },
    resume: () => {
      paused = false
      for (const bytes of held.splice(0)) relay?.message(bytes)
    },
    close: (code, reason) => {
      later(0, endRelay)
      // What was sent before arrives before the close does.
      downAt = later(downAt, () => {
        if (!severed) endClient(code, reason)
      })
    },
  }

  later(0, () => {
    if (client === 'closed') return
    const listening = address()
    if (!access.online || listening === undefined) {
      endClient(1006, 'nobody there')
      return
    }
    client = 'open'
    wires.add(wire)
    own.add(wire)
    relay = listening.connect(relaySocket)
    deliver(() => listener.opened())
  })

  return {
    send: (bytes) => {
      if (client !== 'open') return
      tap?.up(id, bytes)
      const copy = bytes.slice()
      upAt = later(upAt, () => {
        if (severed) return
        if (paused) held.push(copy)
        else relay?.message(copy)
      })
    },
    close: (code, reason) => {
      if (client === 'closed') return
      clock.after(0, () => endClient(code, reason))
      if (client === 'open' && !severed) upAt = later(upAt, endRelay)
    },
  }
}
