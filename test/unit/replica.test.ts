/**
 * A replica against a scripted relay: what an edit is, what is captured and stored, and when it is sent.
 */
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import * as Y from 'yjs'
import type { DocumentId, IncarnationId } from '@rejoin/shared'
import { createMemoryDisk } from '#client/stores/memory.js'
import { REDIAL, World, textOf, type } from '../support/client.ts'
import type { ScriptedRelay } from '../support/scripted-relay.ts'
import { canonical, hex } from '../support/scripted-relay.ts'
import { uncaught } from '../support/uncaught.ts'
import type { VirtualClock } from '../support/virtual-clock.ts'

let world: World
let relay: ScriptedRelay
let clock: VirtualClock

beforeEach(() => {
  world = new World()
  ;({ relay, clock } = world)
})
afterEach(() => world.end())

describe('two clients', () => {
  it('exchange edits and end equal, with nothing pending', async () => {
    const [a, b] = [await world.opened(world.connect()), await world.opened(world.connect())]
    const first = a.edit(() => a.ydoc.getText('t').insert(0, 'hello'))
    b.edit(() => b.ydoc.getMap('m').set('k', 1))
    await first.wait({ to: 'local' })
    await Promise.all([a.wait({ to: 'relay' }), b.wait({ to: 'relay' })])
    await world.settle()
    expect(textOf(b.ydoc)).toBe('hello')
    expect(canonical(a.ydoc)).toBe(canonical(b.ydoc))
    expect(a.status.get()).toEqual({
      connection: { name: 'connected' },
      storage: { name: 'memory' },
      pending: { local: 0, relay: 0 },
      held: false,
      quarantined: 0,
    })
  })

  it('one of which was offline, whose edits arrive merged and once', async () => {
    relay.down = true
    const a = await world.opened(world.connect())
    for (const letter of 'offline') type(a, letter)
    expect(a.status.get().pending).toEqual({ local: 7, relay: 7 })
    await world.settle()
    expect(a.status.get()).toMatchObject({ connection: { name: 'offline', retryAt: 1_000_000 + REDIAL }, pending: { local: 0, relay: 7 } })
    relay.down = false
    await clock.advance(REDIAL)
    expect(textOf(relay.document('doc').ydoc)).toBe('offline')
    expect(relay.pushes().map(({ lo, hi }) => [lo, hi])).toEqual([[1, 7]])
    expect(a.status.get()).toMatchObject({ connection: { name: 'connected' }, pending: { local: 0, relay: 0 } })
  })
})

describe('an observer of the application that throws', () => {
  it('keeps nothing that arrives from the store', async () => {
    const disk = createMemoryDisk()
    const [a, b] = [await world.opened(world.connect()), await world.opened(world.connect({ store: disk.tab() }))]
    const faults = await uncaught(async () => {
      let first = true
      b.ydoc.getText('t').observe(() => {
        if (!first) return
        first = false
        throw new Error('an observer of the application')
      })
      for (const letter of 'ab') {
        type(a, letter)
        await a.wait()
        await world.settle()
      }
    })
    expect(faults).toHaveLength(1)
    const stored = new Y.Doc()
    const { updates, cursor } = disk.read('doc' as DocumentId)
    for (const update of updates) Y.applyUpdate(stored, update)
    expect([textOf(b.ydoc), textOf(stored), cursor?.seq]).toEqual(['ab', 'ab', 2])
  })
})

