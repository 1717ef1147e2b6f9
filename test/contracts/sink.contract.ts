/**
 * What every sink with transactions must do, run by each adapter.
 */
import type { DocumentId, RecordValue, Schema } from '@rejoin/shared'
import { boolean, collection, date, defineSchema, json, number, richText, string, text } from '@rejoin/shared'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Key, Sink, SinkContext, SinkPlace, SinkRow } from '#server/sinks/sink.js'
import type { ForwardOptions } from '#server/sinks/spec.js'
import { forwardOf } from '#server/sinks/spec.js'
import { compareKeys } from '#server/view/view.js'
import { sinkContext } from '../support/sink-context.ts'

/** What an adapter gives to be tested: one destination that outlives its sinks. */
export interface SinkUnderTest {
  open(schema: Schema, options?: OpenOptions): Promise<Sink>
  /** What lies there, as records, ordered by key. */
  rows(schema: Schema): Stored | Promise<Stored>
  /** Removes everything, also the bookkeeping, under a sink that may be open. */
  wipe(): void | Promise<void>
  dispose(): void | Promise<void>
  /** Changes a field of a row by hand, or (undefined) removes the row. */
  tamper?(key: Key, field: string, value: string | undefined): void | Promise<void>
  /** Puts a row there by hand, as somebody would who knows nothing of Rejoin: key and name only. */
  intrude?(key: Key, name: string): void | Promise<void>
  /** From now on rows of `pets` with this name are refused. */
  poison?(name: string): void | Promise<void>
  /** Whether the destination cannot hold this text as an id; such a row is parked. @default none */
  refuses?(id: string): boolean
  /** Why what is stamped lower comes through: readers of a stream compare versions. @default it does not */
  readonly guard?: string | undefined
  /** Makes a field of a collection unique. */
  unique?(collection: string, field: string): void | Promise<void>
  /** Makes `pets.name` a reference to the ids of `owners`. */
  refer?(): void | Promise<void>
}

export interface OpenOptions {
  readonly log?: string | undefined
  readonly adopt?: boolean | undefined
  readonly forward?: ForwardOptions | undefined
}

type Stored = readonly { readonly key: Key; readonly value: RecordValue }[]

export const SCHEMA: Schema = defineSchema({
  owners: collection({ name: string() }),
  pets: collection({ name: string(), age: number(), alive: boolean(), born: date(), extra: json(), note: text(), story: richText() }),
})
export const EMPTY: RecordValue = { name: null, age: null, alive: null, born: null, extra: null, note: null, story: null }
export const LOG = 'a'.repeat(32)
const VIEW = 'b'.repeat(32)

export const key = (id: string, document = 'clinic', name = 'pets'): Key => ({ collection: name, document: document as DocumentId, id })
export const pet = (id: string, fields: RecordValue | null = {}, document?: string): SinkRow => ({
  key: key(id, document),
  value: fields === null ? null : { ...EMPTY, ...fields },
})
export const at = (version: number, refreshed?: Key | null): SinkPlace => ({
  view: VIEW,
  version,
  ...(refreshed === undefined ? {} : { refreshed }),
})

/** What a sink of the contract is told. */
export function contextOf(
  name: string,
  { collections }: Schema,
  { log = LOG, adopt = false, forward = {} }: OpenOptions = {},
): SinkContext {
  const traits = { transactional: true, strategies: ['state', 'actions'], readable: true } as const
  return sinkContext({ name, collections, log, adopt, forward: forwardOf(name, traits, forward) })
}

