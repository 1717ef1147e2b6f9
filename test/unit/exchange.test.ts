/**
 * A document on the wire, against a scripted relay: cursors and their proof, a first sync in fragments, refusals.
 */
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import * as Y from 'yjs'
import type { IncarnationId, Lineage, Seq, SyncError } from '@rejoin/shared'
import { createMemoryDisk } from '#client/stores/memory.js'
import { REDIAL, World, textOf, type } from '../support/client.ts'
import type { ScriptedRelay } from '../support/scripted-relay.ts'
import { canonical, hashAt, hex } from '../support/scripted-relay.ts'
import type { VirtualClock } from '../support/virtual-clock.ts'

let world: World
let relay: ScriptedRelay
let clock: VirtualClock

beforeEach(() => {
  world = new World()
  ;({ relay, clock } = world)
})
afterEach(() => world.end())

describe('the cursor', () => {
  it('moves over entries and own acks, and the next start resumes from it', async () => {
    const disk = createMemoryDisk()
    const first = world.connect({ store: disk.tab() })
    const replica = await world.opened(first)
    type(replica, 'mine')
    await replica.wait({ to: 'relay' })
    relay.write('doc', (doc) => doc.getMap('m').set('k', 1))
    await world.settle()
    expect(disk.read(replica.document).cursor?.seq).toBe(2)
    // What is stored is the update alone, not the message that it came in.
    for (const { buffer, length } of disk.read(replica.document).updates) expect(buffer.byteLength).toBe(length)
    await first.close()
    relay.heard.length = 0
    const again = await world.opened(world.connect({ store: disk.tab() }))
    await again.whenSynced()
    expect(relay.heard.find((frame) => frame.type === 'open')).toMatchObject({ cursor: { seq: 2 } })
    expect(canonical(again.ydoc)).toBe(canonical(relay.document('doc').ydoc))
  })

  it('that the relay cannot prove leads to a full exchange, and is stored only when the relay has everything', async () => {
    const disk = createMemoryDisk()
    const replica = await world.opened(world.connect({ store: disk.tab() }))
    type(replica, 'kept')
    await replica.wait({ to: 'relay' })
    // The relay lost its log: another epoch, nothing in it.
    const lost = relay.document('doc')
    Object.assign(lost, { epoch: 2, entries: [], acked: new Map(), ydoc: new Y.Doc() })
    relay.drop()
    let proofs = 0
    relay.script.push = (frame) => {
      if (frame.kind === 'state') proofs += 1
      return frame.kind === 'state' && proofs === 1 ? { code: 'overloaded' } : undefined
    }
    await clock.advance(REDIAL)
    expect(disk.read(replica.document).cursor).toMatchObject({ epoch: 1, seq: 1 })
    type(replica, ' and on')
    await clock.advance(20_000)
    await replica.wait({ to: 'relay' })
    expect(textOf(lost.ydoc)).toBe('kept and on')
    expect(relay.pushes('state').at(-1)).toMatchObject({ lo: 1, hi: 1, covers: [{ n: 1 }] })
    expect(disk.read(replica.document).cursor).toMatchObject({ epoch: 2, seq: 2 })
  })

  it('is not stored when the relay refuses what would prove it, and edits go on', async () => {
    const disk = createMemoryDisk()
    const replica = await world.opened(world.connect({ store: disk.tab() }))
    type(replica, 'kept')
    await replica.wait({ to: 'relay' })
    Object.assign(relay.document('doc'), {
      epoch: 2,
      entries: [],
      acked: new Map([[type(replica, '!').id.split('/')[0], 1]]),
      ydoc: new Y.Doc(),
    })
    Y.applyUpdate(relay.document('doc').ydoc, Y.encodeStateAsUpdate(replica.ydoc))
    relay.drop()
    relay.script.push = ({ kind }) => (kind === 'state' ? { code: 'too_large' } : undefined)
    await clock.advance(REDIAL)
    replica.edit(() => replica.ydoc.getMap('m').set('k', 1))
    await replica.wait({ to: 'relay' })
    expect(relay.document('doc').entries).not.toEqual([])
    expect(disk.read(replica.document).cursor).toMatchObject({ epoch: 1 })
  })

  it('is given up when a stored update cannot be read, and what can be read is kept', async () => {
    const disk = createMemoryDisk()
    const first = world.connect({ store: disk.tab() })
    const replica = await world.opened(first)
    await type(replica, 'good').wait()
    await first.close()
    const tab = await disk.tab().open()
    const rows = await tab.open(replica.document)
    await rows.commit({ updates: [new Uint8Array([3, 200, 1, 255])] })
    await tab.close()
    relay.heard.length = 0
    const again = await world.opened(world.connect({ store: disk.tab() }))
    await again.whenSynced()
    expect(textOf(again.ydoc)).toBe('good')
    expect(relay.heard.find((frame) => frame.type === 'open')?.cursor).toBeUndefined()
    await type(again, '!').wait()
  })

  it('is given up when the state that the relay sends cannot be read, and the next one heals the replica', async () => {
    const replica = await world.opened(world.connect())
    await type(replica, 'mine').wait()
    const document = relay.document('doc')
    const { epoch, lineage } = document
    document.epoch += 1
    relay.drop()
    relay.script = {
      open: ({ ref }) => {
        const [socket] = relay.sockets
        const seq = 5 as Seq
        const update = new Uint8Array([9, 9, 9])
        socket?.send({ type: 'opened', ref, handle: 1, lineage, epoch, head: seq, grant: 'write', mode: 'full' })
        return { type: 'state', handle: 1, lineage, epoch, seq, hash: hashAt(document, 5), total: 3, offset: 0, update }
      },
    }
    await clock.advance(REDIAL)
    expect(textOf(replica.ydoc)).toBe('mine')
    relay.script = {}
    await clock.advance(2000)
    await type(replica, '!').wait()
    expect(textOf(relay.document('doc').ydoc)).toBe('mine!')
  })

  it('is asked for anew when entries do not follow one another', async () => {
    const replica = await world.opened(world.connect())
    relay.write('doc', (doc) => doc.getText('t').insert(0, 'one'))
    await world.settle()
    const document = relay.document('doc')
    const [socket] = relay.sockets
    socket?.send({
      type: 'entries',
      handle: socket.handleOf('doc'),
      first: 9 as Seq,
      hash: hashAt(document, 9),
      updates: [new Uint8Array([0, 0])],
    })
    await world.settle()
    await clock.advance(REDIAL)
    expect(relay.heard.filter((frame) => frame.type === 'open').at(-1)).toMatchObject({ cursor: { seq: 1 } })
    relay.write('doc', (doc) => doc.getText('t').insert(3, ' two'))
    await world.settle()
    expect(textOf(replica.ydoc)).toBe('one two')
  })

  it('is given up when an entry leaves something pending, and a full exchange heals the replica', async () => {
    const disk = createMemoryDisk()
    const replica = await world.opened(world.connect({ store: disk.tab() }))
    const source = new Y.Doc()
    source.getText('t').insert(0, 'a')
    const before = Y.encodeStateVector(source)
    source.getText('t').insert(1, 'b')
    const document = relay.document('doc')
    Y.applyUpdate(document.ydoc, Y.encodeStateAsUpdate(source))
    // What the relay sends leaves out the first letter.
    document.entries.push({ update: Y.encodeStateAsUpdate(source, before), socket: undefined, incarnation: hex(5) as IncarnationId, hi: 1 })
    for (const socket of relay.sockets) socket.follow('doc')
    await world.settle()
    expect(disk.read(replica.document).cursor?.seq).not.toBe(1)
    await clock.advance(REDIAL)
    expect(textOf(replica.ydoc)).toBe('ab')
  })
})

