/**
 * The relay's presence, with y-protocols' own Awareness as the other party and time standing still.
 */
import { Awareness, applyAwarenessUpdate, encodeAwarenessUpdate } from 'y-protocols/awareness'
import * as Y from 'yjs'
import { afterEach, describe, expect, it } from 'vitest'
import type { DocumentId } from '@rejoin/shared'
import { DEFAULT_LIMITS } from '@rejoin/shared'
import type { PresencePeer } from '#server/relay/peer.js'
import type { PresenceRelay } from '#server/relay/presence.js'
import { PRESENCE_MS, createPresence } from '#server/relay/presence.js'
import { ByteWriter } from '#shared/bytes.js'
import type { VirtualClock } from '../support/virtual-clock.ts'
import { createVirtualClock } from '../support/virtual-clock.ts'

const DOCUMENT = 'clinic-1' as DocumentId
const utf8 = new TextEncoder()
const opened: Device[] = []

afterEach(() => {
  for (const device of opened.splice(0)) device.awareness.destroy()
})

interface World {
  readonly clock: VirtualClock
  readonly relay: PresenceRelay
  readonly device: (principal: string, document?: string) => Device
}

function world(limits = DEFAULT_LIMITS): World {
  const clock = createVirtualClock()
  const relay = createPresence({ clock, limits })
  return {
    clock,
    relay,
    device(principal, document = DOCUMENT) {
      const device = new Device(relay, principal, document as DocumentId)
      opened.push(device)
      return device
    },
  }
}

/** A stock client: it sends every change it sees, its own and those it hears of. */
class Device implements PresencePeer {
  readonly principal: string
  readonly awareness = new Awareness(new Y.Doc())
  readonly heard: Uint8Array[] = []
  readonly #relay: PresenceRelay
  readonly #document: DocumentId
  #gone = false

  constructor(relay: PresenceRelay, principal: string, document: DocumentId) {
    this.#relay = relay
    this.principal = principal
    this.#document = document
    relay.joined(document, this)
    this.awareness.on('update', ({ added, updated, removed }: { added: number[]; updated: number[]; removed: number[] }) => {
      this.send(encodeAwarenessUpdate(this.awareness, [...added, ...updated, ...removed]))
    })
  }

  get id(): number {
    return this.awareness.clientID
  }

  presence(update: Uint8Array): void {
    this.heard.push(update)
    applyAwarenessUpdate(this.awareness, update, 'remote')
  }

