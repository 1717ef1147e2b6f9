/**
 * The view in SQLite, `view.db` (step 7 of the path): a file of its own, so that projecting never takes the log's write lock. Losing it loses nothing.
 */
import { existsSync, rmSync } from 'node:fs'
import type { RandomBytes, RecordValue } from '@rejoin/shared'
import { cryptoRandom, toHex } from '@rejoin/shared'
import Database from 'better-sqlite3'
import type { CutLimits, DocumentState, Key, Place, RecordChange, Source, ViewCommit, ViewStore, Misfit } from '../view/view.ts'

/** A file with another number is of another layout: it is made anew, from the log. */
const LAYOUT = 1

/*
 * n numbers the changes in the order of their versions and is never given twice (a rowid is by far the fastest key here);
 * entries.through is the last n at a version, so that a read as of a version is a read as of an n. entries.bytes adds up likewise.
 */
const SCHEMA = `
  CREATE TABLE changes (n INTEGER PRIMARY KEY, version INTEGER NOT NULL, collection TEXT NOT NULL, document TEXT NOT NULL, id TEXT NOT NULL, value TEXT) STRICT;
  CREATE INDEX changes_by_key ON changes (collection, document, id, n);
  CREATE TABLE entries (
    version INTEGER PRIMARY KEY, partition INTEGER NOT NULL, position INTEGER NOT NULL, epoch INTEGER NOT NULL, seq INTEGER NOT NULL, document TEXT NOT NULL,
    actor TEXT NOT NULL, at INTEGER NOT NULL, settled INTEGER NOT NULL, through INTEGER NOT NULL, bytes INTEGER NOT NULL
  ) STRICT;
  CREATE TABLE places (partition INTEGER PRIMARY KEY, position INTEGER NOT NULL, hash TEXT, ahead INTEGER NOT NULL) STRICT;
  CREATE TABLE documents (document TEXT PRIMARY KEY, partition INTEGER NOT NULL, lineage TEXT NOT NULL, seq INTEGER NOT NULL, parked TEXT) STRICT, WITHOUT ROWID;
  CREATE INDEX documents_parked ON documents (document) WHERE parked IS NOT NULL;
  CREATE TABLE misfits (collection TEXT NOT NULL, document TEXT NOT NULL, id TEXT NOT NULL, field TEXT, message TEXT NOT NULL) STRICT;
  CREATE INDEX misfits_by_key ON misfits (collection, document, id);
  CREATE INDEX misfits_by_document ON misfits (document);
  CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
`

type Row = Record<string, unknown>
interface VersionRow {
  readonly version: number
  readonly settled: number
  readonly through: number
  readonly bytes: number
}

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
  const head = (): number | undefined => {
    if (source() === undefined) return undefined
    const top = versions.at(Number.MAX_SAFE_INTEGER)
    if (top === undefined || top.settled === 1) return last()
    return Math.max(oldest(), versions.settledAt(top.version)?.version ?? 0)
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
    ...readers,
    standing: () => ({ source: source(), version: last(), places: places.all() as Place[] }),
    commit: write,
    raise: (version) => {
      if (version > Number(meta.get('floor'))) meta.set('floor', String(version))
    },
    ...state,
    trim: trimmer,
    close: () => {
      db.close()
    },
  }
}

interface Meta {
  get(name: string): string | undefined
  set(name: string, value: string): void
}

function createMeta(db: Database.Database): Meta {
  const get = db.prepare('SELECT value FROM meta WHERE name = ?').pluck()
  const set = db.prepare('INSERT INTO meta VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value')
  return { get: (name) => get.get(name) as string | undefined, set: (name, value) => void set.run(name, value) }
}

interface Versions {
  /** The last entry with a version ≤ `version`. */
  at(version: number): VersionRow | undefined
  settledAt(version: number): VersionRow | undefined
  settledAfter(version: number): VersionRow | undefined
  /** The highest version in [after, upTo] with no more than `limits` since `after`. */
  within(after: number, upTo: number, limits: CutLimits): number
}

