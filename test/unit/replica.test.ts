/**
 * A client against a scripted relay: edits, the outbox, cursors, refusals, presence, and what status says of them.
 */
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import * as Y from 'yjs'
import { cryptoRandom } from '@rejoin/shared'
import type { Client, ClientOptions } from '#client/client.js'
import { assembleClient } from '#client/client.js'
import type { MemoryTab } from '#client/stores/memory.js'
import { createMemoryDisk } from '#client/stores/memory.js'
import { ScriptedRelay, canonical } from '../support/scripted-relay.ts'
import { createVirtualClock } from '../support/virtual-clock.ts'

let relay: ScriptedRelay
let clock = createVirtualClock()
const clients: Client[] = []

beforeEach(() => {
  relay = new ScriptedRelay()
  clock = createVirtualClock()
})
afterEach(async () => {
  await Promise.all(clients.splice(0).map((client) => client.close()))
})

function connect(store: MemoryTab = createMemoryDisk().tab(), options: Partial<ClientOptions> = {}): Client {
  const client = assembleClient(
    { url: 'http://relay.test', store, ...options },
    { clock, random: () => 0.5, randomBytes: cryptoRandom, transport: relay.transport, wake: () => () => undefined },
  )
  clients.push(client)
  return client
}

describe('two clients', () => {
  it('exchange edits and end equal, with nothing pending', async () => {
    const [a, b] = [connect().open('doc'), connect().open('doc')]
    await Promise.all([a.whenLoaded(), b.whenLoaded()])
    const first = a.edit(() => a.ydoc.getText('t').insert(0, 'hello'))
    b.edit(() => b.ydoc.getMap('m').set('k', 1))
    await first.wait({ to: 'local' })
    await Promise.all([a.wait({ to: 'relay' }), b.wait({ to: 'relay' })])
    await clock.advance(1)
    expect(b.ydoc.getText('t').toString()).toBe('hello')
    expect(canonical(a.ydoc)).toBe(canonical(b.ydoc))
    expect(a.status.get()).toEqual({ connection: { name: 'connected' }, storage: { name: 'memory' }, pending: { local: 0, relay: 0 }, held: false, quarantined: 0 })
  })
})
