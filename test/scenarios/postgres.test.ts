/**
 * What only a real Postgres can do to its sink: die, be frozen, lose an answer, be put back to an earlier state.
 */
import type { DocumentId, RecordValue, Schema } from '@rejoin/shared'
import { collection, defineSchema, number, string } from '@rejoin/shared'
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest'
import type { PostgresSinkOptions } from '#server/sinks/postgres.js'
import { openSink, postgres } from '#server/sinks/postgres.js'
import type { Sink, SinkPlace, SinkRow } from '#server/sinks/sink.js'
import { sql, tableRows } from '../support/postgres-sink.ts'
import type { Proxy } from '../support/proxy.ts'
import { startProxy, throughProxy } from '../support/proxy.ts'
import type { PostgresServer } from '../support/servers/postgres.ts'
import { describePostgres, startPostgres } from '../support/servers/postgres.ts'
import { sinkContext } from '../support/sink-context.ts'
import { until } from '../support/until.ts'

const SCHEMA = defineSchema({ pets: collection({ name: string(), age: number() }) })
const LOG = 'a'.repeat(32)
const at = (version: number): SinkPlace => ({ view: 'v', version, mark: `m${version}` })
const pet = (id: string, value: RecordValue | null): SinkRow => ({
  key: { collection: 'pets', document: 'clinic' as DocumentId, id },
  value: value === null ? null : { name: null, age: null, ...value },
})
const many = (count: number, name: string): readonly SinkRow[] => Array.from({ length: count }, (_, i) => pet(`p${i}`, { name, age: i }))

