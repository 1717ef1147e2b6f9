/**
 * The mirror's bookkeeping (step 8 of the path): which log and view it is at, whose it is to write, what is deleted and what is parked. In the same file as the rows.
 */
import { SyncError, canonicalJson } from '@rejoin/shared'
import type Database from 'better-sqlite3'
import type { Key, Parked, SinkContext, SinkOutcome, SinkPlace, SinkStanding } from './sink.ts'
import { isSamePlace } from './sink.ts'
import { STAMP, planTables } from './sqlite-tables.ts'

const TABLES: Readonly<Record<string, string>> = {
  rejoin_cursor: `CREATE TABLE rejoin_cursor (
    sink TEXT PRIMARY KEY, log TEXT NOT NULL, fence INTEGER NOT NULL, version INTEGER NOT NULL, stamp INTEGER NOT NULL,
    view TEXT, mark TEXT, refreshed TEXT, collections TEXT NOT NULL
  )`,
  rejoin_tombstones: `CREATE TABLE rejoin_tombstones (
    collection TEXT NOT NULL, document TEXT NOT NULL, id TEXT NOT NULL, ${STAMP} INTEGER NOT NULL, PRIMARY KEY (collection, document, id)
  ) WITHOUT ROWID`,
  rejoin_parked: `CREATE TABLE rejoin_parked (
    sink TEXT NOT NULL, collection TEXT NOT NULL, document TEXT NOT NULL, id TEXT NOT NULL, ${STAMP} INTEGER NOT NULL, reason TEXT NOT NULL,
    retry INTEGER NOT NULL, value TEXT, PRIMARY KEY (sink, collection, document, id)
  ) WITHOUT ROWID`,
}

interface CursorRow {
  readonly log: string
  readonly fence: number
  readonly version: number
  /** The highest version that rows may carry: above `version` after the mirror was rewound. */
  readonly stamp: number
  /** Null: everything has to be written. */
  readonly view: string | null
  readonly mark: string | null
  /** Null: whole. Otherwise JSON: the key up to which it is refreshed, or null. */
  readonly refreshed: string | null
  readonly collections: string
}

/** Statements that `begin` would run. */
export function planMirror(db: Database.Database, { collections }: Pick<SinkContext, 'collections'>): readonly string[] {
  const has = db.prepare("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?").pluck()
  const missing = Object.keys(TABLES).filter((name) => has.get(name) === undefined)
  return [...missing.map((name) => (TABLES[name] ?? '').replaceAll(/\s+/gu, ' ')), ...planTables(db, collections)]
}

/** Prepares the file and takes the next fence. */
export function beginMirror(db: Database.Database, context: SinkContext): { readonly standing: SinkStanding; readonly fence: number } {
  const { name, collections, log, adopt, forward } = context
  return db
    .transaction(() => {
      const changes = planMirror(db, context)
      for (const statement of changes) db.exec(statement)
      const row = readCursor(db, name)
      if (row !== undefined && row.log !== log && !adopt) {
        throw new SyncError(
          'bad_option',
          `sink ${name}: ${db.name} mirrors the log ${row.log}, but this is the log ${log}; delete that file, name another, or adopt it (rejoin sinks adopt ${name}), which writes it anew`,
        )
      }
      const declared = canonicalJson(collections)
      const fence = (row?.fence ?? 0) + 1
      // Events are not written anew: with strategy 'actions' a table that was dropped or widened holds what comes from now on.
      const isKept = forward.strategy === 'actions' || (changes.length === 0 && row?.collections === declared)
      const stands = row?.log === log && isKept
      const place = stands ? placeOf(row) : undefined
      db.prepare(
        `INSERT INTO rejoin_cursor (sink, log, fence, version, stamp, view, mark, refreshed, collections) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (sink) DO UPDATE SET log = excluded.log, fence = excluded.fence, view = excluded.view, mark = excluded.mark,
           refreshed = excluded.refreshed, collections = excluded.collections`,
      ).run(
        name,
        log,
        fence,
        row?.version ?? 0,
        row?.stamp ?? 0,
        place?.view ?? null,
        place?.mark ?? null,
        stands ? row.refreshed : null,
        declared,
      )
      return { standing: { place, stamp: row?.stamp ?? 0, parked: parkedIn(db, name) }, fence }
    })
    .immediate()
}

