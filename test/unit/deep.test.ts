/**
 * A replica whose document is more than Yjs can work on: it says so and takes no edit, and nothing that it has stored is lost.
 */
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { IncarnationId } from '@rejoin/shared'
import type { Replica } from '#client/handle.js'
import { createMemoryDisk } from '#client/stores/memory.js'
import { World, type } from '../support/client.ts'
import { deepUpdates } from '../support/deep.ts'
import { hex } from '../support/scripted-relay.ts'
import { uncaught } from '../support/uncaught.ts'

const BROKEN = expect.objectContaining({ code: 'internal', reason: expect.stringContaining('Yjs failed') })

let world: World
beforeEach(() => {
  world = new World()
})
afterEach(() => world.end())

/** The relay's entries from others. Its own Y.Doc is spared them. */
function arrive(updates: readonly Uint8Array[]): void {
  const { entries } = world.relay.document('doc')
  for (const update of updates) entries.push({ update, socket: undefined, incarnation: hex(5) as IncarnationId, hi: entries.length + 1 })
  for (const socket of world.relay.sockets) socket.follow('doc')
}

function expectBroken(replica: Replica): void {
  expect(replica.status.get().connection).toEqual({ name: 'closed', reason: expect.stringContaining('has ended') })
  expect(() => type(replica, 'more')).toThrow(BROKEN)
  expect(() => replica.ydoc.getMap('m').set('k', 'past edit()')).toThrow(BROKEN)
  expect(() => replica.ydoc.getMap('m').set('k', 'and again')).toThrow(BROKEN)
  expect(replica.ydoc.getMap('m').size).toBe(0)
}

describe('a document nested deeper than the stack, deleted by another device', () => {
  it('ends the replica with a reason, and no edit is taken that nobody would hear of', async () => {
    const disk = createMemoryDisk()
    const client = world.connect({ store: disk.tab() })
    const replica = await world.opened(client)
    await type(replica, 'mine').wait()
    world.relay.script = { push: () => 'silence' }
    const unsent = type(replica, ' kept')
    await world.settle()
    const waited = expect(unsent.wait()).rejects.toThrow(BROKEN)
    const faults = await uncaught(async () => {
      arrive(deepUpdates())
      await world.settle()
    })
    expect(faults).toEqual([])
    await waited
    expectBroken(replica)
    expect(replica.status.get()).toMatchObject({ storage: { name: 'memory' }, pending: { local: 0, relay: 1 } })
    await expect(replica.whenSynced()).rejects.toThrow(BROKEN)
    const { updates, outbox } = disk.read(replica.document)
    expect(outbox).toHaveLength(1)
    expect(updates.length).toBeGreaterThanOrEqual(12)
    // Nothing is asked of the relay any more.
    const heard = world.relay.heard.length
    await world.clock.advance(20_000)
    expect(world.relay.heard.length).toBe(heard)
    expect(await client.close()).toEqual({ unsent: 1 })
  })

  it('gives the same error at the next start, with everything that was stored still there and counted', async () => {
    const disk = createMemoryDisk()
    const first = world.connect({ store: disk.tab() })
    const replica = await world.opened(first)
    world.relay.script = { push: () => 'silence' }
    type(replica, 'kept')
    await world.settle()
    arrive(deepUpdates())
    await world.settle()
    await first.close()
    const before = disk.read(replica.document)
    const second = world.connect({ store: disk.tab() })
    const again = second.open('doc')
    await expect(again.whenLoaded()).rejects.toThrow(BROKEN)
    await expect(again.wait()).rejects.toThrow(BROKEN)
    await world.settle()
    expectBroken(again)
    expect(again.status.get().pending.relay).toBe(1)
    again.close()
    await world.settle()
    expect(second.status.get().pending.relay).toBe(1)
    await expect(second.wait()).rejects.toMatchObject({ code: 'store_failed' })
    await second.close()
    expect(disk.read(replica.document).outbox).toEqual(before.outbox)
    expect(disk.read(replica.document).updates).toEqual(before.updates)
  })

  it('ends it too when the deletion is an edit of its own, which throws', async () => {
    const replica = await world.opened(world.connect())
    arrive(deepUpdates().slice(0, -1))
    await world.settle()
    expect(replica.status.get().connection).toEqual({ name: 'connected' })
    expect(() => replica.edit(() => replica.ydoc.getMap('pets').delete('k'))).toThrow(RangeError)
    expectBroken(replica)
  })

  it('ends it too when the deletion goes past edit()', async () => {
    const replica = await world.opened(world.connect())
    arrive(deepUpdates().slice(0, -1))
    await world.settle()
    expect(() => replica.ydoc.getMap('pets').delete('k')).toThrow(RangeError)
    await world.settle()
    expectBroken(replica)
  })
})
