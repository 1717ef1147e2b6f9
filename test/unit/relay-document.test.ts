/**
 * Documents of the relay: what becomes of pushes, and what each reader is given (steps 4 to 6).
 */
import { describe, expect, it } from 'vitest'
import { Writer, createTestRelay } from '../support/relay.ts'

describe('two peers on a document', () => {
  it('one pushes and is answered when it is durable, the other gets the entry', async () => {
    const relay = createTestRelay()
    const [a, b] = [await relay.peer(), await relay.peer()]
    const { handle } = await a.open('d')
    const opened = await b.open('d')
    expect(opened).toMatchObject({ handle, head: 0, grant: 'write', mode: 'full' })
    const writer = new Writer()
    const pushed = writer.push(handle)
    a.send(pushed)
    const ack = await a.next('ack')
    const entries = await b.next('entries')
    expect(ack).toMatchObject({ handle, incarnation: writer.incarnation, n: 1, seq: 1, hash: entries.hash })
    expect(entries).toMatchObject({ handle, first: 1, updates: [pushed.update] })
  })
})
