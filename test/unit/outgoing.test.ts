/**
 * What leaves a socket in one turn: framed into one buffer, and read back by the other side as the same messages.
 */
import { PassThrough } from 'node:stream'
import fc from 'fast-check'
import { expect, it } from 'vitest'
// @ts-expect-error -- exported, and left out of its types
import { Receiver } from 'ws'
import { createOutgoing } from '#server/http/outgoing.js'

const sizes = fc.oneof(fc.constantFrom(0, 1, 125, 126, 127, 65_535, 65_536, 70_000), fc.nat(2000))

it('a reader of WebSocket frames gets the messages of each turn, whole and in order', () => {
  fc.assert(
    fc.property(fc.array(fc.array(sizes, { maxLength: 6 }), { maxLength: 4 }), (turns) => {
      const socket = new PassThrough()
      const outgoing = createOutgoing(socket)
      const sent: Buffer[] = []
      for (const turn of turns) {
        for (const size of turn) {
          const message = Buffer.alloc(size, sent.length + 1)
          sent.push(message)
          outgoing.add(message)
        }
        expect(outgoing.waiting).toBe(turn.reduce((sum, size) => sum + size, 0))
        outgoing.write()
        expect(outgoing.waiting).toBe(0)
      }
      const received: Buffer[] = []
      const receiver = new Receiver({ isServer: false, allowSynchronousEvents: true, binaryType: 'nodebuffer' })
      receiver.on('message', (message: Buffer) => received.push(message))
      for (let chunk = socket.read() as Buffer | null; chunk !== null; chunk = socket.read() as Buffer | null) receiver.write(chunk)
      expect(received.length).toBe(sent.length)
      expect(received.every((message, i) => message.equals(sent[i] ?? Buffer.alloc(1)))).toBe(true)
    }),
    { numRuns: 60 },
  )
})

it('writes nothing to a socket that has ended', () => {
  const socket = new PassThrough()
  const outgoing = createOutgoing(socket)
  outgoing.add(Buffer.from('late'))
  socket.end()
  outgoing.write()
  expect(socket.read()).toBeNull()
})
