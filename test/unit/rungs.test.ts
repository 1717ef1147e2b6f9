/**
 * Waiting for a sink, from the edit to the worker and back: what is asked on which socket, what is answered when, and the receipts that name entries.
 */
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { DocumentId, Lineage, Seq, SyncError } from '@rejoin/shared'
import { decodeReceipt, encodeReceipt, mergeReceipts } from '@rejoin/shared/receipts'
import type { AwaitTell, RungSink } from '#server/forwarding/rungs.js'
import { createRungDesk, createRungWatch } from '#server/forwarding/rungs.js'
import type { Key, VersionEntry } from '#server/view/view.js'
import { REDIAL, World, type } from '../support/client.ts'
import { createVirtualClock } from '../support/virtual-clock.ts'

const rejected = (promise: Promise<unknown>): Promise<SyncError> =>
  promise.then(
    () => Promise.reject(new Error('it resolved')),
    (error: SyncError) => error,
  )

describe('a client that waits for a sink', () => {
  let world: World
  beforeEach(() => {
    world = new World()
  })
  afterEach(() => world.end())

  it('asks for the entry that the edit became, once it is acknowledged, and hears of it', async () => {
    const { relay } = world
    const replica = await world.opened(world.connect())
    relay.script.push = () => 'silence'
    const first = type(replica, 'a')
    let reached = false
    const wait = first.wait({ to: 'sink:warehouse' }).then(() => {
      reached = true
    })
    await world.settle()
    expect(relay.heard.filter((frame) => frame.type === 'await')).toEqual([])
    expect(first.receipt).toBeUndefined()
    relay.script = { await: () => ({ code: 'ok', message: '' }) }
    relay.drop()
    await world.clock.advance(REDIAL)
    await wait
    expect(reached).toBe(true)
    expect(relay.heard.filter((frame) => frame.type === 'await')).toMatchObject([{ sink: 'warehouse', seq: 1 }])
    const { lineage } = relay.document('doc')
    expect(decodeReceipt(first.receipt ?? '')).toEqual(new Map([['doc', { lineage, seq: 1 }]]))
    expect(replica.edit(() => undefined).receipt).toBeUndefined()
  })

  it('asks again on the next socket, and only there', async () => {
    const { relay } = world
    const replica = await world.opened(world.connect())
    const wait = type(replica, 'a').wait({ to: 'sink:warehouse' })
    await world.settle()
    relay.drop()
    relay.script.await = () => ({ code: 'ok', message: '' })
    await world.clock.advance(REDIAL)
    await wait
    expect(relay.heard.filter((frame) => frame.type === 'await')).toHaveLength(2)
  })

  it('rejects with what the relay says, with the signal, and when the document is given up', async () => {
    const { relay } = world
    const client = world.connect()
    const replica = await world.opened(client)
    const edit = type(replica, 'a')
    relay.script.await = () => ({ code: 'sink_parked', message: 'pets/1: no' })
    expect(await rejected(edit.wait({ to: 'sink:warehouse' }))).toMatchObject({
      code: 'sink_parked',
      reason: 'pets/1: no',
      retryable: false,
    })
    relay.script.await = () => 'silence'
    const abort = new AbortController()
    const aborted = rejected(edit.wait({ to: 'sink:warehouse', signal: abort.signal }))
    await world.settle()
    abort.abort()
    expect((await aborted).code).toBe('aborted')
    const ended = rejected(replica.wait({ to: 'sink:warehouse' }))
    await world.settle()
    await client.close()
    expect((await ended).code).toBe('closed')
  })

  it('refuses a rung that is none', async () => {
    const replica = await world.opened(world.connect())
    expect(await rejected(type(replica, 'a').wait({ to: 'sinks' as 'relay' }))).toMatchObject({ code: 'bad_option' })
  })
})

