/**
 * A whole device: tabs that share a store, tabs that die, stores that break, tokens, and closing.
 */
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { SyncError } from '@rejoin/shared'
import { syncUrl } from '#client/client.js'
import { createMemoryDisk } from '#client/stores/memory.js'
import type { StoreFactory } from '#client/stores/store.js'
import { REDIAL, World, textOf, type } from '../support/client.ts'
import type { ScriptedRelay } from '../support/scripted-relay.ts'
import { canonical } from '../support/scripted-relay.ts'
import type { VirtualClock } from '../support/virtual-clock.ts'

let world: World
let relay: ScriptedRelay
let clock: VirtualClock

beforeEach(() => {
  world = new World()
  ;({ relay, clock } = world)
})
afterEach(() => world.end())

describe('a client', () => {
  it('needs a store and an address', () => {
    expect(() => world.connect({ store: undefined })).toThrow(expect.objectContaining({ code: 'bad_option' }))
    expect(() => world.connect({ url: 'ftp://x' })).toThrow(expect.objectContaining({ code: 'bad_option' }))
  })

  it('dials /sync of the address it was given', () => {
    expect(syncUrl('http://127.0.0.1:4400')).toBe('ws://127.0.0.1:4400/sync')
    expect(syncUrl('https://example.org/relay/?a=b#c')).toBe('wss://example.org/relay/sync?a=b')
    expect(syncUrl('wss://example.org/sync')).toBe('wss://example.org/sync')
  })

  it('refuses bad document ids', () => {
    const client = world.connect()
    for (const id of ['', '..', 'a\n', 'x'.repeat(257)])
      expect(() => client.open(id)).toThrow(expect.objectContaining({ code: 'bad_document' }))
  })

  it('gives each caller a handle of its own on one shared replica', async () => {
    const client = world.connect()
    const [one, two] = [await world.opened(client), await world.opened(client)]
    expect(one).not.toBe(two)
    expect(one.ydoc).toBe(two.ydoc)
    one.close()
    expect(() => type(one, 'x')).toThrow(expect.objectContaining({ code: 'closed' }))
    await type(two, 'x').wait()
    expect(relay.heard.filter((frame) => frame.type === 'open')).toHaveLength(1)
  })

  it('goes on sending what a closed replica left, then lets go of the document', async () => {
    relay.down = true
    const client = world.connect()
    const replica = await world.opened(client)
    type(replica, 'left behind')
    replica.close()
    await world.settle()
    expect(client.status.get().pending).toEqual({ local: 0, relay: 1 })
    relay.down = false
    await clock.advance(REDIAL)
    expect(textOf(relay.document('doc').ydoc)).toBe('left behind')
    expect(client.status.get().pending).toEqual({ local: 0, relay: 0 })
    expect(relay.heard.at(-1)).toMatchObject({ type: 'close' })
    const again = await world.opened(client)
    expect(again.ydoc).not.toBe(replica.ydoc)
    expect(textOf(again.ydoc)).toBe('left behind')
  })

  it('sends at its start what every document has left from an earlier life, opened or not', async () => {
    relay.down = true
    const disk = createMemoryDisk()
    const first = world.connect({ store: disk.tab() })
    for (const id of ['one', 'two', 'three']) type(await world.opened(first, id), id)
    expect(await first.close()).toEqual({ unsent: 3 })
    const second = world.connect({ store: disk.tab() })
    await world.settle()
    expect(second.status.get().pending.relay).toBe(3)
    relay.down = false
    const sent = second.wait({ to: 'relay' })
    await clock.advance(2000)
    await sent
    for (const id of ['one', 'two', 'three']) expect(textOf(relay.document(id).ydoc)).toBe(id)
    expect(second.status.get().pending).toEqual({ local: 0, relay: 0 })
    expect(await second.close()).toEqual({ unsent: 0 })
  })

  it('opens a document whose rest waits behind a refused edit once, says why a wait cannot end, and stays quiet', async () => {
    const disk = createMemoryDisk()
    relay.script.push = () => ({ code: 'limit' })
    const first = world.connect({ store: disk.tab() })
    const replica = await world.opened(first)
    type(replica, 'bad')
    type(replica, 'behind it')
    await clock.advance(1000)
    await first.close()
    relay.heard.length = 0
    const second = world.connect({ store: disk.tab() })
    await clock.advance(5000)
    expect(relay.heard.filter((frame) => frame.type === 'open').length).toBeLessThanOrEqual(1)
    expect(second.status.get()).toMatchObject({ pending: { relay: 1 }, quarantined: 1 })
    await expect(second.wait({ to: 'relay' })).rejects.toMatchObject({ code: 'limit' })
  })

  it('waits for the relay when it is closed so, until the signal fires', async () => {
    const disk = createMemoryDisk()
    const client = world.connect({ store: disk.tab() })
    type(await world.opened(client), 'x')
    expect(await client.close({ waitFor: 'relay' })).toEqual({ unsent: 0 })
    relay.down = true
    const late = world.connect({ store: disk.tab() })
    type(await world.opened(late), 'y')
    const abort = new AbortController()
    const closed = late.close({ waitFor: 'relay', signal: abort.signal })
    await clock.advance(60_000)
    abort.abort()
    expect(await closed).toEqual({ unsent: 1 })
    expect(late.status.get().connection).toEqual({ name: 'closed' })
    expect(() => late.open('doc')).toThrow(expect.objectContaining({ code: 'closed' }))
  })

  it('ends a wait for edits of another tab when it is closed', async () => {
    relay.down = true
    const disk = createMemoryDisk()
    type(await world.opened(world.connect({ store: disk.tab() })), 'held by a tab that lives')
    const client = world.connect({ store: disk.tab() })
    await world.settle()
    expect(client.status.get().pending.relay).toBe(1)
    const waiting = expect(client.wait()).rejects.toMatchObject({ code: 'closed' })
    await world.settle()
    await client.close()
    await waiting
    await expect(client.wait()).rejects.toMatchObject({ code: 'closed' })
  })

  it('lets go of the edits of a dead tab when it cannot read them, so that another may send them', async () => {
    relay.down = true
    const disk = createMemoryDisk()
    const dead = disk.tab()
    const first = world.connect({ store: dead })
    type(await world.opened(first), 'x')
    await world.settle()
    const held: string[] = []
    await world.opened(world.connect({ store: unreadable(disk.tab(), held) }))
    world.forget(first)
    dead.crash()
    await world.settle()
    expect(held).toEqual(['taken', 'given back'])
    relay.down = false
    await world.opened(world.connect({ store: disk.tab() }))
    await clock.advance(2000)
    expect(textOf(relay.document('doc').ydoc)).toBe('x')
  })

  it('ends waits with the signal, and with the replica', async () => {
    relay.down = true
    const client = world.connect()
    const replica = await world.opened(client)
    const edit = type(replica, 'x')
    const abort = new AbortController()
    const waits = [
      edit.wait({ signal: abort.signal }),
      replica.wait({ signal: abort.signal }),
      replica.whenSynced({ signal: abort.signal }),
    ]
    const ended = Promise.allSettled(waits)
    abort.abort()
    expect(await ended).toMatchObject(waits.map(() => ({ reason: { code: 'aborted' } })))
    const later = Promise.allSettled([edit.wait(), replica.whenSynced()])
    void client.close()
    expect(await later).toMatchObject([{ reason: { code: 'closed' } }, { reason: { code: 'closed' } }])
  })

  it('shows a snapshot that stays the same object until something changes', async () => {
    const client = world.connect()
    const replica = await world.opened(client)
    const seen: number[] = []
    replica.status.subscribe(({ pending }) => seen.push(pending.relay))
    const before = client.status.get()
    expect(client.status.get()).toBe(before)
    await type(replica, 'x').wait()
    expect(seen[0]).toBe(1)
    expect(seen.at(-1)).toBe(0)
    expect(client.status.get()).toEqual(before)
  })
})

