/**
 * Who is here (beside the path): relays y-protocols awareness between the sockets of a document. Kept in memory, stamped with the principal, never logged.
 *
 * The first socket to announce a Yjs client id owns it until it says goodbye, leaves, or does not renew it; what others say of it is passed over in silence,
 * because stock clients repeat whatever they hear. Source: y-protocols 1.0.7, applyAwarenessUpdate.
 */
import type { Clock, DocumentId, Limits } from '@rejoin/shared'
import { ByteReader, ByteWriter, WIRE_LIMITS } from '@rejoin/shared/wire'
import type { Presence, PresencePeer } from './peer.ts'

/** Presence of all documents of a relay. */
export interface PresenceRelay extends Presence {
  /** Somebody asks who is here: the answer goes to `peer` alone. */
  asked(document: DocumentId, peer: PresencePeer): void
}

/** What presence needs. */
export interface PresenceOptions {
  readonly clock: Clock
  readonly limits: Pick<Limits, 'presence' | 'presencePerSecond'>
}

/** A client that is not renewed for this long is gone, in ms; y-protocols renews every 15 s. */
export const PRESENCE_MS = 30_000
/** Expiry is looked at this often, in ms. */
const SWEEP_MS = 3000
/** Yjs client ids that one socket may announce in one document: its own, or those of a browser's tabs. */
const OWNED = 100
/** One message to a peer holds about this much, in bytes, below what a frame may. */
const MESSAGE_BYTES = WIRE_LIMITS.presence / 2

/** One Yjs client. */
interface Announced {
  readonly owner: Seat
  clock: number
  /** JSON, stamped, as UTF-8. */
  state: Uint8Array
  renewed: number
}

/** One socket in one document. */
interface Seat {
  readonly peer: PresencePeer
  readonly owned: Set<number>
  /** Messages it may still send now, and when that was last counted. */
  tokens: number
  countedAt: number
  /** The last it said when it had no token left: heard when it has one. */
  late: Uint8Array | undefined
  cancel: () => void
}

interface Table {
  readonly seats: Map<PresencePeer, Seat>
  readonly clients: Map<number, Announced>
}

const utf8 = new TextEncoder()
const strict = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
const GONE = utf8.encode('null')

