/**
 * A mirror in SQLite (step 8 of the path): a file with one plain table per collection, for `SELECT * FROM pets`. Rows, place and fence commit together.
 */
import { mkdirSync, statSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { SyncError, canonicalJson } from '@rejoin/shared'
import Database from 'better-sqlite3'
import type {
  Key,
  OpenSink,
  Parked,
  Sink,
  SinkCommit,
  SinkContext,
  SinkOutcome,
  SinkPlace,
  SinkRow,
  SinkSpec,
  SinkStanding,
  SinkTraits,
} from './sink.ts'
import type { ForwardOptions } from './spec.ts'
import { sinkSpec } from './spec.ts'
import { createTableWriters, prepareTables } from './sqlite-tables.ts'
import type { TableWriter } from './sqlite-tables.ts'

const TRAITS: SinkTraits = { transactional: true, strategies: ['state', 'actions'], readable: true }

export interface SqliteSinkOptions extends ForwardOptions {
  /** The mirror's file; made when it is missing, with its folder. A relative path is taken from the folder the process was started in. */
  readonly path: string
}

/** A SQLite file to keep equal to the documents: `sinks: { mirror: sqlite({ path: './mirror.db' }) }`. Throws `SyncError('bad_option')`. */
export function sqlite(options: SqliteSinkOptions): SinkSpec {
  return sinkSpec(
    'sqlite',
    import.meta.url,
    TRAITS,
    { ...options },
    { options: { path: resolve(pathOf({ ...options })) }, names: ['path'] },
  )
}

/** Opens the mirror, in the worker. */
export const openSink: OpenSink = async (options, context) => createSink(pathOf(options), context)

function pathOf({ path }: Readonly<Record<string, unknown>>): string {
  if (typeof path !== 'string' || path === '' || path === ':memory:')
    throw new SyncError('bad_option', "sqlite({ path }): path is a file's path")
  return path
}

/** An open file with what it needs prepared; replaced when the file is. */
interface Mirror {
  readonly db: Database.Database
  readonly file: string
  readonly layout: unknown
  readonly fence: number
  readonly tables: ReadonlyMap<string, TableWriter>
  readonly write: (commit: SinkCommit) => SinkOutcome
}

function createSink(path: string, context: SinkContext): Sink {
  let mirror: Mirror | undefined
  const close = (): void => {
    mirror?.db.close()
    mirror = undefined
  }
  return {
    begin: async () => {
      // The old connection goes first: closing it later would remove the new file's WAL, which has the same name.
      close()
      const db = openFile(path)
      try {
        const { standing, fence } = begin(db, context)
        const tables = createTableWriters(db, context)
        mirror = { db, file: fileAt(path), layout: layoutOf(db), fence, tables, write: createWrite(db, context, fence, tables) }
        return standing
      } catch (error) {
        db.close()
        throw error
      }
    },
    commit: async (commit) => {
      if (mirror === undefined) throw new SyncError('closed', 'the mirror is not open')
      // Deleted or replaced under us: SQLite would go on writing into a file that has no name. A layout that somebody changed is looked at by `begin`.
      if (fileAt(path) !== mirror.file || layoutOf(mirror.db) !== mirror.layout) return { type: 'lost' }
      return mirror.write(commit)
    },
    keys: async (limit, from) => {
      const keys: Key[] = []
      for (const collection of [...(mirror?.tables.keys() ?? [])].sort()) {
        if (keys.length === limit) break
        if (from !== undefined && collection < from.collection) continue
        keys.push(...(mirror?.tables.get(collection)?.keys(limit - keys.length, from?.collection === collection ? from : undefined) ?? []))
      }
      return keys
    },
    close: async () => {
      close()
    },
  }
}

function openFile(path: string): Database.Database {
  mkdirSync(dirname(path), { recursive: true })
  const db = new Database(path)
  try {
    // Somebody else's write transaction: the whole thread waits, so not for long; the forwarder tries again.
    db.pragma('busy_timeout = 1000')
    db.pragma('journal_mode = WAL')
    // Set explicitly: better-sqlite3 is built to fall back to NORMAL in WAL, and a cursor that was told must not be lost.
    db.pragma('synchronous = FULL')
    return db
  } catch (error) {
    db.close()
    throw error
  }
}

/** Which file lies at the path now. */
function fileAt(path: string): string {
  const stat = statSync(path, { bigint: true, throwIfNoEntry: false })
  return stat === undefined ? '' : `${stat.dev}:${stat.ino}`
}

function layoutOf(db: Database.Database): unknown {
  return db.pragma('schema_version', { simple: true })
}

const BOOKKEEPING = `
  CREATE TABLE IF NOT EXISTS rejoin_cursor (
    sink TEXT PRIMARY KEY, log TEXT NOT NULL, fence INTEGER NOT NULL, version INTEGER NOT NULL, view TEXT, refreshed TEXT, collections TEXT NOT NULL
  );
  CREATE TABLE IF NOT EXISTS rejoin_tombstones (
    collection TEXT NOT NULL, document TEXT NOT NULL, id TEXT NOT NULL, rejoin_version INTEGER NOT NULL, PRIMARY KEY (collection, document, id)
  ) WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS rejoin_parked (
    sink TEXT NOT NULL, collection TEXT NOT NULL, document TEXT NOT NULL, id TEXT NOT NULL, rejoin_version INTEGER NOT NULL, reason TEXT NOT NULL,
    PRIMARY KEY (sink, collection, document, id)
  ) WITHOUT ROWID;
`

interface CursorRow {
  readonly log: string
  readonly fence: number
  readonly version: number
  /** Null: everything has to be written. */
  readonly view: string | null
  /** Null: whole. Otherwise JSON: the key up to which it is refreshed, or null. */
  readonly refreshed: string | null
  readonly collections: string
}

/** Prepares the file and takes the next fence. */
function begin(
  db: Database.Database,
  { name, collections, log }: SinkContext,
): { readonly standing: SinkStanding; readonly fence: number } {
  return db
    .transaction(() => {
      const hadBookkeeping =
        db
          .prepare("SELECT count(*) FROM sqlite_schema WHERE name IN ('rejoin_cursor', 'rejoin_tombstones', 'rejoin_parked')")
          .pluck()
          .get() === 3
      db.exec(BOOKKEEPING)
      const row = db.prepare('SELECT log, fence, version, view, refreshed, collections FROM rejoin_cursor WHERE sink = ?').get(name) as
        | CursorRow
        | undefined
      if (row !== undefined && row.log !== log) {
        throw new SyncError(
          'bad_option',
          `sink ${name}: ${db.name} mirrors the log ${row.log}, but this is the log ${log}; delete that file, or name another`,
        )
      }
      const changed = prepareTables(db, collections)
      const declared = canonicalJson(collections)
      const fence = (row?.fence ?? 0) + 1
      const stands = row?.view !== undefined && row.view !== null && hadBookkeeping && !changed && row.collections === declared
      const place: SinkPlace | undefined = stands
        ? {
            view: row.view,
            version: row.version,
            refreshed: row.refreshed === null ? undefined : (JSON.parse(row.refreshed) as Key | null),
          }
        : undefined
      db.prepare(
        `INSERT INTO rejoin_cursor (sink, log, fence, version, view, refreshed, collections) VALUES (?, ?, ?, ?, ?, ?, ?)
       ON CONFLICT (sink) DO UPDATE SET fence = excluded.fence, view = excluded.view, refreshed = excluded.refreshed, collections = excluded.collections`,
      ).run(name, log, fence, row?.version ?? 0, place?.view ?? null, stands ? row.refreshed : null, declared)
      return { standing: { place, stamp: row?.version ?? 0, parked: parkedIn(db, name) }, fence }
    })
    .immediate()
}

function parkedIn(db: Database.Database, name: string): readonly Parked[] {
  const rows = db.prepare('SELECT collection, document, id, reason FROM rejoin_parked WHERE sink = ?').all(name) as (Key & {
    reason: string
  })[]
  return rows.map(({ collection, document, id, reason }) => ({ key: { collection, document, id }, reason }))
}

function createWrite(
  db: Database.Database,
  { name }: SinkContext,
  fence: number,
  tables: ReadonlyMap<string, TableWriter>,
): (commit: SinkCommit) => SinkOutcome {
  const current = db.prepare('SELECT fence, version, view, refreshed FROM rejoin_cursor WHERE sink = ?')
  const move = db.prepare('UPDATE rejoin_cursor SET version = ?, view = ?, refreshed = ? WHERE sink = ? AND fence = ?')
  const unpark = db.prepare('DELETE FROM rejoin_parked WHERE sink = ? AND collection = ? AND document = ? AND id = ?')
  const park = db.prepare('INSERT OR REPLACE INTO rejoin_parked VALUES (?, ?, ?, ?, ?, ?)')

  const check = (from: SinkPlace | undefined): SinkOutcome => {
    const row = current.get(name) as CursorRow | undefined
    if (row === undefined || row.fence < fence) return { type: 'lost' }
    if (row.fence > fence) return { type: 'fenced' }
    const same =
      from === undefined
        ? row.view === null
        : row.view === from.view && row.version === from.version && row.refreshed === refreshedText(from)
    return same ? { type: 'committed', parked: [] } : { type: 'lost' }
  }
  const write = db.transaction(({ rows, from, to }: SinkCommit): SinkOutcome => {
    const checked = check(from)
    if (checked.type !== 'committed') return checked
    const parked: Parked[] = []
    for (const row of rows) {
      const { collection, document, id } = row.key
      const reason = tryWrite(db, tables, row, to.version)
      unpark.run(name, collection, document, id)
      if (reason === undefined) continue
      park.run(name, collection, document, id, to.version, reason)
      parked.push({ key: row.key, reason })
    }
    move.run(to.version, to.view, refreshedText(to), name, fence)
    return { type: 'committed', parked }
  })
  // Nothing to move, nothing to fsync.
  return (commit) =>
    commit.rows.length === 0 && commit.from !== undefined && isSame(commit.from, commit.to) ? check(commit.from) : write.immediate(commit)
}

function isSame(a: SinkPlace, b: SinkPlace): boolean {
  return a.view === b.view && a.version === b.version && refreshedText(a) === refreshedText(b)
}

/** Why the destination refuses this row: a constraint or trigger of its owner, a value beyond SQLite's limits. Everything else is thrown. */
function tryWrite(
  db: Database.Database,
  tables: ReadonlyMap<string, TableWriter>,
  { key, value }: SinkRow,
  version: number,
): string | undefined {
  const table = tables.get(key.collection)
  if (table === undefined) return `there is no table for the collection ${key.collection}`
  try {
    if (value === null) table.remove(key, version)
    else table.put(key, value, version)
    return undefined
  } catch (error) {
    const isRefusal = error instanceof Database.SqliteError && /^SQLITE_(CONSTRAINT|TOOBIG|MISMATCH|RANGE)/u.test(error.code)
    // A refusal undoes its statement only, unless a trigger rolled the whole transaction back.
    if (!isRefusal || !db.inTransaction) throw error
    return error.message
  }
}

function refreshedText({ refreshed }: SinkPlace): string | null {
  return refreshed === undefined ? null : JSON.stringify(refreshed)
}
