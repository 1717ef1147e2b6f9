/**
 * The view in SQLite, `view.db` (step 7 of the path): a file of its own, so that projecting never takes the log's write lock. Losing it loses nothing.
 */
import { existsSync, rmSync } from 'node:fs'
import type { RandomBytes } from '@rejoin/shared'
import { cryptoRandom, toHex } from '@rejoin/shared'
import Database from 'better-sqlite3'
import type { SlowDocument } from '../view/turns.ts'
import type { Place, Source, ViewStore } from '../view/view.ts'
import { createHistory, createRefs } from './view-sqlite-history.ts'
import { createDocumentStates, createReaders, createVersions } from './view-sqlite-read.ts'
import { createMeta, createTrimmer, createWriter } from './view-sqlite-write.ts'

/** A file with another number is of another layout: it is made anew, from the log. */
const LAYOUT = 2

/*
 * n numbers the changes in the order of their versions and is never given twice (a rowid is by far the fastest key here);
 * entries.through is the last n at a version, so that a read as of a version is a read as of an n. entries.bytes adds up likewise, and nth counts the entries.
 */
const SCHEMA = `
  CREATE TABLE changes (n INTEGER PRIMARY KEY, version INTEGER NOT NULL, collection TEXT NOT NULL, document TEXT NOT NULL, id TEXT NOT NULL, value TEXT) STRICT;
  CREATE INDEX changes_by_key ON changes (collection, document, id, n);
  CREATE TABLE entries (
    version INTEGER PRIMARY KEY, partition INTEGER NOT NULL, position INTEGER NOT NULL, epoch INTEGER NOT NULL, seq INTEGER NOT NULL, document TEXT NOT NULL,
    actor TEXT NOT NULL, at INTEGER NOT NULL, settled INTEGER NOT NULL, through INTEGER NOT NULL, bytes INTEGER NOT NULL, nth INTEGER NOT NULL,
    mark TEXT NOT NULL
  ) STRICT;
  CREATE INDEX entries_by_document ON entries (document, seq);
  CREATE TABLE places (partition INTEGER PRIMARY KEY, position INTEGER NOT NULL, hash TEXT, ahead INTEGER NOT NULL) STRICT;
  CREATE TABLE documents (document TEXT PRIMARY KEY, partition INTEGER NOT NULL, lineage TEXT NOT NULL, seq INTEGER NOT NULL, parked TEXT) STRICT, WITHOUT ROWID;
  CREATE INDEX documents_parked ON documents (document) WHERE parked IS NOT NULL;
  CREATE TABLE misfits (collection TEXT NOT NULL, document TEXT NOT NULL, id TEXT NOT NULL, field TEXT, message TEXT NOT NULL) STRICT;
  CREATE INDEX misfits_by_key ON misfits (collection, document, id);
  CREATE INDEX misfits_by_document ON misfits (document);
  CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
`

/** Opens or creates the view at `path`. A file that is no database, or of another layout, is made anew. */
export function openSqliteView(path: string, random: RandomBytes = cryptoRandom): ViewStore {
  return createView(openDatabase(path, random))
}

function openDatabase(path: string, random: RandomBytes): Database.Database {
  for (let attempt = 0; ; attempt++) {
    const db = new Database(path)
    try {
      db.pragma('busy_timeout = 5000')
      db.pragma('journal_mode = WAL')
      // Set explicitly: better-sqlite3 is built to fall back to NORMAL in WAL, and a view ahead of its own fsync would give versions twice.
      db.pragma('synchronous = FULL')
      const layout = db.pragma('user_version', { simple: true })
      if (layout === LAYOUT) return db
      if (layout === 0 && db.prepare('SELECT count(*) AS n FROM sqlite_schema').pluck().get() === 0) {
        db.transaction(() => {
          db.exec(SCHEMA)
          db.prepare("INSERT INTO meta VALUES ('id', ?), ('floor', '0'), ('oldest', '0')").run(toHex(random(16)))
          db.pragma(`user_version = ${LAYOUT}`)
        })()
        return db
      }
    } catch (error) {
      if (attempt > 0 || !isBroken(error)) throw error
    }
    db.close()
    for (const suffix of ['', '-wal', '-shm']) if (existsSync(path + suffix)) rmSync(path + suffix)
  }
}

function isBroken(error: unknown): boolean {
  return error instanceof Database.SqliteError && (error.code === 'SQLITE_NOTADB' || error.code.startsWith('SQLITE_CORRUPT'))
}

function createView(db: Database.Database): ViewStore {
  const meta = createMeta(db)
  const versions = createVersions(db)
  const readers = createReaders(db, versions)
  const state = createDocumentStates(db)
  const places = db.prepare('SELECT partition, position, hash, ahead FROM places ORDER BY partition')

  const source = (): Source | undefined => {
    const text = meta.get('source')
    return text === undefined || text === '' ? undefined : (JSON.parse(text) as Source)
  }
  const last = (): number => Math.max(Number(meta.get('floor')), versions.at(Number.MAX_SAFE_INTEGER)?.version ?? 0)
  const oldest = (): number => Number(meta.get('oldest'))
  const findHead = (): number | undefined => {
    if (source() === undefined) return undefined
    const top = versions.at(Number.MAX_SAFE_INTEGER)
    if (top === undefined || top.settled === 1) return last()
    return Math.max(oldest(), versions.settledAt(top.version)?.version ?? 0)
  }
  // Asked for several times a commit of a sink. The pragma tells of other connections to the file.
  const changes = db.prepare('PRAGMA data_version').pluck()
  let known: { readonly head: number | undefined; readonly at: unknown } | undefined
  const head = (): number | undefined => {
    const at = changes.get()
    const now = known !== undefined && known.at === at ? known : { head: findHead(), at }
    known = now
    return now.head
  }
  const write = createWriter(db, { last, versions, meta })
  const trimmer = createTrimmer(db, { versions, meta, oldest, head })

  return {
    id: String(meta.get('id')),
    head,
    oldest,
    cut: (after, limits) => {
      const top = head()
      if (top === undefined || top <= after) return after
      const found = versions.settledAt(versions.within(after, top, limits))?.version ?? 0
      const next = found > after ? found : (versions.settledAfter(after)?.version ?? top)
      // Above the last entry stands the floor: no change lies between, so the cut may as well be there.
      return next === versions.at(Number.MAX_SAFE_INTEGER)?.version ? top : next
    },
    dirty: readers.dirty,
    differences: readers.differences,
    get: readers.get,
    keys: readers.keys,
    page: readers.page,
    records: readers.records,
    standing: () => ({ source: source(), version: last(), places: places.all() as Place[] }),
    commit: (commit) => {
      write(commit)
      known = undefined
      readers.forget()
    },
    raise: (version) => {
      if (version > Number(meta.get('floor'))) meta.set('floor', String(version))
      known = undefined
    },
    ...createHistory(db, { versions, head, oldest }),
    ...createRefs(db, versions),
    ...state,
    slow: () => JSON.parse(meta.get('slow') ?? '[]') as SlowDocument[],
    setSlow: (slow) => {
      meta.set('slow', JSON.stringify(slow))
    },
    trim: (version, maxRows) => {
      const gone = trimmer(version, maxRows)
      known = undefined
      return gone
    },
    close: () => {
      db.close()
    },
  }
}
