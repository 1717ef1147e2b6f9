/**
 * A whole device: tabs that share a store, tabs that die, tokens, and closing.
 */
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { syncUrl } from '#client/sync-url.js'
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

  it.each<[string, object, RegExp]>([
    ['an option that there is not', { tokn: 'abc' }, /there is no option "tokn"; there are url, token, store and schema/u],
    ['a token that is a number', { token: 5 }, /token: a string or a function .*, not number/u],
    ['a token that is null', { token: null }, /token: a string or a function .*, not null/u],
    ['a token that is a promise', { token: Promise.resolve('abc') }, /token: .*, not object/u],
  ])('refuses %s', (_, options, message) => {
    expect(() => world.connect(options)).toThrow(
      expect.objectContaining({ code: 'bad_option', reason: expect.stringMatching(message) as string }),
    )
    expect(() => world.connect({ token: undefined, schema: undefined })).not.toThrow()
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
