/**
 * The MySQL sink under the conformance kit.
 */
import { CONFORMANCE_SCHEMA, POISON } from '@rejoin/server/testing'
import type { Conformance, Destination } from '@rejoin/server/testing'
import { mysql, openSink } from '@rejoin/server/sinks/mysql'
import { escape } from 'mysql2'
import type { OpenSubject } from '../support/conformance.ts'
import { sql, tableRows } from '../support/mysql-sink.ts'
import { startMariadb } from '../support/servers/mariadb.ts'
import { withDatabase } from '../support/servers/server.ts'

/** Nothing of a test outlives the machine, and DDL waits for the disk. */
export const QUICK = {
  'innodb-flush-log-at-trx-commit': '0',
  'innodb-doublewrite': '0',
  'sync-frm': '0',
  'innodb-flush-method': 'nosync',
} as const

/** Starts a MariaDB of its own, or uses the one at `url`, in databases of its own. */
export const open: OpenSubject = async (given) => {
  const server = given === undefined ? await startMariadb({ settings: QUICK }) : undefined
  const base = given ?? server?.url ?? ''
  const restart =
    server === undefined
      ? undefined
      : async (): Promise<void> => {
          await server.kill()
          await server.restart()
        }
  const under: Conformance = {
    name: 'mysql',
    traits: { transactional: true, strategies: ['state', 'actions'], readable: true },
    powers: { fence: true, guard: true, identity: true, cursor: true },
    mechanism: 'rows, cursor and fence in one transaction, the cursor first; its compare-and-set settles a lost answer',
    destination: () => destinationIn(base, restart),
  }
  const [row] = await sql(base, 'SELECT VERSION() AS version')
  const version = String(row?.['version'])
  const close = async (): Promise<void> => {
    await server?.kill()
    await server?.stop()
  }
  return { under, server: version.includes('Maria') ? `MariaDB ${version.split('-')[0]}` : `MySQL ${version}`, close }
}

let made = 0

async function destinationIn(base: string, restart: (() => Promise<void>) | undefined): Promise<Destination> {
  const name = `rejoin_conformance_${process.pid}_${++made}`
  const url = withDatabase(base, name)
  const make = [`CREATE DATABASE ${name}`]
  await sql(base, ...make)
  const tables = async (): Promise<readonly string[]> =>
    (await sql(url, 'SELECT TABLE_NAME AS name FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE()')).map((row) =>
      String(row['name']),
    )
  return {
    open: (context) => openSink(mysql({ url }).options, context),
    rows: () => tableRows(url, CONFORMANCE_SCHEMA),
    wipe: async () => void (await sql(base, `DROP DATABASE ${name}`, ...make)),
    drop: async (target) => void (await sql(url, `DROP TABLE ${target}`)),
    backup: async () => {
      const all = await tables()
      await sql(url, `CREATE DATABASE ${name}_copy`, ...all.map((table) => `CREATE TABLE ${name}_copy.${table} AS SELECT * FROM ${table}`))
      return async () => {
        await sql(url, ...all.flatMap((table) => [`DELETE FROM ${table}`, `INSERT INTO ${table} SELECT * FROM ${name}_copy.${table}`]))
      }
    },
    ...(restart === undefined ? {} : { restart }),
    poison: async () => {
      const text = 'CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin'
      await sql(
        url,
        `CREATE TABLE IF NOT EXISTS pets (document VARCHAR(256) ${text} NOT NULL, id VARCHAR(512) ${text} NOT NULL, name LONGTEXT ${text}, age DOUBLE, city LONGTEXT ${text},
           rejoin_version BIGINT NOT NULL DEFAULT 0, PRIMARY KEY (document, id)) ENGINE=InnoDB`,
        `ALTER TABLE pets ADD CONSTRAINT not_allowed CHECK (name <> '${POISON}')`,
      )
      return async () => void (await sql(url, 'ALTER TABLE pets DROP CONSTRAINT not_allowed'))
    },
    unique: async (target, field) => void (await sql(url, `CREATE UNIQUE INDEX mine ON ${target} (${field}(100))`)),
    tamper: async ({ collection, document, id }, field, value) => {
      await sql(url, `UPDATE ${collection} SET ${field} = ${escape(value)} WHERE document = ${escape(document)} AND id = ${escape(id)}`)
    },
    absent: restart === undefined ? { restart: 'the server is not ours' } : {},
    close: async () => void (await sql(base, `DROP DATABASE IF EXISTS ${name}`, `DROP DATABASE IF EXISTS ${name}_copy`)),
  }
}
