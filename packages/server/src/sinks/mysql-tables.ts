/**
 * The tables of a MySQL sink (step 8 of the path): one for each target, made and widened to its fields, and the statements that write to it. Names are quoted, values escaped.
 */
import type { Collections, FieldKind, JsonValue, RecordValue } from '@rejoin/shared'
import { SyncError, canonicalJson } from '@rejoin/shared'
import type { Session } from './mysql-connect.ts'
import { literal, quote } from './mysql-connect.ts'
import type { Key, SinkRow } from './sink.ts'

/** One table to write to. */
export interface Table {
  /** The target's name. */
  readonly name: string
  /** Quoted. */
  readonly sql: string
  readonly columns: readonly Column[]
}

export interface Column {
  readonly field: string
  readonly kind: FieldKind
  /** Quoted. */
  readonly sql: string
}

/** A value of a column. */
export type Cell = string | number | null

/** A row as the statement has it. */
export interface Tuple {
  readonly row: SinkRow
  readonly stamp: number
  /** document, id, for a row that is written its fields, stamp. */
  readonly text: string
  readonly bytes: number
}

/** The version of the view at which a row was last written; 0: Rejoin never wrote it. */
export const STAMP = 'rejoin_version'

/** Of a primary key 3,072 bytes, at four bytes a character. */
const MAX_DOCUMENT = 256
const MAX_ID = 512
const MAX_NAME = 64
/** What a statement has beside its rows. */
const STATEMENT_BYTES = 16 << 10

const TYPES: Readonly<Record<FieldKind, 'longtext' | 'varchar' | 'double' | 'tinyint'>> = {
  string: 'longtext',
  number: 'double',
  boolean: 'tinyint',
  // A calendar date is no timestamp and an instant may have any precision: both stay the ISO text that they are.
  date: 'varchar',
  json: 'longtext',
  text: 'longtext',
  richText: 'longtext',
}
const TEXTS: readonly string[] = ['longtext', 'mediumtext', 'text', 'varchar']

/** The tables of these targets. Throws `SyncError('bad_option')` for a target that has none. */
export function tablesOf(collections: Collections, untyped: readonly string[]): readonly Table[] {
  return Object.entries(collections).map(([name, { fields }]) => {
    if (untyped.includes(name))
      throw new SyncError(
        'bad_option',
        `mysql(): the projection to ${name} declares no fields, and a table needs columns; give it fields: { … }`,
      )
    for (const each of [name, ...Object.keys(fields)])
      if (each.length > MAX_NAME || /[\0/\\.]|\s$|^rejoin_/u.test(each))
        throw new SyncError('bad_option', `mysql(): ${JSON.stringify(each)} is no name for MySQL, or one that is kept for bookkeeping`)
    return { name, sql: quote(name), columns: Object.entries(fields).map(([field, { kind }]) => ({ field, kind, sql: quote(field) })) }
  })
}

/** What there is of a table: column → data type; and the primary key. */
export interface Found {
  readonly columns: ReadonlyMap<string, string>
  readonly key: string
  readonly engine: string
}

/** Tables of the database by name. */
export async function inspect(session: Session, names: readonly string[]): Promise<ReadonlyMap<string, Found>> {
  const listed = names.map(literal).join(', ')
  const where = `TABLE_SCHEMA = ${literal(session.database)} AND TABLE_NAME IN (${listed})`
  const tables = await session.rows(`SELECT TABLE_NAME, COALESCE(ENGINE, 'VIEW') FROM information_schema.TABLES WHERE ${where}`)
  const columns = await session.rows(
    `SELECT TABLE_NAME, COLUMN_NAME, DATA_TYPE, COLUMN_KEY = 'PRI' FROM information_schema.COLUMNS WHERE ${where} ORDER BY ORDINAL_POSITION`,
  )
  const found = new Map<string, Found>()
  for (const [name, engine] of tables as readonly [string, string][]) {
    const own = (columns as readonly [string, string, string, number][]).filter(([table]) => table === name)
    found.set(name, {
      engine,
      key: own
        .filter(([, , , isKey]) => isKey === 1)
        .map(([, column]) => column)
        .join(),
      columns: new Map(own.map(([, column, type]) => [column.toLowerCase(), type.toLowerCase()])),
    })
  }
  return found
}

/** DDL that makes the tables what they are to be. Throws `SyncError('bad_option')` on a table that is not ours, or a column of another type. */
export function alterations(tables: readonly Table[], found: ReadonlyMap<string, Found>, collation: string): readonly string[] {
  return tables.flatMap((table) => {
    const there = found.get(table.name)
    if (there === undefined) return [create(table, collation)]
    if (there.key !== 'document,id' || there.columns.get(STAMP) !== 'bigint' || there.engine !== 'InnoDB')
      throw new SyncError(
        'bad_option',
        `mysql(): there is a table ${table.sql} already, and Rejoin did not make it: it is no InnoDB table with the primary key (document, id) and ${STAMP} bigint; rename one of them`,
      )
    return table.columns.flatMap((column) => {
      const type = there.columns.get(column.field.toLowerCase())
      const wanted = TYPES[column.kind]
      if (type === undefined) return [`ALTER TABLE ${table.sql} ADD COLUMN ${columnSql(column, collation)}`]
      // Its owner may shorten a text, so that it can be indexed.
      if (type === wanted || (TEXTS.includes(type) && TEXTS.includes(wanted))) return []
      throw new SyncError(
        'bad_option',
        `mysql(): ${table.sql}.${column.sql} is ${type} there and would be ${wanted}; give the field another name, or drop the table, which is then written anew`,
      )
    })
  })
}

