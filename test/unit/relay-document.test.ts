/**
 * Documents of the relay: what becomes of pushes (steps 4 and 5).
 */
import * as Y from 'yjs'
import { describe, expect, it } from 'vitest'
import type { DocumentId } from '@rejoin/shared'
import { newIncarnationId } from '@rejoin/shared'
import type { Grant } from '#server/relay/grant.js'
import { createMemoryDisk } from '#server/storage/memory-disk.js'
import { createMemoryLog } from '#server/storage/memory.js'
import type { RawPeer, TestRelay } from '../support/relay.ts'
import { Writer, createTestRelay, entriesOf, push, streamOf } from '../support/relay.ts'
import { until } from '../support/until.ts'

async function opened(relay: TestRelay, document = 'd', token?: string): Promise<{ peer: RawPeer; handle: number }> {
  const peer = await relay.peer(token)
  return { peer, handle: (await peer.open(document)).handle }
}

/** An update of one struct that leans on nothing, under a client id of its own. */
function update(text = 'x'): Uint8Array {
  const doc = new Y.Doc()
  doc.getText('t').insert(0, text)
  return Y.encodeStateAsUpdate(doc)
}

describe('a push', () => {
  it('is answered when it is durable, and others get the entry', async () => {
    const relay = createTestRelay()
    const [{ peer: a, handle }, { peer: b }] = [await opened(relay), await opened(relay)]
    const writer = new Writer()
    const pushed = writer.push(handle)
    a.send(pushed)
    const ack = await a.next('ack')
    const entries = await b.next('entries')
    expect(ack).toEqual({ type: 'ack', handle, incarnation: writer.incarnation, n: 1, seq: 1, hash: entries.hash })
    expect(entries).toMatchObject({ handle, first: 1, updates: [pushed.update] })
    expect(await entriesOf(relay.log, 'd')).toMatchObject([{ seq: 1, lo: 1, hi: 1, actor: 'anonymous', hash: ack.hash }])
  })

  it('of several edits is one entry', async () => {
    const relay = createTestRelay()
    const { peer, handle } = await opened(relay)
    const incarnation = newIncarnationId()
    peer.send(push(handle, incarnation, 1, update(), { hi: 5 }))
    expect(await peer.next('ack')).toMatchObject({ n: 5, seq: 1 })
  })

  it('that leaves a gap is nacked with the edit expected', async () => {
    const { peer, handle } = await opened(createTestRelay())
    peer.send(push(handle, newIncarnationId(), 2, update()))
    expect(await peer.next('nack')).toMatchObject({ code: 'gap', n: 2, expected: 1 })
  })

  it('that comes again is acknowledged again, with its own seq and without hash, also by a relay that was started anew', async () => {
    const disk = createMemoryDisk()
    const first = createTestRelay({ log: createMemoryLog(disk) })
    const { peer, handle } = await opened(first)
    const [writer, other] = [new Writer(), new Writer()]
    const pushed = writer.push(handle)
    peer.send(pushed)
    peer.send(other.push(handle))
    await until(() => peer.all('ack').length === 2)
    peer.send(pushed)
    const again = { type: 'ack', incarnation: writer.incarnation, n: 1, seq: 1 }
    await until(() => peer.all('ack').length === 3)
    expect(peer.all('ack')[2]).toEqual({ ...again, handle })
    const anew = createTestRelay({ log: createMemoryLog(disk) })
    const second = await opened(anew)
    second.peer.send({ ...pushed, handle: second.handle })
    expect(await second.peer.next('ack')).toEqual({ ...again, handle: second.handle })
    expect(await entriesOf(anew.log, 'd')).toHaveLength(2)
  })

  it('that comes again while it is under way is answered by both', async () => {
    const relay = createTestRelay()
    const [{ peer: a, handle }, { peer: b }] = [await opened(relay), await opened(relay)]
    const pushed = new Writer().push(handle)
    a.send(pushed)
    b.send(pushed)
    expect(await a.next('ack')).toMatchObject({ n: 1, seq: 1 })
    expect(await b.next('ack')).toMatchObject({ n: 1, seq: 1 })
    expect(await entriesOf(relay.log, 'd')).toHaveLength(1)
  })

  it('that adds nothing is acknowledged without an entry, durably', async () => {
    const disk = createMemoryDisk()
    const relay = createTestRelay({ log: createMemoryLog(disk) })
    const { peer, handle } = await opened(relay)
    const [same, mine, other] = [update(), newIncarnationId(), newIncarnationId()]
    peer.send(push(handle, mine, 1, same))
    peer.send(push(handle, other, 1, same))
    await until(() => peer.all('ack').length === 2)
    expect(peer.all('ack')[1]).toEqual({ type: 'ack', handle, incarnation: other, n: 1, seq: 1 })
    expect((await createMemoryLog(disk).find('d' as DocumentId, { incarnation: other })).acked).toEqual({ n: 1, seq: 1 })
  })

  it('that is partly known becomes an entry of what is new', async () => {
    const relay = createTestRelay()
    const { peer, handle } = await opened(relay)
    const writer = new Writer()
    peer.send(writer.push(handle))
    await peer.next('ack')
    const { n } = writer.edit()
    peer.send(push(handle, writer.incarnation, 1, Y.encodeStateAsUpdate(writer.doc), { hi: n }))
    expect(await peer.next('ack')).toMatchObject({ n: 2, seq: 2 })
  })

  it('whose bytes are refused is nacked for good behind what came before it, and what follows is passed over until the expected edit comes', async () => {
    const { peer, handle } = await opened(createTestRelay())
    const writer = new Writer()
    const bad = push(handle, writer.incarnation, 2, new Uint8Array([1, 2, 3]))
    peer.send(writer.push(handle), bad, push(handle, writer.incarnation, 3, update()))
    const nack = await peer.next('nack')
    expect(nack).toMatchObject({ code: 'bad_bytes', n: 2, expected: 2 })
    expect(peer.frames.at(-2)).toMatchObject({ type: 'ack', n: 1 })
    peer.send(
      push(handle, writer.incarnation, 4, update()),
      push(handle, writer.incarnation, 2, update()),
      push(handle, writer.incarnation, 3, update()),
    )
    await until(() => peer.all('ack').length === 3)
    expect(peer.all('ack').map(({ n }) => n)).toEqual([1, 2, 3])
    expect(peer.all('nack')).toHaveLength(1)
  })

  it('above the size of a slice is judged in slices, with what comes behind it kept in order', async () => {
    const relay = createTestRelay()
    const { peer, handle } = await opened(relay)
    const writer = new Writer()
    const large = writer.push(handle, (doc) => doc.getText('t').insert(0, 'y'.repeat(700_000)))
    const parts = [0, 300_000, 600_000].map((offset) => ({ ...large, offset, update: large.update.subarray(offset, offset + 300_000) }))
    for (const part of parts) peer.send(part)
    peer.send(writer.push(handle))
    await until(() => peer.all('ack').length === 2)
    expect(peer.all('ack').map(({ n, seq }) => [n, seq])).toEqual([
      [1, 1],
      [2, 2],
    ])
  })

  it('that makes the document too large is refused, and the document lives on', async () => {
    const { peer, handle } = await opened(createTestRelay({ limits: { document: 100 } }))
    peer.send(push(handle, newIncarnationId(), 1, update('z'.repeat(200))))
    expect(await peer.next('nack')).toMatchObject({ code: 'too_large', expected: 1 })
    peer.send(push(handle, newIncarnationId(), 1, update()))
    await peer.next('ack')
  })
})

