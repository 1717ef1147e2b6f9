/**
 * The mirror's tables (step 8 of the path): one per target, made and widened to its fields; names quoted, values bound.
 */
import type { CollectionSchema, Collections, FieldKind, JsonValue, RecordValue } from '@rejoin/shared'
import { SyncError, canonicalJson } from '@rejoin/shared'
import type Database from 'better-sqlite3'
import type { Key } from './sink.ts'

/** A value of a column. */
export type Cell = string | number | null

/** Writes to and reads from one table. */
export interface TableWriter {
  /** At the beginning of every transaction. */
  begin(): void
  /** Where the stored stamp is not above `version`, or by force. */
  put(key: Key, value: RecordValue, version: number, force: boolean): void
  remove(key: Key, version: number, force: boolean): void
  /** Takes a row out for the moment, to be put again in the same transaction; false when a newer one lies there. */
  lift(key: Key, version: number, force: boolean): boolean
  keys(limit: number, from?: Key): readonly Key[]
}

/** Field kind → column type. NUMERIC keeps whole numbers as integers and others as reals. */
const TYPES: Readonly<Record<FieldKind, string>> = {
  string: 'TEXT',
  number: 'NUMERIC',
  boolean: 'INTEGER',
  date: 'TEXT',
  json: 'TEXT',
  text: 'TEXT',
  richText: 'TEXT',
}

/** The version of the view at which the row was last written. */
export const STAMP = 'rejoin_version'

interface Column {
  readonly name: string
  readonly type: string
  readonly pk: number
}

/** Statements that make the tables and columns which are missing. Throws `SyncError('bad_option')` on a table that is not a mirror of the collection. */
export function planTables(db: Database.Database, collections: Collections): readonly string[] {
  return Object.entries(collections).flatMap(([name, collection]) => {
    if (/^(?:sqlite|rejoin)_/iu.test(name))
      throw new SyncError('bad_option', `collection ${name}: names that begin with sqlite_ or rejoin_ are kept for bookkeeping`)
    refuseNames(name, Object.keys(collection.fields))
    const columns = db.pragma(`table_xinfo(${quote(name)})`) as Column[]
    if (columns.length === 0) return [createTable(name, collection)]
    refuseForeign(db.name, name, columns)
    return columnsOf(collection).flatMap((column) => {
      const there = columns.find((each) => each.name.toLowerCase() === column.name.toLowerCase())
      if (there === undefined) return [`ALTER TABLE ${quote(name)} ADD COLUMN ${quote(column.name)} ${column.type}`]
      if (there.type === column.type) return []
      throw new SyncError(
        'bad_option',
        `${db.name}: ${name}.${column.name} is ${there.type || 'untyped'} there and would be ${column.type}; give the field another name, or drop the table ${name}, which is then written anew`,
      )
    })
  })
}

function createTable(name: string, collection: CollectionSchema): string {
  const fields = columnsOf(collection).map((column) => `${quote(column.name)} ${column.type}, `)
  return `CREATE TABLE ${quote(name)} (document TEXT NOT NULL, id TEXT NOT NULL, ${fields.join('')}${STAMP} INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (document, id))`
}

/** SQLite takes names for equal that differ in case only. */
function refuseNames(name: string, fields: readonly string[]): void {
  const taken = new Set(['document', 'id', STAMP])
  for (const field of fields) {
    if (taken.has(field.toLowerCase()))
      throw new SyncError(
        'bad_option',
        `${name}.${field}: SQLite has that column already (names differ by more than their case); give the field another name`,
      )
    taken.add(field.toLowerCase())
  }
}

/** Only what Rejoin made is written to: its key and its stamp tell. */
function refuseForeign(file: string, name: string, columns: readonly Column[]): void {
  const key = columns
    .filter(({ pk }) => pk > 0)
    .sort((a, b) => a.pk - b.pk)
    .map((column) => column.name)
  if (key.join() === 'document,id' && columns.some((column) => column.name === STAMP)) return
  throw new SyncError('bad_option', `${file}: there is a table ${name} already, and it is not a mirror; rename one of them`)
}

/** Prepares the statements of every table. */
export function createTableWriters(db: Database.Database, collections: Collections): ReadonlyMap<string, TableWriter> {
  return new Map(Object.entries(collections).map(([name, collection]) => [name, createTableWriter(db, name, collection)]))
}