function create({ sql, columns }: Table, collation: string): string {
  const key = [`document VARCHAR(${MAX_DOCUMENT}) NOT NULL`, `id VARCHAR(${MAX_ID}) NOT NULL`]
  const all = [
    ...key,
    ...columns.map((column) => columnSql(column, collation)),
    `${STAMP} BIGINT NOT NULL DEFAULT 0`,
    'PRIMARY KEY (document, id)',
  ]
  return `CREATE TABLE ${sql} (${all.join(', ')}) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=${collation} ROW_FORMAT=DYNAMIC`
}

function columnSql({ sql, kind }: Column, collation: string): string {
  const text = `CHARACTER SET utf8mb4 COLLATE ${collation} NULL`
  switch (TYPES[kind]) {
    case 'longtext':
      return `${sql} LONGTEXT ${text}`
    case 'varchar':
      return `${sql} VARCHAR(64) ${text}`
    case 'double':
      return `${sql} DOUBLE NULL`
    default:
      return `${sql} TINYINT(1) NULL`
  }
}

/** The row as a statement has it, or why it cannot be there. */
export function tupleOf(table: Table, row: SinkRow, stamp: number, packet: number): Tuple | string {
  const { document, id } = row.key
  const characters = (text: string): number => (text.length <= MAX_DOCUMENT ? text.length : [...text].length)
  if (characters(document) > MAX_DOCUMENT || characters(id) > MAX_ID)
    return `its key is longer than an index of MySQL takes: the document at most ${MAX_DOCUMENT} characters, the id ${MAX_ID}`
  if (/\p{Surrogate}/u.test(document + id)) return 'its key is not well-formed Unicode'
  const cells = row.value === null ? [] : cellsOf(table, row.value)
  const text = `(${[literal(document), literal(id), ...cells.map(cellText), ...(row.value === null ? [] : [String(stamp)])].join(', ')})`
  const bytes = Buffer.byteLength(text)
  if (bytes + STATEMENT_BYTES > packet) return `it has ${bytes} bytes as SQL, more than the server's max_allowed_packet takes`
  return { row, stamp, text, bytes }
}

/** A row's fields as the server stores them. A value of another kind can only come of a schema that is being replaced, and is written again. */
export function cellsOf({ columns }: Table, value: RecordValue): readonly Cell[] {
  return columns.map(({ field, kind }) => cellOf(kind, Object.hasOwn(value, field) ? value[field] : null))
}

function cellOf(kind: FieldKind, value: JsonValue | undefined): Cell {
  if (value === null || value === undefined) return null
  switch (kind) {
    case 'number':
      return typeof value === 'number' && Number.isFinite(value) ? value : null
    case 'boolean':
      return typeof value === 'boolean' ? Number(value) : null
    case 'json':
      return canonicalJson(value)
    default:
      return typeof value === 'string' ? value : null
  }
}

function cellText(cell: Cell): string {
  // With its exponent a number is a DOUBLE from the beginning, not a DECIMAL of which digits may be lost.
  if (typeof cell === 'number') return Number.isInteger(cell) && Math.abs(cell) < 2 ** 53 ? String(cell) : cell.toExponential()
  return cell === null ? 'NULL' : literal(cell)
}

/** Writes rows; one that lies there with a higher stamp stays, unless by force. Fails when a row is in the way that is another key's. */
export function upsert(table: Table, tuples: readonly Tuple[], force: boolean): string {
  const names = ['document', 'id', ...table.columns.map(({ sql }) => sql), STAMP]
  const newer = (sql: string): string => (force ? `VALUES(${sql})` : `IF(${STAMP} <= VALUES(${STAMP}), VALUES(${sql}), ${sql})`)
  // Any unique index of the table's owner would do for ON DUPLICATE KEY, and the row of another key be overwritten: a scalar of two rows is an error.
  const same = 'document = IF(document = VALUES(document) AND id = VALUES(id), document, (SELECT 1 UNION SELECT 2))'
  // In their order, each seeing what the one before it did: the stamp is the last.
  const set = [same, ...table.columns.map(({ sql }) => `${sql} = ${newer(sql)}`), `${STAMP} = ${newer(STAMP)}`]
  return `INSERT INTO ${table.sql} (${names.join(', ')}) VALUES ${tuples.map(({ text }) => text).join(', ')} ON DUPLICATE KEY UPDATE ${set.join(', ')}`
}

/** Deletes rows of one stamp, likewise. */
export function remove(table: Table, tuples: readonly Tuple[], stamp: number, force: boolean): string {
  return `DELETE FROM ${table.sql} WHERE (document, id) IN (${tuples.map(({ text }) => text).join(', ')})${force ? '' : ` AND ${STAMP} <= ${stamp}`}`
}

/** The one row of this key. */
export function whereKey({ document, id }: Pick<Key, 'document' | 'id'>): string {
  return `document = ${literal(document)} AND id = ${literal(id)}`
}

/** One row where a row of its key lies; how many were found tells whether it was. */
export function update(table: Table, row: SinkRow & { readonly value: RecordValue }, stamp: number, force: boolean): string {
  const cells = cellsOf(table, row.value)
  const set = [...table.columns.map(({ sql }, i) => `${sql} = ${cellText(cells[i] ?? null)}`), `${STAMP} = ${stamp}`]
  return `UPDATE ${table.sql} SET ${set.join(', ')} WHERE ${whereKey(row.key)}${force ? '' : ` AND ${STAMP} <= ${stamp}`}`
}

/** One row where none lies. */
export function insert(table: Table, { text }: Tuple): string {
  return `INSERT INTO ${table.sql} (${['document', 'id', ...table.columns.map(({ sql }) => sql), STAMP].join(', ')}) VALUES ${text}`
}
