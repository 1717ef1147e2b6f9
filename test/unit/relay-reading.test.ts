/**
 * Readers of a document (step 6): where they begin, what they are given, and that nobody misses an entry.
 */
import * as Y from 'yjs'
import { describe, expect, it } from 'vitest'
import type { ChainHash, Cursor, DocumentId, Lineage, Seq } from '@rejoin/shared'
import { newIncarnationId } from '@rejoin/shared'
import type { StateFrame } from '@rejoin/shared/wire'
import type { DocumentHead, Log } from '#server/log/log.js'
import { absorbTrusted, createAdmission, encodeAdmission } from '#server/relay/admission.js'
import { createMemoryLog } from '#server/storage/memory.js'
import type { RawPeer, TestRelay } from '../support/relay.ts'
import { Writer, createTestRelay, entriesOf, push, streamOf } from '../support/relay.ts'
import { until } from '../support/until.ts'

const D = 'd' as DocumentId

async function opened(relay: TestRelay, cursor?: Cursor): Promise<{ peer: RawPeer; handle: number }> {
  const peer = await relay.peer()
  return { peer, handle: (await peer.open(D, cursor)).handle }
}

/** A relay whose document has `count` entries, and the cursor behind each. */
async function written(count: number, log: Log = createMemoryLog()): Promise<{ relay: TestRelay; cursors: Cursor[]; writer: Writer }> {
  const relay = createTestRelay({ log })
  const { peer, handle } = await opened(relay)
  const writer = new Writer()
  for (let i = 0; i < count; i++) peer.send(writer.push(handle, (doc) => doc.getText('t').insert(i, 'x')))
  await until(() => peer.all('ack').length === count)
  const cursors = (await entriesOf(log, D)).map(({ lineage, epoch, seq, hash }) => ({ lineage, epoch, seq, hash }))
  peer.lose()
  return { relay, cursors, writer }
}

/** Folds everything, as compaction does. */
async function fold(log: Log): Promise<DocumentHead> {
  const entries = await entriesOf(log, D)
  const doc = new Y.Doc()
  const state = createAdmission()
  for (const { update } of entries) {
    Y.applyUpdate(doc, update)
    absorbTrusted(state, update)
  }
  const last = entries.at(-1)
  if (last === undefined) throw new Error('nothing to fold')
  await log.fold({
    document: D,
    lineage: last.lineage,
    seq: last.seq,
    update: Y.encodeStateAsUpdate(doc),
    admission: encodeAdmission(state),
  })
  return (await log.head(D)) as DocumentHead
}

/** The state that fragments make, each checked to follow the one before. */
function stateOf(frames: readonly StateFrame[], from = 0): Uint8Array {
  let at = from
  for (const { offset, update } of frames) {
    expect(offset).toBe(at)
    at += update.length
  }
  expect(at).toBe(frames[0]?.total)
  return Buffer.concat(frames.map(({ update }) => update))
}