/** Presence under `clock`. */
export function createPresence({ clock, limits }: PresenceOptions): PresenceRelay {
  const tables = new Map<DocumentId, Table>()
  let sweeping = false

  function seatOf(document: DocumentId, peer: PresencePeer): { table: Table; seat: Seat } | undefined {
    const table = tables.get(document)
    const seat = table?.seats.get(peer)
    return table === undefined || seat === undefined ? undefined : { table, seat }
  }

  /** Counts a message of the seat; false when it has sent too many. */
  function spend(seat: Seat): boolean {
    const now = clock.now()
    const passed = Math.max(0, now - seat.countedAt)
    seat.tokens = Math.min(limits.presencePerSecond, seat.tokens + (passed / 1000) * limits.presencePerSecond)
    seat.countedAt = now
    if (seat.tokens < 1) return false
    seat.tokens--
    return true
  }

  function hear(table: Table, seat: Seat, awareness: Uint8Array): void {
    const changed: Shown[] = []
    for (const said of decode(awareness)) {
      const state = take(table, seat, said)
      if (state !== undefined) changed.push({ client: said.client, clock: said.clock, state })
    }
    tell(table, changed, seat)
  }

  /** Once it has a token again. */
  function hearLater(table: Table, seat: Seat): void {
    seat.cancel = clock.after(Math.ceil(1000 / limits.presencePerSecond), () => {
      const { late } = seat
      if (late === undefined) return
      if (spend(seat)) {
        seat.late = undefined
        hear(table, seat, late)
      } else hearLater(table, seat)
    })
  }

  function tell({ seats }: Table, states: readonly Shown[], except: Seat | undefined): void {
    for (const message of encode(states)) for (const seat of seats.values()) if (seat !== except) seat.peer.presence(message)
  }

  /** The state as it now stands for the client; undefined when what was said of it does not count. */
  function take(table: Table, seat: Seat, { client, clock: at, json }: Said): Uint8Array | undefined {
    const known = table.clients.get(client)
    if (known !== undefined && known.owner !== seat) return undefined
    const state = json.length <= limits.presence ? stamp(json, seat.peer.principal) : undefined
    if (state === undefined) return undefined
    if (known === undefined) {
      if (state === GONE || seat.owned.size >= OWNED) return undefined
      seat.owned.add(client)
      table.clients.set(client, { owner: seat, clock: at, state, renewed: clock.now() })
      return state
    }
    if (at < known.clock || (at === known.clock && state !== GONE)) return undefined
    if (state === GONE) forget(table, client)
    known.clock = at
    known.state = state
    known.renewed = clock.now()
    return state
  }

  function forget(table: Table, client: number): void {
    table.clients.get(client)?.owner.owned.delete(client)
    table.clients.delete(client)
  }

  function show({ clients }: Table, peer: PresencePeer): void {
    for (const message of encode(shown(clients))) peer.presence(message)
  }

  function sweep(): void {
    if (sweeping || tables.size === 0) return
    sweeping = true
    clock.after(SWEEP_MS, () => {
      sweeping = false
      const now = clock.now()
      for (const table of tables.values()) expire(table, now)
      sweep()
    })
  }

  function expire(table: Table, now: number): void {
    for (const [client, announced] of table.clients) {
      // A clock that was set back must not keep anybody here for ever.
      if (now < announced.renewed) announced.renewed = now
      if (now - announced.renewed < PRESENCE_MS) continue
      forget(table, client)
      // Its owner as well: it may be the echo of somebody who is gone.
      tell(table, [{ client, clock: announced.clock, state: GONE }], undefined)
    }
  }

  return {
    joined(document, peer) {
      let table = tables.get(document)
      if (table === undefined) tables.set(document, (table = { seats: new Map(), clients: new Map() }))
      table.seats.set(peer, {
        peer,
        owned: new Set(),
        tokens: limits.presencePerSecond,
        countedAt: clock.now(),
        late: undefined,
        cancel: () => undefined,
      })
      show(table, peer)
      sweep()
    },
    received(document, peer, awareness) {
      const found = seatOf(document, peer)
      if (found === undefined || awareness.length > WIRE_LIMITS.presence) return
      const { table, seat } = found
      // Stock clients repeat whatever they hear; that must not use up what they may say themselves.
      if (!decode(awareness).some(({ client }) => (table.clients.get(client)?.owner ?? seat) === seat)) return
      if (seat.late === undefined && spend(seat)) {
        hear(table, seat, awareness)
        return
      }
      if (seat.late === undefined) hearLater(table, seat)
      // Copied: what is kept would otherwise keep the whole message.
      seat.late = awareness.slice()
    },
    asked(document, peer) {
      const found = seatOf(document, peer)
      if (found !== undefined && spend(found.seat)) show(found.table, peer)
    },
    left(document, peer) {
      const found = seatOf(document, peer)
      if (found === undefined) return
      const { table, seat } = found
      seat.cancel()
      seat.late = undefined
      table.seats.delete(peer)
      const gone: Shown[] = []
      for (const client of seat.owned) {
        gone.push({ client, clock: table.clients.get(client)?.clock ?? 0, state: GONE })
        table.clients.delete(client)
      }
      tell(table, gone, undefined)
      if (table.seats.size === 0) tables.delete(document)
    },
  }
}

/** What a message says of one client. */
interface Said {
  readonly client: number
  readonly clock: number
  readonly json: Uint8Array
}

/** What is told of one client. */
interface Shown {
  readonly client: number
  readonly clock: number
  readonly state: Uint8Array
}

function shown(clients: ReadonlyMap<number, Announced>): Shown[] {
  return [...clients].map(([client, { clock, state }]) => ({ client, clock, state }))
}

/** The clients of an awareness update; none when its bytes are not one. */
function decode(awareness: Uint8Array): readonly Said[] {
  const reader = new ByteReader(awareness)
  const said: Said[] = []
  for (let left = reader.varUint(); left > 0 && reader.fault === undefined; left--) {
    said.push({ client: reader.varUint(), clock: reader.varUint(), json: reader.blob(WIRE_LIMITS.presence, 'a state') })
  }
  return reader.fault === undefined ? said : []
}

/** An awareness update, or several when it would be too large for one. */
function encode(states: readonly Shown[]): Uint8Array[] {
  const messages: Uint8Array[] = []
  for (let from = 0; from < states.length;) {
    let bytes = 0
    let to = from
    for (; to < states.length && (to === from || bytes < MESSAGE_BYTES); to++) bytes += (states[to]?.state.length ?? 0) + 16
    const writer = new ByteWriter()
    writer.varUint(to - from)
    for (const { client, clock, state } of states.slice(from, to)) {
      writer.varUint(client)
      writer.varUint(clock)
      writer.blob(state)
    }
    messages.push(writer.take())
    from = to
  }
  return messages
}

/** The state with the principal that vouches for it; GONE for null; undefined when it is no state. */
function stamp(json: Uint8Array, principal: string): Uint8Array | undefined {
  let state: unknown
  try {
    state = JSON.parse(strict.decode(json))
  } catch {
    return undefined
  }
  if (state === null) return GONE
  if (typeof state !== 'object' || Array.isArray(state)) return undefined
  return utf8.encode(JSON.stringify({ ...state, principal }))
}
