/**
 * Rows that a destination refuses: parked, blocked, or a reason to stop; dead letters and what becomes of them; and how a delivery finds the guilty one.
 */
import { SyncError } from '@rejoin/shared'
import { describe, expect, it } from 'vitest'
import type { Delivery } from '#server/sinks/delivery.js'
import type { SinkRow } from '#server/sinks/sink.js'
import { makeStage, namesIn, shout } from '../support/sink-stage.ts'

const CALL = { from: 'beginning', strategy: 'actions' } as const

/** Refuses these names. */
function refusing(stage: ReturnType<typeof makeStage>, ...bad: readonly string[]): void {
  stage.destination.hook = (at, value) => (typeof at === 'object' && bad.includes(String(value?.['name'])) ? 'it says no' : undefined)
}

describe('with strategy state', () => {
  it('parks a row, names it, and takes it off the list with its next good write or when it is tried again', async () => {
    const stage = makeStage()
    const { clock, notes, write, start, names } = stage
    refusing(stage, 'bad')
    write({ a: 'Rex', b: 'bad', c: 'bad' })
    const forwarder = start()
    await clock.advance(10)
    expect(forwarder.status()).toMatchObject({ state: 'current', parked: { total: 2 }, letters: 2 })
    expect(notes.letters(10).first.map(({ id, reason, state }) => [id, reason, state])).toEqual([
      ['pets/d/b', 'it says no', 'refused'],
      ['pets/d/c', 'it says no', 'refused'],
    ])
    const key = { collection: 'pets', document: 'd', id: 'b' } as const
    expect(forwarder.reached(1, [{ ...key, document: key.document as never }])).toMatchObject({
      type: 'parked',
      parked: { reason: 'it says no' },
    })
    expect(forwarder.reached(1, [{ ...key, document: key.document as never, id: 'a' }])).toEqual({ type: 'reached' })
    await expect(forwarder.discard()).rejects.toThrow(/stays parked until/u)
    write({ b: 'good' })
    forwarder.poke()
    await clock.advance(10)
    expect([names(), forwarder.parked().length]).toEqual([{ a: 'Rex', b: 'good' }, 1])
    refusing(stage)
    const [count] = await Promise.all([forwarder.requeue(['pets/d/c']), clock.advance(1_000)])
    expect([count, names(), forwarder.status().letters]).toEqual([1, { a: 'Rex', b: 'good', c: 'bad' }, 0])
    await forwarder.stop()
  })

  it('stops when more are parked than may be, and lets through what does not add to them, deletes first of all', async () => {
    const stage = makeStage()
    const { clock, write, start, names } = stage
    refusing(stage, 'bad')
    const forwarder = start({}, { maxParked: 2 })
    write({ a: 'bad', b: 'bad', c: 'bad', d: 'Rex' })
    await clock.advance(10)
    // What could be written is there, and its place: nothing is written twice.
    expect([forwarder.status().state, forwarder.status().parked.total, names()]).toEqual(['poisoned', 3, { d: 'Rex' }])
    write({ a: null, d: 'Max' })
    write({ e: 'Mia' })
    await forwarder.resume()
    forwarder.poke()
    await clock.advance(10)
    expect([forwarder.status().state, forwarder.status().parked.total, names()]).toEqual(['current', 2, { d: 'Max', e: 'Mia' }])
    write({ f: 'bad' })
    forwarder.poke()
    await clock.advance(10)
    expect(forwarder.status()).toMatchObject({ state: 'poisoned', error: expect.stringContaining('more than 2 rows are parked') as string })
    await forwarder.stop()
  })

  it('counts a row that the destination refuses again when it is tried again as parked', async () => {
    const stage = makeStage()
    const { clock, write, start } = stage
    refusing(stage, 'bad')
    write({ a: 'bad' })
    const forwarder = start()
    await clock.advance(10)
    const [count] = await Promise.all([forwarder.requeue(), clock.advance(1_000)])
    expect([count, forwarder.parked().length, forwarder.status().letters]).toEqual([0, 1, 1])
    expect(forwarder.reached(1, [{ collection: 'pets', document: 'd' as never, id: 'a' }]).type).toBe('parked')
    await forwarder.stop()
  })

  it('stops at it when it is told to, with nothing of the commit, and goes on when it is mended', async () => {
    const stage = makeStage()
    const { clock, write, start, names } = stage
    const forwarder = start({ consistency: 'every' })
    await clock.advance(10)
    refusing(stage, 'bad')
    write({ a: 'Rex' })
    write({ b: 'fine', c: 'bad' })
    write({ a: 'Max' })
    forwarder.poke()
    await clock.advance(5_000)
    expect([names(), forwarder.status().state]).toEqual([{ a: 'Rex' }, 'poisoned'])
    expect(forwarder.status().error).toMatch(/stopped at pets "d\/c": it says no/u)
    refusing(stage)
    await forwarder.resume()
    await clock.advance(10)
    expect(names()).toEqual({ a: 'Max', b: 'fine', c: 'bad' })
    await forwarder.stop()
  })

  it('parks records on which select throws, and writes them when it does not any more', async () => {
    const { clock, notes, write, start, names } = makeStage()
    write({ a: 'Rex', b: 'bad' })
    let bad = 'bad'
    const options = { projection: shout(1, 'a', () => bad) }
    const first = start(options)
    await clock.advance(10)
    expect([names(), first.status().parked.total, notes.letters(9).first[0]?.state]).toEqual([{ a: 'REX1' }, 1, 'failed'])
    await first.stop()
    bad = ''
    const second = start(options)
    await clock.advance(10)
    expect(second.status().parked.total, 'looked at anew when it begins').toBe(0)
    await second.stop()
  })
})