function createVersions(db: Database.Database): Versions {
  const columns = 'SELECT version, settled, through, bytes FROM entries'
  const at = db.prepare(`${columns} WHERE version <= ? ORDER BY version DESC LIMIT 1`)
  const settledAt = db.prepare(`${columns} WHERE version <= ? AND settled ORDER BY version DESC LIMIT 1`)
  const settledAfter = db.prepare(`${columns} WHERE version > ? AND settled ORDER BY version LIMIT 1`)
  const find = (version: number): VersionRow | undefined => at.get(version) as VersionRow | undefined
  return {
    at: find,
    settledAt: (version) => settledAt.get(version) as VersionRow | undefined,
    settledAfter: (version) => settledAfter.get(version) as VersionRow | undefined,
    within: (after, upTo, limits) => {
      const from = find(after)
      const fits = (version: number): boolean => {
        const row = find(version)
        return row === undefined || (row.through - (from?.through ?? 0) <= limits.items && row.bytes - (from?.bytes ?? 0) <= limits.bytes)
      }
      // Both sums only grow with the version: halve the range.
      let [low, high] = [after, upTo]
      while (low < high) {
        const middle = Math.ceil((low + high) / 2)
        if (fits(middle)) low = middle
        else high = middle - 1
      }
      return low
    },
  }
}

type Readers = Pick<ViewStore, 'dirty' | 'get' | 'keys' | 'records'>

function createReaders(db: Database.Database, versions: Versions): Readers {
  const dirty = db.prepare('SELECT DISTINCT collection, document, id FROM changes NOT INDEXED WHERE n > ? AND n <= ? ORDER BY collection, document, id')
  const get = db.prepare('SELECT value FROM changes WHERE collection = ? AND document = ? AND id = ? AND n <= ? ORDER BY n DESC LIMIT 1').pluck()
  const page = 'SELECT collection, document, id, value IS NULL AS gone, max(n) FROM changes WHERE'
  const first = db.prepare(`${page} n <= ? GROUP BY collection, document, id ORDER BY collection, document, id LIMIT ?`)
  const next = db.prepare(`${page} (collection, document, id) > (?, ?, ?) AND n <= ? GROUP BY collection, document, id ORDER BY collection, document, id LIMIT ?`)
  const collection = db.prepare('SELECT collection FROM changes WHERE collection > ? ORDER BY collection LIMIT 1').pluck()
  const firstCollection = db.prepare('SELECT collection FROM changes ORDER BY collection LIMIT 1').pluck()
  const records = db.prepare('SELECT collection, id, value, max(n) FROM changes WHERE collection = ? AND document = ? GROUP BY id ORDER BY id')
  const through = (version: number): number => versions.at(version)?.through ?? 0

  return {
    dirty: (after, upTo) => dirty.all(through(after), through(upTo)) as Key[],
    get: (key, version) => parse(get.get(key.collection, key.document, key.id, through(version))),
    keys: (version, limit, from) => {
      const n = through(version)
      const found: Key[] = []
      for (let last = from; found.length < limit; ) {
        const rows = (last === undefined ? first.all(n, limit) : next.all(last.collection, last.document, last.id, n, limit)) as (Key & { gone: number })[]
        for (const row of rows) if (row.gone === 0) found.push({ collection: row.collection, document: row.document, id: row.id })
        last = rows.at(-1)
        if (rows.length < limit) break
      }
      return found.slice(0, limit)
    },
    records: (document) => {
      const found: RecordChange[] = []
      for (let name = firstCollection.get(); name !== undefined; name = collection.get(name)) {
        for (const row of records.all(name, document) as Row[]) {
          if (row['value'] !== null) found.push({ collection: String(row['collection']), id: String(row['id']), value: parse(row['value']) })
        }
      }
      return found
    },
  }
}

type DocumentStates = Pick<ViewStore, 'document' | 'documents' | 'misfits' | 'parked'>

function createDocumentStates(db: Database.Database): DocumentStates {
  const columns = 'SELECT document, partition, lineage, seq, parked FROM documents'
  const one = db.prepare(`${columns} WHERE document = ?`)
  const page = db.prepare(`${columns} WHERE document > ? ORDER BY document LIMIT ?`)
  const parked = db.prepare(`${columns} WHERE parked IS NOT NULL ORDER BY document LIMIT ?`)
  const parkedCount = db.prepare('SELECT count(*) FROM documents WHERE parked IS NOT NULL').pluck()
  const misfits = db.prepare('SELECT collection, document, id, field, message FROM misfits ORDER BY collection, document, id, rowid LIMIT ?')
  const misfitCount = db.prepare('SELECT count(*) FROM misfits').pluck()
  const state = (row: unknown): DocumentState => ({ ...(row as DocumentState), parked: (row as { parked: string | null }).parked ?? undefined })
  return {
    document: (document) => {
      const row = one.get(document)
      return row === undefined ? undefined : state(row)
    },
    // Document ids are not empty.
    documents: (limit, from) => page.all(from ?? '', limit).map(state),
    misfits: (limit) => ({
      total: Number(misfitCount.get()),
      first: (misfits.all(limit) as (Misfit & { field: string | null })[]).map((row) => ({ ...row, field: row.field ?? undefined })),
    }),
    parked: (limit) => ({ total: Number(parkedCount.get()), first: parked.all(limit).map(state) }),
  }
}