describe('an open', () => {
  it('resumes behind a cursor that this chain proves', async () => {
    const { relay, cursors } = await written(5)
    const peer = await relay.peer()
    const { handle, mode, head } = await peer.open(D, cursors[1])
    expect([mode, head]).toEqual(['resumed', 5])
    await until(() => streamOf(peer, handle).last === 5)
    expect(streamOf(peer, handle).seqs).toEqual([3, 4, 5])
    expect(peer.all('entries').at(-1)?.hash).toBe(cursors[4]?.hash)
  })

  it.each<[string, (cursor: Cursor) => Cursor, string]>([
    ['another hash', (cursor) => ({ ...cursor, hash: '00'.repeat(16) as ChainHash }), 'full'],
    ['a seq beyond the head', (cursor) => ({ ...cursor, seq: 99 as Seq }), 'full'],
    ['another epoch', (cursor) => ({ ...cursor, epoch: 2 }), 'full'],
    ['another lineage', (cursor) => ({ ...cursor, lineage: '00'.repeat(16) as Lineage }), 'replaced'],
    ['the head itself', (cursor) => cursor, 'resumed'],
  ])('with %s', async (_what, change, mode) => {
    const { relay, cursors } = await written(3)
    const peer = await relay.peer()
    expect((await peer.open(D, change(cursors[2] as Cursor))).mode).toBe(mode)
    if (mode === 'full') await until(() => streamOf(peer, 1).last === 3)
    if (mode === 'replaced') {
      peer.send(push(1, newIncarnationId(), 1, new Uint8Array(3)), { type: 'ping', nonce: 1 })
      await peer.next('pong')
      expect(peer.all('nack').length + peer.all('entries').length).toBe(0)
    }
  })

  it('of an empty document gives one fragment of nothing', async () => {
    const { peer } = await opened(createTestRelay())
    expect(await peer.next('state')).toMatchObject({ seq: 0, total: 0, offset: 0 })
  })

  it('a second time on a socket has the same handle, and begins where the second cursor says', async () => {
    const { relay, cursors } = await written(4)
    const { peer, handle } = await opened(relay, cursors[3])
    const again = await peer.open(D, cursors[0])
    expect(again).toMatchObject({ handle, mode: 'resumed' })
    await until(() => streamOf(peer, handle).seqs.length === 3)
  })

  it('loads a document once, however many come at once', async () => {
    const { relay } = await written(3)
    let heads = 0
    const log = { ...relay.log, head: (document: DocumentId) => (heads++, relay.log.head(document)) }
    const other = createTestRelay({ log })
    const peers = await Promise.all(Array.from({ length: 5 }, () => other.peer()))
    await Promise.all(peers.map((peer) => peer.open(D)))
    expect(heads).toBe(1)
  })

  it('of a document whose log is damaged is refused, and others are served', async () => {
    const { relay } = await written(3)
    const log: Log = {
      ...relay.log,
      read: (from, max) => ('document' in from && from.document === D ? Promise.reject(new Error('checksum')) : relay.log.read(from, max)),
    }
    const other = createTestRelay({ log })
    const peer = await other.peer()
    peer.send({ type: 'open', ref: 1, document: D })
    expect(await peer.next('refused')).toMatchObject({ code: 'internal' })
    await peer.open('fine')
  })
})

describe('the whole state', () => {
  async function folded(): Promise<{ relay: TestRelay; head: DocumentHead; writer: Writer }> {
    const { relay: first, writer } = await written(2)
    const { peer, handle } = await opened(first)
    const long = writer.push(handle, (doc) => doc.getText('t').insert(0, 'z'.repeat(900_000)))
    for (let offset = 0; offset < long.total; offset += 500_000)
      peer.send({ ...long, offset, update: long.update.subarray(offset, offset + 500_000) })
    await until(() => peer.all('ack').length === 1)
    const head = await fold(first.log)
    return { relay: createTestRelay({ log: first.log }), head, writer }
  }

  it('comes in fragments of at most 256 KiB, then the entries behind it', async () => {
    const { relay, head, writer } = await folded()
    const { peer, handle } = await opened(relay)
    await until(() => peer.all('state').length === 4)
    const doc = new Y.Doc()
    Y.applyUpdate(doc, stateOf(peer.all('state')))
    expect(doc.getText('t').toString()).toBe(writer.doc.getText('t').toString())
    expect(peer.all('state').map(({ seq, hash, update }) => [seq, hash, update.length <= 256 * 1024])).toEqual(
      Array.from({ length: 4 }, () => [3, head.hash, true]),
    )
    peer.send(writer.push(handle))
    expect(await peer.next('ack')).toMatchObject({ seq: 4 })
  })

  it('goes on where it broke off, as long as it is that very state', async () => {
    const { relay, head } = await folded()
    const resumed = await relay.peer()
    await resumed.open(D, undefined, { snapshotSeq: head.snapshot.seq, offset: 500_000 })
    await until(() => resumed.all('state').length === 2)
    stateOf(resumed.all('state'), 500_000)
    const other = await relay.peer()
    await other.open(D, undefined, { snapshotSeq: 1 as Seq, offset: 500_000 })
    await until(() => other.all('state').length === 4)
    stateOf(other.all('state'))
  })

  it('begins anew when another snapshot takes its place on the way', async () => {
    const { relay, writer } = await folded()
    const peer = await relay.peer()
    peer.stall()
    peer.send({ type: 'open', ref: 1, document: D })
    // As if a megabyte waited already: the next fragment waits for its socket.
    peer.buffered = 2 * 1024 * 1024
    await until(() => relay.core.stats().documents === 1)
    const { peer: author, handle } = await opened(relay)
    author.send(writer.push(handle))
    await author.next('ack')
    const head = await fold(relay.log)
    peer.flow()
    await until(() => peer.all('state').some(({ seq, offset, update, total }) => seq === head.seq && offset + update.length === total))
    stateOf(peer.all('state').filter(({ seq }) => seq === head.seq))
  })

  it('comes in the middle of reading when what follows is no longer retained', async () => {
    const { relay, cursors, writer } = await written(3)
    const { peer, handle } = await opened(relay, cursors[0])
    await until(() => streamOf(peer, handle).last === 3)
    peer.stall()
    peer.buffered = 5 * 1024 * 1024
    const { peer: author } = await opened(relay)
    for (let i = 0; i < 3; i++) author.send(writer.push(handle))
    await until(() => author.all('ack').length === 3)
    await fold(relay.log)
    await relay.log.trim(Infinity)
    peer.flow()
    const state = await peer.next('state')
    expect(state).toMatchObject({ seq: 6 })
    author.send(writer.push(handle))
    expect(await peer.next('entries')).toMatchObject({ first: 7 })
  })
})