describe('tabs of one device', () => {
  it('show one another their edits while offline, and count the whole device', async () => {
    relay.down = true
    const disk = createMemoryDisk()
    const [a, b] = [world.connect({ store: disk.tab() }), world.connect({ store: disk.tab() })]
    const [one, two] = [await world.opened(a), await world.opened(b)]
    type(one, 'from one ')
    await world.settle()
    expect(textOf(two.ydoc)).toBe('from one ')
    type(two, 'from two')
    await world.settle()
    for (const status of [a.status, b.status, one.status, two.status]) expect(status.get().pending).toEqual({ local: 0, relay: 2 })
    relay.down = false
    await clock.advance(5000)
    expect(textOf(relay.document('doc').ydoc)).toBe('from one from two')
    for (const status of [a.status, b.status, one.status, two.status]) expect(status.get().pending).toEqual({ local: 0, relay: 0 })
    expect(canonical(one.ydoc)).toBe(canonical(two.ydoc))
  })

  it('deliver what a tab that died had not sent, under its own numbers, and first', async () => {
    relay.down = true
    const disk = createMemoryDisk()
    const dying = disk.tab()
    const [a, b] = [world.connect({ store: dying }), world.connect({ store: disk.tab() })]
    const [one, two] = [await world.opened(a), await world.opened(b)]
    const edits = [type(one, 'a'), type(one, 'b')]
    await world.settle()
    type(two, 'c')
    await world.settle()
    dying.crash()
    world.forget(a)
    await world.settle()
    relay.down = false
    await clock.advance(REDIAL)
    const incarnation = edits[0]?.id.split('/')[0]
    expect(relay.pushes()[0]).toMatchObject({ incarnation, lo: 1, hi: 2 })
    expect(textOf(relay.document('doc').ydoc)).toBe('abc')
    expect(two.status.get().pending).toEqual({ local: 0, relay: 0 })
    expect(disk.read(two.document).outbox).toEqual([])
  })

  it('deliver it too when they never had the document open', async () => {
    relay.down = true
    const disk = createMemoryDisk()
    const dying = disk.tab()
    const [a, b] = [world.connect({ store: dying }), world.connect({ store: disk.tab() })]
    await world.opened(b, 'another')
    type(await world.opened(a), 'orphan')
    await world.settle()
    expect(b.status.get().pending.relay).toBe(1)
    dying.crash()
    world.forget(a)
    relay.down = false
    await clock.advance(5000)
    expect(textOf(relay.document('doc').ydoc)).toBe('orphan')
    expect(b.status.get().pending.relay).toBe(0)
  })
})

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

