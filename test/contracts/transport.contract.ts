/**
 * What every transport owes its connection.
 */
import { afterEach, describe, expect, it } from 'vitest'
import type { Transport, TransportListener, TransportSocket } from '#client/transports/transport.js'
import { until } from '../support/until.ts'

/** The far end of one socket, as the test drives it. */
export interface FarEnd {
  readonly received: Uint8Array[]
  readonly closed: { readonly code: number; readonly reason: string } | undefined
  send(bytes: Uint8Array): void
  close(code: number, reason: string): void
  /** The network goes away without a word. */
  vanish?(): void
}

/** One transport, and somebody to dial. */
export interface TransportFixture {
  readonly transport: Transport
  readonly url: string
  /** An address where nobody listens. */
  readonly nowhere: string
  /** Sockets that arrived, oldest first. */
  readonly arrived: readonly FarEnd[]
  end(): Promise<void>
}

/** Everything a listener was told, in order. */
class Told implements TransportListener {
  readonly events: string[] = []
  readonly messages: Uint8Array[] = []
  code: number | undefined
  opened(): void {
    this.events.push('opened')
  }
  message(bytes: Uint8Array): void {
    this.events.push('message')
    this.messages.push(bytes)
  }
  closed(code: number): void {
    this.events.push('closed')
    this.code = code
  }
}

const bytes = (...values: number[]) => Uint8Array.from(values)

export function transportContract(name: string, create: () => Promise<TransportFixture>): void {
  describe(`the ${name} transport`, () => {
    let fixture: TransportFixture | undefined
    afterEach(async () => {
      await fixture?.end()
      fixture = undefined
    })

    async function dial(): Promise<{ told: Told; socket: TransportSocket; far: FarEnd }> {
      fixture ??= await create()
      const told = new Told()
      const count = fixture.arrived.length
      const socket = fixture.transport(fixture.url, told)
      expect(told.events).toEqual([])
      const far = await until(() => fixture?.arrived[count], 'the socket to arrive')
      await until(() => told.events.includes('opened'), 'opened')
      return { told, socket, far }
    }

    it('tells nothing before the dial has returned, then that it is open', async () => {
      const { told } = await dial()
      expect(told.events).toEqual(['opened'])
    })

    it('carries messages both ways, whole and in order', async () => {
      const { told, socket, far } = await dial()
      const large = new Uint8Array(900_000).map((_, index) => index % 251)
      for (let n = 0; n < 50; n++) {
        socket.send(bytes(n))
        far.send(bytes(n, n))
      }
      socket.send(large)
      far.send(large)
      await until(() => far.received.length === 51 && told.messages.length === 51, 'every message')
      expect(far.received.slice(0, 50).map(([first]) => first)).toEqual(Array.from({ length: 50 }, (_, n) => n))
      expect(told.messages.slice(0, 50).map(([first]) => first)).toEqual(Array.from({ length: 50 }, (_, n) => n))
      expect(Buffer.compare(far.received[50] ?? bytes(), large)).toBe(0)
      expect(Buffer.compare(told.messages[50] ?? bytes(), large)).toBe(0)
    })

    it('gives bytes that the listener may keep', async () => {
      const { told, far } = await dial()
      far.send(bytes(1, 2, 3))
      far.send(bytes(4, 5, 6))
      await until(() => told.messages.length === 2)
      told.messages[0]?.fill(9)
      expect([...(told.messages[1] ?? [])]).toEqual([4, 5, 6])
    })

    it('leaves the bytes it was given to the sender', async () => {
      const { socket, far } = await dial()
      const buffer = bytes(1, 2, 3)
      socket.send(buffer.slice())
      socket.send(bytes(7))
      await until(() => far.received.length === 2)
      expect([...(far.received[0] ?? [])]).toEqual([1, 2, 3])
    })

    it("tells the far end's close once, with its code, and nothing after it", async () => {
      const { told, socket, far } = await dial()
      far.send(bytes(1))
      far.close(4401, 'who are you')
      await until(() => told.events.includes('closed'))
      socket.send(bytes(1))
      socket.close(1000, '')
      await until(() => far.closed !== undefined)
      expect(told.events).toEqual(['opened', 'message', 'closed'])
      expect(told.code).toBe(4401)
    })

    it('tells its own close once, without waiting for the far end', async () => {
      const { told, socket, far } = await dial()
      socket.close(4400, 'not this protocol')
      await until(() => told.events.includes('closed'))
      expect(told.events).toEqual(['opened', 'closed'])
      await until(() => far.closed !== undefined)
      expect(far.closed?.code).toBe(4400)
    })

    it('ends a dial that was given up', async () => {
      fixture = await create()
      const told = new Told()
      fixture.transport(fixture.url, told).close(1000, '')
      await until(() => told.events.includes('closed'))
      expect(told.events).toEqual(['closed'])
    })

    it('tells a network that went away', async () => {
      const { told, far } = await dial()
      if (far.vanish === undefined) far.close(1006, '')
      else far.vanish()
      await until(() => told.events.includes('closed'))
      expect(told.code).toBe(1006)
    })

    it('tells a dial that nobody answers, and does not throw', async () => {
      fixture = await create()
      const told = new Told()
      fixture.transport(fixture.nowhere, told)
      await until(() => told.events.includes('closed'))
      expect(told.events).toEqual(['closed'])
      expect(told.code).toBe(1006)
    })
  })
}
