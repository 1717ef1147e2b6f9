/**
 * Edits that the relay has not acknowledged (between steps 1 and 3 of the path): in order per incarnation, what is sent next, and what an answer means. Deterministic; the device's store keeps the rows.
 */
import { ERRORS, backoff } from '@rejoin/shared'
import type { IncarnationId, Random } from '@rejoin/shared'
import type { NackFrame } from '@rejoin/shared/wire'
import * as Y from 'yjs'
import type { OutboxRow } from './stores/store.ts'

/** Edits lo..hi of one incarnation as one update, ready to go. */
export interface Push {
  readonly incarnation: IncarnationId
  readonly lo: number
  readonly hi: number
  readonly update: Uint8Array
}

/** Neighbours merged into one push: cut here, so that a push that is not taken costs little. `rows`: merging a flat list is quadratic. */
export const MERGE_LIMITS: { readonly bytes: number; readonly structs: number; readonly rows: number } = {
  bytes: 256 * 1024,
  structs: 5000,
  rows: 512,
}

/** What a nack came to. `lost`: the relay misses edits that this device no longer has as rows. */
export type Verdict = { readonly type: 'again' } | { readonly type: 'lost' } | { readonly type: 'refused'; readonly row: OutboxRow }

interface Flight {
  readonly lo: number
  readonly hi: number
  readonly bytes: number
}

/** One incarnation's edits, in order. */
interface Lane {
  readonly incarnation: IncarnationId
  readonly own: boolean
  /** Ascending, each already as durable as the device can make it; acknowledged ones are gone. */
  rows: OutboxRow[]
  acked: number
  /** How many of the rows were refused. */
  refused: number
  /** Highest n that was sent on this socket. */
  sent: number
  flights: Flight[]
  /** Bounds of merged pushes that may have reached the relay: sent again they are the same. */
  frozen: Flight[]
  /** Up to here one edit a push: a merged push was not taken, and one of them is to blame. */
  single: number
  attempt: number
  /** Not before, ms. */
  until: number
}

/** The outbox of one document, as far as this client may send it. */
export class Outbox {
  readonly #lanes = new Map<IncarnationId, Lane>()
  /** Bytes sent and not answered. */
  flying = 0

