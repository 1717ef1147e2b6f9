/**
 * The SQLite mirror under the conformance kit.
 */
import { cpSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { CONFORMANCE_SCHEMA, POISON } from '@rejoin/server/testing'
import type { Conformance, Destination } from '@rejoin/server/testing'
import { openSink, sqlite } from '@rejoin/server/sinks/sqlite'
import Database from 'better-sqlite3'
import type { OpenSubject } from '../support/conformance.ts'
import { mirrorRows } from '../support/mirror.ts'

const under: Conformance = {
  name: 'sqlite',
  traits: { transactional: true, strategies: ['state', 'actions'], readable: true },
  powers: { fence: true, guard: true, identity: true, cursor: true },
  mechanism: 'rows, cursor and fence in one transaction, fsynced; compare-and-set of the cursor settles a lost answer',
  destination: async (): Promise<Destination> => {
    const folder = mkdtempSync(join(tmpdir(), 'rejoin-conformance-'))
    const path = join(folder, 'mirror.db')
    const files = ['', '-wal', '-shm'].map((suffix) => path + suffix)
    const sql = <T>(run: (db: Database.Database) => T): T => {
      const db = new Database(path)
      try {
        return run(db)
      } finally {
        db.close()
      }
    }
    return {
      open: (context) => openSink(sqlite({ path }).options, context),
      rows: async () => mirrorRows(path, CONFORMANCE_SCHEMA),
      wipe: async () => {
        for (const file of files) rmSync(file, { force: true })
      },
      drop: async (target) => sql((db) => void db.exec(`DROP TABLE "${target}"`)),
      backup: async () => {
        const copy = join(folder, 'copy.db')
        sql((db) => db.exec(`VACUUM INTO '${copy}'`))
        return async () => {
          for (const file of files) rmSync(file, { force: true })
          cpSync(copy, path)
        }
      },
      poison: async () => {
        const trigger = (on: string): string =>
          `CREATE TRIGGER poison_${on} BEFORE ${on} ON pets WHEN new.name = '${POISON}' BEGIN SELECT RAISE(ABORT, 'not allowed'); END;`
        sql((db) => {
          db.exec(
            'CREATE TABLE IF NOT EXISTS pets (document TEXT NOT NULL, id TEXT NOT NULL, name TEXT, age NUMERIC, city TEXT, rejoin_version INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (document, id))',
          )
          db.exec(trigger('INSERT') + trigger('UPDATE'))
        })
        return async () => sql((db) => void db.exec('DROP TRIGGER poison_INSERT; DROP TRIGGER poison_UPDATE'))
      },
      unique: async (target, field) => sql((db) => void db.exec(`CREATE UNIQUE INDEX mine ON "${target}" ("${field}")`)),
      tamper: async ({ collection, document, id }, field, value) => {
        sql((db) => db.prepare(`UPDATE "${collection}" SET "${field}" = ? WHERE document = ? AND id = ?`).run(value, document, id))
      },
      absent: { restart: 'a file has no server' },
      close: async () => rmSync(folder, { recursive: true }),
    }
  },
}

/** Needs no server. */
export const open: OpenSubject = async () => {
  const db = new Database(':memory:')
  const version = String(db.prepare('SELECT sqlite_version()').pluck().get())
  db.close()
  return { under, server: `SQLite ${version}`, close: async () => undefined }
}