describe('a first sync in fragments', () => {
  beforeEach(() => {
    relay.script.fragment = 1000
    relay.write('doc', (doc) => doc.getText('t').insert(0, 'x'.repeat(5000)))
  })

  it('shows progress, and resumes after the connection broke', async () => {
    relay.script.fragments = 3
    const replica = world.connect().open('doc')
    const seen: (number | undefined)[] = []
    replica.progress.subscribe((progress) => seen.push(progress?.received))
    await world.settle()
    expect(replica.progress.get()).toMatchObject({ received: 3000 })
    relay.script.fragments = Infinity
    relay.drop()
    await clock.advance(REDIAL)
    expect(relay.heard.filter((frame) => frame.type === 'open').at(-1)).toMatchObject({ resume: { snapshotSeq: 1, offset: 3000 } })
    await replica.whenSynced()
    expect(textOf(replica.ydoc)).toHaveLength(5000)
    expect(seen).toEqual([1000, 2000, 3000, 4000, 5000, undefined])
    expect(relay.pushes('state')).toEqual([])
  })

  it('begins again when the relay has another state by now', async () => {
    relay.script.fragments = 2
    const replica = world.connect().open('doc')
    await world.settle()
    relay.script.fragments = Infinity
    relay.drop()
    relay.write('doc', (doc) => doc.getText('t').insert(0, 'y'.repeat(3000)))
    await clock.advance(REDIAL)
    await replica.whenSynced()
    expect(textOf(replica.ydoc)).toHaveLength(8000)
  })
})

