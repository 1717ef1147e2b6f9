/**
 * A client whose store breaks: what it says, what it keeps, and what it gets back.
 */
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { SyncError } from '@rejoin/shared'
import { createMemoryDisk } from '#client/stores/memory.js'
import type { StoreFactory } from '#client/stores/store.js'
import { World, textOf, type } from '../support/client.ts'
import type { ScriptedRelay } from '../support/scripted-relay.ts'
import type { VirtualClock } from '../support/virtual-clock.ts'

let world: World
let relay: ScriptedRelay
let clock: VirtualClock

beforeEach(() => {
  world = new World()
  ;({ relay, clock } = world)
})
afterEach(() => world.end())

describe('a store', () => {
  const broken = (code: 'store_failed' | 'store_in_use'): StoreFactory => ({
    name: 'broken',
    open: () => Promise.reject(new SyncError(code, 'scripted')),
  })

  it('that cannot be opened is replaced by memory, and status says so', async () => {
    const client = world.connect({ store: broken('store_failed') })
    const replica = await world.opened(client)
    const edit = type(replica, 'x')
    await edit.wait({ to: 'relay' })
    expect(client.status.get().storage).toEqual({ name: 'failed', reason: 'scripted' })
    expect(replica.status.get().storage).toEqual({ name: 'failed', reason: 'scripted' })
    relay.down = true
    relay.drop()
    const late = type(replica, 'y')
    await expect(late.wait({ to: 'local' })).rejects.toMatchObject({ code: 'store_failed' })
    expect(replica.status.get().pending).toEqual({ local: 1, relay: 1 })
    expect(await client.close()).toEqual({ unsent: 1 })
  })

  it('that another process has open is not gone around', async () => {
    const client = world.connect({ store: broken('store_in_use') })
    const replica = client.open('doc')
    await expect(replica.whenLoaded()).rejects.toMatchObject({ code: 'store_in_use' })
    expect(() => type(replica, 'x')).toThrow(expect.objectContaining({ code: 'store_in_use' }))
    expect(client.status.get().storage.name).toBe('failed')
  })

  it('that cannot close a document closes the others, itself and the client all the same, and lets it be opened again', async () => {
    const tab = createMemoryDisk().tab()
    let closed = 0
    const store: StoreFactory = {
      name: 'sticky',
      open: async () => {
        const opened = await tab.open()
        return {
          ...opened,
          open: async (document) => {
            const rows = await opened.open(document)
            const close = async (): Promise<void> => {
              await rows.close()
              throw new Error('the disk is gone')
            }
            return { ...rows, close }
          },
          close: async () => {
            closed += 1
            await opened.close()
          },
        }
      },
    }
    const client = world.connect({ store })
    const replica = await world.opened(client)
    await type(replica, 'x').wait()
    replica.close()
    await world.settle()
    expect(client.status.get().storage.reason).toBe('the disk is gone')
    expect(textOf((await world.opened(client)).ydoc)).toBe('x')
    await world.opened(client, 'other')
    expect(await client.close()).toEqual({ unsent: 0 })
    expect(closed).toBe(1)
    expect(relay.sockets.size).toBe(0)
  })

  it('that cannot count what waits is asked again, and status says why until it can', async () => {
    const tab = createMemoryDisk().tab()
    let fails = true
    const pending = new SyncError('store_failed', 'not now')
    const open: StoreFactory['open'] = async () => {
      const opened = await tab.open()
      return { ...opened, pending: () => (fails ? Promise.reject(pending) : opened.pending()) }
    }
    const client = world.connect({ store: { name: 'shy', open } })
    await world.settle()
    expect(client.status.get().storage).toEqual({ name: 'memory', reason: 'not now' })
    await expect(client.wait()).rejects.toBe(pending)
    fails = false
    await clock.advance(5000)
    expect(client.status.get().storage).toEqual({ name: 'memory' })
    await client.wait()
  })

  it('that refuses commits is told so, is tried again, and gets everything in the end', async () => {
    let full = false
    const disk = createMemoryDisk({ failure: () => (full ? new Error('quota') : undefined) })
    const client = world.connect({ store: disk.tab() })
    const replica = await world.opened(client)
    await type(replica, 'a').wait()
    full = true
    const edit = type(replica, 'b')
    await expect(edit.wait({ to: 'local' })).rejects.toMatchObject({ code: 'store_failed' })
    expect(replica.status.get().storage.name).toBe('failed')
    expect(client.status.get().storage.name).toBe('failed')
    // The relay has it all the same: the edit is safe there.
    await edit.wait({ to: 'relay' })
    relay.down = true
    relay.drop()
    type(replica, 'c')
    await world.settle()
    expect(replica.status.get().pending).toEqual({ local: 1, relay: 1 })
    full = false
    await clock.advance(5000)
    expect(replica.status.get()).toMatchObject({ storage: { name: 'memory' }, pending: { local: 0, relay: 1 } })
    expect(disk.read(replica.document).outbox.map(({ n }) => n)).toEqual([3])
  })
})
