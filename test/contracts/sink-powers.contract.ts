/**
 * What a sink must do beyond writing rows: repairs by force, marks, adoption, plans, events in order, and rows that stand in one another's way. Run by `describeSink`.
 */
import type { RecordValue } from '@rejoin/shared'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { BUCKETS, bucketOf } from '#server/sinks/digest.js'
import type { Sink, SinkPlace, SinkRow } from '#server/sinks/sink.js'
import type { OpenOptions, SinkUnderTest } from './sink.contract.ts'
import { EMPTY, LOG, SCHEMA, at, key, pet } from './sink.contract.ts'

const owner = (id: string, fields: RecordValue | null): SinkRow => ({ key: key(id, 'clinic', 'owners'), value: fields })
const event = (id: string, version: number, fields: RecordValue | null): SinkRow => ({
  ...pet(id, fields),
  event: {
    id: `event-${version}-${id}`,
    op: fields === null ? 'delete' : 'update',
    before: null,
    version,
    origin: { partition: 0, position: version as never, epoch: 1, seq: version as never, document: 'clinic' as never, actor: 'a', at: 0 },
    replay: false,
  },
})

export function describePowers(name: string, make: () => SinkUnderTest | Promise<SinkUnderTest>): void {
  describe(`a sink ${name}, beyond writing rows,`, () => {
    let under: SinkUnderTest
    const open: Sink[] = []
    const begin = async (options: OpenOptions = {}) => {
      const sink = await under.open(SCHEMA, options)
      open.push(sink)
      return { sink, standing: await sink.begin() }
    }
    const beginAt = async (version: number, rows: readonly SinkRow[], options: OpenOptions = {}): Promise<Sink> => {
      const { sink, standing } = await begin(options)
      expect(await sink.commit({ rows, from: standing.place, to: at(version) })).toEqual({ type: 'committed', parked: [] })
      return sink
    }
    /** id → name of the pets that lie there. */
    const pets = async (): Promise<Record<string, unknown>> =>
      Object.fromEntries(
        (await under.rows(SCHEMA)).filter((row) => row.key.collection === 'pets').map((row) => [row.key.id, row.value['name']]),
      )
    const write = async (sink: Sink, from: number, rows: readonly SinkRow[]) => sink.commit({ rows, from: at(from), to: at(from + 1) })

    beforeEach(async () => {
      under = await make()
    })
    afterEach(async () => {
      for (const sink of open.splice(0)) await sink.close()
      await under.dispose()
    })

    it('writes over a higher stamp when it is to, and only behind its own fence', async () => {
      const sink = await beginAt(9, [pet('1', { name: 'new' }), pet('2', null), pet('3', { name: 'C' })])
      const rows = [pet('1', { name: 'old' }), pet('2', { name: 'old' }), pet('3', null)]
      expect(await sink.commit({ rows, from: at(9), to: at(4), force: true })).toEqual({ type: 'committed', parked: [] })
      expect(await pets()).toEqual({ 1: 'old', 2: 'old' })
      // What was removed by force does not hold off what comes after it.
      await sink.commit({ rows: [pet('3', { name: 'again' })], from: at(4), to: at(5) })
      expect(await pets()).toEqual({ 1: 'old', 2: 'old', 3: 'again' })
      const { standing } = await begin()
      expect(standing.stamp).toBeGreaterThanOrEqual(9)
      expect(await sink.commit({ rows, from: at(5), to: at(5), force: true })).toEqual({ type: 'fenced' })
    })

    it('tells two histories of one version apart by their mark', async () => {
      const marked = (version: number, mark: string): SinkPlace => ({ ...at(version), mark })
      const { sink, standing } = await begin()
      await sink.commit({ rows: [pet('1')], from: standing.place, to: marked(1, 'one') })
      expect((await begin()).standing.place).toEqual(marked(1, 'one'))
      const { sink: next } = await begin()
      expect(await next.commit({ rows: [], from: marked(1, 'other'), to: marked(2, 'x') })).toEqual({ type: 'lost' })
      expect(await next.commit({ rows: [], from: at(1), to: marked(2, 'x') })).toEqual({ type: 'lost' })
      expect(await next.commit({ rows: [], from: marked(1, 'one'), to: marked(1, 'one') })).toEqual({ type: 'committed', parked: [] })
    })

    it('is taken over from another log by adoption: its rows are there to be written anew', async () => {
      await beginAt(8, [pet('1', { name: 'A' })])
      const other = 'd'.repeat(32)
      await expect(begin({ log: other })).rejects.toThrow(/bad_option|log/u)
      const { sink, standing } = await begin({ log: other, adopt: true })
      expect(standing.place).toBeUndefined()
      expect(standing.stamp).toBeGreaterThanOrEqual(8)
      expect(await sink.keys(10)).toEqual([key('1')])
      expect(await sink.commit({ rows: [pet('1', { name: 'B' })], from: undefined, to: at(9) })).toMatchObject({ type: 'committed' })
      await expect(begin({ log: LOG })).rejects.toThrow(/bad_option|log/u)
      expect((await begin({ log: other })).standing.place).toEqual(at(9))
    })

    it('plans what it would make, and nothing once that is there; and drops it all', async () => {
      const sink = await under.open(SCHEMA)
      open.push(sink)
      if (sink.plan === undefined || sink.drop === undefined) return
      const planned = await sink.plan()
      expect(planned.join('\n')).toMatch(/pets/u)
      await sink.begin()
      expect(await sink.plan()).toEqual([])
      await sink.commit({ rows: [pet('1')], from: undefined, to: at(3) })
      await sink.drop()
      const fresh = await under.open(SCHEMA)
      open.push(fresh)
      expect((await fresh.plan?.())?.join('\n')).toMatch(/pets/u)
      expect(await fresh.begin()).toMatchObject({ place: undefined, stamp: 0, parked: [] })
      expect(await pets()).toEqual({})
    })

    it('applies events in order, also several of one key in one commit', async () => {
      const sink = await beginAt(1, [], { forward: { strategy: 'actions' } })
      const events = [event('1', 2, { name: 'A' }), event('2', 2, { name: 'B' }), event('1', 3, null), event('1', 5, { name: 'C' })]
      expect(await sink.commit({ rows: events, from: at(1), to: at(5) })).toEqual({ type: 'committed', parked: [] })
      expect(await pets()).toEqual({ 1: 'C', 2: 'B' })
      if (under.guard !== undefined) return
      // A replay of what is there changes nothing.
      await sink.commit({ rows: events.slice(0, 2), from: at(5), to: at(5, null) })
      expect(await pets()).toEqual({ 1: 'C', 2: 'B' })
    })

    it('parks what is refused and writes the rest, and lets it in when it fits', async () => {
      if (under.poison === undefined) return
      const sink = await beginAt(1, [pet('1', { name: 'A' })])
      await under.poison('poison')
      await sink.begin()
      const rows = [pet('0', { name: 'Z' }), pet('1', { name: 'poison' }), pet('2', { name: 'B' })]
      const outcome = await write(sink, 1, rows)
      expect(outcome).toMatchObject({ type: 'committed', parked: [{ key: key('1') }] })
      expect(await pets()).toEqual({ 0: 'Z', 1: 'A', 2: 'B' })
      expect((await sink.begin()).parked).toMatchObject([{ key: key('1') }])
      expect(await write(sink, 2, [pet('1', { name: 'good' })])).toEqual({ type: 'committed', parked: [] })
      expect((await sink.begin()).parked).toEqual([])
      expect(await pets()).toEqual({ 0: 'Z', 1: 'good', 2: 'B' })
    })

    it('writes all or nothing where it is to, and says what is in the way', async () => {
      if (under.poison === undefined) return
      const sink = await beginAt(1, [pet('1', { name: 'A' })])
      await under.poison('poison')
      await sink.begin()
      const commit = { from: at(1), to: at(2), whole: true }
      const rows = [pet('0', { name: 'Z' }), pet('1', { name: 'poison' }), pet('2', { name: 'B' })]
      expect(await sink.commit({ ...commit, rows })).toMatchObject({ type: 'refused', parked: [{ key: key('1') }] })
      expect(await pets()).toEqual({ 1: 'A' })
      expect(await sink.commit({ ...commit, rows: [pet('1', { name: 'C' })] })).toEqual({ type: 'committed', parked: [] })
      expect(await sink.begin()).toMatchObject({ place: at(2), parked: [] })
      expect(await pets()).toEqual({ 1: 'C' })
    })

    it('tries no later event of a key behind one that was refused', async () => {
      if (under.poison === undefined) return
      const sink = await beginAt(1, [pet('1', { name: 'A' })], { forward: { strategy: 'actions' } })
      await under.poison('poison')
      await sink.begin()
      const rows = [
        event('1', 2, { name: 'poison' }),
        event('2', 2, { name: 'B' }),
        event('1', 3, { name: 'C' }),
        event('2', 3, { name: 'D' }),
      ]
      const outcome = await sink.commit({ rows, from: at(1), to: at(3) })
      expect(outcome).toMatchObject({ type: 'committed', parked: [{ key: key('1'), event: 'event-2-1' }] })
      expect(await pets()).toEqual({ 1: 'A', 2: 'D' })
    })

    describe('where values must be unique', () => {
      const prepare = async (rows: readonly SinkRow[]): Promise<Sink | undefined> => {
        if (under.unique === undefined) return undefined
        const sink = await beginAt(1, rows)
        await under.unique('pets', 'name')
        await sink.begin()
        return sink
      }

      it('lets rows swap them, in a ring and in a chain', async () => {
        const sink = await prepare(['A', 'B', 'C', 'D'].map((each) => pet(each, { name: each })))
        if (sink === undefined) return
        const swapped = [pet('A', { name: 'B' }), pet('B', { name: 'C' }), pet('C', { name: 'A' })]
        expect(await write(sink, 1, swapped)).toEqual({ type: 'committed', parked: [] })
        expect(await pets()).toEqual({ A: 'B', B: 'C', C: 'A', D: 'D' })
        const chain = [pet('A', { name: 'C' }), pet('B', { name: 'A' }), pet('C', { name: 'D' }), pet('D', { name: 'E' })]
        expect(await write(sink, 2, chain)).toEqual({ type: 'committed', parked: [] })
        expect(await pets()).toEqual({ A: 'C', B: 'A', C: 'D', D: 'E' })
      })

      it('parks the second of two, leaves its old row, and lets it in when the first has gone', async () => {
        const sink = await prepare([pet('1', { name: 'A' }), pet('2', { name: 'B' })])
        if (sink === undefined) return
        const outcome = await write(sink, 1, [pet('2', { name: 'A' }), pet('3', { name: 'C' })])
        expect(outcome).toMatchObject({ type: 'committed', parked: [{ key: key('2') }] })
        expect(await pets()).toEqual({ 1: 'A', 2: 'B', 3: 'C' })
        expect((await sink.begin()).parked).toMatchObject([{ key: key('2') }])
        expect(await write(sink, 2, [pet('1', { name: 'Z' })])).toEqual({ type: 'committed', parked: [], landed: [key('2')] })
        expect(await pets()).toEqual({ 1: 'Z', 2: 'A', 3: 'C' })
        expect((await sink.begin()).parked).toEqual([])
      })
    })

    it('takes a child with its parent in any order, and parks it until the parent is there', async () => {
      if (under.refer === undefined) return
      const sink = await beginAt(1, [owner('ann', { name: 'Ann' })])
      await under.refer()
      await sink.begin()
      expect(await write(sink, 1, [pet('1', { name: 'bob' }), owner('bob', { name: 'Bob' }), pet('2', { name: 'ann' })])).toEqual({
        type: 'committed',
        parked: [],
      })
      expect(await write(sink, 2, [pet('3', { name: 'cid' })])).toMatchObject({ type: 'committed', parked: [{ key: key('3') }] })
      expect(await pets()).toEqual({ 1: 'bob', 2: 'ann' })
      expect(await write(sink, 3, [owner('cid', { name: 'Cid' })])).toEqual({ type: 'committed', parked: [], landed: [key('3')] })
      expect(await pets()).toEqual({ 1: 'bob', 2: 'ann', 3: 'cid' })
      // A parent goes with its child, and stays while it has one.
      expect(await write(sink, 4, [owner('cid', null), pet('3', null)])).toEqual({ type: 'committed', parked: [] })
      expect(await write(sink, 5, [owner('bob', null)])).toMatchObject({ parked: [{ key: key('bob', 'clinic', 'owners') }] })
      expect(await write(sink, 6, [pet('1', null)])).toMatchObject({ parked: [], landed: [key('bob', 'clinic', 'owners')] })
    })

    describe('read back', () => {
      const sampleOf = (): readonly SinkRow[] => [
        ...Array.from({ length: 40 }, (_, i) => pet(`p${i}`, { name: `n${i}`, age: i / 3, alive: i % 2 === 0, extra: { i } })),
        owner('ann', { name: 'Ann' }),
      ]
      const digestOf = (proof: NonNullable<Sink['proof']>, rows: readonly SinkRow[]): BigUint64Array => {
        const buckets = new BigUint64Array(BUCKETS)
        for (const row of rows) {
          const bucket = bucketOf(row.key)
          if (row.value !== null) buckets[bucket] = (buckets[bucket] ?? 0n) + proof.hash(row.key, row.value)
        }
        return buckets
      }
      const found = async (proof: NonNullable<Sink['proof']>, buckets: readonly number[]) => {
        const rows = []
        for await (const page of proof.rows(buckets)) rows.push(...page)
        return rows
      }
      const every = Array.from({ length: BUCKETS }, (_, i) => i)

      it('is what was written, hash by hash, at its place; also when the sink was opened only for this', async () => {
        await beginAt(3, sampleOf())
        const { proof } = await under.open(SCHEMA).then((sink) => (open.push(sink), sink))
        if (proof === undefined) return
        const survey = await proof.survey({ strangers: true })
        expect(survey).toMatchObject({ place: at(3), rows: 41 })
        expect(survey.buckets).toEqual(digestOf(proof, sampleOf()))
        const rows = await found(proof, every)
        expect(rows).toHaveLength(41)
        for (const row of sampleOf()) {
          expect(rows.find((each) => each.key.collection === row.key.collection && each.key.id === row.key.id)).toEqual({
            key: row.key,
            hash: proof.hash(row.key, { ...(row.key.collection === 'pets' ? EMPTY : {}), ...row.value }),
            stamp: 3,
          })
        }
        const bucket = bucketOf(key('p7'))
        expect((await found(proof, [bucket])).map((row) => row.key)).toEqual(
          rows.map((row) => row.key).filter((each) => bucketOf(each) === bucket),
        )
      })

      it('shows what a hand has changed or removed, and rows that Rejoin never wrote', async () => {
        const { proof } = await beginAt(3, sampleOf())
        if (proof === undefined) return
        const right = digestOf(proof, sampleOf())
        const wrong = async (strangers = true): Promise<readonly number[]> => {
          const { buckets } = await proof.survey({ strangers })
          return every.filter((bucket) => buckets[bucket] !== right[bucket])
        }
        expect(await wrong()).toEqual([])
        if (under.tamper !== undefined) {
          await under.tamper(key('p5'), 'name', 'by hand')
          expect(await wrong()).toEqual([bucketOf(key('p5'))])
          await under.tamper(key('p6'), 'name', undefined)
          expect(new Set(await wrong())).toEqual(new Set([bucketOf(key('p5')), bucketOf(key('p6'))]))
          await under.tamper(key('p5'), 'name', 'n5')
          expect(await wrong()).toEqual([bucketOf(key('p6'))])
        }
        if (under.intrude !== undefined) {
          const before = await wrong()
          await under.intrude(key('intruder'), 'me')
          expect(await wrong(false)).toEqual(before)
          expect(await wrong()).toContain(bucketOf(key('intruder')))
          expect((await found(proof, [bucketOf(key('intruder'))])).find((row) => row.key.id === 'intruder')).toMatchObject({ stamp: 0 })
        }
      })

      it('has no place after it was wiped', async () => {
        const { proof } = await beginAt(3, sampleOf())
        await under.wipe()
        if (proof !== undefined) expect(await proof.survey({ strangers: true })).toMatchObject({ place: undefined, rows: 0 })
      })
    })
  })
}