  /** Makes a place for an incarnation: its own, or one adopted from a tab that is gone. Adopted ones are sent first. `acked`: edits up to here are known to be on the relay. */
  admit(incarnation: IncarnationId, own: boolean, acked: number): void {
    if (this.#lanes.has(incarnation)) return
    this.#lanes.set(incarnation, {
      incarnation,
      own,
      rows: [],
      acked,
      refused: 0,
      sent: acked,
      flights: [],
      frozen: [],
      single: 0,
      attempt: 0,
      until: 0,
    })
  }

  /** Adds rows behind those that are there; what is already there or acknowledged is passed over. */
  add(incarnation: IncarnationId, rows: readonly OutboxRow[]): void {
    const lane = this.#lanes.get(incarnation)
    if (lane === undefined) return
    for (const row of rows) {
      if (row.n <= (lane.rows.at(-1)?.n ?? lane.acked)) continue
      lane.rows.push(row)
      if (row.refused !== undefined) lane.refused += 1
    }
  }

  has(incarnation: IncarnationId): boolean {
    return this.#lanes.has(incarnation)
  }

  /** Forgets an adopted incarnation that is empty. */
  dismiss(incarnation: IncarnationId): void {
    this.#lanes.delete(incarnation)
  }

  /** The next push, now counted as sent; 'full' when there is one that wants more room; undefined when nothing may go. `room`: bytes that may be sent; `Infinity` when nothing is under way, since one push may be larger than the window. */
  next(now: number, room: number): Push | 'full' | undefined {
    for (const lane of this.#inOrder()) {
      if (lane.until > now) continue
      const push = this.#take(lane, room)
      if (push !== undefined) return push
    }
    return undefined
  }

  /** Edits up to n are durable on the relay. Returns how far that reaches: never beyond what was sent. */
  acked(incarnation: IncarnationId, n: number): number {
    const lane = this.#lanes.get(incarnation)
    if (lane === undefined) return 0
    const through = Math.min(n, lane.sent)
    if (through <= lane.acked) return lane.acked
    lane.acked = through
    lane.attempt = 0
    const keep = lane.rows.findIndex((row) => row.n > through)
    lane.rows = keep < 0 ? [] : lane.rows.slice(keep)
    lane.frozen = lane.frozen.filter(({ lo }) => lo > through)
    this.#land(lane, (flight) => flight.hi <= through)
    return through
  }

  /** A push was not taken, and the relay listens again from `expected`. Codes that hold the outbox do not come here. */
  nacked({ incarnation, n, expected, code, message, retryAfter }: NackFrame, now: number, random: Random): Verdict {
    const lane = this.#lanes.get(incarnation)
    if (lane === undefined) return { type: 'again' }
    const flight = lane.flights.find(({ lo }) => lo === n)
    // A late answer to what has been rewound or acknowledged since.
    if (flight === undefined) return { type: 'again' }
    const never = ERRORS[code].retry === 'never'
    const alone = flight.lo === flight.hi
    this.#back(lane, Math.min(expected, n))
    if (never && alone) {
      const refused = { code, message, at: now }
      const at = lane.rows.findIndex((row) => row.n === n)
      const old = lane.rows[at]
      if (old === undefined) return { type: 'again' }
      const row: OutboxRow = { ...old, refused }
      lane.rows[at] = row
      lane.refused += 1
      return { type: 'refused', row }
    }
    // Not taken for what is in it, or for what it builds on: which of the merged edits is to blame shows when they go one by one.
    if (!alone && (never || (code === 'gap' && expected >= n))) {
      lane.single = Math.max(lane.single, flight.hi)
      lane.frozen = lane.frozen.filter(({ lo }) => lo > flight.hi)
    }
    if (expected <= lane.acked) return { type: 'lost' }
    if (!never) {
      // A gap in the numbers is closed at once; anything else is given time.
      const hurry = code === 'gap' && expected < n && lane.attempt === 0
      lane.until = hurry ? now : now + backoff(lane.attempt, random, { first: 250, cap: 15_000, atLeast: retryAfter })
      lane.attempt += 1
    }
    return { type: 'again' }
  }

  /** The socket is gone or the grant is: what was not answered will be sent again. */
  rewind(): void {
    for (const lane of this.#lanes.values()) {
      this.#back(lane, 0)
      lane.attempt = 0
      lane.until = 0
    }
  }

  /** When something that waits may go, ms; undefined when nothing waits for time. */
  due(now: number): number | undefined {
    const times = [...this.#lanes.values()]
      .filter((lane) => lane.until > now && lane.rows.some((row) => row.n > lane.sent))
      .map((lane) => lane.until)
    return times.length === 0 ? undefined : Math.min(...times)
  }

  /** Puts a refused edit back in line. */
  retry(incarnation: IncarnationId, n: number): OutboxRow | undefined {
    const lane = this.#lanes.get(incarnation)
    const old = lane?.rows.find((row) => row.n === n && row.refused !== undefined)
    if (lane === undefined || old === undefined) return undefined
    const row: OutboxRow = { incarnation, n, update: old.update }
    lane.rows[lane.rows.indexOf(old)] = row
    lane.refused -= 1
    return row
  }

  /** Rows of every lane, in order. */
  *rows(): Generator<OutboxRow> {
    for (const lane of this.#inOrder()) yield* lane.rows
  }

  /** Rows that wait for an ack, rows that were refused, and how many of those that wait are not behind a refused one. */
  count(): { readonly pending: number; readonly refused: number; readonly free: number } {
    let [pending, refused, free] = [0, 0, 0]
    for (const { rows, refused: bad } of this.#lanes.values()) {
      refused += bad
      pending += rows.length - bad
      free += bad === 0 ? rows.length : rows.findIndex((row) => row.refused !== undefined)
    }
    return { pending, refused, free }
  }

  /** Edits of the incarnation up to here are on the relay. */
  ackedOf(incarnation: IncarnationId): number {
    return this.#lanes.get(incarnation)?.acked ?? 0
  }

  /** The refused row that keeps edit n of the incarnation from the relay: it, or one before it. */
  refusedOf(incarnation: IncarnationId, n: number): OutboxRow | undefined {
    const lane = this.#lanes.get(incarnation)
    return lane === undefined || lane.refused === 0 ? undefined : lane.rows.find((row) => row.refused !== undefined && row.n <= n)
  }

  isEmpty(incarnation: IncarnationId): boolean {
    return (this.#lanes.get(incarnation)?.rows.length ?? 0) === 0
  }

  /** How far each incarnation is acknowledged: what a `state` push covers. */
  covers(): readonly { readonly incarnation: IncarnationId; readonly n: number }[] {
    return [...this.#lanes.values()].filter(({ acked }) => acked > 0).map(({ incarnation, acked }) => ({ incarnation, n: acked }))
  }

  /** Adopted first: this tab's own edits may build on them. */
  #inOrder(): readonly Lane[] {
    const lanes = [...this.#lanes.values()]
    return [...lanes.filter(({ own }) => !own), ...lanes.filter(({ own }) => own)]
  }

  #take(lane: Lane, room: number): Push | 'full' | undefined {
    const start = lane.rows.findIndex((row) => row.n > lane.sent)
    const first = lane.rows[start]
    // Behind a refused edit Yjs could not integrate what follows it: the later ones wait.
    if (first === undefined || (lane.refused > 0 && lane.rows.slice(0, start + 1).some((row) => row.refused !== undefined)))
      return undefined
    const group = this.#group(lane, start)
    const update = group.length === 1 ? first.update : Y.mergeUpdates(group.map((row) => row.update))
    if (update.length > room) return 'full'
    const hi = first.n + group.length - 1
    if (lane.frozen[0]?.lo === first.n) lane.frozen.shift()
    lane.sent = hi
    lane.flights.push({ lo: first.n, hi, bytes: update.length })
    this.flying += update.length
    return { incarnation: lane.incarnation, lo: first.n, hi, update }
  }

  /** The rows of one push, from `start`: as it was sent before, or as many neighbours as fit. */
  #group(lane: Lane, start: number): readonly OutboxRow[] {
    const first = lane.rows[start]
    if (first === undefined) return []
    const [old] = lane.frozen
    if (old?.lo === first.n) return lane.rows.slice(start, start + old.hi - old.lo + 1)
    if (first.n <= lane.single || lane.rows.length === start + 1) return [first]
    const end = old?.lo ?? Infinity
    let bytes = first.update.length
    let structs = countStructs(first.update)
    let length = 1
    for (; length < MERGE_LIMITS.rows; length++) {
      const row = lane.rows[start + length]
      if (row === undefined || row.refused !== undefined || row.n !== first.n + length || row.n >= end) break
      bytes += row.update.length
      if (bytes > MERGE_LIMITS.bytes) break
      structs += countStructs(row.update)
      if (structs > MERGE_LIMITS.structs) break
    }
    return lane.rows.slice(start, start + length)
  }

  /** Forgets what was sent from `from` on, and remembers its bounds. */
  #back(lane: Lane, from: number): void {
    const gone = lane.flights.filter(({ hi }) => hi >= from)
    this.#land(lane, ({ hi }) => hi >= from)
    lane.frozen = [...gone, ...lane.frozen]
    lane.sent = lane.flights.at(-1)?.hi ?? lane.acked
  }

  #land(lane: Lane, gone: (flight: Flight) => boolean): void {
    lane.flights = lane.flights.filter((flight) => {
      if (gone(flight)) this.flying -= flight.bytes
      return !gone(flight)
    })
  }
}

function countStructs(update: Uint8Array): number {
  return Y.decodeUpdate(update).structs.length
}