describe('an edit', () => {
  it('is refused before the replica is loaded', () => {
    const replica = world.connect().open('doc')
    expect(() => replica.edit(() => 1)).toThrow(expect.objectContaining({ code: 'not_loaded' }))
  })

  it('is refused to an async function, before anything changed', async () => {
    const replica = await world.opened(world.connect())
    expect(() => replica.edit(async () => replica.ydoc.getMap('m').set('k', 1))).toThrow(expect.objectContaining({ code: 'bad_option' }))
    expect(replica.ydoc.getMap('m').size).toBe(0)
    expect(() => replica.edit(() => Promise.resolve(1))).toThrow(expect.objectContaining({ code: 'bad_option' }))
  })

  it('is sent only after it is in the store', async () => {
    const disk = createMemoryDisk({ clock, latency: 100, random: () => 0.5 })
    const replica = world.connect({ store: disk.tab() }).open('doc')
    await clock.advance(2000)
    await replica.whenSynced()
    type(replica, 'x')
    await clock.advance(49)
    expect(relay.pushes()).toEqual([])
    expect(replica.status.get().pending).toEqual({ local: 1, relay: 1 })
    await clock.advance(200)
    expect(relay.pushes()).toHaveLength(1)
  })

  it('returns the value of its function, and an id that counts upwards', async () => {
    const replica = await world.opened(world.connect())
    const [one, two] = [
      replica.edit(() => replica.ydoc.getArray('a').push([1])),
      replica.edit(() => (replica.ydoc.getArray('a').push([2]), 'value')),
    ]
    expect(two.value).toBe('value')
    expect(one.id.split('/')).toEqual([two.id.split('/')[0], '1'])
    expect(two.id).toMatch(/^[0-9a-f]{32}\/2$/u)
  })

  it('that changed nothing is there at once', async () => {
    relay.down = true
    const replica = await world.opened(world.connect())
    const edit = replica.edit(() => 'nothing')
    expect(edit.id).toMatch(/\/0$/u)
    await edit.wait({ to: 'relay' })
  })

  it('inside another is part of it', async () => {
    const replica = await world.opened(world.connect())
    const outer = replica.edit(() => {
      replica.ydoc.getMap('m').set('a', 1)
      return replica.edit(() => (replica.ydoc.getMap('m').set('b', 2), 'inner'))
    })
    expect(outer.value).toMatchObject({ id: outer.id, value: 'inner' })
    expect(replica.status.get().pending.local).toBe(1)
    await outer.value.wait({ to: 'relay' })
  })

  it('whose function throws keeps what it changed, as an edit, and throws on', async () => {
    const replica = await world.opened(world.connect())
    expect(() =>
      replica.edit(() => {
        replica.ydoc.getMap('m').set('k', 1)
        throw new Error('half way')
      }),
    ).toThrow('half way')
    await replica.wait({ to: 'relay' })
    expect(relay.document('doc').ydoc.getMap('m').get('k')).toBe(1)
  })

  it('is one with what observers write in answer to it', async () => {
    const replica = await world.opened(world.connect())
    replica.ydoc.getMap('m').observe(({ transaction }) => {
      if (transaction.origin === null) replica.ydoc.transact(() => replica.ydoc.getMap('derived').set('k', 1), 'observer')
    })
    replica.edit(() => replica.ydoc.getMap('m').set('k', 1))
    expect(replica.status.get().pending.relay).toBe(1)
    await replica.wait({ to: 'relay' })
    expect(relay.document('doc').ydoc.getMap('derived').get('k')).toBe(1)
  })

  it('is whatever the application does to the Y.Doc, whatever its origin', async () => {
    const replica = await world.opened(world.connect())
    const other = new Y.Doc()
    other.getMap('m').set('from', 'elsewhere')
    Y.applyUpdate(replica.ydoc, Y.encodeStateAsUpdate(other), 'y-webrtc')
    replica.ydoc.transact(() => replica.ydoc.getMap('m').set('bound', true), { binding: true })
    expect(replica.status.get().pending.relay).toBe(2)
    await replica.wait({ to: 'relay' })
    expect(relay.document('doc').ydoc.getMap('m').toJSON()).toEqual({ from: 'elsewhere', bound: true })
  })
})

describe('an update applied too early', () => {
  it('is stored at once, and sent when what it leans on has come from the relay', async () => {
    const source = new Y.Doc()
    source.getText('t').insert(0, 'a')
    const first = Y.encodeStateAsUpdate(source)
    const before = Y.encodeStateVector(source)
    source.getText('t').insert(1, 'b')
    const second = Y.encodeStateAsUpdate(source, before)

    const disk = createMemoryDisk()
    const replica = await world.opened(world.connect({ store: disk.tab() }))
    Y.applyUpdate(replica.ydoc, second, 'y-webrtc')
    await world.settle()
    expect(replica.status.get().pending.relay).toBe(0)
    expect(disk.read(replica.document).updates).toHaveLength(1)

    relay.append('doc', first, hex(77) as IncarnationId, 1)
    await world.settle()
    await replica.wait({ to: 'relay' })
    expect(textOf(relay.document('doc').ydoc)).toBe('ab')
    const reread = new Y.Doc()
    for (const update of disk.read(replica.document).updates) Y.applyUpdate(reread, update)
    expect(textOf(reread)).toBe('ab')
  })
})

describe('rich text from elsewhere', () => {
  /** Two others set the same range bold at the same time: whoever integrates both has superfluous marks. */
  const race = (): void => {
    relay.write('doc', (doc) => doc.getText('t').insert(0, 'abcd'))
    const docs = [new Y.Doc(), new Y.Doc()]
    for (const doc of docs) Y.applyUpdate(doc, Y.encodeStateAsUpdate(relay.document('doc').ydoc))
    for (const doc of docs) doc.getText('t').format(0, 2, { bold: true })
    for (const doc of docs)
      relay.append(
        'doc',
        Y.encodeStateAsUpdate(doc, Y.encodeStateVector(relay.document('doc').ydoc)),
        hex(doc.clientID) as IncarnationId,
        1,
      )
  }

  it('may be tidied up by a writer, which is an edit', async () => {
    const replica = await world.opened(world.connect())
    replica.ydoc.getText('t')
    race()
    await world.settle()
    expect(relay.pushes()).toHaveLength(1)
    await replica.wait({ to: 'relay' })
    expect(canonical(relay.document('doc').ydoc)).toBe(canonical(replica.ydoc))
  })

  it('makes no edit of a reader', async () => {
    relay.script.access = () => 'read'
    const replica = await world.opened(world.connect())
    const seen: boolean[] = []
    replica.ydoc.getText('t').observe((_event, { local }) => seen.push(local))
    race()
    await world.settle()
    expect(textOf(replica.ydoc)).toBe('abcd')
    expect(seen).toEqual([false, false, false])
    expect(replica.status.get()).toMatchObject({ pending: { local: 0, relay: 0 }, held: false })
  })

  it('makes no edit when it is read from the store', async () => {
    relay.script.access = () => 'read'
    const disk = createMemoryDisk()
    const first = world.connect({ store: disk.tab() })
    await world.opened(first)
    race()
    await world.settle()
    await first.close()
    relay.script.access = () => 'write'
    const client = world.connect({ store: disk.tab() })
    const replica = client.open('doc')
    replica.ydoc.getText('t')
    await replica.whenSynced()
    expect(relay.pushes()).toEqual([])
  })
})