describe('with strategy actions', () => {
  it('blocks the key: later events wait behind the refused one, in order, others go on', async () => {
    const stage = makeStage()
    const { clock, notes, commits, write, start, names } = stage
    refusing(stage, 'bad')
    write({ a: 'Rex', b: 'bad' })
    write({ b: 'Max', c: 'Mia' })
    write({ b: 'Tom' })
    const first = start(CALL)
    await clock.advance(10)
    expect(names()).toEqual({ a: 'Rex', c: 'Mia' })
    expect(notes.letters(10).first.map(({ state, value }) => [state, value?.['name']])).toEqual([
      ['refused', 'bad'],
      ['held', 'Max'],
      ['held', 'Tom'],
    ])
    await first.stop()
    const second = start(CALL)
    await clock.advance(10)
    write({ b: 'Ada' })
    second.poke()
    await clock.advance(10)
    expect(notes.letters(10).total, 'also after a restart').toBe(4)
    commits.length = 0
    const [none] = await Promise.all([second.requeue(), clock.advance(1_000)])
    expect([none, notes.letters(10).total], 'it is still refused').toEqual([0, 4])
    refusing(stage)
    const [all] = await Promise.all([second.requeue(), clock.advance(1_000)])
    expect([all, notes.letters(10).total, names()]).toEqual([4, 0, { a: 'Rex', b: 'Ada', c: 'Mia' }])
    expect(commits.flatMap(({ rows }) => namesIn(rows))).toEqual(['b bad', 'b Max', 'b Tom', 'b Ada'])
    await second.stop()
  })

  it('sends what was held when the refused event is discarded, as far as that is taken', async () => {
    const stage = makeStage()
    const { clock, notes, write, start, names } = stage
    refusing(stage, 'bad', 'worse')
    for (const name of ['bad', 'Max', 'worse', 'Tom']) write({ b: name })
    const forwarder = start(CALL)
    await clock.advance(10)
    const [first] = notes.letters(10).first
    const [count] = await Promise.all([forwarder.discard([first?.id ?? '']), clock.advance(1_000)])
    expect([count, names()]).toEqual([1, { b: 'Max' }])
    expect(notes.letters(10).first.map(({ state, value }) => [state, value?.['name']])).toEqual([
      ['refused', 'worse'],
      ['held', 'Tom'],
    ])
    await forwarder.stop()
  })

  it('stops when more wait behind one event than anybody would look through', async () => {
    const stage = makeStage()
    const { clock, notes, write, start } = stage
    refusing(stage, 'bad')
    for (let i = 0; i < 1_100; i++) write({ b: i === 0 ? 'bad' : `Rex ${i}` })
    const forwarder = start({ ...CALL, batch: { items: 100 } })
    await clock.advance(5_000)
    expect(forwarder.status()).toMatchObject({ state: 'poisoned', letters: 1_000 })
    const { total } = notes.letters(1)
    await forwarder.resume()
    await clock.advance(5_000)
    expect([forwarder.status().state, notes.letters(1).total]).toEqual(['poisoned', total])
    await forwarder.stop()
  })
})

