/**
 * A property: whatever several peers push, however their sockets stall and break and the disk fills, each is given every entry of the log once and in
 * order, and every edit takes effect once.
 */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Cursor } from '@rejoin/shared'
import type { PushFrame, RelayFrame } from '@rejoin/shared/wire'
import { createMemoryDisk } from '#server/storage/memory-disk.js'
import { createMemoryLog } from '#server/storage/memory.js'
import { seeded } from '../support/histories.ts'
import type { RawPeer, TestRelay } from '../support/relay.ts'
import { Writer, createTestRelay, entriesOf } from '../support/relay.ts'
import { createVirtualClock } from '../support/virtual-clock.ts'

const SEEDS = Number(process.env['REJOIN_STREAM_SEEDS'] ?? 200)

/** A device as the protocol wants it: keeps what is not acknowledged, sends again from where it is told, and follows its cursor. */
class Device {
  readonly writer = new Writer()
  /** Pushes that are not acknowledged, in order. */
  outbox: PushFrame[] = []
  cursor: Cursor | undefined
  /** seq → what was given for it. */
  readonly given = new Map<number, Uint8Array | 'own'>()
  /** The seq of the state it began with. */
  began = 0
  #peer: RawPeer | undefined
  #read = 0
  #handle = 0
  #sent = 0
  readonly #relay: TestRelay

  constructor(relay: TestRelay) {
    this.#relay = relay
  }

  connect(): void {
    this.#peer?.lose()
    this.#peer = this.#relay.silentPeer()
    this.#read = 0
    this.#handle = 0
    this.#peer.send({ type: 'hello', revisionMin: 1, revisionMax: 1, agent: 'device', token: '' })
  }

  push(merged: boolean): void {
    const frame = this.writer.push(0)
    // Edits that were never sent may travel as one.
    const last = this.outbox.at(-1)
    if (merged && last !== undefined && last.lo > this.#sent) this.outbox = [...this.outbox.slice(0, -1), this.#merge(last, frame)]
    else this.outbox.push(frame)
    this.#send(frame.lo)
  }

  stall(): void {
    this.#peer?.stall()
  }

  flow(): void {
    this.#peer?.flow()
  }

  /** Reads what has come. */
  poll(): void {
    const peer = this.#peer
    if (peer === undefined) return
    while (this.#read < peer.frames.length) {
      const frame = peer.frames[this.#read++]
      if (frame !== undefined) this.#take(peer, frame)
    }
  }

  #take(peer: RawPeer, frame: RelayFrame): void {
    switch (frame.type) {
      case 'welcome':
        peer.send({ type: 'open', ref: 1, document: 'd', cursor: this.cursor })
        return
      case 'opened':
        expect(frame.mode).toBe(this.cursor === undefined ? 'full' : 'resumed')
        this.#handle = frame.handle
        this.#send(1)
        return
      case 'refused':
        expect(frame.code).toBe('storage_full')
        peer.send({ type: 'open', ref: 1, document: 'd', cursor: this.cursor })
        return
      case 'state':
        this.began = frame.seq
        this.cursor = { lineage: frame.lineage, epoch: frame.epoch, seq: frame.seq, hash: frame.hash }
        return
      case 'entries':
        frame.updates.forEach((update, i) => this.#follow(frame.first + i, update))
        this.#moved({ hash: frame.hash })
        return
      case 'ack':
        if (frame.hash !== undefined) {
          this.#follow(frame.seq, 'own')
          this.#moved({ hash: frame.hash })
        }
        this.outbox = this.outbox.filter(({ hi }) => hi > frame.n)
        return
      case 'nack':
        this.#send(frame.expected)
        return
      default:
        throw new Error(`${frame.type} was not expected: ${JSON.stringify(frame)}`)
    }
  }

  #follow(seq: number, what: Uint8Array | 'own'): void {
    expect(seq).toBe((this.cursor?.seq ?? 0) + 1)
    this.given.set(seq, what)
    this.#moved({ seq: seq as Cursor['seq'] })
  }

  #moved(to: Partial<Cursor>): void {
    if (this.cursor === undefined) throw new Error('an entry before the state')
    this.cursor = { ...this.cursor, ...to }
  }