describe('a state push', () => {
  it('raises what is acknowledged of the incarnations that it covers', async () => {
    const { peer, handle } = await opened(createTestRelay())
    const writer = new Writer()
    for (let i = 0; i < 7; i++) writer.edit()
    const state = push(handle, newIncarnationId(), 1, Y.encodeStateAsUpdate(writer.doc), {
      kind: 'state',
      covers: [{ incarnation: writer.incarnation, n: 7 }],
    })
    peer.send(state, writer.push(handle))
    await until(() => peer.all('ack').length === 2)
    expect(peer.all('ack')[1]).toMatchObject({ incarnation: writer.incarnation, n: 8, seq: 2 })
  })

  it('never lowers it', async () => {
    const disk = createMemoryDisk()
    const first = await opened(createTestRelay({ log: createMemoryLog(disk) }))
    const writer = new Writer()
    for (let i = 0; i < 3; i++) first.peer.send(writer.push(first.handle))
    await until(() => first.peer.all('ack').length === 3)
    // A relay that has not looked that incarnation up yet.
    const { peer, handle } = await opened(createTestRelay({ log: createMemoryLog(disk) }))
    peer.send(
      push(handle, newIncarnationId(), 1, update(), { kind: 'state', covers: [{ incarnation: writer.incarnation, n: 1 }] }),
      writer.push(handle),
    )
    await until(() => peer.all('ack').length === 2)
    expect(peer.all('ack')[1]).toMatchObject({ incarnation: writer.incarnation, n: 4 })
  })
})

