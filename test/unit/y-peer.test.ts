/**
 * One y-websocket socket on the relay, frame by frame, with time and the log in the test's hands.
 */
import * as Y from 'yjs'
import { describe, expect, it } from 'vitest'
import type { DocumentId, Seq } from '@rejoin/shared'
import { DEFAULT_LIMITS } from '@rejoin/shared'
import type { Grant } from '#server/relay/grant.js'
import { OPEN_GRANT } from '#server/relay/grant.js'
import type { RelaySocket } from '#server/relay/peer.js'
import { createPresence } from '#server/relay/presence.js'
import { YPeer } from '#server/relay/y-peer.js'
import { createMemoryDisk } from '#server/storage/memory-disk.js'
import { createMemoryLog } from '#server/storage/memory.js'
import { ByteReader, ByteWriter } from '#shared/bytes.js'
import type { TestRelay } from '../support/relay.ts'
import { createTestRelay, entriesOf } from '../support/relay.ts'
import { until } from '../support/until.ts'

const DOCUMENT = 'room' as DocumentId
const NOTHING = Uint8Array.of(0, 0)

type Message = { readonly type: 'step1' | 'step2' | 'update' | 'awareness' | 'denied'; readonly bytes: Uint8Array }

/** The client's side of a socket, by hand: it answers nothing by itself. */
class HandClient implements RelaySocket {
  readonly doc = new Y.Doc()
  readonly messages: Message[] = []
  readonly frames: Uint8Array[] = []
  buffered = 0
  paused = false
  ended: { readonly code: number; readonly reason: string } | undefined
  readonly peer: YPeer

  private constructor(make: (socket: HandClient) => YPeer) {
    this.peer = make(this)
  }

  static async open(relay: TestRelay, grant: Grant = OPEN_GRANT): Promise<HandClient> {
    const document = await relay.core.hold(DOCUMENT)
    const presence = createPresence({ clock: relay.clock, limits: DEFAULT_LIMITS })
    return new HandClient(
      (socket) =>
        new YPeer(
          {
            clock: relay.clock,
            limits: DEFAULT_LIMITS,
            presence,
            randomBytes: (length) => crypto.getRandomValues(new Uint8Array(length)),
            gone: () => undefined,
            report: () => undefined,
            async state(id, vector) {
              const entries = await entriesOf(relay.log, id)
              return {
                seq: entries.at(-1)?.seq ?? (0 as Seq),
                update: entries.length === 0 ? NOTHING : Y.diffUpdate(Y.mergeUpdates(entries.map(({ update }) => update)), vector),
              }
            },
          },
          socket,
          document,
          grant,
        ),
    )
  }

  send(frame: Uint8Array): void {
    this.frames.push(frame)
    const reader = new ByteReader(frame)
    const type = reader.varUint()
    if (type === 1) this.messages.push({ type: 'awareness', bytes: reader.blob(Infinity, '') })
    else if (type === 2) this.messages.push({ type: 'denied', bytes: frame })
    else
      this.messages.push({ type: (['step1', 'step2', 'update'] as const)[reader.varUint()] ?? 'update', bytes: reader.blob(Infinity, '') })
  }

  pause(): void {
    this.paused = true
  }

  resume(): void {
    this.paused = false
  }

  close(code: number, reason: string): void {
    this.ended = { code, reason }
  }

  all(type: Message['type']): Uint8Array[] {
    return this.messages.filter((message) => message.type === type).map(({ bytes }) => bytes)
  }

  step1(vector = Y.encodeStateVector(this.doc)): void {
    this.peer.message(sync(0, vector))
  }

  step2(update: Uint8Array): void {
    this.peer.message(sync(1, update))
  }

  update(update: Uint8Array): void {
    this.peer.message(sync(2, update))
  }

  /** Edits, and gives the update that a stock client would send at once. */
  edit(text: string): Uint8Array {
    let made: Uint8Array = NOTHING
    const keep = (update: Uint8Array): void => {
      made = update
    }
    this.doc.on('update', keep)
    this.doc.getText('text').insert(0, text)
    this.doc.off('update', keep)
    return made
  }
}

function sync(type: number, bytes: Uint8Array): Uint8Array {
  const writer = new ByteWriter()
  writer.varUint(0)
  writer.varUint(type)
  writer.blob(bytes)
  return writer.take()
}

/** Waits until what is expected is so. */
function eventually(expectation: () => void | Promise<void>): Promise<unknown> {
  return until(async () => {
    await expectation()
    return true
  }, 'the expectation')
}

async function entryCount(relay: TestRelay): Promise<number> {
  return (await entriesOf(relay.log, DOCUMENT)).length
}