function readCursor(db: Database.Database, name: string): CursorRow | undefined {
  return db.prepare('SELECT log, fence, version, stamp, view, mark, refreshed, collections FROM rejoin_cursor WHERE sink = ?').get(name) as
    | CursorRow
    | undefined
}

/** Where the mirror is. Throws when it has no bookkeeping. */
export function placeIn(db: Database.Database, name: string): SinkPlace | undefined {
  const row = readCursor(db, name)
  return row === undefined ? undefined : placeOf(row)
}

function placeOf({ view, version, mark, refreshed }: CursorRow): SinkPlace | undefined {
  if (view === null) return undefined
  return { view, version, mark: mark ?? undefined, refreshed: refreshed === null ? undefined : (JSON.parse(refreshed) as Key | null) }
}

export function parkedIn(db: Database.Database, name: string): readonly Parked[] {
  const rows = db.prepare('SELECT collection, document, id, reason FROM rejoin_parked WHERE sink = ?').all(name) as (Key & {
    reason: string
  })[]
  return rows.map(({ collection, document, id, reason }) => ({ key: { collection, document, id }, reason }))
}

/** The cursor while the mirror is ours. */
export interface Cursor {
  /** Whether the fence is still ours and the place still `from`. */
  check(from: SinkPlace | undefined): SinkOutcome
  move(to: SinkPlace): void
}

export function createCursor(db: Database.Database, name: string, fence: number): Cursor {
  const current = db.prepare('SELECT fence, version, view, mark, refreshed FROM rejoin_cursor WHERE sink = ?')
  const move = db.prepare(
    'UPDATE rejoin_cursor SET version = ?, stamp = max(stamp, ?), view = ?, mark = ?, refreshed = ? WHERE sink = ? AND fence = ?',
  )
  return {
    check: (from) => {
      const row = current.get(name) as CursorRow | undefined
      if (row === undefined || row.fence < fence) return { type: 'lost' }
      if (row.fence > fence) return { type: 'fenced' }
      return isSamePlace(placeOf(row), from) ? { type: 'committed', parked: [] } : { type: 'lost' }
    },
    move: (to) => {
      move.run(to.version, to.version, to.view, to.mark ?? null, refreshedText(to), name, fence)
    },
  }
}

function refreshedText({ refreshed }: SinkPlace): string | null {
  return refreshed === undefined ? null : JSON.stringify(refreshed)
}

/** Removes the sink's tables and bookkeeping, and the last sink's bookkeeping as a whole. */
export function dropMirror(db: Database.Database, { name, collections }: SinkContext): void {
  db.transaction(() => {
    const tables = new Set(db.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'").pluck().all())
    if (!tables.has('rejoin_cursor')) return
    for (const collection of Object.keys(collections)) {
      db.exec(`DROP TABLE IF EXISTS "${collection.replaceAll('"', '""')}"`)
      if (tables.has('rejoin_tombstones')) db.prepare('DELETE FROM rejoin_tombstones WHERE collection = ?').run(collection)
    }
    if (tables.has('rejoin_parked')) db.prepare('DELETE FROM rejoin_parked WHERE sink = ?').run(name)
    db.prepare('DELETE FROM rejoin_cursor WHERE sink = ?').run(name)
    if (db.prepare('SELECT 1 FROM rejoin_cursor LIMIT 1').get() === undefined)
      for (const table of Object.keys(TABLES)) db.exec(`DROP TABLE IF EXISTS ${table}`)
  }).immediate()
}
