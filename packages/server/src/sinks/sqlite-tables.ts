/**
 * The mirror's tables (step 8 of the path): one per collection, made and widened to the schema; names quoted, values bound.
 */
import type { CollectionSchema, Collections, FieldKind, JsonValue, RecordValue } from '@rejoin/shared'
import { SyncError, canonicalJson } from '@rejoin/shared'
import type Database from 'better-sqlite3'
import type { Key, SinkContext } from './sink.ts'

/** Writes to and reads from one table. */
export interface TableWriter {
  put(key: Key, value: RecordValue, version: number): void
  remove(key: Key, version: number): void
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
const STAMP = 'rejoin_version'

interface Column {
  readonly name: string
  readonly type: string
  readonly pk: number
}

/** Makes the tables and columns that are missing, and says whether any was. Throws `SyncError('bad_option')` on a table that is not a mirror of the collection. */
export function prepareTables(db: Database.Database, collections: Collections): boolean {
  let changed = false
  for (const [name, collection] of Object.entries(collections)) {
    if (/^sqlite_/iu.test(name))
      throw new SyncError('bad_option', `collection ${name}: SQLite keeps names that begin with sqlite_ for itself`)
    const table = quote(name)
    const columns = db.pragma(`table_xinfo(${table})`) as Column[]
    if (columns.length === 0) {
      const fields = columnsOf(collection).map((column) => `${quote(column.name)} ${column.type}, `)
      db.exec(
        `CREATE TABLE ${table} (document TEXT NOT NULL, id TEXT NOT NULL, ${fields.join('')}${STAMP} INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (document, id))`,
      )
      changed = true
      continue
    }
    refuseForeign(db.name, name, columns)
    for (const column of columnsOf(collection)) {
      const there = columns.find((each) => each.name.toLowerCase() === column.name.toLowerCase())
      if (there === undefined) {
        db.exec(`ALTER TABLE ${table} ADD COLUMN ${quote(column.name)} ${column.type}`)
        changed = true
      } else if (there.type !== column.type) {
        throw new SyncError(
          'bad_option',
          `${db.name}: ${name}.${column.name} is ${there.type || 'untyped'} there and would be ${column.type}; give the field another name, or drop the table ${name}, which is then written anew`,
        )
      }
    }
  }
  return changed
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
export function createTableWriters(db: Database.Database, { collections }: SinkContext): ReadonlyMap<string, TableWriter> {
  return new Map(Object.entries(collections).map(([name, collection]) => [name, createTableWriter(db, name, collection)]))
}

function createTableWriter(db: Database.Database, name: string, collection: CollectionSchema): TableWriter {
  const table = quote(name)
  const fields = Object.entries(collection.fields)
  const columns = ['document', 'id', ...fields.map(([field]) => quote(field)), STAMP]
  const updates = columns.slice(2).map((column) => `${column} = excluded.${column}`)
  const tombstone = 'rejoin_tombstones WHERE collection = ? AND document = ? AND id = ?'
  // Stored stamp ≤ incoming, for the row as for its tombstone: an older write never undoes a newer one.
  const put = db.prepare(
    `INSERT INTO ${table} (${columns.join(', ')}) SELECT ${columns.map(() => '?').join(', ')} WHERE NOT EXISTS (SELECT 1 FROM ${tombstone} AND ${STAMP} > ?)
     ON CONFLICT (document, id) DO UPDATE SET ${updates.join(', ')} WHERE ${STAMP} <= excluded.${STAMP}`,
  )
  const revive = db.prepare(`DELETE FROM ${tombstone} AND ${STAMP} <= ?`)
  const remove = db.prepare(`DELETE FROM ${table} WHERE document = ? AND id = ? AND ${STAMP} <= ?`)
  const bury = db.prepare(
    `INSERT INTO rejoin_tombstones SELECT ?, ?, ?, ? WHERE NOT EXISTS (SELECT 1 FROM ${table} WHERE document = ? AND id = ?)
     ON CONFLICT (collection, document, id) DO UPDATE SET ${STAMP} = max(${STAMP}, excluded.${STAMP})`,
  )
  const first = db.prepare(`SELECT document, id FROM ${table} ORDER BY document, id LIMIT ?`)
  const next = db.prepare(`SELECT document, id FROM ${table} WHERE (document, id) > (?, ?) ORDER BY document, id LIMIT ?`)
  return {
    put: ({ document, id }, value, version) => {
      const cells = fields.map(([field, { kind }]) => cellOf(kind, Object.hasOwn(value, field) ? value[field] : null))
      put.run(document, id, ...cells, version, name, document, id, version)
      revive.run(name, document, id, version)
    },
    remove: ({ document, id }, version) => {
      // Also for a key that was never here: what is older than this deletion must not bring it.
      remove.run(document, id, version)
      bury.run(name, document, id, version, document, id)
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

/** A field's value as SQLite stores it. A value of another kind can only come of a schema that is being replaced, and is written again. */
function cellOf(kind: FieldKind, value: JsonValue | undefined): string | number | null {
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

function quote(name: string): string {
  return `"${name.replaceAll('"', '""')}"`
}
