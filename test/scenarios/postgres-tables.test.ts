/**
 * The tables of a Postgres sink as their owner may have them: names and values of every kind, constraints, triggers, columns of his own, no right to change anything.
 */
import fc from 'fast-check'
import type { Collections, DocumentId, Fields, JsonValue, RecordValue } from '@rejoin/shared'
import { boolean, collection, date, json, number, string, text } from '@rejoin/shared'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest'
import { BUCKETS, bucketOf } from '#server/sinks/digest.js'
import { jsonbText } from '#server/sinks/postgres-hash.js'
import type { PostgresSinkOptions } from '#server/sinks/postgres.js'
import { openSink, postgres } from '#server/sinks/postgres.js'
import type { Sink, SinkContext, SinkPlace, SinkRow } from '#server/sinks/sink.js'
import { sql } from '../support/postgres-sink.ts'
import type { PostgresServer } from '../support/servers/postgres.ts'
import { describePostgres, startPostgres } from '../support/servers/postgres.ts'
import { sinkContext } from '../support/sink-context.ts'

const FIELDS = { name: string(), age: number() } satisfies Fields
const PETS: Collections = { pets: collection(FIELDS) }
const FAMILY: Collections = { pets: collection({ name: string(), ownerId: string() }), owners: collection({ name: string() }) }
const at = (version: number): SinkPlace => ({ view: 'v', version })
const row = (id: string, value: RecordValue | null, to = 'pets', document = 'clinic'): SinkRow => ({
  key: { collection: to, document: document as DocumentId, id },
  value,
})
/** How many values the twins of the hash are compared on. */
const TWINS = Number(process.env['REJOIN_TWINS'] ?? 4_000)

