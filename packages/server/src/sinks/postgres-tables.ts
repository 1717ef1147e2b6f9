/**
 * The tables of a Postgres sink (step 8 of the path): one for each target, made and widened to its fields, or only looked at. Names are quoted, never trusted.
 */
import type { Collections, FieldKind } from '@rejoin/shared'
import { SyncError } from '@rejoin/shared'
import type { Session } from './postgres-connect.ts'

/** One table to write to. */
export interface Table {
  /** The target's name. */
  readonly name: string
  /** With its schema, quoted. */
  readonly sql: string
  /** Of the target's fields, in their order. */
  readonly columns: readonly Column[]
}

export interface Column {
  readonly field: string
  readonly kind: FieldKind
  /** Quoted. */
  readonly sql: string
  readonly type: string
}

/** The version of the view at which a row was last written; 0: Rejoin never wrote it. */
export const STAMP = 'rejoin_version'

/** A calendar date is no timestamp and an instant may have any precision: both stay the ISO text that they are. */
const TYPES: Readonly<Record<FieldKind, string>> = {
  string: 'text',
  number: 'double precision',
  boolean: 'boolean',
  date: 'text',
  json: 'jsonb',
  text: 'text',
  richText: 'text',
}

/** Bytes of an identifier; Postgres silently cuts what is longer. */
const MAX_NAME_BYTES = 63

/** The tables of these targets in this schema. Throws `SyncError('bad_option')` for a target that has none. */
export function tablesOf(collections: Collections, untyped: readonly string[], schema: string): readonly Table[] {
  return Object.entries(collections).map(([name, { fields }]) => {
    if (untyped.includes(name))
      throw new SyncError(
        'bad_option',
        `postgres(): the projection to ${name} declares no fields, and a table needs columns; give it fields: { … }`,
      )
    for (const each of [name, ...Object.keys(fields)])
      if (Buffer.byteLength(each) > MAX_NAME_BYTES || each.includes('\0'))
        throw new SyncError(
          'bad_option',
          `postgres(): ${JSON.stringify(each)} is no name for Postgres: it takes at most ${MAX_NAME_BYTES} bytes, and no NUL`,
        )
    const columns = Object.entries(fields).map(([field, { kind }]) => ({ field, kind, sql: quote(field), type: TYPES[kind] }))
    return { name, sql: `${quote(schema)}.${quote(name)}`, columns }
  })
}

/** What there is of a table. */
export interface Found {
  readonly oid: string
  /** pg_class.relkind: 'r' and 'p' can be written to. */
  readonly kind: string
  /** Names of the primary key's columns. */
  readonly key: string
  /** Column → type. */
  readonly columns: ReadonlyMap<string, string>
}

/** Tables of the schema by name; undefined when there is no such schema. */
export async function inspect(session: Session, schema: string, names: readonly string[]): Promise<ReadonlyMap<string, Found> | undefined> {
  const schemas = await session.query('SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = $1', [schema])
  if (schemas.length === 0) return undefined
  const rows = (await session.query(
    `SELECT c.relname, c.oid::text, c.relkind::text,
       coalesce((SELECT string_agg(k.attname, ',' ORDER BY array_position(p.conkey, k.attnum)) FROM pg_catalog.pg_constraint p
         JOIN pg_catalog.pg_attribute k ON k.attrelid = p.conrelid AND k.attnum = ANY (p.conkey) WHERE p.conrelid = c.oid AND p.contype = 'p'), ''),
       coalesce((SELECT array_agg(a.attname::text ORDER BY a.attnum) FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), '{}'),
       coalesce((SELECT array_agg(pg_catalog.format_type(a.atttypid, a.atttypmod) ORDER BY a.attnum) FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), '{}')
     FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = ANY ($2::text[])
       AND c.relkind IN ('r', 'p', 'v', 'm', 'f')`,
    [schema, [...names]],
  )) as readonly [string, string, string, string, readonly string[], readonly string[]][]
  return new Map(
    rows.map(([name, oid, kind, key, columns, types]) => [
      name,
      { oid, kind, key, columns: new Map(columns.map((column, i) => [column, types[i] ?? ''])) },
    ]),
  )
}

/** DDL that makes the tables what they are to be; none when they are. Throws `SyncError('bad_option')` on a table that is not ours, or a column of another type. */
export function alterations(tables: readonly Table[], found: ReadonlyMap<string, Found> | undefined): readonly string[] {
  return tables.flatMap((table) => {
    const there = found?.get(table.name)
    if (there === undefined) return [create(table)]
    if (!isOurs(there))
      throw new SyncError(
        'bad_option',
        `postgres(): there is a ${there.kind === 'v' || there.kind === 'm' ? 'view' : 'table'} ${table.sql} already, and Rejoin did not make it: it lacks the primary key (document, id) or ${STAMP} bigint; rename one of them`,
      )
    return table.columns.flatMap((column) => {
      const type = there.columns.get(column.field)
      if (type === undefined) return [`ALTER TABLE ${table.sql} ADD COLUMN ${column.sql} ${column.type}`]
      if (type !== column.type)
        throw new SyncError(
          'bad_option',
          `postgres(): ${table.sql}.${column.sql} is ${type} there and would be ${column.type}; give the field another name, or drop the table, which is then written anew`,
        )
      return []
    })
  })
}

function isOurs({ kind, key, columns }: Found): boolean {
  return (
    (kind === 'r' || kind === 'p') &&
    key === 'document,id' &&
    columns.get(STAMP) === 'bigint' &&
    columns.get('document') === 'text' &&
    columns.get('id') === 'text'
  )
}

function create({ sql, columns }: Table): string {
  const fields = columns.map((column) => `${column.sql} ${column.type}, `).join('')
  // "C" is the order of bytes, which is the order of keys everywhere else.
  return `CREATE TABLE ${sql} (document text COLLATE "C" NOT NULL, id text COLLATE "C" NOT NULL, ${fields}${STAMP} bigint NOT NULL DEFAULT 0, PRIMARY KEY (document, id))`
}

/** As an identifier. */
export function quote(name: string): string {
  return `"${name.replaceAll('"', '""')}"`
}

/** As a text constant; standard_conforming_strings is on. */
export function literal(text: string): string {
  return `'${text.replaceAll("'", "''")}'`
}
