/**
 * The tables of Node's store, and the statements on them. Every function runs inside a transaction that its caller began.
 */
import { crc32 } from 'node:zlib'
import type { ChainHash, Cursor, DocumentId, IncarnationId, Lineage, Seq } from '@rejoin/shared'
import { fromHex, toHex } from '@rejoin/shared'
import type { SqliteDatabase, SqliteValue } from './sqlite-driver.ts'
import type { Commit, Loaded, OutboxRow, Pending } from './store.ts'
import { isStored, isReadable } from './store.ts'

/** Says that a file is ours: "Rjn1" in the header of the file. */
export const APPLICATION = 0x526a6e31
/** Raised with each change of the tables. */
export const REVISION = 1

/** `crc` is the CRC-32 of `bytes`. `aside` rows could not be read: they are kept, and nothing reads them. Outbox rows with a `code` are refused. */
export const SCHEMA: string = `
  CREATE TABLE documents (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, lineage BLOB, epoch INTEGER, seq INTEGER, hash BLOB) STRICT;
  CREATE TABLE updates (id INTEGER PRIMARY KEY, document INTEGER NOT NULL, bytes BLOB NOT NULL, crc INTEGER NOT NULL, aside INTEGER NOT NULL DEFAULT 0) STRICT;
  CREATE INDEX updates_of_document ON updates (document, id);
  CREATE TABLE outbox (document INTEGER NOT NULL, incarnation BLOB NOT NULL, n INTEGER NOT NULL, bytes BLOB NOT NULL, crc INTEGER NOT NULL, code TEXT, message TEXT, at REAL,
    PRIMARY KEY (document, incarnation, n)) STRICT;
  PRAGMA application_id = ${APPLICATION};
  PRAGMA user_version = ${REVISION};
`

/** What a load found amiss; the next cursor that is committed settles it. */
export interface Amiss {
  /** Rows of `updates` that cannot be read. */
  readonly unreadable: readonly number[]
  /** Own bytes of the outbox rows as loaded: the rows of `updates` that held them may be among those. */
  readonly rescued: readonly Uint8Array[]
}

/** The statements. `document` is a row of `documents`. */
export interface Rows {
  find(name: DocumentId): number | undefined
  create(name: DocumentId): number
  load(document: number, verify: boolean): Loaded & { readonly amiss: Amiss | undefined }
  outbox(document: number): readonly OutboxRow[]
  write(document: number, commit: Commit, settled: Amiss | undefined): void
  /** Folds readable rows into one where there are at least `least`. */
  trim(document: number, fold: (updates: Uint8Array[]) => Uint8Array, least: number): void
  pending(): readonly Pending[]
}

interface UpdateRow {
  readonly id: number
  readonly bytes: Uint8Array
  readonly crc: number
}

interface CursorRow {
  readonly lineage: Uint8Array | null
  readonly epoch: number
  readonly seq: number
  readonly hash: Uint8Array
}

interface OutboxRecord {
  readonly incarnation: Uint8Array
  readonly n: number
  readonly bytes: Uint8Array
  readonly crc: number
  readonly code: string | null
  readonly message: string
  readonly at: number
}

