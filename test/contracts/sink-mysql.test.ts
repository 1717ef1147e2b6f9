/**
 * The MySQL sink, held to the contract of sinks on a real MariaDB; and what only MySQL can do to one.
 */
import { escape } from 'mysql2'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { mysql, openSink } from '#server/sinks/mysql.js'
import type { MysqlSinkOptions } from '#server/sinks/mysql.js'
import { QUICK } from '../conformance/mysql.ts'
import { sql, tableRows } from '../support/mysql-sink.ts'
import type { MariadbServer } from '../support/servers/mariadb.ts'
import { describeMariadb, startMariadb } from '../support/servers/mariadb.ts'
import { describePowers } from './sink-powers.contract.ts'
import type { SinkUnderTest } from './sink.contract.ts'
import { SCHEMA, at, contextOf, describeSink, pet } from './sink.contract.ts'

describe('mysql()', () => {
  it('refuses what cannot be meant, and shows no URL', () => {
    for (const given of [
      {},
      { url: '' },
      { url: 'mysql://a:secret@b/c', urlFile: 'x' },
      { url: 'mysql://b/c', timeout: 0 },
      { url: 'mysql://b/c', tables: 'auto' },
    ]) {
      expect(() => mysql(given as MysqlSinkOptions)).toThrow(/bad_option/u)
      expect(() => mysql(given as MysqlSinkOptions)).not.toThrow(/secret/u)
    }
  })
})

describeMariadb('the MySQL sink', () => {
  let server: MariadbServer
  beforeAll(async () => {
    server = await startMariadb({ settings: QUICK })
  })
  afterAll(async () => {
    await server.kill()
    await server.stop()
  })

  const make = async (): Promise<SinkUnderTest> => {
    const url = await server.database()
    const name = new URL(url).pathname.slice(1)
    const where = (document: string, id: string): string => `WHERE document = ${escape(document)} AND id = ${escape(id)}`
    return {
      refuses: (id) => id.length > 512,
      open: (schema, options) => openSink(mysql({ url }).options, contextOf('warehouse', schema, options)),
      rows: (schema) => tableRows(url, schema),
      wipe: async () => void (await sql(url, `DROP DATABASE ${name}`, `CREATE DATABASE ${name}`)),
      dispose: () => {},
      tamper: async ({ collection, document, id }, field, value) => {
        await sql(
          url,
          value === undefined
            ? `DELETE FROM ${collection} ${where(document, id)}`
            : `UPDATE ${collection} SET ${field} = ${escape(value)} ${where(document, id)}`,
        )
      },
      intrude: async ({ collection, document, id }, text) => {
        await sql(
          url,
          `INSERT INTO ${collection} (document, id, name) VALUES (${[document, id, text].map((each) => escape(each)).join(', ')})`,
        )
      },
      poison: async (text) => {
        for (const event of ['INSERT', 'UPDATE'])
          await sql(
            url,
            `CREATE TRIGGER no_${event} BEFORE ${event} ON pets FOR EACH ROW IF NEW.name = ${escape(text)} THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'poison'; END IF`,
          )
      },
      unique: async (collection, field) => void (await sql(url, `CREATE UNIQUE INDEX mine ON ${collection} (${field}(100))`)),
      refer: async () => {
        const text = 'VARCHAR(512) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin'
        await sql(
          url,
          'CREATE UNIQUE INDEX owner_ids ON owners (id)',
          `ALTER TABLE pets MODIFY name ${text}`,
          'ALTER TABLE pets ADD FOREIGN KEY (name) REFERENCES owners (id)',
        )
      },
    }
  }
  describeSink('in MySQL', make)
  describePowers('in MySQL', make)

  it('keeps ids apart that differ by case, accents or a trailing space only', async () => {
    const under = await make()
    const sink = await under.open(SCHEMA)
    await sink.begin()
    const ids = ['a', 'A', 'a ', 'á', 'a\t', 'ａ']
    expect(await sink.commit({ rows: ids.map((id) => pet(id, { name: id })), from: undefined, to: at(1) })).toEqual({
      type: 'committed',
      parked: [],
    })
    expect(new Set((await under.rows(SCHEMA)).map(({ key: { id }, value }) => [id, value['name']].join()))).toEqual(
      new Set(ids.map((id) => `${id},${id}`)),
    )
    await sink.commit({ rows: [pet('a ', null)], from: at(1), to: at(2) })
    expect(new Set((await sink.keys(10)).map(({ id }) => id))).toEqual(new Set(ids.filter((id) => id !== 'a ')))
    await sink.close()
  })

  it("never writes into another key's row, which a unique index of its owner's would have it do", async () => {
    const under = await make()
    const sink = await under.open(SCHEMA)
    await sink.begin()
    await sink.commit({ rows: [pet('1', { name: 'A', age: 1 })], from: undefined, to: at(1) })
    await under.unique?.('pets', 'name')
    await sink.begin()
    const outcome = await sink.commit({ rows: [pet('8', { name: 'B' }), pet('9', { name: 'A', age: 9 })], from: at(1), to: at(2) })
    expect(outcome).toMatchObject({ type: 'committed', parked: [{ key: { id: '9' } }] })
    expect((await under.rows(SCHEMA)).map(({ key, value }) => [key.id, value['name'], value['age']])).toEqual([
      ['1', 'A', 1],
      ['8', 'B', null],
    ])
    await sink.close()
  })

  it('parks what an index or a request cannot hold, and writes the others', async () => {
    const under = await make()
    const sink = await under.open(SCHEMA)
    await sink.begin()
    const rows = [pet('1', { name: 'A' }), pet('x'.repeat(513)), pet('2', { note: 'x'.repeat(17 << 20) })]
    const outcome = await sink.commit({ rows, from: undefined, to: at(1) })
    expect(outcome).toMatchObject({
      parked: [{ reason: expect.stringContaining('512') }, { reason: expect.stringContaining('max_allowed_packet') }],
    })
    expect((await under.rows(SCHEMA)).map((row) => row.key.id)).toEqual(['1'])
    await sink.close()
  })

  it('gives a plain word for a server that does not let it in, without the password', async () => {
    const url = server.url.replace('root@', 'root:s3cret%2Fword@')
    const sink = await openSink(mysql({ url }).options, contextOf('warehouse', SCHEMA))
    const error = await sink.begin().then(
      () => undefined,
      (reason: unknown) => reason as Error,
    )
    expect(error?.message).toMatch(/Access denied/u)
    expect(`${error?.stack} ${JSON.stringify(error)}`).not.toMatch(/s3cret/u)
  })
})
