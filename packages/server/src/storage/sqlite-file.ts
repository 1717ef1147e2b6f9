/**
 * The file of the log (step 5 of the path): its tables, how a connection to it is set up, and what its errors mean.
 */
import { join } from 'node:path'
import { SyncError, cryptoRandom, toHex } from '@rejoin/shared'
import Database from 'better-sqlite3'
import type { LogFailure } from '../log/log.ts'

/** An open connection. */
export type Connection = Database.Database

/** 'FULL': every commit is fsynced. 'NORMAL' exists only so that a test can show that its absence is noticed. */
export type Synchronous = 'FULL' | 'NORMAL'

/** "RJLG": what stands in the file's header. */
const APPLICATION_ID = 0x524a_4c47
/** The first release whose WAL has no known way to lose or corrupt commits. */
const MIN_SQLITE: readonly number[] = [3, 51, 3]
/** How long another connection's lock is waited for, in ms. */
const BUSY_TIMEOUT = 5_000

/** Each takes the file from version i to i + 1 (`user_version`). Never edited once released: the next change is one more. */
const MIGRATIONS: readonly string[] = [
  `
  CREATE TABLE meta (name TEXT PRIMARY KEY, value ANY NOT NULL) STRICT, WITHOUT ROWID;
  CREATE TABLE documents (
    key INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, partition INTEGER NOT NULL, lineage BLOB NOT NULL, seq INTEGER NOT NULL, hash BLOB NOT NULL,
    last INTEGER NOT NULL,
    snapshot_seq INTEGER NOT NULL, oldest INTEGER NOT NULL, tail_bytes INTEGER NOT NULL, tail_entries INTEGER NOT NULL, checksum INTEGER NOT NULL
  ) STRICT;
  CREATE INDEX documents_to_trim ON documents (key) WHERE oldest <= snapshot_seq;
  CREATE TABLE entries (
    position INTEGER PRIMARY KEY, document INTEGER NOT NULL, seq INTEGER NOT NULL, epoch INTEGER NOT NULL, incarnation BLOB NOT NULL, lo INTEGER NOT NULL,
    hi INTEGER NOT NULL, actor TEXT NOT NULL, at INTEGER NOT NULL, hash BLOB NOT NULL, checksum INTEGER NOT NULL, previous INTEGER NOT NULL, skip INTEGER NOT NULL, "update" BLOB NOT NULL
  ) STRICT;
  CREATE TABLE acked (
    document INTEGER NOT NULL, incarnation BLOB NOT NULL, n INTEGER NOT NULL, seq INTEGER NOT NULL, checksum INTEGER NOT NULL, PRIMARY KEY (document, incarnation)
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE snapshots (
    document INTEGER PRIMARY KEY, seq INTEGER NOT NULL, hash BLOB NOT NULL, bytes INTEGER NOT NULL, admission BLOB NOT NULL, checksum INTEGER NOT NULL
  ) STRICT;
  CREATE TABLE slices (document INTEGER NOT NULL, seq INTEGER NOT NULL, slice INTEGER NOT NULL, checksum INTEGER NOT NULL, bytes BLOB NOT NULL) STRICT;
  CREATE UNIQUE INDEX slices_of_snapshot ON slices (document, seq, slice);
  `,
]

/** Path of the log in a data folder. */
export function logPath(directory: string): string {
  return join(directory, 'log.db')
}

/** Opens the one connection that writes, and brings the file to the version of this code. Throws `SyncError('store_failed')` on a file that is not ours. */
export function openToWrite(directory: string, synchronous: Synchronous = 'FULL'): Connection {
  const db = new Database(logPath(directory), { timeout: BUSY_TIMEOUT })
  try {
    requireVersion(db)
    requireOwnFile(db)
    // Before the first table: later it would need a VACUUM to take effect.
    db.pragma('auto_vacuum = INCREMENTAL')
    db.pragma('journal_mode = WAL')
    // better-sqlite3 compiles WAL's default as NORMAL, which does not fsync at commit: set, and asked back.
    db.pragma(`synchronous = ${synchronous}`)
    const level = db.pragma('synchronous', { simple: true })
    if (level !== (synchronous === 'FULL' ? 2 : 1)) throw new SyncError('storage_failed', `SQLite runs with synchronous=${String(level)}`)
    // An automatic checkpoint swallows the errors of its fsyncs.
    db.pragma('wal_autocheckpoint = 0')
    db.pragma('trusted_schema = OFF')
    migrate(db)
  } catch (error) {
    db.close()
    // SQLite's own error class does not survive the way between threads.
    if (error instanceof Database.SqliteError)
      throw new SyncError('storage_failed', `${logPath(directory)} cannot be opened: ${error.message} (${error.code})`, { cause: error })
    throw error
  }
  return db
}

/** Opens a connection that only reads. The writer has opened the file before. */
export function openToRead(directory: string): Connection {
  const db = new Database(logPath(directory), { readonly: true, fileMustExist: true, timeout: BUSY_TIMEOUT })
  db.pragma('query_only = ON')
  return db
}

/** A number or text of the table `meta`. */
export function metaOf(db: Connection, name: string): unknown {
  return db.prepare('SELECT value FROM meta WHERE name = ?').pluck().get(name)
}

/** What an error of SQLite means for the call that met it. */
export function failureOf(error: unknown): LogFailure {
  const code = error instanceof Database.SqliteError ? error.code : ''
  // ENOSPC arrives as FULL; a quota, or growing the WAL's index, as one of the others. All come before the fsync, and roll back.
  if (code === 'SQLITE_FULL' || code === 'SQLITE_IOERR_WRITE' || code === 'SQLITE_IOERR_SHMSIZE') return 'full'
  if (code.startsWith('SQLITE_BUSY')) return 'overloaded'
  return 'failed'
}

function requireVersion(db: Connection): void {
  const version = String(db.prepare('SELECT sqlite_version()').pluck().get())
  const parts = version.split('.').map(Number)
  const difference = MIN_SQLITE.map((least, i) => (parts[i] ?? 0) - least).find((part) => part !== 0) ?? 0
  if (difference < 0) throw new SyncError('storage_failed', `SQLite ${version} is older than ${MIN_SQLITE.join('.')}`)
}

function requireOwnFile(db: Connection): void {
  const id = db.pragma('application_id', { simple: true })
  if (id === APPLICATION_ID) return
  const tables = db.prepare('SELECT count(*) FROM sqlite_schema').pluck().get()
  if (id !== 0 || tables !== 0) throw new SyncError('store_failed', `${db.name} is not a log of Rejoin`)
}

function migrate(db: Connection): void {
  const version = Number(db.pragma('user_version', { simple: true }))
  if (version > MIGRATIONS.length)
    throw new SyncError('store_failed', `${db.name} has version ${version}; this release knows ${MIGRATIONS.length}`)
  if (version === MIGRATIONS.length) return
  db.transaction(() => {
    for (const migration of MIGRATIONS.slice(version)) db.exec(migration)
    if (version === 0) {
      const set = db.prepare('INSERT INTO meta (name, value) VALUES (?, ?)')
      set.run('id', toHex(cryptoRandom(16)))
      set.run('epoch', 1)
      set.run('trimmed', 0)
      db.pragma(`application_id = ${APPLICATION_ID}`)
    }
    db.pragma(`user_version = ${MIGRATIONS.length}`)
  }).immediate()
}