describe('a y-websocket socket', () => {
  it('is asked at once, answered when it asks, and told each entry in a frame of its own, its own only once they are durable', async () => {
    const disk = createMemoryDisk()
    const relay = createTestRelay({ log: createMemoryLog(disk) })
    const [a, b] = [await HandClient.open(relay), await HandClient.open(relay)]
    expect(a.messages[0]).toEqual({ type: 'step1', bytes: Uint8Array.of(0) })
    a.step1()
    b.step1()
    await until(() => a.all('step2').length === 1 && b.all('step2').length === 1, 'both to be answered')
    a.update(a.edit('one'))
    expect(a.all('update')).toEqual([])
    a.update(a.edit('two'))
    a.update(a.edit('three'))
    await eventually(() => expect([a.all('update').length, b.all('update').length]).toEqual([3, 3]))
    for (const update of b.all('update')) Y.applyUpdate(b.doc, update)
    expect(b.doc.getText('text').toString()).toBe('threetwoone')
  })

  it('is asked when its edits do not fit, once however many, and its answer heals', async () => {
    const relay = createTestRelay()
    const client = await HandClient.open(relay)
    client.step2(NOTHING)
    client.edit('went to another tab only')
    for (let n = 0; n < 5; n++) client.update(client.edit('x'))
    await eventually(() => expect(client.all('step1').length).toBe(2))
    client.step2(Y.encodeStateAsUpdate(client.doc, client.all('step1')[1]))
    client.update(client.edit('y'))
    await eventually(async () => expect(await entryCount(relay)).toBe(2))
    expect([client.ended, client.all('step1').length]).toEqual([undefined, 2])
  })

  it('is ended with 4409 when asking three times did not help', async () => {
    const relay = createTestRelay()
    const client = await HandClient.open(relay)
    client.edit('kept to itself')
    const [first, second] = [client.edit('a'), client.edit('b')]
    client.step2(first)
    for (let asked = 2; asked <= 4; asked++) {
      await eventually(() => expect(client.all('step1').length).toBe(asked))
      expect(client.ended).toBeUndefined()
      client.step2(second)
    }
    await eventually(() => expect(client.ended).toMatchObject({ code: 4409 }))
  })

  it('makes no entry of what the relay has, and goes on numbering after what was refused', async () => {
    const relay = createTestRelay()
    const client = await HandClient.open(relay)
    client.step2(client.edit('one'))
    client.doc.getText('text').delete(0, 2)
    client.step2(Y.encodeStateAsUpdate(client.doc))
    client.step2(Y.encodeStateAsUpdate(client.doc))
    client.step2(NOTHING)
    const lost = client.edit('lost')
    client.update(client.edit('a gap'))
    client.step2(lost)
    client.update(client.edit('x'))
    await eventually(async () =>
      expect((await entriesOf(relay.log, DOCUMENT)).map(({ lo, hi }) => [lo, hi])).toEqual([
        [1, 1],
        [1, 2],
        [1, 5],
      ]),
    )
  })

  it('is ended for good by bytes that are no update, and by frames that are none', async () => {
    for (const [frame, code] of [
      [sync(2, Uint8Array.of(9, 9, 9)), 4400],
      [sync(7, NOTHING), 4400],
      [Uint8Array.of(0, 2, 200), 4400],
      [sync(0, Uint8Array.of(5, 1)), 4400],
      [sync(2, new Uint8Array(DEFAULT_LIMITS.edit + 1)), 4413],
    ] as const) {
      const relay = createTestRelay()
      const client = await HandClient.open(relay)
      client.peer.message(frame)
      await eventually(() => expect(client.ended).toMatchObject({ code }))
    }
    const client = await HandClient.open(createTestRelay())
    client.peer.message(Uint8Array.of(77, 1, 2, 3))
    expect(client.ended).toBeUndefined()
  })

  it('hears something every 15 s', async () => {
    const relay = createTestRelay()
    const client = await HandClient.open(relay)
    await relay.clock.advance(61_000)
    expect(client.all('awareness')).toEqual(Array.from({ length: 4 }, () => Uint8Array.of(0)))
  })

  it('ends when its token does, and when its grant is taken; with less it stays and is not heard', async () => {
    const relay = createTestRelay()
    const grant = (access: 'read' | 'write', ms: number): Grant => ({
      principal: 'ada',
      documents: { room: access },
      expiresAt: relay.clock.now() + ms,
    })
    const [short, other] = [await HandClient.open(relay, grant('write', 5000)), await HandClient.open(relay, grant('write', 3_600_000))]
    await relay.clock.advance(6000)
    expect([short.ended?.code, other.ended]).toEqual([4401, undefined])
    other.peer.regrant(grant('read', 3_600_000))
    other.update(other.edit('x'))
    other.update(other.edit('y'))
    expect([await entryCount(relay), other.all('denied').length]).toEqual([0, 1])
    other.peer.regrant(grant('write', 3_600_000))
    expect(other.all('step1').length).toBe(2)
    other.step2(Y.encodeStateAsUpdate(other.doc))
    await eventually(async () => expect(await entryCount(relay)).toBe(1))
    other.peer.regrant(null)
    expect(other.ended?.code).toBe(4401)
  })

  it('that reads too slowly is given nothing until it has read, and then everything', async () => {
    const relay = createTestRelay({ limits: { outbound: 1000 } })
    const [slow, busy] = [await HandClient.open(relay), await HandClient.open(relay)]
    for (const client of [slow, busy]) client.step1()
    await until(() => slow.all('step2').length === 1 && busy.all('step2').length === 1, 'the answers')
    slow.buffered = 2_000_000
    for (let n = 0; n < 50; n++) busy.update(busy.edit('lorem'))
    await eventually(() => expect(busy.all('update').length).toBe(50))
    expect(slow.all('update').length).toBe(0)
    slow.buffered = 0
    slow.peer.drained()
    await until(() => slow.all('update').length === 50, 'everything')
    for (const update of slow.all('update')) Y.applyUpdate(slow.doc, update)
    expect(slow.doc.getText('text').length).toBe(250)
  })

  it('that pushes more than is taken is not read meanwhile', async () => {
    const relay = createTestRelay()
    const client = await HandClient.open(relay)
    client.update(client.edit('x'.repeat(2 * DEFAULT_LIMITS.window)))
    expect(client.paused).toBe(true)
    await eventually(() => expect(client.paused).toBe(false))
    client.peer.stopReading()
    expect(client.paused).toBe(true)
  })
})