describe('a refusal', () => {
  it('of one edit quarantines it, lets what was merged before it through, and rejects those who wait for it and for what follows', async () => {
    relay.down = true
    const disk = createMemoryDisk()
    const client = world.connect({ store: disk.tab() })
    const replica = await world.opened(client)
    const edits = ['a', 'b', 'c', 'd'].map((letter) => type(replica, letter))
    const bad = edits[1]?.id
    relay.script.push = ({ lo, hi }) => (lo <= 2 && hi >= 2 ? { code: 'limit' } : undefined)
    relay.down = false
    const waits = edits.map((edit) =>
      edit.wait({ to: 'relay' }).then(
        () => 'relay',
        (error: unknown) => (error as SyncError).code,
      ),
    )
    await clock.advance(5000)
    expect(await Promise.all(waits)).toEqual(['relay', 'limit', 'limit', 'limit'])
    expect(replica.status.get()).toMatchObject({ pending: { local: 0, relay: 2 }, quarantined: 1 })
    expect(replica.quarantine.list()).toMatchObject([{ id: bad, code: 'limit', message: 'scripted limit' }])
    await expect(replica.wait()).rejects.toMatchObject({ code: 'limit' })
    const apart = new Y.Doc()
    Y.applyUpdate(apart, Y.encodeStateAsUpdate(relay.document('doc').ydoc))
    Y.applyUpdate(apart, replica.quarantine.export(bad ?? ''))
    expect(textOf(apart)).toBe('ab')
    expect(() => replica.quarantine.export('nonsense')).toThrow(
      expect.objectContaining({ code: 'not_found', hint: expect.stringContaining('id') as string }),
    )

    // Other documents go on, and so does a new incarnation of this one.
    const other = await world.opened(client, 'other')
    type(other, 'fine')
    await other.wait()

    // It survives a restart, and is taken after all when the relay has changed its mind.
    await client.close()
    const again = await world.opened(world.connect({ store: disk.tab() }))
    expect(again.quarantine.list()).toMatchObject([{ id: bad }])
    relay.script.push = () => undefined
    again.quarantine.retry(bad ?? '')
    await again.wait()
    expect(textOf(relay.document('doc').ydoc)).toBe('abcd')
    expect(again.status.get()).toMatchObject({ pending: { relay: 0 }, quarantined: 0 })
  })

  it('that is no fault of the edit is tried again, no sooner than the relay asked', async () => {
    const replica = await world.opened(world.connect())
    relay.script.push = () => ({ code: 'storage_full', retryAfter: 3000 })
    type(replica, 'x')
    await world.settle()
    expect(relay.pushes()).toHaveLength(1)
    await clock.advance(2999)
    expect(relay.pushes()).toHaveLength(1)
    relay.script.push = () => undefined
    await clock.advance(500)
    expect(relay.pushes()).toHaveLength(2)
    await replica.wait()
  })

  it('asks nobody to wait for more than an hour', async () => {
    const replica = await world.opened(world.connect())
    relay.script = { push: () => ({ code: 'overloaded', retryAfter: 2 ** 40 }) }
    const edit = type(replica, 'x')
    await world.settle()
    relay.script = {}
    await clock.advance(3_600_000 + 60_000)
    await edit.wait()
  })

  it('that never comes, nor an ack, ends the socket: another one may do better', async () => {
    const replica = await world.opened(world.connect())
    relay.script.push = () => 'silence'
    type(replica, 'x')
    await clock.advance(55_000)
    expect(relay.dials).toBe(1)
    relay.script.push = () => undefined
    await clock.advance(40_000)
    expect(relay.dials).toBe(2)
    await replica.wait()
  })

  it('for want of a grant holds the outbox, until the grant rises', async () => {
    relay.script.access = () => 'read'
    const replica = await world.opened(world.connect())
    type(replica, 'x')
    await world.settle()
    expect(replica.status.get()).toMatchObject({ held: true, pending: { relay: 1 } })
    expect(relay.pushes()).toEqual([])
    const [socket] = relay.sockets
    socket?.send({ type: 'grant', handle: socket.handleOf('doc'), grant: 'write', code: 'ok', message: '' })
    await replica.wait()
    expect(replica.status.get()).toMatchObject({ held: false, pending: { relay: 0 } })
  })

  it('in a nack for want of a grant quarantines nothing', async () => {
    const replica = await world.opened(world.connect())
    relay.script.push = () => ({ code: 'forbidden' })
    type(replica, 'x')
    await world.settle()
    expect(replica.status.get()).toMatchObject({ held: true, quarantined: 0, pending: { relay: 1 } })
    relay.script.push = () => undefined
    relay.drop()
    await clock.advance(REDIAL)
    await replica.wait()
  })

  it('of the document shows as held, and is asked for again', async () => {
    relay.script.open = ({ ref }) => ({ type: 'refused', ref, code: 'forbidden', retryAfter: 0, message: 'not yours' })
    const replica = await world.opened(world.connect())
    type(replica, 'x')
    await world.settle()
    expect(replica.status.get()).toMatchObject({ held: true, pending: { relay: 1 } })
    relay.script.open = () => undefined
    await clock.advance(30_000)
    await replica.wait()
  })

  it('of a document that was deleted uploads nothing', async () => {
    const disk = createMemoryDisk()
    const first = world.connect({ store: disk.tab() })
    const replica = await world.opened(first)
    type(replica, 'old')
    await replica.wait()
    relay.documents.clear()
    relay.document('doc').lineage = hex(4242) as Lineage
    relay.drop()
    await world.settle()
    type(replica, 'more')
    relay.heard.length = 0
    await clock.advance(60_000)
    expect(relay.pushes()).toEqual([])
    await expect(replica.wait()).rejects.toMatchObject({ code: 'replaced' })
    await expect(replica.whenSynced()).rejects.toMatchObject({ code: 'replaced' })
    expect(textOf(replica.ydoc)).toBe('oldmore')
  })
})
