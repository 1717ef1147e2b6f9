/**
 * The Elasticsearch sink on a real OpenSearch: what it writes, what comes late, and what its owner does to it.
 */
import { randomUUID } from 'node:crypto'
import type { DocumentId, RecordValue, Schema } from '@rejoin/shared'
import { boolean, collection, date, defineSchema, json, number, string, text } from '@rejoin/shared'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import type { Delivery } from '#server/sinks/delivery.js'
import { createElasticsearch, elasticsearch } from '#server/sinks/elasticsearch.js'
import type { ElasticsearchOptions } from '#server/sinks/elasticsearch.js'
import { BUCKETS, bucketOf } from '#server/sinks/digest.js'
import type { Key, SinkContext, SinkPlace, SinkProof, SinkRow } from '#server/sinks/sink.js'
import { compareKeys } from '#server/view/view.js'
import { NEVER, at, pet, petKey } from '../support/deliveries.ts'
import { EXEMPT, INGESTING, open as openConformance } from './elasticsearch.ts'
import { describeConformance } from '../support/conformance.ts'
import { documents, found, request } from '../support/elasticsearch-sink.ts'
import { requires } from '../support/requires.ts'
import { sinkContext } from '../support/sink-context.ts'
import type { OpensearchServer } from '../support/servers/opensearch.ts'
import { describeOpensearch, startOpensearch } from '../support/servers/opensearch.ts'
import { createVirtualClock } from '../support/virtual-clock.ts'

const SCHEMA: Schema = defineSchema({
  pets: collection({ name: string(), age: number(), alive: boolean(), born: date(), extra: json(), note: text() }),
})
const EMPTY: RecordValue = { name: null, age: null, alive: null, born: null, extra: null, note: null }
const LOG = 'a'.repeat(32)

/** Each of its commits is several requests to a slow server. */
const describeKit = requires('15 s', () =>
  process.env['REJOIN_TEST'] === 'all' ? undefined : 'it runs with REJOIN_TEST=all, or npm run conformance -- elasticsearch',
)

describe('elasticsearch()', () => {
  const node = 'http://127.0.0.1:9'
  it('refuses what cannot be meant', () => {
    const options = (given: Record<string, unknown>) => () => elasticsearch({ node, ...given })
    for (const given of [
      { node: 'localhost' },
      { node: 'http://me:secret@127.0.0.1' },
      { index: 'Pets' },
      { index: '_pets' },
      { auth: { username: 'a' } },
      { auth: { username: 'a', password: 'b' }, apiKey: 'c' },
      { cutover: 'later' },
      { timeout: 0 },
      { strategy: 'actions' },
      { consistency: 'latest' },
      { nodes: [] },
    ])
      expect(options(given), JSON.stringify(given)).toThrow(/bad_option/u)
    expect(options({ index: 'clinic-{collection}' })).not.toThrow()
  })

  it('tells no password and no key in an error', async () => {
    const password = 'p4ss/wörd'
    for (const secret of [{ auth: { username: 'ann', password } }, { apiKey: 'QUJDREVG' }]) {
      const sink = createElasticsearch(
        elasticsearch({ node, ...secret }).options,
        sinkContext({ name: 's', collections: SCHEMA.collections, log: LOG }),
      )
      const error = await sink.begin().then(
        () => undefined,
        (reason: unknown) => reason,
      )
      expect(String(error)).toMatch(/gave no answer/u)
      expect(String((error as Error).stack) + JSON.stringify(error)).not.toMatch(/p4ss|QUJDREVG|YW5uOn/u)
    }
  })
})