describe('a large entry', () => {
  it('reaches others in fragments, and its author as an ack', async () => {
    const relay = createTestRelay()
    const [{ peer: author, handle }, { peer: reader }] = [await opened(relay), await opened(relay)]
    const writer = new Writer()
    const long = writer.push(handle, (doc) => doc.getText('t').insert(0, 'z'.repeat(600_000)))
    author.send(long)
    author.send(writer.push(handle))
    const entries = await reader.next('entries')
    expect(entries.first).toBe(2)
    expect(Buffer.from(long.update).equals(stateOf(reader.all('state').filter(({ seq }) => seq === 1)))).toBe(true)
    expect(author.all('ack').map(({ seq }) => seq)).toEqual([1, 2])
  })
})

describe('a slow reader', () => {
  it('is given nothing while too much waits, and then everything, from the log', async () => {
    const relay = createTestRelay()
    const [{ peer: author, handle }, { peer: slow }] = [await opened(relay), await opened(relay)]
    const writer = new Writer()
    slow.stall()
    slow.buffered = 5 * 1024 * 1024
    for (let i = 0; i < 20; i++) {
      author.send(writer.push(handle))
      await author.next('ack')
    }
    expect(slow.buffered).toBe(5 * 1024 * 1024)
    slow.flow()
    await until(() => streamOf(slow, handle).last === 20)
    author.send(writer.push(handle))
    await until(() => streamOf(slow, handle).last === 21)
  })

  it('is not read, so that its own pushes cannot pile up answers', async () => {
    const { peer, handle } = await opened(createTestRelay({ limits: { outbound: 10 } }))
    peer.stall()
    peer.send(new Writer().push(handle))
    await until(() => peer.paused)
    peer.flow()
    expect(peer.paused).toBe(false)
  })
})

describe('a log that is ahead of what the relay was told', () => {
  it('gives no entry twice', async () => {
    const log = createMemoryLog()
    let release: (() => void) | undefined
    const late: Log = {
      ...log,
      append: async (batch) => {
        const appended = await log.append(batch)
        if (release !== undefined)
          await new Promise<void>((resolve) => {
            release = resolve
          })
        return appended
      },
    }
    const relay = createTestRelay({ log: late })
    const { peer: author, handle } = await opened(relay)
    const writer = new Writer()
    author.send(writer.push(handle))
    await author.next('ack')
    release = () => undefined
    author.send(writer.push(handle))
    await until(async () => (await entriesOf(log, D)).length === 2)
    const { peer: reader } = await opened(relay)
    await until(() => streamOf(reader, handle).last === 1)
    release()
    await until(() => streamOf(reader, handle).last === 2 && author.all('ack').length === 2)
  })
})