interface WriterParts {
  readonly last: () => number
  readonly versions: Versions
  readonly meta: Meta
}

function createWriter(db: Database.Database, { last, versions, meta }: WriterParts): (commit: ViewCommit) => void {
  const change = db.prepare('INSERT INTO changes VALUES (?, ?, ?, ?, ?, ?)')
  const entry = db.prepare('INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)')
  const settle = db.prepare('UPDATE entries SET settled = 1 WHERE version = (SELECT max(version) FROM entries)')
  const document = db.prepare('INSERT OR REPLACE INTO documents VALUES (?, ?, ?, ?, ?)')
  const place = db.prepare('INSERT OR REPLACE INTO places VALUES (?, ?, ?, ?)')
  const clear = db.prepare('DELETE FROM misfits WHERE collection = ? AND document = ? AND id = ?')
  const add = db.prepare('INSERT INTO misfits VALUES (?, ?, ?, ?, ?)')
  const forget = ['documents', 'misfits'].map((table) => db.prepare(`DELETE FROM ${table} WHERE document = ?`))

  const writeEntries = (entries: ViewCommit['entries']): void => {
    let { through: n, bytes } = versions.at(Number.MAX_SAFE_INTEGER) ?? { through: 0, bytes: 0 }
    let version = last()
    for (const one of entries) {
      if (one.version <= version) throw new Error(`version ${one.version} was given before`)
      version = one.version
      for (const { collection, id, value } of one.changes) {
        const text = value === null ? null : JSON.stringify(value)
        bytes += text?.length ?? 0
        change.run(++n, version, collection, one.document, id, text)
      }
      entry.run(version, one.partition, one.position, one.epoch, one.seq, one.document, one.actor, one.at, Number(one.settled), n, bytes)
    }
  }

  return db.transaction((commit: ViewCommit) => {
    writeEntries(commit.entries)
    for (const one of commit.documents) document.run(one.document, one.partition, one.lineage, one.seq, one.parked ?? null)
    for (const one of commit.gone ?? []) for (const statement of forget) statement.run(one)
    for (const one of commit.places) place.run(one.partition, one.position, one.hash ?? null, one.ahead)
    for (const { key, found } of commit.misfits) {
      clear.run(key.collection, key.document, key.id)
      for (const one of found) add.run(key.collection, key.document, key.id, one.field ?? null, one.message)
    }
    if (commit.source !== undefined) meta.set('source', commit.source === null ? '' : JSON.stringify(commit.source))
    if (commit.settled === true) settle.run()
  }).immediate
}

interface TrimmerParts {
  readonly versions: Versions
  readonly meta: Meta
  readonly oldest: () => number
  readonly head: () => number | undefined
}

/** A value is garbage once its successor is at or below the version trimmed to; a deletion, once it is itself. */
function createTrimmer(db: Database.Database, { versions, meta, oldest, head }: TrimmerParts): (version: number, maxRows: number) => number {
  const passed = db.prepare('SELECT n, collection, document, id, value IS NULL AS gone FROM changes WHERE n > ? AND n <= ? ORDER BY n')
  const older = db.prepare('DELETE FROM changes WHERE collection = ? AND document = ? AND id = ? AND n < ?')
  const itself = db.prepare('DELETE FROM changes WHERE n = ?')
  // The entry that stands at `oldest` stays: it tells the n there, and the last one up to where numbers were given.
  const entries = db.prepare('DELETE FROM entries WHERE version < (SELECT max(version) FROM entries WHERE version <= ?)')
  return db.transaction((version: number, maxRows: number) => {
    const from = oldest()
    const target = Math.min(version, head() ?? 0)
    if (target <= from) return 0
    // In slices, so that no transaction is long: up to the version that holds about maxRows changes, one version at least.
    const slice = versions.within(from, target, { items: maxRows, bytes: Number.MAX_SAFE_INTEGER })
    const to = slice > from ? slice : (db.prepare('SELECT min(version) FROM entries WHERE version > ?').pluck().get(from) as number)
    let rows = 0
    for (const row of passed.all(versions.at(from)?.through ?? 0, versions.at(to)?.through ?? 0) as (Key & { n: number; gone: number })[]) {
      rows += older.run(row.collection, row.document, row.id, row.n).changes
      if (row.gone === 1) rows += itself.run(row.n).changes
    }
    rows += entries.run(to).changes
    meta.set('oldest', String(to))
    return rows
  }).immediate
}

function parse(text: unknown): RecordValue | null {
  return typeof text === 'string' ? (JSON.parse(text) as RecordValue) : null
}
