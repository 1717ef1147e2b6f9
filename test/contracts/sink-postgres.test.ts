/**
 * The Postgres sink, held to the contract of sinks on a real server.
 */
import { afterAll, beforeAll } from 'vitest'
import { openSink, postgres } from '#server/sinks/postgres.js'
import { sql, tableRows } from '../support/postgres-sink.ts'
import type { PostgresServer } from '../support/servers/postgres.ts'
import { describePostgres, startPostgres } from '../support/servers/postgres.ts'
import { describePowers } from './sink-powers.contract.ts'
import type { SinkUnderTest } from './sink.contract.ts'
import { contextOf, describeSink } from './sink.contract.ts'

describePostgres('the Postgres sink', () => {
  let server: PostgresServer
  beforeAll(async () => {
    server = await startPostgres({ settings: { fsync: 'off' } })
  })
  afterAll(async () => {
    await server.stop()
  })

  const make = async (): Promise<SinkUnderTest> => {
    const url = await server.database()
    return {
      refuses: (id) => id.includes('\0') || id.length > 2_500,
      open: (schema, options) => openSink(postgres({ url }).options, contextOf('warehouse', schema, options)),
      rows: (schema) => tableRows(url, schema),
      wipe: async () => void (await sql(url, 'DROP SCHEMA public CASCADE; CREATE SCHEMA public')),
      dispose: () => {},
      tamper: async ({ collection, document, id }, field, value) => {
        const change = value === undefined ? `DELETE FROM "${collection}"` : `UPDATE "${collection}" SET "${field}" = $3`
        await sql(url, `${change} WHERE document = $1 AND id = $2`, [document, id, ...(value === undefined ? [] : [value])])
      },
      intrude: async ({ collection, document, id }, name) => {
        await sql(url, `INSERT INTO "${collection}" (document, id, name) VALUES ($1, $2, $3)`, [document, id, name])
      },
      unique: async (collection, field) => void (await sql(url, `CREATE UNIQUE INDEX mine ON "${collection}" ("${field}")`)),
      refer: async () => {
        await sql(url, 'CREATE UNIQUE INDEX owner_ids ON owners (id); ALTER TABLE pets ADD FOREIGN KEY (name) REFERENCES owners (id)')
      },
    }
  }
  describeSink('in Postgres', make)
  describePowers('in Postgres', make)
})