/** Prepares the statements. */
export function createRows(db: SqliteDatabase): Rows {
  const sql = prepareAll(db)
  const updatesOf = (document: number): readonly UpdateRow[] => sql.updates.all(document) as UpdateRow[]
  const outbox = (document: number): readonly OutboxRow[] => (sql.outbox.all(document) as OutboxRecord[]).map(outboxRow)
  const add = (document: number, updates: readonly Uint8Array[] = []): void => {
    for (const bytes of updates) sql.addUpdate.run(document, bytes, crc32(bytes))
  }

  function cursorOf(document: number): Cursor | undefined {
    const row = sql.cursor.get(document) as CursorRow
    if (row.lineage === null) return undefined
    return { lineage: toHex(row.lineage) as Lineage, epoch: row.epoch, seq: row.seq as Seq, hash: toHex(row.hash) as ChainHash }
  }

  function load(document: number, verify: boolean): Loaded & { readonly amiss: Amiss | undefined } {
    const rows = updatesOf(document)
    const readable = rows.filter((row) => isSound(row) && (!verify || isReadable(row.bytes)))
    const updates = readable.map(({ bytes }) => plain(bytes))
    const found = outbox(document)
    if (readable.length === rows.length) return { updates, cursor: cursorOf(document), outbox: found, foreign: false, amiss: undefined }
    const unreadable = rows.filter((row) => !readable.includes(row)).map(({ id }) => id)
    const rescued = found.map(({ update }) => update)
    return { updates: [...updates, ...rescued], outbox: found, foreign: true, amiss: { unreadable, rescued } }
  }

  function write(document: number, commit: Commit, settled: Amiss | undefined): void {
    add(document, commit.updates)
    for (const { incarnation, n, update, refused } of commit.put ?? []) {
      sql.put.run(
        document,
        fromHex(incarnation),
        n,
        update,
        crc32(update),
        refused?.code ?? null,
        refused?.message ?? null,
        refused?.at ?? null,
      )
    }
    for (const { incarnation, through } of commit.acked ?? []) sql.acked.run(document, fromHex(incarnation), through)
    for (const id of settled?.unreadable ?? []) sql.setAside.run(id)
    add(document, settled?.rescued)
    const { cursor } = commit
    const stored = cursor !== undefined && isStored(cursor, cursorOf(document))
    // What cannot be read may be what the stored cursor speaks of: then the relay's bytes are written all the same.
    if (!stored || settled !== undefined) add(document, commit.relayUpdates)
    if (cursor !== undefined && !stored)
      sql.setCursor.run(fromHex(cursor.lineage), cursor.epoch, cursor.seq, fromHex(cursor.hash), document)
  }

  return {
    find: (name) => (sql.find.get(name) as { id: number } | undefined)?.id,
    create: (name) => (sql.create.get(name) as { id: number }).id,
    load,
    outbox,
    write,
    trim: (document, fold, least) => {
      const rows = updatesOf(document).filter(isSound)
      if (rows.length < Math.max(2, least)) return
      const folded = fold(rows.map(({ bytes }) => plain(bytes)))
      for (const { id } of rows) sql.removeUpdate.run(id)
      add(document, [folded])
    },
    pending: () => sql.pending.all() as Pending[],
  }
}

function prepareAll(db: SqliteDatabase) {
  return {
    find: db.prepare('SELECT id FROM documents WHERE name = ?'),
    create: db.prepare('INSERT INTO documents (name) VALUES (?) RETURNING id'),
    cursor: db.prepare('SELECT lineage, epoch, seq, hash FROM documents WHERE id = ?'),
    setCursor: db.prepare('UPDATE documents SET lineage = ?, epoch = ?, seq = ?, hash = ? WHERE id = ?'),
    updates: db.prepare('SELECT id, bytes, crc FROM updates WHERE document = ? AND aside = 0 ORDER BY id'),
    addUpdate: db.prepare('INSERT INTO updates (document, bytes, crc) VALUES (?, ?, ?)'),
    removeUpdate: db.prepare('DELETE FROM updates WHERE id = ?'),
    setAside: db.prepare('UPDATE updates SET aside = 1 WHERE id = ?'),
    outbox: db.prepare('SELECT incarnation, n, bytes, crc, code, message, at FROM outbox WHERE document = ? ORDER BY incarnation, n'),
    put: db.prepare(
      'INSERT OR REPLACE INTO outbox (document, incarnation, n, bytes, crc, code, message, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)',
    ),
    acked: db.prepare('DELETE FROM outbox WHERE document = ? AND incarnation = ? AND n <= ? AND code IS NULL'),
    pending: db.prepare(`SELECT documents.name AS document, count(*) FILTER (WHERE code IS NULL) AS rows, count(code) AS refused
      FROM outbox JOIN documents ON documents.id = outbox.document GROUP BY documents.id`),
  } satisfies Record<string, { run(...values: SqliteValue[]): unknown }>
}

/** A row that cannot be read is shown as refused: it is never sent, and never lost. */
function outboxRow(record: OutboxRecord): OutboxRow {
  const { incarnation, n, bytes, code, message, at } = record
  const row = { incarnation: toHex(incarnation) as IncarnationId, n, update: plain(bytes) }
  if (code !== null) return { ...row, refused: { code, message, at } }
  return isSound(record)
    ? row
    : { ...row, refused: { code: 'store_failed', message: 'the stored bytes do not have their checksum', at: 0 } }
}

function isSound({ bytes, crc }: { readonly bytes: Uint8Array; readonly crc: number }): boolean {
  return crc32(bytes) === crc
}

/** better-sqlite3 gives Buffers, whose slice and JSON are others than those of a Uint8Array. */
function plain(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}