export function describeSink(name: string, make: () => SinkUnderTest | Promise<SinkUnderTest>): void {
  describe(`a sink ${name}`, () => {
    let under: SinkUnderTest
    const open: Sink[] = []
    const begin = async (schema = SCHEMA, log = LOG) => {
      const sink = await under.open(schema, { log })
      open.push(sink)
      return { sink, standing: await sink.begin() }
    }
    /** A sink that has written `rows` and stands at `version`. */
    const beginAt = async (version: number, rows: readonly SinkRow[]): Promise<Sink> => {
      const { sink, standing } = await begin()
      expect(await sink.commit({ rows, from: standing.place, to: at(version) })).toEqual({ type: 'committed', parked: [] })
      return sink
    }
    const ids = async (): Promise<string[]> => (await under.rows(SCHEMA)).map((row) => row.key.id)

    beforeEach(async () => {
      under = await make()
    })
    afterEach(async () => {
      for (const sink of open.splice(0)) await sink.close()
      await under.dispose()
    })

    it('begins with everything to be written', async () => {
      const { standing } = await begin()
      expect(standing).toEqual({ place: undefined, stamp: 0, parked: [] })
    })

    it('keeps rows of every kind, and its place, across sinks', async () => {
      const rex: RecordValue = {
        name: 'Rex',
        age: 3.5,
        alive: true,
        born: '2020-05-17',
        extra: { a: [1, 'x', null], b: { c: false } },
        note: 'good\ndog',
        story: '<p>Once</p>',
      }
      await beginAt(7, [pet('rex', rex), pet('mia', {}), { key: key('ann', 'clinic', 'owners'), value: { name: 'Ann' } }])
      const { standing } = await begin()
      expect(standing).toEqual({ place: at(7), stamp: 7, parked: [] })
      expect(await under.rows(SCHEMA)).toEqual([
        { key: key('ann', 'clinic', 'owners'), value: { name: 'Ann' } },
        { key: key('mia'), value: EMPTY },
        { key: key('rex'), value: rex },
      ])
    })

    it('pet 1 in two clinics: keeps one id in two documents apart', async () => {
      const sink = await beginAt(1, [pet('1', { name: 'A' }, 'a'), pet('1', { name: 'B' }, 'b')])
      await sink.commit({ rows: [pet('1', null, 'a')], from: at(1), to: at(2) })
      expect(await under.rows(SCHEMA)).toEqual([{ key: key('1', 'b'), value: { ...EMPTY, name: 'B' } }])
    })

    it('replaces a row whole: a field that became null is null', async () => {
      const sink = await beginAt(1, [pet('1', { name: 'A', age: 2 })])
      await sink.commit({ rows: [pet('1', { age: 3 })], from: at(1), to: at(2) })
      expect((await under.rows(SCHEMA))[0]?.value).toEqual({ ...EMPTY, age: 3 })
    })

    it('deletes, and lets a deleted id come again', async () => {
      const sink = await beginAt(1, [pet('1', { name: 'A' })])
      await sink.commit({ rows: [pet('1', null), pet('never', null)], from: at(1), to: at(2) })
      expect(await ids()).toEqual([])
      await sink.commit({ rows: [pet('1', { name: 'B' })], from: at(2), to: at(3) })
      expect((await under.rows(SCHEMA))[0]?.value['name']).toBe('B')
    })

    it('writes nothing from another place than its own: a commit sent twice, or late, is lost', async () => {
      const sink = await beginAt(1, [pet('1', { name: 'A' })])
      const commit = { rows: [pet('1', { name: 'B' })], from: at(1), to: at(2) }
      expect(await sink.commit(commit)).toEqual({ type: 'committed', parked: [] })
      expect(await sink.commit(commit)).toEqual({ type: 'lost' })
      expect(await sink.commit({ rows: [pet('1', { name: 'Z' })], from: at(1), to: at(1) })).toEqual({ type: 'lost' })
      expect(await sink.commit({ rows: [pet('1', { name: 'Z' })], from: undefined, to: at(3) })).toEqual({ type: 'lost' })
      expect((await under.rows(SCHEMA))[0]?.value['name']).toBe('B')
    })

    it('refuses a forwarder whose fence is old, whatever it wants', async () => {
      const zombie = await beginAt(1, [pet('1', { name: 'A' })])
      const { sink, standing } = await begin()
      expect(await zombie.commit({ rows: [pet('1', { name: 'Z' })], from: at(1), to: at(2) })).toEqual({ type: 'fenced' })
      expect(await zombie.commit({ rows: [], from: at(1), to: at(1) })).toEqual({ type: 'fenced' })
      expect(await sink.commit({ rows: [pet('1', { name: 'B' })], from: standing.place, to: at(2) })).toEqual({
        type: 'committed',
        parked: [],
      })
      expect((await under.rows(SCHEMA))[0]?.value['name']).toBe('B')
    })

    it('never lets a lower stamp over a higher one', async () => {
      if (under.guard !== undefined) return
      const sink = await beginAt(9, [pet('1', { name: 'new' }), pet('2', null)])
      expect(await sink.commit({ rows: [pet('1', { name: 'old' }), pet('2', { name: 'old' })], from: at(9), to: at(4) })).toMatchObject({
        type: 'committed',
      })
      expect((await under.rows(SCHEMA)).map(({ value }) => value['name'])).toEqual(['new'])
    })

    it('checks without writing', async () => {
      const sink = await beginAt(1, [pet('1')])
      expect(await sink.commit({ rows: [], from: at(1), to: at(1) })).toEqual({ type: 'committed', parked: [] })
      expect(await sink.commit({ rows: [], from: at(2), to: at(2) })).toEqual({ type: 'lost' })
    })

    it('keeps the place of a refresh, and lists what lies there in the order of keys', async () => {
      const rows = ['b', 'a', '😀', '\uffee', 'Z'].map((id) => pet(id))
      const sink = await beginAt(3, [...rows, pet('1', {}, 'zoo'), { key: key('o', 'zoo', 'owners'), value: { name: 'O' } }])
      const all = await sink.keys(100)
      expect(all).toEqual([...all].sort(compareKeys))
      expect(all).toHaveLength(7)
      const paged: Key[] = []
      for (let page = await sink.keys(2); page.length > 0; page = await sink.keys(2, page.at(-1))) paged.push(...page)
      expect(paged).toEqual(all)
      for (const refreshed of [key('b'), null]) {
        const { sink: next, standing } = await begin()
        await next.commit({ rows: [], from: standing.place, to: at(3, refreshed) })
        expect((await begin()).standing.place).toEqual(at(3, refreshed))
      }
    })

    it('refuses to be written from another log, and says so', async () => {
      await beginAt(1, [pet('1')])
      await expect(begin(SCHEMA, 'c'.repeat(32))).rejects.toThrow(/mirrors the log a+.*|another log/u)
      expect(await ids()).toEqual(['1'])
    })

    it('has everything to be written after it was wiped, also under an open sink', async () => {
      const sink = await beginAt(5, [pet('1')])
      await under.wipe()
      expect(await outcomeOf(sink.commit({ rows: [pet('2')], from: at(5), to: at(6) }))).toBe('lost')
      const standing = await sink.begin()
      expect(standing.place).toBeUndefined()
      expect(await sink.commit({ rows: [pet('2')], from: undefined, to: at(6) })).toEqual({ type: 'committed', parked: [] })
      expect(await ids()).toEqual(['2'])
    })

    it('has everything to be written when the schema has changed, and keeps what still fits', async () => {
      await beginAt(5, [pet('1', { name: 'A' })])
      const wider = defineSchema({
        ...SCHEMA.collections,
        pets: collection({ ...SCHEMA.collections['pets']?.fields, weight: number() }),
        visits: collection({ at: date() }),
      })
      const { sink, standing } = await begin(wider)
      expect(standing).toMatchObject({ place: undefined, stamp: 5 })
      expect(await under.rows(SCHEMA)).toEqual([{ key: key('1'), value: { ...EMPTY, name: 'A' } }])
      await sink.commit({
        rows: [
          { key: key('1'), value: { ...EMPTY, name: 'A', weight: 4 } },
          { key: key('v', 'clinic', 'visits'), value: { at: '2020-01-01' } },
        ],
        from: undefined,
        to: at(6),
      })
      expect(await under.rows(wider)).toEqual([
        { key: key('1'), value: { ...EMPTY, name: 'A', weight: 4 } },
        { key: key('v', 'clinic', 'visits'), value: { at: '2020-01-01' } },
      ])
      expect((await begin(wider)).standing.place).toEqual(at(6))
    })

    it('takes hostile ids and values as they are', async () => {
      const texts = [
        '__proto__',
        "'; DROP TABLE pets; --",
        '"',
        '\\',
        '\u0000',
        'a\u0000b',
        'a',
        '%',
        '?',
        ':x',
        '$1',
        '\u2028',
        '😀',
        'x'.repeat(300_000),
      ]
      const rows = texts.map((each) => pet(each, { name: each, note: each, extra: { [`k${each}`]: each, list: [each] } }, 'd\'"oc'))
      const { sink, standing } = await begin()
      const outcome = await sink.commit({ rows, from: standing.place, to: at(1) })
      const parked = outcome.type === 'committed' ? outcome.parked.map((each) => each.key.id) : undefined
      expect(parked).toEqual(texts.filter((each) => under.refuses?.(each) === true))
      const kept = texts.filter((each) => under.refuses?.(each) !== true)
      const found = new Map((await under.rows(SCHEMA)).map(({ key: { id }, value }) => [id, value]))
      expect(new Set(found.keys())).toEqual(new Set(kept))
      for (const each of kept)
        expect(found.get(each)).toEqual({ ...EMPTY, name: each, note: each, extra: { [`k${each}`]: each, list: [each] } })
    })

    it('keeps numbers exactly', async () => {
      const numbers = [
        0,
        -1,
        0.1,
        1e300,
        -1e-300,
        Number.MIN_VALUE,
        Number.MAX_VALUE,
        2 ** 53,
        -(2 ** 52),
        2 ** 63,
        2 ** 64,
        1 / 3,
        123456789.12345679,
        1e15,
        1e16,
        2 ** 60 + 2 ** 10,
      ]
      await beginAt(
        1,
        numbers.map((age, i) => pet(String(i).padStart(2, '0'), { age, extra: age })),
      )
      for (const [i, { value }] of (await under.rows(SCHEMA)).entries())
        expect(value).toEqual({ ...EMPTY, age: numbers[i], extra: numbers[i] })
    })
  })
}

/** 'lost', 'committed' …, or the message it failed with. */
async function outcomeOf(commit: Promise<{ readonly type: string }>): Promise<string> {
  return commit.then(
    ({ type }) => type,
    (error: unknown) => String(error),
  )
}