describePostgres('a table in Postgres', () => {
  let server: PostgresServer
  let url: string
  let version: number
  const open: Sink[] = []
  const sinkOn = async (
    collections: Collections,
    given: Partial<PostgresSinkOptions> = {},
    context: Partial<SinkContext> = {},
  ): Promise<Sink> => {
    const options = given.urlFile === undefined ? { url, ...given } : given
    const sink = await openSink(postgres(options).options, sinkContext({ name: 'warehouse', collections, log: 'a'.repeat(32), ...context }))
    open.push(sink)
    return sink
  }
  const begin = async (...given: Parameters<typeof sinkOn>): Promise<Sink> => {
    const sink = await sinkOn(...given)
    version = (await sink.begin()).place?.version ?? 0
    return sink
  }
  const write = async (sink: Sink, rows: readonly SinkRow[]) =>
    sink.commit({ rows, from: version === 0 ? undefined : at(version), to: at(++version) })
  const ids = async (table = 'pets'): Promise<unknown[]> =>
    (await sql(url, `SELECT id FROM "${table}" ORDER BY id`)).map((each) => each['id'])

  beforeAll(async () => {
    server = await startPostgres({ settings: { fsync: 'off' } })
  })
  afterAll(async () => {
    await server.stop()
  })
  beforeEach(async () => {
    url = await server.database()
    version = 0
  })
  afterEach(async () => {
    for (const sink of open.splice(0)) await sink.close()
  })

  it('is plain to whoever selects from it', async () => {
    const sink = await begin({ pets: collection({ ...FIELDS, born: date(), alive: boolean(), extra: json() }) })
    await write(sink, [row('1', { name: 'Rex', age: 3.5, born: '2020-05-17', alive: true, extra: { b: 1, a: [null] } }), row('2', {})])
    await write(sink, [row('2', null)])
    expect(await sql(url, 'SELECT * FROM pets')).toEqual([
      {
        document: 'clinic',
        id: '1',
        name: 'Rex',
        age: 3.5,
        born: '2020-05-17',
        alive: true,
        extra: { a: [null], b: 1 },
        rejoin_version: '1',
      },
    ])
    expect(await sql(url, "SELECT born::date = '2020-05-17' AS day, extra->'a' AS list FROM pets")).toEqual([{ day: true, list: [null] }])
  })

  it('takes any name that fits, and nothing in a name is run', async () => {
    await sql(url, 'CREATE TABLE victim (a int)')
    const names = ['pets"; DROP TABLE victim; --', "o'wner", 'SELECT', 'Ärzte', 'a b', '$1', '%s', '__proto__x']
    const collections: Collections = Object.fromEntries(
      names.map((name, i) => [name, collection({ [names[(i + 1) % names.length] ?? '']: string() })]),
    )
    const sink = await begin(collections, { schema: 'my "own"; schema' })
    const rows = names.map((name, i) => row(name, { [names[(i + 1) % names.length] ?? '']: "'; DROP TABLE victim; --" }, name, '$1'))
    expect(await write(sink, rows)).toEqual({ type: 'committed', parked: [] })
    expect(
      await write(
        sink,
        rows.slice(0, 2).map((each) => ({ ...each, value: null })),
      ),
    ).toEqual({ type: 'committed', parked: [] })
    const left = await sink.keys(100)
    expect(new Set(left.map(({ collection: name }) => name))).toEqual(new Set(names.slice(2)))
    expect((await sink.proof?.survey({ strangers: true }))?.rows).toBe(6)
    expect(await sql(url, 'SELECT * FROM victim')).toEqual([])
    await sink.drop?.()
    expect(await sink.plan?.()).toHaveLength(names.length + 3)
  })

  it('is refused, by name, where it cannot be', async () => {
    await expect(sinkOn({ cards: collection({}) }, {}, { untyped: ['cards'] })).rejects.toThrow(/projection to cards declares no fields/u)
    await expect(sinkOn({ ['x'.repeat(64)]: collection(FIELDS) })).rejects.toThrow(/63 bytes/u)
    await sql(url, 'CREATE TABLE pets (id int PRIMARY KEY, name text)')
    await expect(begin(PETS)).rejects.toThrow(/table "public"\."pets" already/u)
    await sql(url, 'DROP TABLE pets; CREATE VIEW pets AS SELECT 1 AS id')
    await expect(begin(PETS)).rejects.toThrow(/view "public"\."pets" already/u)
    await sql(url, 'DROP VIEW pets')
    await begin(PETS)
    await expect(begin({ pets: collection({ name: number() }) })).rejects.toThrow(
      /"pets"\."name" is text there and would be double precision/u,
    )
    await expect(sinkOn(PETS, {}, { name: 'other' }).then((sink) => sink.begin())).rejects.toThrow(/kept by the sink warehouse/u)
    for (const options of [
      {},
      { url: '' },
      { url: 'postgres://x', urlFile: 'y' },
      { url, schema: 'pg_x' },
      { url, timeout: 0 },
      { url, more: 1 },
    ])
      expect(() => postgres(options as PostgresSinkOptions)).toThrow(/bad_option/u)
  })

  it('that was given is looked at and never changed', async () => {
    const sink = await sinkOn(PETS, { tables: 'given' })
    const planned = (await sink.plan?.()) ?? []
    expect(planned.join('\n')).toMatch(/CREATE TABLE "public"\."pets"/u)
    await expect(sink.begin()).rejects.toThrow(/tables: 'given', and this is missing: CREATE TABLE/u)
    expect(await sql(url, "SELECT 1 FROM pg_class WHERE relname LIKE 'rejoin%' OR relname = 'pets'")).toEqual([])
    for (const statement of planned) await sql(url, statement)
    await sql(url, 'CREATE ROLE writer LOGIN; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO writer')
    await sql(url, `REVOKE TEMPORARY ON DATABASE ${new URL(url).pathname.slice(1)} FROM PUBLIC`)
    const asWriter = new URL(url)
    asWriter.username = 'writer'
    const writer = await begin(PETS, { url: asWriter.href, tables: 'given' })
    // Without the right to make temporary tables large lots go another way.
    const rows = Array.from({ length: 4_500 }, (_, i) => row(`p${i}`, { name: 'x', age: i }))
    expect(await write(writer, rows)).toEqual({ type: 'committed', parked: [] })
    expect(await ids()).toHaveLength(4_500)
    await writer.drop?.()
    expect(await ids()).toEqual([])
  })

  it('whose owner refuses some rows of a large lot takes all the others, and lets them in when they fit', async () => {
    const sink = await begin(PETS)
    await sql(url, `ALTER TABLE pets ADD CHECK (age >= 0), ADD note text DEFAULT 'mine'`)
    const bad = new Set([0, 1_234, 2_999])
    const rows = Array.from({ length: 3_000 }, (_, i) => row(`p${i}`, { name: `n${i}`, age: bad.has(i) ? -1 : i }))
    const outcome = await write(sink, rows)
    expect(outcome).toMatchObject({ type: 'committed', parked: [{}, {}, {}] })
    expect(outcome.type === 'committed' && outcome.parked.map(({ key }) => key.id).sort()).toEqual(['p0', 'p1234', 'p2999'])
    expect(outcome.type === 'committed' && outcome.parked[0]?.reason).toMatch(/pets_age_check/u)
    expect(await ids()).toHaveLength(2_997)
    expect((await sink.begin()).parked).toHaveLength(3)
    expect(await write(sink, [row('p0', { name: 'x', age: 1 }), row('p1234', null)])).toEqual({ type: 'committed', parked: [] })
    expect((await sink.begin()).parked.map(({ key }) => key.id)).toEqual(['p2999'])
    expect(await sql(url, 'SELECT DISTINCT note FROM pets')).toEqual([{ note: 'mine' }])
  })

  it('is all or nothing where a commit is to be whole', async () => {
    const sink = await begin(PETS)
    await sql(url, 'ALTER TABLE pets ADD CHECK (age >= 0)')
    const rows = [row('1', { name: 'a', age: 1 }), row('2', { name: 'b', age: -1 }), row('3', { name: '\0', age: 1 })]
    const refused = await sink.commit({ rows, from: undefined, to: at(1), whole: true })
    expect(refused).toMatchObject({ type: 'refused' })
    expect(refused.type === 'refused' && refused.parked.map(({ key }) => key.id).sort()).toEqual(['2', '3'])
    expect(await ids()).toEqual([])
    expect(await sink.commit({ rows: rows.slice(0, 1), from: undefined, to: at(1), whole: true })).toEqual({
      type: 'committed',
      parked: [],
    })
  })

  it('of children waits for parents by the thousand, also with a constraint that is looked at late', async () => {
    for (const when of ['', 'DEFERRABLE INITIALLY DEFERRED']) {
      url = await server.database()
      const sink = await begin(FAMILY)
      await sql(url, `ALTER TABLE pets ADD FOREIGN KEY (document, "ownerId") REFERENCES owners ${when}`)
      const pets = Array.from({ length: 2_500 }, (_, i) => row(`p${i}`, { name: 'x', ownerId: i % 5 === 0 ? null : `o${i % 5}` }))
      const outcome = await write(sink, pets)
      expect(outcome.type === 'committed' && outcome.parked.length).toBe(2_000)
      expect(await ids()).toHaveLength(500)
      const landed = await write(sink, [row('o1', { name: 'A' }, 'owners'), row('o2', { name: 'B' }, 'owners')])
      expect(landed.type === 'committed' && landed.landed?.length).toBe(1_000)
      // What is left is tried when the table is touched again, also after a restart.
      await sink.begin()
      const more = await write(sink, [row('o3', { name: 'C' }, 'owners')])
      expect(more.type === 'committed' && more.landed?.length).toBe(500)
      expect(await ids()).toHaveLength(2_000)
      // A parent that is to go waits for its children.
      expect(await write(sink, [row('o3', null, 'owners')])).toMatchObject({ parked: [{ key: { id: 'o3' } }] })
      const gone = await write(
        sink,
        pets.filter(({ value }) => value?.['ownerId'] === 'o3').map(({ key }) => ({ key, value: null })),
      )
      expect(gone).toMatchObject({ parked: [], landed: [{ id: 'o3' }] })
    }
  })

  it('that others follow by ON DELETE CASCADE is never emptied for a moment: rows that would swap are parked', async () => {
    const sink = await begin(FAMILY)
    await sql(
      url,
      'CREATE UNIQUE INDEX ON owners (name); CREATE TABLE notes (document text, owner text, FOREIGN KEY (document, owner) REFERENCES owners ON DELETE CASCADE)',
    )
    await write(sink, [row('1', { name: 'A' }, 'owners'), row('2', { name: 'B' }, 'owners')])
    await sql(url, "INSERT INTO notes VALUES ('clinic', '1'), ('clinic', '2')")
    const outcome = await write(sink, [row('1', { name: 'B' }, 'owners'), row('2', { name: 'A' }, 'owners')])
    expect(outcome.type === 'committed' && outcome.parked.length).toBe(2)
    expect(await sql(url, 'SELECT owner FROM notes ORDER BY owner')).toEqual([{ owner: '1' }, { owner: '2' }])
    expect(await sql(url, 'SELECT id, name FROM owners ORDER BY id')).toEqual([
      { id: '1', name: 'A' },
      { id: '2', name: 'B' },
    ])
  })

  it('is reached by a URL from a file, read again at each beginning', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'rejoin-url-'))
    try {
      const urlFile = join(folder, 'url')
      writeFileSync(urlFile, `${url}\n`)
      const sink = await begin(PETS, { urlFile })
      await write(sink, [row('1', { name: 'A', age: 1 })])
      const second = await server.database()
      writeFileSync(urlFile, second)
      expect((await sink.begin()).place).toBeUndefined()
    } finally {
      rmSync(folder, { recursive: true })
    }
  })

  it('leaves rows of others alone in a refresh, unless strangers are to go', async () => {
    const sink = await begin(PETS)
    await write(sink, [row('1', { name: 'A', age: 1 })])
    await sql(url, "INSERT INTO pets (document, id, name) VALUES ('clinic', '0', 'mine')")
    expect((await sink.keys(10)).map(({ id }) => id)).toEqual(['1'])
    const { forward } = sinkContext({ name: 'x', collections: PETS, log: '' })
    const strict = await begin(PETS, {}, { forward: { ...forward, strangers: 'delete' } })
    expect((await strict.keys(10)).map(({ id }) => id)).toEqual(['0', '1'])
  })

  it('has the same hash there and here, whatever it holds', async () => {
    const kinds = { s: string(), n: number(), b: boolean(), d: date(), j: json(), t: text() } satisfies Fields
    const sink = await begin({ pets: collection(kinds) })
    const rows = fc.sample(anyRow, TWINS).map((value, i) => row(`${i}`, value))
    const digest = new BigUint64Array(BUCKETS)
    for (let i = 0; i < rows.length; i += 5_000)
      expect(await write(sink, rows.slice(i, i + 5_000))).toEqual({ type: 'committed', parked: [] })
    for (const { key, value } of rows) {
      const bucket = bucketOf(key)
      digest[bucket] = (digest[bucket] ?? 0n) + (sink.proof?.hash(key, value ?? {}) ?? 0n)
    }
    const survey = await sink.proof?.survey({ strangers: true })
    const wrong = [...digest.keys()].filter((bucket) => digest[bucket] !== survey?.buckets[bucket])
    const values = new Map(rows.map(({ key, value }) => [key.id, value]))
    for await (const page of sink.proof?.rows(wrong) ?? [])
      for (const { key, hash } of page)
        if (sink.proof?.hash(key, values.get(key.id) ?? {}) !== hash) expect.soft(values.get(key.id)).toBe(key.id)
    expect(wrong).toEqual([])
    expect(survey?.rows).toBe(rows.length)
  })

  it('prints JSON as Postgres does', async () => {
    const values = [
      ...fc.sample(anyJson, 500),
      1e21,
      1e-7,
      5e-324,
      1.7976931348623157e308,
      -1.5e-10,
      123456789012345680000,
      { bb: 1, a: 2, é: 3, '😀': 4, '': 5 },
    ]
    const texts = values.map((value) => JSON.stringify(value))
    const printed = await sql(url, 'SELECT x::jsonb::text AS text FROM unnest($1::text[]) WITH ORDINALITY AS u(x, i) ORDER BY i', [texts])
    for (const [i, { text: there }] of printed.entries()) expect(jsonbText(JSON.parse(texts[i] ?? ''))).toBe(there)
  })
})