describe('the worker', () => {
  const document = 'clinic' as DocumentId
  const clock = createVirtualClock()
  let head = 0
  let cursor = 0
  let state: ReturnType<RungSink['status']>['state'] = 'current'
  let parked: Key | undefined
  let told: AwaitTell[] = []
  const pets = (id: string): Key => ({ collection: 'pets', document, id })
  const watch = (): ReturnType<typeof createRungWatch> =>
    createRungWatch({
      // Entry n is version n, and changes pet n.
      view: {
        versionOf: (_document, seq) => (seq <= head ? seq : undefined),
        entries: (_after, version) => [{ version, document, keys: [pets(String(version))] } as unknown as VersionEntry],
      },
      sink: (name) =>
        name === 'warehouse'
          ? {
              status: () => ({ state }) as ReturnType<RungSink['status']>,
              cursor: () => cursor,
              reached: (_version, keys) => {
                const found = keys.find(({ id }) => id === parked?.id)
                return found === undefined || parked === undefined
                  ? { type: 'reached' }
                  : { type: 'parked', parked: { key: parked, reason: 'not unique' } }
              },
            }
          : undefined,
      tell: (tell) => void told.push(tell),
      clock,
    })
  beforeEach(() => {
    ;[head, cursor, state, parked, told] = [0, 0, 'current', undefined, []]
  })
  const ask = (id: number, seq: number, sink = 'warehouse') => ({ type: 'await', id, sink, document, seq: seq as Seq }) as const

  it('answers when the cursor has passed the version, not before', async () => {
    const rungs = watch()
    rungs.take(ask(1, 1))
    rungs.take(ask(2, 2))
    await clock.advance(1000)
    head = 2
    rungs.look()
    await clock.advance(1000)
    expect(told).toEqual([])
    cursor = 1
    rungs.look()
    await clock.advance(10)
    expect(told).toEqual([{ type: 'reached', id: 1, code: 'ok', message: '' }])
    cursor = 2
    await clock.advance(1000)
    expect(told.map(({ id }) => id)).toEqual([1, 2])
    await clock.advance(10_000)
    expect(clock.waiting).toBe(0)
  })

  it('says that a record is parked, that the sink stands still, that there is none', async () => {
    const rungs = watch()
    head = cursor = 1
    parked = pets('1')
    rungs.take(ask(1, 1))
    await clock.advance(0)
    expect(told.at(-1)).toMatchObject({ id: 1, code: 'sink_parked', message: 'pets/1: not unique' })
    rungs.take(ask(2, 2))
    await clock.advance(1000)
    expect(told).toHaveLength(1)
    state = 'paused'
    await clock.advance(1000)
    expect(told.at(-1)).toMatchObject({ id: 2, code: 'sink_paused' })
    rungs.take(ask(3, 1, 'nowhere'))
    await clock.advance(0)
    expect(told.at(-1)).toMatchObject({ id: 3, code: 'not_found' })
    rungs.close()
  })

  it('tells nothing of a record of another document that could not be written', async () => {
    const rungs = watch()
    head = cursor = 1
    parked = { ...pets('1'), document: 'secret' as DocumentId }
    rungs.take(ask(1, 1))
    await clock.advance(0)
    expect(told).toEqual([
      { type: 'reached', id: 1, code: 'sink_parked', message: 'a record that depends on one of the edit cannot be written' },
    ])
    rungs.close()
  })

  it('asks the view no more of 50,000 waits than what a slice and the cursor allow', async () => {
    let asked = 0
    const rungs = createRungWatch({
      view: {
        versionOf: (_document, seq) => {
          asked++
          return seq <= head ? seq : undefined
        },
        entries: () => [],
      },
      sink: () => ({
        status: () => ({ state }) as ReturnType<RungSink['status']>,
        cursor: () => cursor,
        reached: () => ({ type: 'reached' }),
      }),
      tell: (tell) => void told.push(tell),
      clock,
    })
    head = 1
    for (let i = 1; i <= 50_000; i++) rungs.take(ask(i, 1_000_000))
    rungs.take(ask(50_001, 1))
    await clock.advance(0)
    const first = asked
    expect(first).toBeLessThanOrEqual(1000)
    cursor = 1
    for (let i = 0; i < 200 && told.length === 0; i++) {
      rungs.look()
      await clock.advance(10)
    }
    expect(told).toEqual([{ type: 'reached', id: 50_001, code: 'ok', message: '' }])
    rungs.close()
  })

  it('is asked everything again when it is another one, and forgets what nobody asks any more', () => {
    const sent: unknown[] = []
    const desk = createRungDesk((what) => void sent.push(what))
    const answers: string[] = []
    const what = { sink: 'warehouse', document, seq: 1 as Seq }
    desk.wait(what, (code) => void answers.push(code))
    const cancel = desk.wait(what, (code) => void answers.push(code))
    cancel()
    sent.length = 0
    desk.ready()
    expect(sent).toMatchObject([{ type: 'await', id: 1 }])
    desk.hear({ type: 'reached', id: 2, code: 'ok', message: '' })
    desk.hear({ type: 'reached', id: 1, code: 'ok', message: '' })
    desk.hear({ type: 'reached', id: 1, code: 'ok', message: '' })
    expect(answers).toEqual(['ok'])
    desk.wait(what, (code) => void answers.push(code))
    desk.close()
    expect(answers).toEqual(['ok', 'draining'])
  })
})

describe('receipts', () => {
  const hex = fc.stringMatching(/^[0-9a-f]{32}$/u)
  const entries = fc
    .uniqueArray(fc.tuple(fc.constantFrom('a', 'Klinik/Zürich 🐈', 'c'), hex, fc.nat(1000)), { selector: ([id]) => id })
    .map((rows) => new Map(rows.map(([id, lineage, seq]) => [id as DocumentId, { lineage: lineage as Lineage, seq: seq as Seq }])))

  it('read what was written, and merge to the latest of each document', () => {
    fc.assert(
      fc.property(entries, entries, (one, other) => {
        expect(decodeReceipt(encodeReceipt(one))).toEqual(one)
        const merged = decodeReceipt(mergeReceipts(encodeReceipt(one), encodeReceipt(other)))
        for (const [id, entry] of other) {
          const before = one.get(id)
          expect(merged.get(id)).toEqual(before?.lineage === entry.lineage && before.seq > entry.seq ? before : entry)
        }
        expect(merged.size).toBe(new Set([...one.keys(), ...other.keys()]).size)
        // In an address as it is.
        expect(encodeReceipt(one)).toMatch(/^[\w.-]+$/u)
      }),
    )
  })

  it('are refused when they are anything else', () => {
    const wrong = [
      '',
      'r1.',
      'r2.W10',
      'r1.%%%',
      `r1.${btoa('{}')}`,
      `r1.${btoa('[["a","b",1]]')}`,
      `r1.${btoa(`[["",${JSON.stringify('0'.repeat(32))},1]]`)}`,
      `r1.${'W'.repeat(70_000)}`,
    ]
    for (const text of wrong) expect(() => decodeReceipt(text), text.slice(0, 20)).toThrow(/not a receipt/u)
    fc.assert(
      fc.property(
        fc.string(),
        (text) => void expect(() => decodeReceipt(`r1.${btoa(encodeURIComponent(text))}`)).toThrow(/not a receipt/u),
      ),
    )
  })
})