describe('a destination without transactions', () => {
  /** Keeps what it got; `bad` bytes fail a whole call. */
  function makeDelivery(trouble: (rows: readonly SinkRow[]) => void = () => {}) {
    const calls: (readonly string[])[] = []
    const there = new Map<string, unknown>()
    let open = 0
    let most = 0
    const delivery: Delivery = {
      begin: async () => ({}),
      deliver: async (rows) => {
        most = Math.max(most, ++open)
        await Promise.resolve()
        open--
        calls.push(namesIn(rows))
        trouble(rows)
        for (const { key, value } of rows) there.set(key.id, value?.['name'])
        return []
      },
      close: async () => {},
    }
    return { delivery, calls, there, most: () => most }
  }

  it('halves a batch that will never be taken until the guilty rows are found', async () => {
    const { clock, write, start } = makeStage()
    const { delivery, calls, there } = makeDelivery((rows) => {
      if (rows.some(({ value }) => value?.['name'] === 'bad')) throw new SyncError('too_large', 'above 1 MiB')
    })
    write(Object.fromEntries(Array.from({ length: 64 }, (_, i) => [`r${i}`, i === 17 || i === 40 ? 'bad' : 'Rex'])))
    const forwarder = start({}, { delivery })
    await clock.advance(10)
    expect(forwarder.status()).toMatchObject({ state: 'current', parked: { total: 2 } })
    expect(forwarder.parked().map(({ key, reason }) => [key.id, reason])).toEqual([
      ['r17', 'above 1 MiB'],
      ['r40', 'above 1 MiB'],
    ])
    expect([there.size, calls.length < 30]).toEqual([62, true])
    await forwarder.stop()
  })

  it('sends the same again after a timeout, also what has meanwhile changed back', async () => {
    const { clock, write, start } = makeStage()
    let isLost = false
    const { delivery, there } = makeDelivery()
    const flaky: Delivery = {
      ...delivery,
      deliver: async (rows, ...rest) => {
        const done = await delivery.deliver(rows, ...rest)
        if (isLost) throw new Error('timeout')
        return done
      },
    }
    write({ a: 'Rex' })
    const forwarder = start({}, { delivery: flaky })
    await clock.advance(10)
    isLost = true
    write({ a: 'Max' })
    forwarder.poke()
    await clock.advance(10)
    expect([there.get('a'), forwarder.cursor()]).toEqual(['Max', 1])
    write({ a: 'Rex' })
    isLost = false
    await clock.advance(60_000)
    expect([there.get('a'), forwarder.cursor()]).toEqual(['Rex', 3])
    await forwarder.stop()
  })

  it('sends as many calls at once as it has lanes, no key twice', async () => {
    const { clock, write, start } = makeStage()
    const { delivery, calls, there, most } = makeDelivery()
    write(Object.fromEntries(Array.from({ length: 40 }, (_, i) => [`r${i}`, 'Rex'])))
    const forwarder = start({ lanes: 4 }, { delivery })
    await clock.advance(10)
    expect([there.size, most()]).toEqual([40, 4])
    expect(new Set(calls.flat()).size).toBe(calls.flat().length)
    await forwarder.stop()
  })
})