describe('a token', () => {
  it('is asked for at every dial, and a failing callback counts as offline', async () => {
    let [calls, offline] = [0, true]
    const tokens: string[] = []
    relay.script.hello = (token) => void tokens.push(token)
    const client = world.connect({
      token: () => {
        calls += 1
        if (offline) throw new TypeError('fetch failed')
        return `token ${calls}`
      },
    })
    await world.settle()
    expect(client.status.get().connection).toMatchObject({ name: 'offline', reason: 'fetch failed' })
    offline = false
    await clock.advance(REDIAL)
    relay.drop()
    await clock.advance(1000)
    expect(tokens).toEqual(['token 2', 'token 3'])
  })

  it('that the relay refuses shows as needs-auth, and a better one is tried without being told', async () => {
    relay.script.hello = (token) =>
      token === 'good' ? undefined : { type: 'goaway', code: 'unauthorized', retryAfter: 0, message: 'who are you' }
    let token = 'bad'
    const client = world.connect({ token: () => Promise.resolve(token) })
    await world.settle()
    expect(client.status.get().connection).toMatchObject({ name: 'needs-auth', reason: 'who are you' })
    token = 'good'
    await clock.advance(REDIAL)
    expect(client.status.get().connection).toEqual({ name: 'connected' })
  })

  it('is renewed on the open socket when the relay asks', async () => {
    let calls = 0
    const client = world.connect({ token: () => `token ${(calls += 1)}` })
    await world.opened(client)
    const [socket] = relay.sockets
    socket?.send({ type: 'authenticate', code: 'expired', deadline: 30_000, message: '' })
    await world.settle()
    expect(relay.heard.at(-1)).toEqual({ type: 'auth', token: 'token 2' })
    expect(relay.dials).toBe(1)
  })
})

/** A store whose outbox cannot be read once a dead tab's edits are held; `held` tells what becomes of them. */
function unreadable(tab: StoreFactory, held: string[]): StoreFactory {
  return {
    name: tab.name,
    open: async () => {
      const store = await tab.open()
      return {
        ...store,
        open: async (document) => {
          const rows = await store.open(document)
          let own = true
          return {
            ...rows,
            hold: async (incarnation, signal) => {
              const release = await rows.hold(incarnation, signal)
              if (own) {
                own = false
                return release
              }
              held.push('taken')
              return () => {
                held.push('given back')
                release()
              }
            },
            outbox: () => (held.length > 0 ? Promise.reject(new Error('the disk does not answer')) : rows.outbox()),
          }
        },
      }
    },
  }
}