describe('when the log cannot', () => {
  it('because the disk is full, all that was under way is nacked in order, and goes through once there is room', async () => {
    const disk = createMemoryDisk()
    const relay = createTestRelay({ log: createMemoryLog(disk) })
    const [{ peer: a, handle }, { peer: b }] = [await opened(relay), await opened(relay)]
    const [first, second] = [new Writer(), new Writer()]
    a.send(first.push(handle))
    await a.next('ack')
    disk.full = true
    const pushes = [first.push(handle), first.push(handle), first.push(handle)]
    a.send(...pushes, second.push(handle))
    expect(await a.next('nack')).toMatchObject({
      incarnation: first.incarnation,
      code: 'storage_full',
      n: 2,
      expected: 2,
      retryAfter: 2000,
    })
    expect(await a.next('nack')).toMatchObject({ incarnation: second.incarnation, code: 'storage_full', n: 1, expected: 1 })
    disk.full = false
    a.send(...pushes)
    await until(() => a.all('ack').length === 4)
    expect(a.all('ack').map(({ n, seq }) => [n, seq])).toEqual([
      [1, 1],
      [2, 2],
      [3, 3],
      [4, 4],
    ])
    expect(a.all('nack')).toHaveLength(2)
    await until(() => streamOf(b, handle).last === 4)
    expect(relay.fatal).toEqual([])
  })

  it('what was admitted since then falls with it', async () => {
    const clock = { ...createTestRelay().clock }
    const held: (() => void)[] = []
    const disk = createMemoryDisk({ clock: { now: clock.now, after: (_ms, run) => (held.push(run), () => undefined) }, seek: 0 })
    const flush = (): Promise<void> =>
      new Promise(
        (resolve) =>
          void setImmediate(() => {
            for (const run of held.splice(0)) run()
            resolve()
          }),
      )
    const relay = createTestRelay({ log: createMemoryLog(disk) })
    const pump = setInterval(() => {
      if (!disk.full) void flush()
    }, 1)
    const { peer, handle } = await opened(relay)
    const writer = new Writer()
    peer.send(writer.push(handle))
    await peer.next('ack')
    disk.full = true
    peer.send(writer.push(handle))
    await until(() => relay.core.stats().waiting === 1 && held.length === 1)
    peer.send(writer.push(handle))
    expect(relay.core.stats().waiting).toBe(2)
    await flush()
    expect(await peer.next('nack')).toMatchObject({ n: 2, expected: 2 })
    expect(relay.core.stats().waiting).toBe(0)
    disk.full = false
    peer.send(push(handle, writer.incarnation, 2, Y.encodeStateAsUpdate(writer.doc), { hi: 3 }))
    expect(await peer.next('ack')).toMatchObject({ n: 3, seq: 2 })
    clearInterval(pump)
    expect(peer.all('nack')).toHaveLength(1)
  })

  it('because a barrier failed, nothing is said any more', async () => {
    const disk = createMemoryDisk()
    const relay = createTestRelay({ log: createMemoryLog(disk) })
    const { peer, handle } = await opened(relay)
    disk.broken = true
    peer.send(new Writer().push(handle))
    const frames = peer.frames.length
    await until(() => relay.fatal.length > 0)
    peer.send({ type: 'ping', nonce: 1 })
    expect(peer.frames).toHaveLength(frames)
    expect(relay.fatal).toHaveLength(1)
  })
})