describe('an author', () => {
  it('gets acks in the place of its own entries, with the others’ around them', async () => {
    const relay = createTestRelay()
    const [{ peer: a, handle }, { peer: b }] = [await opened(relay), await opened(relay)]
    const [mine, theirs] = [new Writer(), new Writer()]
    const others = [theirs.push(handle), theirs.push(handle)]
    b.send(others[0] ?? mine.push(handle))
    a.send(mine.push(handle))
    b.send(others[1] ?? mine.push(handle))
    await until(() => streamOf(a, handle).last === 3 && streamOf(b, handle).last === 3)
    expect(a.all('ack').map(({ seq }) => seq)).toEqual([2])
    expect(b.all('ack').map(({ seq }) => seq)).toEqual([1, 3])
    expect(streamOf(a, handle).updates.slice(1)).toEqual(others.map(({ update }) => update))
  })
})

describe('a grant that falls to none', () => {
  it('ends the entries, which go on from the place of the socket when it rises', async () => {
    const relay = createTestRelay({ authorize: ({ token }) => Promise.resolve({ principal: token, documents: { '*': 'write' } }) })
    const [author, reader] = [await relay.peer('author'), await relay.peer('reader')]
    const { handle } = await author.open(D)
    await reader.open(D)
    const writer = new Writer()
    author.send(writer.push(handle))
    await until(() => streamOf(reader, handle).last === 1)
    relay.core.regrant('reader', { principal: 'reader', documents: {} })
    expect(await reader.next('grant')).toMatchObject({ grant: 'none', code: 'forbidden' })
    author.send(writer.push(handle))
    await until(() => author.all('ack').length === 2)
    expect(streamOf(reader, handle).last).toBe(1)
    relay.core.regrant('reader', { principal: 'reader', documents: { '*': 'read' } })
    await until(() => streamOf(reader, handle).last === 2)
  })
})

describe('documents', () => {
  it('that nobody has are forgotten after a while, and read again when somebody comes', async () => {
    const { relay, cursors } = await written(3)
    await relay.clock.advance(60_000)
    expect(relay.core.stats().documents).toBe(0)
    const { peer, handle } = await opened(relay, cursors[2])
    peer.send(new Writer().push(handle))
    expect(await peer.next('ack')).toMatchObject({ seq: 4 })
  })

  it('that somebody has stay', async () => {
    const { relay } = await written(1)
    const { peer } = await opened(relay)
    for (let i = 0; i < 20; i++) {
      await relay.clock.advance(20_000)
      peer.send({ type: 'ping', nonce: i })
    }
    expect(relay.core.stats().documents).toBe(1)
  })

  it('that grow are shown to the compactor, and their new snapshot is learned of', async () => {
    const log = createMemoryLog()
    const considered: number[] = []
    const relay = createTestRelay({
      log,
      compactor: { consider: (head) => (considered.push(head.seq), head.seq === 2 ? fold(log).then(() => undefined) : undefined) },
    })
    const { peer, handle } = await opened(relay)
    const writer = new Writer()
    for (let i = 0; i < 2; i++) {
      peer.send(writer.push(handle))
      await peer.next('ack')
    }
    const held = await relay.core.hold(D)
    await until(() => held.snapshot.seq === 2)
    expect(considered).toEqual([1, 2])
    held.release()
  })

  it('are shown to the compactor as growing with each batch, and as at rest once five seconds brought nothing new', async () => {
    const considered: string[] = []
    const relay = createTestRelay({
      compactor: { consider: (head, growing) => void considered.push(`${head.seq} ${growing ? 'growing' : 'at rest'}`) },
    })
    const { peer, handle } = await opened(relay)
    const writer = new Writer()
    await relay.clock.advance(4000)
    peer.send(writer.push(handle))
    await peer.next('ack')
    await relay.clock.advance(4000)
    expect(considered).toEqual(['1 growing'])
    await relay.clock.advance(5000)
    expect(considered).toEqual(['1 growing', '1 at rest'])
    await relay.clock.advance(60_000)
    expect(considered).toHaveLength(2)
  })
})