describeOpensearch('the Elasticsearch sink', () => {
  let server: OpensearchServer
  let index: string
  let name: string
  const clock = createVirtualClock()
  const row = (id: string, fields: RecordValue | null, document?: string): SinkRow =>
    pet(id, fields === null ? null : { ...EMPTY, ...fields }, document)
  const context = (given: Partial<SinkContext> = {}, schema = SCHEMA): SinkContext =>
    sinkContext({ name, collections: schema.collections, log: LOG, ...given })
  const open = (given: Partial<ElasticsearchOptions> = {}, inside: SinkContext = context()): Delivery =>
    createElasticsearch(elasticsearch({ node: server.url, index, ...given }).options, inside, clock)
  const begun = async (given: Partial<ElasticsearchOptions> = {}, inside?: SinkContext): Promise<Delivery> => {
    const sink = open(given, inside)
    await sink.begin()
    return sink
  }
  const deliver = (sink: Delivery, rows: readonly SinkRow[], to: SinkPlace, force = false) => sink.deliver(rows, { to, force }, NEVER)
  const names = async (): Promise<Record<string, unknown>> =>
    Object.fromEntries((await found(server.url, index, 'pets')).map(({ key, value }) => [key.id, value['name']]))
  const act = (method: string, path: string, body?: unknown) => request(server.url, method, path, body)

  beforeAll(async () => {
    server = await startOpensearch(INGESTING)
    // A shard costs a disk's worth of files; one is enough for a test.
    await act('PUT', '/_index_template/one', {
      index_patterns: ['*'],
      template: { settings: { number_of_shards: 1, number_of_replicas: 0 } },
    })
  })
  afterAll(async () => {
    // It takes seconds to end by itself, and nothing of it is kept.
    await server.kill()
    await server.stop()
  })
  beforeEach(() => {
    index = `pets-${randomUUID().slice(0, 8)}`
    name = index
  })

  // On the same server, since one takes seconds to start; `npm run conformance -- elasticsearch` restarts it too.
  describeKit('under the kit', () => {
    describeConformance('the Elasticsearch sink', () => openConformance(server.url), { ...EXEMPT, 'server restarted': 'not ours' })
  })

  it('shows rows of every kind behind its alias, as they are', async () => {
    const sink = open()
    expect(await sink.plan?.()).toEqual([`create the index ${index}-1 with the alias ${index} for readers and ${index}-write for Rejoin`])
    expect(await sink.begin()).toEqual({ place: undefined, stamp: 0, isNew: true })
    expect(await sink.plan?.()).toEqual([])
    const rex = { name: 'Rex', age: 0.1, alive: true, born: '2020-05-17', extra: { a: [1, 'x', null], b: { c: false } }, note: 'good\ndog' }
    const rows = [
      row('rex', rex),
      row('mia', { extra: 'a text here', born: '+012020-01-01' }),
      row('1', { name: 'A' }, 'a'),
      row('1', { name: 'B' }, 'b'),
    ]
    expect(await deliver(sink, rows, at(7))).toEqual([])
    await sink.moved?.(at(7))
    expect(await found(server.url, index, 'pets')).toEqual([...rows].sort((a, b) => compareKeys(a.key, b.key)))
    expect(await open().begin()).toEqual({ place: at(7), stamp: 7, isNew: false })
    const by = async (query: unknown) =>
      ((await act('POST', `/${index}/_search`, { query })) as { hits: { total: { value: number } } }).hits.total.value
    expect(await by({ range: { born: { gte: '2020-05-01', lt: '2020-06-01' } } })).toBe(1)
    expect(await by({ match: { name: 'rex' } })).toBe(1)
    expect(await by({ term: { 'name.keyword': 'Rex' } })).toBe(1)
  })

  it('hides what is deleted, keeps it against what comes late, and lets a deleted id come again', async () => {
    const sink = await begun()
    await deliver(sink, [row('1', { name: 'A' }), row('2', { name: 'B' })], at(3))
    await deliver(sink, [row('1', null), row('never', null)], at(5))
    expect(await names()).toEqual({ 2: 'B' })
    expect(await sink.keys?.(10)).toEqual([petKey('2')])
    // Of an attempt that was thought lost.
    expect(await deliver(sink, [row('1', { name: 'late' }), row('2', { name: 'late' }), row('never', { name: 'late' })], at(2))).toEqual([])
    expect(await names()).toEqual({ 2: 'B' })
    await deliver(sink, [row('1', { name: 'again' })], at(6))
    expect(await names()).toEqual({ 1: 'again', 2: 'B' })
  })

  it('purges what is deleted when no older attempt can be under way, and not before', async () => {
    const sink = await begun({ timeout: 10 })
    await deliver(sink, [row('1', { name: 'A' }), row('2', { name: 'B' })], at(3))
    await deliver(sink, [row('1', null), row('2', null)], at(5))
    await deliver(sink, [row('2', { name: 'again' })], at(6))
    const all = async (): Promise<number> => (await documents(server.url, `${index}-write`)).length
    await sink.moved?.(at(6))
    await clock.advance(19_000)
    await sink.moved?.(at(7))
    expect(await all()).toBe(2)
    await clock.advance(2_000)
    await sink.moved?.(at(8))
    expect(await all()).toBe(1)
    expect(await deliver(sink, [row('1', { name: 'anew' })], at(9))).toEqual([])
    expect(await names()).toEqual({ 1: 'anew', 2: 'again' })
  })

  it('writes over what somebody changed by hand, however high that raised its version, and by force over anything', async () => {
    const sink = await begun()
    await deliver(sink, [row('1', { name: 'A' }), row('2', { name: 'B' }), row('3', { name: 'C' })], at(3))
    const address = (id: string): string => encodeURIComponent(`clinic/${id}`)
    for (let i = 0; i < 9; i++) await act('POST', `/${index}-1/_update/${address('1')}`, { doc: { name: `by hand ${i}` } })
    await act('DELETE', `/${index}-1/_doc/${address('2')}`)
    for (const mood of ['sly', 'hostile'])
      await act('POST', `/${index}-1/_update/${address('3')}`, { doc: { rejoin_version: 999, name: mood } })
    expect(await deliver(sink, [row('1', { name: 'A4' }), row('2', { name: 'B4' }), row('3', { name: 'C4' })], at(4))).toEqual([])
    expect(await names()).toEqual({ 1: 'A4', 2: 'B4', 3: 'hostile' })
    expect(await deliver(sink, [row('3', { name: 'C4' })], at(4), true)).toEqual([])
    expect(await names()).toEqual({ 1: 'A4', 2: 'B4', 3: 'C4' })
    await deliver(sink, [row('1', { name: 'A5' }), row('3', { name: 'C5' })], at(5))
    expect(await names()).toEqual({ 1: 'A5', 2: 'B4', 3: 'C5' })
  })

  it('refuses the rows that the index refuses, and writes the others of the same request', async () => {
    const untyped = defineSchema({ pets: collection({ any: json() }) })
    const sink = await begun({}, context({ collections: untyped.collections, untyped: ['pets'] }))
    await deliver(sink, [pet('1', { born: '2020-01-01', id2: 1 })], at(1))
    const bad = pet('2', { born: 'yesterday' })
    const own = pet('3', { id: 'x' })
    const long = pet('x'.repeat(40_000), { a: 1 })
    const refused = await deliver(sink, [bad, own, long, pet('4', { born: '2021-01-01' })], at(2))
    expect(refused).toMatchObject([
      { row: own, reason: expect.stringContaining("Rejoin's own") },
      { row: long, reason: expect.stringContaining('32766') },
      { row: bad, reason: expect.stringContaining('born') },
    ])
    expect((await found(server.url, index, 'pets')).map(({ key }) => key.id)).toEqual(['1', '4'])
  })

  it('takes hostile ids, lists keys in their order a page at a time, and finds nothing of another', async () => {
    const ids = ['__proto__', '"', '\\', 'a\u0000b', '%2f', '/', '..', '*', 'é', '😀', '\uffee', 'x'.repeat(600), 'a', 'B']
    const sink = await begun()
    const rows = ids.flatMap((id) => [row(id, { name: id }, 'd\'"oc'), row(id, { name: 'other' }, 'z')])
    expect(await deliver(sink, rows, at(1))).toEqual([])
    const keys = [...rows].map(({ key }) => key).sort(compareKeys)
    expect(await sink.keys?.(100)).toEqual(keys)
    const paged: Key[] = []
    for (let page = await sink.keys?.(5); page !== undefined && page.length > 0; page = await sink.keys?.(5, page.at(-1)))
      paged.push(...page)
    expect(paged).toEqual(keys)
    expect(new Map((await found(server.url, index, 'pets')).map(({ key, value }) => [`${key.document} ${key.id}`, value['name']]))).toEqual(
      new Map(rows.map(({ key, value }) => [`${key.document} ${key.id}`, value?.['name']])),
    )
  })

  it('belongs to one log and to the forwarder that began last', async () => {
    const first = await begun()
    await deliver(first, [row('1', { name: 'A' })], at(3))
    await first.moved?.(at(3))
    const second = await begun()
    expect(await deliver(first, [row('1', { name: 'Z' })], at(4))).toBe('fenced')
    // Its place is not the second one's.
    await first.moved?.(at(9))
    expect(await open().begin()).toMatchObject({ place: at(3) })
    expect(await deliver(second, [row('1', { name: 'Z' })], at(4))).toBe('fenced')
    const other = { log: 'c'.repeat(32) }
    await expect(open({}, context(other)).begin()).rejects.toThrow(/mirrors the log a+.*adopt/u)
    expect(await open({}, context({ ...other, adopt: true })).begin()).toEqual({ place: undefined, stamp: 3, isNew: true })
    expect(await names()).toEqual({ 1: 'A' })
  })

  it('finds that its index was dropped or put back, also under way, and makes none without its mapping', async () => {
    const sink = await begun()
    await deliver(sink, [row('1', { name: 'A' })], at(3))
    await sink.moved?.(at(3))
    await act('DELETE', `/${index}-1`)
    expect(await deliver(sink, [row('2', {})], at(4))).toBe('lost')
    expect(await act('GET', `/${index}*`)).toEqual({})
    expect(await sink.begin()).toMatchObject({ place: undefined, stamp: 3, isNew: true })
    // Until everything is written again it stays new, whoever begins.
    expect(await sink.begin()).toMatchObject({ isNew: true })
    expect(await deliver(sink, [row('2', {})], at(4))).toEqual([])
  })

  it("leaves an index alone that is somebody else's", async () => {
    await act('PUT', `/${index}`)
    await expect(begun()).rejects.toThrow(/not made by Rejoin/u)
    index = `${index}-x`
    await act('PUT', `/theirs-${index}`, { aliases: { [index]: {} } })
    await expect(begun()).rejects.toThrow(/not made by Rejoin/u)
  })

  it('adds a field in place, and refuses another kind of it unless a new index may be filled beside', async () => {
    const sink = await begun()
    await deliver(sink, [row('1', { name: 'A' })], at(3))
    await sink.moved?.(at(3))
    const fields = SCHEMA.collections['pets']?.fields
    const wider = defineSchema({ pets: collection({ ...fields, weight: number() }) })
    expect(await open({}, context({}, wider)).plan?.()).toEqual([`add weight to the mapping of ${index}-1, and write it anew`])
    expect(await open({}, context({}, wider)).begin()).toMatchObject({ isNew: true, stamp: 3 })
    const other = defineSchema({ pets: collection({ ...fields, age: string() }) })
    await expect(begun({}, context({}, other))).rejects.toThrow(/age was number and is string now.*beside/u)
    const beside = open({ cutover: 'beside' }, context({}, other))
    expect(await beside.plan?.()).toEqual([
      `create the index ${index}-2 beside ${index}-1, write it, move the alias ${index} to it, delete ${index}-1`,
    ])
    expect(await beside.begin()).toMatchObject({ isNew: true, stamp: 3 })
    await deliver(beside, [row('1', { name: 'A', age: 'old' })], at(5))
    await beside.moved?.({ ...at(5), refreshed: petKey('1') })
    expect((await found(server.url, index, 'pets'))[0]?.value).toMatchObject({ age: null })
    // Ended and begun again in the middle.
    const again = open({ cutover: 'beside' }, context({}, other))
    expect(await again.begin()).toMatchObject({ place: { version: 5, refreshed: petKey('1') } })
    await deliver(again, [row('2', { name: 'B', age: 'young' })], at(6))
    await again.moved?.(at(6))
    expect((await found(server.url, index, 'pets')).map(({ value }) => value['age'])).toEqual(['old', 'young'])
    expect(Object.keys(await act('GET', `/${index}*/_alias`))).toEqual([`${index}-2`])
  })

  it('is read back whole: what was written, what a hand changed, and what others put there', async () => {
    const sink = await begun()
    const rows = Array.from({ length: 40 }, (_, i) => row(`p${i}`, { name: `n${i}`, age: i / 3, extra: { b: i, a: 1e300 } }))
    await deliver(sink, [...rows, row('gone', null)], at(3))
    await sink.moved?.(at(3))
    const { proof } = open()
    if (proof === undefined) throw new Error('it can be read back')
    const right = new BigUint64Array(BUCKETS)
    for (const { key, value } of rows) if (value !== null) right[bucketOf(key)] = (right[bucketOf(key)] ?? 0n) + proof.hash(key, value)
    expect(await proof.survey({ strangers: true })).toEqual({ place: at(3), rows: 40, buckets: right })
    await act('POST', `/${index}-1/_update/${encodeURIComponent('clinic/p5')}`, { doc: { name: 'by hand' } })
    await act('POST', `/${index}-1/_doc/mine`, { name: 'stranger' })
    const wrong = await proof.survey({ strangers: false })
    expect([...wrong.buckets.keys()].filter((bucket) => wrong.buckets[bucket] !== right[bucket])).toEqual([bucketOf(petKey('p5'))])
    expect(await rowsIn(proof, petKey('mine', ''))).toContainEqual(expect.objectContaining({ key: petKey('mine', ''), stamp: 0 }))
    // Such a key can be deleted as any other.
    expect(await deliver(sink, [pet('mine', null, '')], at(4), true)).toEqual([])
    await deliver(sink, [row('p5', { name: 'n5', age: 5 / 3, extra: { b: 5, a: 1e300 } })], at(3), true)
    expect((await proof.survey({ strangers: true })).buckets).toEqual(right)
  })

  it('counts rows as written when a search finds them, if it is to', async () => {
    const sink = await begun({ visible: true })
    await act('PUT', `/${index}-1/_settings`, { index: { refresh_interval: '100ms' } })
    await deliver(sink, [row('1', { name: 'A' })], at(3))
    expect(((await act('GET', `/${index}/_count`)) as { count: number }).count).toBe(1)
  })

  it('keeps each target in an index of its own, and drops no more than it made', async () => {
    const two = defineSchema({ Pets: collection({ name: string() }), owners: collection({ name: string() }) })
    await expect(begun({}, context({}, two))).rejects.toThrow(/\{collection\}/u)
    const sink = await begun({ index: `${index}-{collection}` }, context({}, two))
    const key = (target: string): Key => ({ collection: target, document: 'clinic' as DocumentId, id: '1' })
    await deliver(
      sink,
      [
        { key: key('Pets'), value: { name: 'A' } },
        { key: key('owners'), value: { name: 'Ann' } },
      ],
      at(3),
    )
    expect(await found(server.url, `${index}-pets`, 'Pets')).toEqual([{ key: key('Pets'), value: { name: 'A' } }])
    expect(await sink.keys?.(10)).toEqual([key('Pets'), key('owners')])
    await act('PUT', `/${index}-mine`)
    await sink.drop?.()
    expect(Object.keys(await act('GET', `/${index}*`))).toEqual([`${index}-mine`])
    expect(await open({ index: `${index}-{collection}` }, context({}, two)).begin()).toMatchObject({ place: undefined, stamp: 0 })
  })
})

async function rowsIn(proof: SinkProof, key: Key) {
  const rows = []
  for await (const page of proof.rows([bucketOf(key)])) rows.push(...page)
  return rows
}