  send(update: Uint8Array): void {
    if (!this.#gone) this.#relay.received(this.#document, this, update)
  }

  set(state: Record<string, unknown> | null): void {
    this.awareness.setLocalState(state)
  }

  sees(other: Device): unknown {
    return this.awareness.states.get(other.id)
  }

  /** Its process is stopped: the socket is open, and nothing comes. */
  freeze(): void {
    this.#gone = true
  }

  leave(): void {
    this.freeze()
    this.#relay.left(this.#document, this)
  }
}

/** An awareness update of one client, with any text for a state. */
function forged(client: number, clock: number, json: string): Uint8Array {
  const writer = new ByteWriter()
  writer.varUint(1)
  writer.varUint(client)
  writer.varUint(clock)
  writer.blob(utf8.encode(json))
  return writer.take()
}

describe('presence on the relay', () => {
  it('shows each to the others with the principal that vouches for it, and newcomers all of them', () => {
    const { device } = world()
    const [ada, bob] = [device('ada'), device('bob')]
    ada.set({ cursor: 3, principal: 'bob' })
    expect(bob.sees(ada)).toEqual({ cursor: 3, principal: 'ada' })
    bob.set({ cursor: 9 })
    const eve = device('eve')
    expect([eve.sees(ada), eve.sees(bob)]).toEqual([
      { cursor: 3, principal: 'ada' },
      { cursor: 9, principal: 'bob' },
    ])
    expect(device('else', 'clinic-2').awareness.states.size).toBe(1)
  })

  it('tells the others when somebody leaves or says goodbye', () => {
    const { device } = world()
    const [ada, bob, eve] = [device('ada'), device('bob'), device('eve')]
    ada.set({ a: 1 })
    bob.set({ b: 1 })
    ada.leave()
    expect(eve.sees(ada)).toBeUndefined()
    bob.set(null)
    expect(eve.sees(bob)).toBeUndefined()
    expect(device('new').awareness.states.size).toBe(1)
  })

  it('lets whoever announced a client id first speak for it, and nobody else', () => {
    const { device } = world()
    const [ada, bob, eve] = [device('ada'), device('bob'), device('eve')]
    ada.set({ a: 1 })
    bob.send(forged(ada.id, 99, '{"a":"forged"}'))
    bob.send(forged(ada.id, 100, 'null'))
    expect([eve.sees(ada), bob.heard.length > 0]).toEqual([{ a: 1, principal: 'ada' }, true])
    ada.set({ a: 2 })
    expect(eve.sees(ada)).toEqual({ a: 2, principal: 'ada' })
    ada.leave()
    bob.send(forged(ada.id, 101, '{"a":"now mine"}'))
    expect(eve.sees(ada)).toEqual({ a: 'now mine', principal: 'bob' })
  })

  it('forgets who was not renewed for 30 s, and tells everybody', async () => {
    const { device, clock } = world()
    const [ada, bob] = [device('ada'), device('bob')]
    ada.set({ a: 1 })
    bob.set({ b: 1 })
    await clock.advance(PRESENCE_MS - 1000)
    ada.set({ a: 1 })
    expect(bob.sees(ada)).toBeDefined()
    bob.freeze()
    await clock.advance(5000)
    expect(ada.sees(bob)).toBeUndefined()
    expect(bob.sees(ada)).toBeDefined()
    // Whoever is told that it is gone itself and is not, says so.
    await clock.advance(PRESENCE_MS + 5000)
    expect(bob.sees(ada)).toBeDefined()
    ada.freeze()
    await clock.advance(PRESENCE_MS + 5000)
    expect(bob.sees(ada)).toBeUndefined()
  })

  it('leaves nothing behind once all have left: no timer, no state', async () => {
    const { device, clock } = world()
    const [ada, bob] = [device('ada'), device('bob')]
    ada.set({ a: 1 })
    ada.leave()
    bob.leave()
    await clock.advance(10_000)
    expect(clock.waiting).toBe(0)
    expect(device('eve').awareness.states.size).toBe(1)
  })

  it('holds each client to 2 KiB and each socket to its rate, and still tells the last that was said', async () => {
    const { device, clock } = world({ ...DEFAULT_LIMITS, presencePerSecond: 10 })
    const [ada, bob] = [device('ada'), device('bob')]
    ada.set({ a: 'x'.repeat(3000) })
    expect(bob.sees(ada)).toBeUndefined()
    ada.set({ a: 'x'.repeat(2000) })
    expect(bob.sees(ada)).toBeDefined()
    const before = bob.heard.length
    for (let n = 0; n < 100; n++) ada.set({ n })
    expect(bob.heard.length - before).toBeLessThan(10)
    await clock.advance(1000)
    expect(bob.sees(ada)).toEqual({ n: 99, principal: 'ada' })
    expect(bob.heard.length - before).toBeLessThan(12)
  })

  it('takes any bytes without a throw, and believes none that are not a state', () => {
    const { device } = world()
    const [ada, bob] = [device('ada'), device('bob')]
    for (const text of ['', '[1]', '7', '"x"', '{', '{"a":1', 'undefined', '{"__proto__":{"x":1}}']) ada.send(forged(ada.id, 5, text))
    for (const raw of [
      Uint8Array.of(),
      Uint8Array.of(255),
      Uint8Array.of(200, 200, 200, 200, 4),
      new Uint8Array(70_000),
      Uint8Array.of(1, 1, 1, 5, 0xff, 0xff),
    ])
      ada.send(raw)
    expect(Object.getPrototypeOf(bob.sees(ada) ?? {})).toBe(Object.prototype)
    expect(bob.awareness.states.size).toBe(2)
  })

  it('gives a newcomer what does not fit into one message in several', () => {
    const { device } = world()
    const full = { text: 'x'.repeat(1900) }
    const devices = Array.from({ length: 60 }, (_, n) => device(`user-${n}`))
    for (const each of devices) each.set(full)
    const late = device('late')
    expect(late.awareness.states.size).toBe(61)
    expect(Math.max(...late.heard.map(({ length }) => length))).toBeLessThan(65_536)
  })
})