function createTableWriter(db: Database.Database, name: string, collection: CollectionSchema): TableWriter {
  const table = quote(name)
  const columns = ['document', 'id', ...Object.keys(collection.fields).map(quote), STAMP]
  const updates = columns.slice(2).map((column) => `${column} = excluded.${column}`)
  const tombstone = 'rejoin_tombstones WHERE collection = ? AND document = ? AND id = ?'
  // Stored stamp ≤ incoming, for the row as for its tombstone: an older write never undoes a newer one, unless by force.
  const put = db.prepare(
    `INSERT INTO ${table} (${columns.join(', ')}) SELECT ${columns.map(() => '?').join(', ')} WHERE ? OR NOT EXISTS (SELECT 1 FROM ${tombstone} AND ${STAMP} > ?)
     ON CONFLICT (document, id) DO UPDATE SET ${updates.join(', ')} WHERE ? OR ${STAMP} <= excluded.${STAMP}`,
  )
  // Most targets have no tombstone at all: nothing is looked up in the table of them, nor taken out of it.
  const putAlone = db.prepare(
    `INSERT INTO ${table} (${columns.join(', ')}) VALUES (${columns.map(() => '?').join(', ')})
     ON CONFLICT (document, id) DO UPDATE SET ${updates.join(', ')} WHERE ? OR ${STAMP} <= excluded.${STAMP}`,
  )
  const buried = db.prepare('SELECT 1 FROM rejoin_tombstones WHERE collection = ? LIMIT 1').pluck()
  let hasTombstones = true
  const revive = db.prepare(`DELETE FROM ${tombstone} AND (? OR ${STAMP} <= ?)`)
  const remove = db.prepare(`DELETE FROM ${table} WHERE document = ? AND id = ? AND (? OR ${STAMP} <= ?)`)
  const bury = db.prepare(
    `INSERT INTO rejoin_tombstones SELECT ?, ?, ?, ? WHERE NOT EXISTS (SELECT 1 FROM ${table} WHERE document = ? AND id = ?)
     ON CONFLICT (collection, document, id) DO UPDATE SET ${STAMP} = iif(?, excluded.${STAMP}, max(${STAMP}, excluded.${STAMP}))`,
  )
  const there = db.prepare(`SELECT 1 FROM ${table} WHERE document = ? AND id = ?`).pluck()
  const first = db.prepare(`SELECT document, id FROM ${table} ORDER BY document, id LIMIT ?`)
  const next = db.prepare(`SELECT document, id FROM ${table} WHERE (document, id) > (?, ?) ORDER BY document, id LIMIT ?`)
  return {
    begin: () => {
      hasTombstones = buried.get(name) !== undefined
    },
    put: ({ document, id }, value, version, force) => {
      const forced = Number(force)
      if (!hasTombstones) {
        putAlone.run(document, id, ...cellsOf(collection, value), version, forced)
        return
      }
      put.run(document, id, ...cellsOf(collection, value), version, forced, name, document, id, version, forced)
      revive.run(name, document, id, forced, version)
    },
    remove: ({ document, id }, version, force) => {
      // Also for a key that was never here: what is older than this deletion must not bring it.
      remove.run(document, id, Number(force), version)
      bury.run(name, document, id, version, document, id, Number(force))
      hasTombstones = true
    },
    lift: ({ document, id }, version, force) => {
      remove.run(document, id, Number(force), version)
      return there.get(document, id) === undefined
    },
    keys: (limit, from) => {
      const rows = (from === undefined ? first.all(limit) : next.all(from.document, from.id, limit)) as Pick<Key, 'document' | 'id'>[]
      return rows.map(({ document, id }) => ({ collection: name, document, id }))
    },
  }
}

function columnsOf(collection: CollectionSchema): readonly { readonly name: string; readonly type: string }[] {
  return Object.entries(collection.fields).map(([name, { kind }]) => ({ name, type: TYPES[kind] }))
}

/** A row's fields as SQLite stores them, in the order of the fields. */
export function cellsOf({ fields }: CollectionSchema, value: RecordValue): readonly Cell[] {
  const cells: Cell[] = []
  for (const field in fields) cells.push(cellOf(fields[field]?.kind ?? 'string', Object.hasOwn(value, field) ? value[field] : null))
  return cells
}

/** A value of another kind can only come of a schema that is being replaced, and is written again. */
function cellOf(kind: FieldKind, value: JsonValue | undefined): Cell {
  if (value === null || value === undefined) return null
  switch (kind) {
    case 'number':
      return typeof value === 'number' ? value : null
    case 'boolean':
      return typeof value === 'boolean' ? Number(value) : null
    case 'json':
      return canonicalJson(value)
    default:
      return typeof value === 'string' ? value : null
  }
}

/** A name in a statement. */
export function quote(name: string): string {
  return `"${name.replaceAll('"', '""')}"`
}