  #send(from: number): void {
    if (this.#handle === 0) return
    for (const frame of this.outbox) {
      if (frame.hi < from) continue
      this.#sent = Math.max(this.#sent, frame.hi)
      this.#peer?.send({ ...frame, handle: this.#handle })
    }
  }

  #merge(a: PushFrame, b: PushFrame): PushFrame {
    const update = this.writer.between(a.lo, b.hi)
    return { ...a, hi: b.hi, update, total: update.length }
  }
}

type Step = {
  readonly device: number
  readonly what: 'push' | 'merge' | 'stall' | 'flow' | 'reconnect' | 'full' | 'room'
  readonly ms: number
}
const step: fc.Arbitrary<Step> = fc.record({
  device: fc.nat(2),
  what: fc.oneof(
    { weight: 12, arbitrary: fc.constant('push' as const) },
    { weight: 3, arbitrary: fc.constant('merge' as const) },
    { weight: 2, arbitrary: fc.constant('stall' as const) },
    { weight: 2, arbitrary: fc.constant('flow' as const) },
    { weight: 2, arbitrary: fc.constant('reconnect' as const) },
    { weight: 1, arbitrary: fc.constant('full' as const) },
    { weight: 2, arbitrary: fc.constant('room' as const) },
  ),
  ms: fc.nat(6),
})

describe('every stream', () => {
  it('is the log, gap-free, and every edit is in it once', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 20, maxLength: 60 }), fc.nat(), async (steps, seed) => {
        const clock = createVirtualClock()
        const disk = createMemoryDisk({ clock, random: seeded(seed), flush: 8, seek: 3 })
        // Limits so low that small updates meet them.
        const relay = createTestRelay({ log: createMemoryLog(disk), clock, limits: { outbound: 200, window: 300 } })
        const devices = [0, 1, 2].map(() => new Device(relay))
        for (const device of devices) device.connect()
        for (const { device, what, ms } of steps) {
          const one = devices[device] as Device
          if (what === 'push' || what === 'merge') one.push(what === 'merge')
          else if (what === 'stall') one.stall()
          else if (what === 'flow') one.flow()
          else if (what === 'reconnect') one.connect()
          else disk.full = what === 'full'
          if (ms > 0) await clock.advance(ms)
          for (const each of devices) each.poll()
        }
        disk.full = false
        for (const device of devices) device.flow()
        for (let i = 0; i < 60 && !settled(devices); i++) {
          await clock.advance(20)
          for (const device of devices) device.poll()
        }
        const reading = entriesOf(relay.log, 'd')
        await clock.advance(10)
        const entries = await reading
        for (const { outbox, cursor, given, began, writer } of devices) {
          expect(outbox).toEqual([])
          expect(cursor?.seq).toBe(entries.length)
          expect(cursor?.hash).toBe(entries.at(-1)?.hash ?? cursor?.hash)
          for (const { seq, update, incarnation } of entries) {
            if (seq <= began) continue
            const got = given.get(seq)
            if (got === 'own') expect(incarnation).toBe(writer.incarnation)
            else expect(Buffer.compare(got ?? new Uint8Array(0), update)).toBe(0)
          }
          const own = entries.filter(({ incarnation }) => incarnation === writer.incarnation)
          expect(own.map(({ lo }) => lo)).toEqual([1, ...own.map(({ hi }) => hi + 1)].slice(0, own.length))
          expect(own.at(-1)?.hi ?? 0).toBe(writer.n)
        }
        expect(relay.fatal).toEqual([])
        expect(relay.reports).toEqual([])
      }),
      { numRuns: SEEDS },
    )
  })
})

function settled(devices: readonly Device[]): boolean {
  const [first] = devices
  return devices.every(({ outbox, cursor }) => outbox.length === 0 && cursor !== undefined && cursor.seq === first?.cursor?.seq)
}
