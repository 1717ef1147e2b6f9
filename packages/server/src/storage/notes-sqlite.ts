/**
 * Notes of all sinks in one SQLite file, `sinks.db`, beside the view (step 8 of the path). Every write is fsynced before it returns: what was attempted must be known before its first byte leaves.
 */
import type { DocumentId, JsonValue } from '@rejoin/shared'
import { SyncError } from '@rejoin/shared'
import Database from 'better-sqlite3'
import type { DeadLetter, NotesChanges, SinkNotes } from '../sinks/notes.ts'

/** The open file. */
export interface NotesStore {
  /** Notes of one sink; empty when it is new. */
  of(sink: string): SinkNotes
  /** Sinks that something is noted of, by name. */
  sinks(): readonly string[]
  /** Forgets a sink. */
  drop(sink: string): void
  close(): void
}

/** Layout of the file (`user_version`). Unlike the view it cannot be made anew: it says what was sent. The next layout is a migration. */
const LAYOUT = 1

const SCHEMA = `
  CREATE TABLE notes (sink TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (sink, name)) STRICT, WITHOUT ROWID;
  CREATE TABLE letters (
    n INTEGER PRIMARY KEY, sink TEXT NOT NULL, id TEXT NOT NULL, collection TEXT NOT NULL, document TEXT NOT NULL, record TEXT NOT NULL, value TEXT,
    version INTEGER NOT NULL, reason TEXT NOT NULL, state TEXT NOT NULL, at INTEGER NOT NULL, event TEXT, UNIQUE (sink, id)
  ) STRICT;
  CREATE TABLE images (
    sink TEXT NOT NULL, collection TEXT NOT NULL, document TEXT NOT NULL, id TEXT NOT NULL, hash TEXT NOT NULL, PRIMARY KEY (sink, collection, document, id)
  ) STRICT, WITHOUT ROWID;
`

/** Opens or creates the notes at `path`. Throws `SyncError('store_failed')` on a file that is damaged or of a later version. */
export function openSqliteNotes(path: string): NotesStore {
  const db = openFile(path)
  const names = db.prepare('SELECT sink FROM notes UNION SELECT sink FROM letters UNION SELECT sink FROM images ORDER BY sink').pluck()
  const drops = ['notes', 'letters', 'images'].map((table) => db.prepare(`DELETE FROM ${table} WHERE sink = ?`))
  const statements = prepare(db)
  const drop = db.transaction((sink: string) => {
    for (const statement of drops) statement.run(sink)
  })
  return {
    of: (sink) => notesOf(db, statements, sink),
    sinks: () => names.all() as string[],
    drop: (sink) => {
      drop.immediate(sink)
    },
    close: () => {
      db.close()
    },
  }
}

function openFile(path: string): Database.Database {
  let db: Database.Database | undefined
  try {
    db = new Database(path)
    db.pragma('busy_timeout = 5000')
    db.pragma('journal_mode = WAL')
    // Set explicitly: better-sqlite3 is built to fall back to NORMAL in WAL, and an attempt that was forgotten would leave a wrong row for ever.
    db.pragma('synchronous = FULL')
    const layout = db.pragma('user_version', { simple: true })
    if (layout === LAYOUT) return db
    if (layout !== 0) throw new SyncError('store_failed', `${path} has layout ${String(layout)}; this version of Rejoin reads ${LAYOUT}`)
    const made = db
    made.transaction(() => {
      made.exec(SCHEMA)
      made.pragma(`user_version = ${LAYOUT}`)
    })()
    return made
  } catch (error) {
    db?.close()
    if (error instanceof SyncError) throw error
    const reason = error instanceof Error ? error.message : String(error)
    throw new SyncError(
      'store_failed',
      `${path}: ${reason}; without this file every sink is written anew, and sinks of strategy 'actions' ask where to go on`,
      { cause: error },
    )
  }
}

type Statements = ReturnType<typeof prepare>

