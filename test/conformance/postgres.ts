/**
 * The Postgres sink under the conformance kit.
 */
import { CONFORMANCE_SCHEMA, POISON } from '@rejoin/server/testing'
import type { Conformance, Destination } from '@rejoin/server/testing'
import { openSink, postgres } from '@rejoin/server/sinks/postgres'
import type { OpenSubject } from '../support/conformance.ts'
import { sql, tableRows } from '../support/postgres-sink.ts'
import { startPostgres } from '../support/servers/postgres.ts'

/** Starts a Postgres of its own, or uses the one at `url`, in schemas of its own. */
export const open: OpenSubject = async (given) => {
  const server = given === undefined ? await startPostgres({ settings: { fsync: 'off' } }) : undefined
  const base = given ?? server?.url ?? ''
  const under: Conformance = {
    name: 'postgres',
    traits: { transactional: true, strategies: ['state', 'actions'], readable: true },
    powers: { fence: true, guard: true, identity: true, cursor: true },
    mechanism: 'rows, cursor and fence in one transaction; compare-and-set of the cursor settles a lost answer',
    destination: async () => destinationIn(server === undefined ? base : await server.database(), server?.restart),
  }
  const [row] = await sql(base, 'SHOW server_version')
  return { under, server: `PostgreSQL ${String(row?.['server_version']).split(' ')[0]}`, close: async () => server?.stop() }
}

let made = 0

function destinationIn(url: string, restart: (() => Promise<void>) | undefined): Destination {
  const schema = `rejoin_conformance_${process.pid}_${++made}`
  const here = (text: string): Promise<unknown> => sql(url, `SET search_path = ${schema}; ${text}`)
  const tables = async (): Promise<readonly string[]> =>
    (await sql(url, 'SELECT relname FROM pg_class WHERE relnamespace = $1::regnamespace AND relkind = $2', [schema, 'r'])).map(
      ({ relname }) => String(relname),
    )
  return {
    open: (context) => openSink(postgres({ url, schema }).options, context),
    rows: () => tableRows(url, CONFORMANCE_SCHEMA, schema),
    wipe: async () => void (await sql(url, `DROP SCHEMA IF EXISTS ${schema} CASCADE`)),
    drop: async (target) => void (await here(`DROP TABLE "${target}"`)),
    backup: async () => {
      const all = await tables()
      await sql(
        url,
        `CREATE SCHEMA ${schema}_copy; ${all.map((table) => `CREATE TABLE ${schema}_copy.${table} AS TABLE ${schema}.${table}`).join(';')}`,
      )
      return async () => {
        await here(all.map((table) => `TRUNCATE ${table}; INSERT INTO ${table} TABLE ${schema}_copy.${table}`).join(';'))
      }
    },
    ...(restart === undefined ? {} : { restart }),
    poison: async () => {
      const fields = 'name text, age double precision, city text'
      await sql(url, `CREATE SCHEMA IF NOT EXISTS ${schema}`)
      await here(
        `CREATE TABLE IF NOT EXISTS pets (document text COLLATE "C", id text COLLATE "C", ${fields}, rejoin_version bigint NOT NULL DEFAULT 0, PRIMARY KEY (document, id));
         ALTER TABLE pets ADD CONSTRAINT not_allowed CHECK (name <> '${POISON}')`,
      )
      return async () => void (await here('ALTER TABLE pets DROP CONSTRAINT not_allowed'))
    },
    unique: async (target, field) => void (await here(`CREATE UNIQUE INDEX mine ON "${target}" ("${field}")`)),
    tamper: async ({ collection, document, id }, field, value) => {
      await sql(url, `UPDATE ${schema}."${collection}" SET "${field}" = $3 WHERE document = $1 AND id = $2`, [document, id, value])
    },
    absent: restart === undefined ? { restart: 'the server is not ours' } : {},
    close: async () => void (await sql(url, `DROP SCHEMA IF EXISTS ${schema}, ${schema}_copy CASCADE`)),
  }
}