describePostgres('a Postgres sink whose server', () => {
  let server: PostgresServer
  let url: string
  let proxy: Proxy
  const open: Sink[] = []
  const sinkOn = async (given: PostgresSinkOptions, schema: Schema = SCHEMA): Promise<Sink> => {
    const sink = await openSink(postgres(given).options, sinkContext({ name: 'warehouse', collections: schema.collections, log: LOG }))
    open.push(sink)
    return sink
  }
  const names = async (): Promise<Record<string, unknown>> =>
    Object.fromEntries((await tableRows(url, SCHEMA)).map(({ key, value }) => [key.id, value['name']]))

  beforeAll(async () => {
    // A killed process leaves its pages to the kernel: only a power failure needs them on the disk.
    server = await startPostgres({ settings: { fsync: 'off' } })
  })
  afterAll(async () => {
    await server.stop()
  })
  beforeEach(async () => {
    url = await server.database()
    proxy = await startProxy(server.port)
  })
  afterEach(async () => {
    proxy.thaw()
    for (const sink of open.splice(0)) await sink.close()
    await proxy.close()
  })

  it('loses the answer to a commit: the next beginning says that it happened, and doing it again is refused', async () => {
    const sink = await sinkOn({ url: throughProxy(url, proxy) })
    await sink.begin()
    await sink.commit({ rows: [pet('1', { name: 'A' })], from: undefined, to: at(1) })
    for (const [version, rows, marker] of [
      [1, [pet('1', { name: 'B' })], ''],
      [2, many(2_500, 'C'), 'COMMIT\0'],
    ] as const) {
      const commit = { rows, from: at(version), to: at(version + 1) }
      proxy.loseReply(marker)
      await expect(sink.commit(commit)).rejects.toThrow()
      expect((await sink.begin()).place).toEqual(commit.to)
      expect(await sink.commit(commit)).toEqual({ type: 'lost' })
    }
    expect(await names()).toMatchObject({ 1: 'B', p7: 'C' })
  })

  it('never hears of a commit: the next beginning says that it did not happen', async () => {
    const sink = await sinkOn({ url: throughProxy(url, proxy) })
    await sink.begin()
    await sink.commit({ rows: [pet('1', { name: 'A' })], from: undefined, to: at(1) })
    proxy.loseRequest()
    const commit = { rows: [pet('1', { name: 'B' })], from: at(1), to: at(2) }
    await expect(sink.commit(commit)).rejects.toThrow()
    expect((await sink.begin()).place).toEqual(at(1))
    expect(await sink.commit(commit)).toEqual({ type: 'committed', parked: [] })
  })

  for (const [where, freeze] of [
    ['in the middle of what it copies', () => proxy.freezeAfter(150_000)],
    ['in the middle of a transaction', () => proxy.freezeAfter(0, 'SET CONSTRAINTS ALL DEFERRED')],
  ] as const) {
    it(`is held by a forwarder that was frozen ${where}: its successor waits no longer than it may stand still, and when it wakes it writes nothing`, async () => {
      const zombie = await sinkOn({ url: throughProxy(url, proxy), timeout: 1 })
      await zombie.begin()
      await zombie.commit({ rows: many(3, 'A'), from: undefined, to: at(1) })
      freeze()
      const frozen = zombie.commit({ rows: many(20_000, 'Z'), from: at(1), to: at(2) }).catch((error: unknown) => error)
      await until(() => proxy.frozen)

      const successor = await sinkOn({ url })
      expect((await successor.begin()).place).toEqual(at(1))
      expect(await successor.commit({ rows: [pet('p1', { name: 'B' })], from: at(1), to: at(2) })).toEqual({
        type: 'committed',
        parked: [],
      })
      proxy.thaw()
      expect(await frozen).toSatisfy((result) => result instanceof Error || (result as { type: string }).type === 'fenced')
      expect(await names()).toEqual({ p0: 'A', p1: 'B', p2: 'A' })
    })
  }

  it('is killed and started again in the middle of commits, and has all of them once', async () => {
    const sink = await sinkOn({ url })
    let place = (await sink.begin()).place
    let version = place?.version ?? 0
    const target = 40
    let restarts: Promise<void> = Promise.resolve()
    const kills = new Set([20])
    while (version < target) {
      if (kills.delete(version)) restarts = server.kill().then(() => server.restart())
      try {
        const rows =
          version % 7 === 0 ? many(2_100, `v${version}`) : [pet('1', { name: `v${version}` }), pet(`own${version}`, { name: 'x' })]
        const outcome = await sink.commit({ rows, from: place, to: at(version + 1) })
        expect(outcome).toEqual({ type: 'committed', parked: [] })
        place = at(++version)
      } catch {
        await restarts
        place = (await sink.begin()).place
        expect(place?.version === version || place?.version === version + 1, 'the place').toBe(true)
        version = place?.version ?? 0
      }
    }
    const found = await names()
    expect(found['1']).toBe('v39')
    expect(Object.keys(found).filter((id) => id.startsWith('own'))).toHaveLength(34)
    expect(found['p0']).toBe('v35')
  })

  it('is put back to an earlier state: its place is the earlier one, and it goes on from there', async () => {
    const sink = await sinkOn({ url })
    await sink.begin()
    await sink.commit({ rows: many(3, 'A'), from: undefined, to: at(1) })
    await sql(url, 'CREATE TABLE kept AS TABLE pets; CREATE TABLE kept_cursor AS TABLE rejoin_cursor')
    await sink.commit({ rows: [pet('p1', { name: 'B' }), pet('p2', null)], from: at(1), to: at(2) })
    await sql(url, 'TRUNCATE pets, rejoin_cursor; INSERT INTO pets TABLE kept; INSERT INTO rejoin_cursor TABLE kept_cursor')
    expect(await sink.commit({ rows: [], from: at(2), to: at(2) })).toEqual({ type: 'lost' })
    expect((await sink.begin()).place).toEqual(at(1))
    await sink.commit({ rows: [pet('p1', { name: 'B' }), pet('p2', null)], from: at(1), to: at(2) })
    expect(await names()).toEqual({ p0: 'A', p1: 'B' })
  })

  it('lost a table: the next look notices, and everything is to be written', async () => {
    const sink = await sinkOn({ url })
    await sink.begin()
    for (const drop of ['DROP TABLE pets', 'DROP TABLE rejoin_tombstones', 'ALTER TABLE pets DROP COLUMN age']) {
      const { place } = await sink.begin()
      await sink.commit({ rows: many(2, 'A'), from: place, to: at(4) })
      await sql(url, drop)
      if (drop.startsWith('DROP')) expect(await sink.commit({ rows: [], from: at(4), to: at(4) })).toEqual({ type: 'lost' })
      expect(await sink.commit({ rows: [pet('p1', { age: 1 }), pet('p0', null)], from: at(4), to: at(5) })).toEqual({ type: 'lost' })
      expect(await sink.begin()).toMatchObject({ place: undefined, stamp: 4 })
    }
  })

  it('has a trigger that is broken: that is said, and is no loss of tables', async () => {
    const sink = await sinkOn({ url })
    await sink.begin()
    await sql(
      url,
      `CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO nowhere VALUES (1); RETURN NEW; END';
       CREATE TRIGGER broken BEFORE INSERT ON pets FOR EACH ROW EXECUTE FUNCTION broken()`,
    )
    await expect(sink.commit({ rows: many(2, 'A'), from: undefined, to: at(1) })).rejects.toThrow('nowhere')
  })

  it('has a password: no error tells it', async () => {
    const secret = 'corr%ect-h0rse'
    const withPassword = new URL(url)
    withPassword.password = secret
    withPassword.port = '1'
    const messages: string[] = []
    for (const each of [
      withPassword.href,
      withPassword.href.replace('/test_', ' /'),
      `postgres://user:${secret}@`,
      `mysql://user:${secret}@x/y`,
    ]) {
      const error = await sinkOn({ url: each }).then(
        (sink) => sink.begin().catch((thrown: unknown) => thrown),
        (thrown: unknown) => thrown,
      )
      expect(error).toBeInstanceOf(Error)
      const { message, stack, cause } = error as Error
      messages.push(`${message} ${stack} ${String(cause)} ${JSON.stringify(error)}`)
    }
    for (const message of messages) expect(message).not.toMatch(/h0rse/u)
  })
})