function prepare(db: Database.Database) {
  const letters = 'SELECT id, collection, document, record, value, version, reason, state, at, event FROM letters WHERE sink = ?'
  const keys = 'SELECT collection, document, id FROM images WHERE sink = ?'
  const order = 'ORDER BY collection, document, id LIMIT ?'
  return {
    get: db.prepare('SELECT value FROM notes WHERE sink = ? AND name = ?').pluck(),
    set: db.prepare('INSERT INTO notes VALUES (?, ?, ?) ON CONFLICT (sink, name) DO UPDATE SET value = excluded.value'),
    unset: db.prepare('DELETE FROM notes WHERE sink = ? AND name = ?'),
    put: db.prepare(
      `INSERT INTO letters (sink, id, collection, document, record, value, version, reason, state, at, event) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
       ON CONFLICT (sink, id) DO UPDATE SET collection = excluded.collection, document = excluded.document, record = excluded.record, value = excluded.value,
         version = excluded.version, reason = excluded.reason, state = excluded.state, at = excluded.at, event = excluded.event`,
    ),
    remove: db.prepare('DELETE FROM letters WHERE sink = ? AND id = ?'),
    count: db.prepare('SELECT count(*) FROM letters WHERE sink = ?').pluck(),
    letters: db.prepare(`${letters} AND n > coalesce((SELECT n FROM letters WHERE sink = ? AND id = ?), 0) ORDER BY n LIMIT ?`),
    letter: db.prepare(`${letters} AND id = ?`),
    hold: db.prepare(
      'INSERT INTO images VALUES (?, ?, ?, ?, ?) ON CONFLICT (sink, collection, document, id) DO UPDATE SET hash = excluded.hash',
    ),
    release: db.prepare('DELETE FROM images WHERE sink = ? AND collection = ? AND document = ? AND id = ?'),
    image: db.prepare('SELECT hash FROM images WHERE sink = ? AND collection = ? AND document = ? AND id = ?').pluck(),
    firstKeys: db.prepare(`${keys} ${order}`),
    nextKeys: db.prepare(`${keys} AND (collection, document, id) > (?, ?, ?) ${order}`),
    clearLetters: db.prepare('DELETE FROM letters WHERE sink = ?'),
    clearImages: db.prepare('DELETE FROM images WHERE sink = ?'),
    clearNotes: db.prepare('DELETE FROM notes WHERE sink = ?'),
  }
}

function notesOf(db: Database.Database, statements: Statements, sink: string): SinkNotes {
  const write = db.transaction(({ values = {}, putLetters = [], removeLetters = [], images = [], clear }: NotesChanges) => {
    if (clear === 'letters' || clear === 'all') statements.clearLetters.run(sink)
    if (clear === 'images' || clear === 'all') statements.clearImages.run(sink)
    if (clear === 'all') statements.clearNotes.run(sink)
    for (const [name, value] of Object.entries(values)) {
      if (value === undefined) statements.unset.run(sink, name)
      else statements.set.run(sink, name, JSON.stringify(value))
    }
    for (const { id, key, value, version, reason, state, at, event } of putLetters) {
      const texts = [value === null ? null : JSON.stringify(value), event === undefined ? null : JSON.stringify(event)] as const
      statements.put.run(sink, id, key.collection, key.document, key.id, texts[0], version, reason, state, at, texts[1])
    }
    for (const id of removeLetters) statements.remove.run(sink, id)
    for (const { key, hash } of images) {
      if (hash === null) statements.release.run(sink, key.collection, key.document, key.id)
      else statements.hold.run(sink, key.collection, key.document, key.id, hash)
    }
  })
  return {
    get: (name) => {
      const text = statements.get.get(sink, name) as string | undefined
      return text === undefined ? undefined : (JSON.parse(text) as JsonValue)
    },
    write: (changes) => {
      write.immediate(changes)
    },
    letters: (limit, from) => ({
      total: Number(statements.count.get(sink)),
      first: (statements.letters.all(sink, sink, from ?? null, limit) as LetterRow[]).map(letterOf),
    }),
    letter: (id) => {
      const row = statements.letter.get(sink, id) as LetterRow | undefined
      return row === undefined ? undefined : letterOf(row)
    },
    keys: (limit, from) =>
      (from === undefined
        ? statements.firstKeys.all(sink, limit)
        : statements.nextKeys.all(sink, from.collection, from.document, from.id, limit)) as DeadLetter['key'][],
    image: ({ collection, document, id }) => statements.image.get(sink, collection, document, id) as string | undefined,
  }
}

interface LetterRow {
  readonly id: string
  readonly collection: string
  readonly document: DocumentId
  readonly record: string
  readonly value: string | null
  readonly version: number
  readonly reason: string
  readonly state: DeadLetter['state']
  readonly at: number
  readonly event: string | null
}

function letterOf({ id, collection, document, record, value, version, reason, state, at, event }: LetterRow): DeadLetter {
  return {
    id,
    key: { collection, document, id: record },
    value: value === null ? null : (JSON.parse(value) as DeadLetter['value']),
    version,
    reason,
    state,
    at,
    ...(event === null ? {} : { event: JSON.parse(event) as JsonValue }),
  }
}