const anyText = fc
  .string({ unit: 'binary', maxLength: 12 })
  .map((each) => each.replaceAll('\0', '\u0001').replaceAll(/[\ud800-\udfff]/gu, ''))
const anyNumber = fc
  .oneof(fc.double({ noNaN: true, noDefaultInfinity: true }), fc.integer(), fc.constantFrom(1e21, 1e-7, 5e-324, 0.1, 2 ** 53))
  .map((n) => n + 0)
const anyJson: fc.Arbitrary<JsonValue> = fc.letrec<{ any: JsonValue }>((tie) => ({
  any: fc.oneof(
    { depthSize: 'small' },
    fc.constant(null),
    fc.boolean(),
    anyNumber,
    anyText,
    fc.array(tie('any'), { maxLength: 4 }),
    fc.dictionary(anyText, tie('any'), { maxKeys: 4, noNullPrototype: true }),
  ),
})).any
const orNull = <T>(given: fc.Arbitrary<T>): fc.Arbitrary<T | null> => fc.option(given, { freq: 6 })
const anyRow: fc.Arbitrary<RecordValue> = fc.record({
  s: orNull(anyText),
  n: orNull(anyNumber),
  b: orNull(fc.boolean()),
  d: orNull(fc.constantFrom('2020-05-17', '2020-05-17T10:00:00.000Z')),
  j: orNull(anyJson),
  t: orNull(anyText),
})