describe('grants', () => {
  const documents = (access: 'read' | 'write' | 'none'): Grant['documents'] => ({ '*': access })

  it('to read only: a push is nacked as forbidden', async () => {
    const { peer, handle } = await opened(
      createTestRelay({ authorize: () => Promise.resolve({ principal: 'p', documents: documents('read') }) }),
    )
    peer.send(new Writer().push(handle))
    expect(await peer.next('nack')).toMatchObject({ code: 'forbidden', expected: 1 })
  })

  it('that ended while a push waited keep it out of the batch', async () => {
    const relay = createTestRelay({ authorize: () => Promise.resolve({ principal: 'p', documents: documents('write') }) })
    const { peer, handle } = await opened(relay)
    // The incarnation is looked up first; the grant falls in that time.
    peer.send(new Writer().push(handle))
    relay.core.regrant('p', { principal: 'p', documents: documents('read') })
    expect(await peer.next('nack')).toMatchObject({ code: 'forbidden' })
    expect(await entriesOf(relay.log, 'd')).toEqual([])
  })

  it('that end are over on open sockets when their time comes', async () => {
    const relay = createTestRelay({
      authorize: () => Promise.resolve({ principal: 'p', documents: documents('write'), expiresAt: 1_060_000 }),
    })
    const { peer } = await opened(relay)
    await relay.clock.advance(30_000)
    expect(peer.all('authenticate')).toMatchObject([{ deadline: 30_000 }])
    peer.send({ type: 'pong', nonce: 0 })
    await relay.clock.advance(29_999)
    expect(peer.closed).toBeUndefined()
    await relay.clock.advance(1)
    expect(peer.closed).toMatchObject({ code: 4401 })
  })

  it('keep a Yjs client id with the principal that wrote under it', async () => {
    const relay = createTestRelay({ authorize: ({ token }) => Promise.resolve({ principal: token, documents: documents('write') }) })
    const [{ peer: alice, handle }, { peer: mallory }] = [await opened(relay, 'd', 'alice'), await opened(relay, 'd', 'mallory')]
    const writer = new Writer()
    alice.send(writer.push(handle))
    await alice.next('ack')
    const { update: forged } = writer.edit()
    mallory.send(push(handle, newIncarnationId(), 1, forged))
    expect(await mallory.next('nack')).toMatchObject({ code: 'foreign_client' })
    mallory.send(push(handle, newIncarnationId(), 1, forged, { kind: 'state' }))
    expect(await mallory.next('nack')).toMatchObject({ code: 'foreign_client' })
    alice.send(push(handle, writer.incarnation, 2, forged))
    expect(await alice.next('ack')).toMatchObject({ n: 2, seq: 2 })
    expect(await entriesOf(relay.log, 'd')).toMatchObject([{ actor: 'alice' }, { actor: 'alice' }])
  })

  it('let a state push repeat what others wrote, and bring what the relay lost without making it its author’s', async () => {
    const relay = createTestRelay({ authorize: ({ token }) => Promise.resolve({ principal: token, documents: documents('write') }) })
    const [{ peer: alice, handle }, { peer: bob }] = [await opened(relay, 'd', 'alice'), await opened(relay, 'd', 'bob')]
    const [writer, own] = [new Writer(), new Writer()]
    for (let i = 0; i < 3; i++) writer.edit()
    bob.send(push(handle, newIncarnationId(), 1, Y.encodeStateAsUpdate(writer.doc), { kind: 'state' }))
    expect(await bob.next('ack')).toMatchObject({ seq: 1 })
    alice.send(push(handle, writer.incarnation, 1, writer.between(1, 3), { hi: 3 }))
    expect(await alice.next('ack')).toMatchObject({ n: 3, seq: 1 })
    alice.send(writer.push(handle))
    expect(await alice.next('ack')).toMatchObject({ n: 4, seq: 2 })
    Y.applyUpdate(own.doc, Y.encodeStateAsUpdate(writer.doc))
    own.edit()
    bob.send(push(handle, newIncarnationId(), 1, Y.encodeStateAsUpdate(own.doc), { kind: 'state' }))
    expect(await bob.next('ack')).toMatchObject({ seq: 3 })
  })

  it('take an edit that only deletes in what another principal wrote, although it names the structs: so a client tidies rich text', async () => {
    const relay = createTestRelay({ authorize: ({ token }) => Promise.resolve({ principal: token, documents: documents('write') }) })
    const [{ peer: alice, handle }, { peer: bob }] = [await opened(relay, 'd', 'alice'), await opened(relay, 'd', 'bob')]
    const writer = new Writer()
    alice.send(writer.push(handle))
    await alice.next('ack')
    writer.doc.getText('t').delete(0, 1)
    const tidied = Y.encodeStateAsUpdate(writer.doc)
    bob.send(push(handle, newIncarnationId(), 1, tidied))
    expect(await bob.next('ack')).toMatchObject({ n: 1, seq: 2 })
    // And one that was faster has left nothing to do.
    bob.send(push(handle, newIncarnationId(), 1, tidied))
    expect(await bob.next('ack')).toMatchObject({ n: 1, seq: 2 })
  })
})
