/**
 * The statements of a Postgres sink (step 8 of the path). A small commit is one of them: everything hangs on the update of the cursor, which happens only while the fence is ours and the place is where we left it.
 */
import type { SinkPlace } from './sink.ts'
import type { CellRow } from './postgres-cells.ts'
import { arrayText, stampsText } from './postgres-cells.ts'
import type { Table } from './postgres-tables.ts'
import { STAMP, literal, quote } from './postgres-tables.ts'

/** What a commit does to one table. */
export interface TableRows {
  readonly table: Table
  readonly deletes: readonly CellRow[]
  readonly upserts: readonly CellRow[]
}

/** How strictly stored stamps are looked at. */
export interface Guard {
  /** A repair: whatever is stored is replaced. */
  readonly force: boolean
  /** The commit is stamped below something that was written before: what was deleted since must not come back. */
  readonly below: boolean
  /** Each row has a stamp of its own. */
  readonly stamped: boolean
}

/** A statement and its values. */
export interface Statement {
  readonly text: string
  readonly values: readonly unknown[]
}

/** Names of the bookkeeping's tables, and statements on them. */
export interface Bookkeeping {
  readonly cursor: string
  readonly tombstones: string
  readonly parked: string
}

export function bookkeepingIn(schema: string): Bookkeeping {
  const name = (table: string): string => `${quote(schema)}.${table}`
  return { cursor: name('rejoin_cursor'), tombstones: name('rejoin_tombstones'), parked: name('rejoin_parked') }
}

/** Whose cursor, and from where to where it moves: the first values of `moveCursor` and `oneStatement`. */
export interface Move {
  readonly sink: string
  readonly fence: number
  readonly from: SinkPlace | undefined
  readonly to: SinkPlace
}

/** The stamp of the commit among the values of a move. */
const VERSION = '$8::bigint'
/** That of each row. */
const OWN_STAMP = `k.${STAMP}`
const PLAIN = { stamped: false }

/** Moves the cursor; gives a row if it was ours and where we left it. */
export function moveCursor({ cursor }: Bookkeeping, move: Move): Statement {
  return { text: moveText(cursor), values: moveValues(move) }
}

function moveText(cursor: string): string {
  return (
    `UPDATE ${cursor} SET view = $7::text, version = ${VERSION}, mark = $9::text, refreshed = $10::text, stamp = greatest(stamp, ${VERSION}) ` +
    'WHERE sink = $1::text AND fence = $2::bigint AND view IS NOT DISTINCT FROM $3::text ' +
    'AND ($3::text IS NULL OR version = $4::bigint AND mark IS NOT DISTINCT FROM $5::text AND refreshed IS NOT DISTINCT FROM $6::text) RETURNING 1'
  )
}

function moveValues({ sink, fence, from, to }: Move): unknown[] {
  return [sink, fence, ...placeValues(from), ...placeValues(to)]
}

function placeValues(place: SinkPlace | undefined): unknown[] {
  return [place?.view ?? null, place?.version ?? 0, place?.mark ?? null, refreshedText(place)]
}

/** As the cursor holds it: null for whole, otherwise JSON of the key, which may be null. */
function refreshedText(place: SinkPlace | undefined): string | null {
  return place?.refreshed === undefined ? null : JSON.stringify(place.refreshed)
}

/** A whole commit as one statement, and a name under which to prepare its text. It gives a row if the cursor moved; otherwise it did nothing. */
export function oneStatement(books: Bookkeeping, move: Move, all: readonly TableRows[], guard: Guard): Statement {
  const values = moveValues(move)
  const place = (value: unknown): string => `$${values.push(value)}`
  const parts = [`f AS (${moveText(books.cursor)})`]
  const version = guard.stamped ? OWN_STAMP : VERSION
  let before: string | undefined
  // A part begins when the one before has ended: what leaves makes room for what comes, and tables are written in their order.
  const add = (name: string, write: (given: string) => string): void => {
    parts.push(`${name} AS (${write(before === undefined ? 'f, ' : `f, (SELECT count(*) FROM ${before}) AS o, `)} RETURNING 1)`)
    before = name
  }
  for (const [i, { table, deletes }] of all.entries()) {
    if (deletes.length === 0) continue
    const source = keysSource(deletes, place, guard)
    add(`d${i}`, (given) => remove(table, given + source, version, guard))
    parts.push(`t${i} AS (${bury(books, table, `f, ${source}`, version, guard)})`)
  }
  for (const [i, { table, upserts }] of all.entries()) {
    if (upserts.length === 0) continue
    const source = rowsSource(table, upserts, place, guard)
    add(`u${i}`, (given) => upsert(books, table, given + source, version, guard))
  }
  return { text: `WITH ${parts.join(', ')} SELECT 1 FROM f`, values }
}

/** Deletes of one table, when the cursor was moved before in the same transaction. */
export function removeRows(table: Table, rows: readonly CellRow[], version: number, guard: Guard): Statement {
  return statement(version, guard, (place, stamp) => remove(table, keysSource(rows, place, guard), stamp, guard))
}

/** Remembers that these keys were deleted. */
export function buryRows(books: Bookkeeping, table: Table, rows: readonly CellRow[], version: number, guard: Guard): Statement {
  return statement(version, guard, (place, stamp) => bury(books, table, keysSource(rows, place, guard), stamp, guard))
}

/** Forgets that these keys were deleted: what was written by force must not be held off by it. */
export function unburyRows({ tombstones }: Bookkeeping, table: Table, rows: readonly CellRow[]): Statement {
  const values: unknown[] = [table.name]
  const source = keysSource(rows, (value) => `$${values.push(value)}`, PLAIN)
  return {
    text: `DELETE FROM ${tombstones} AS b USING ${source} WHERE b.collection = $1 AND b.document = k.document AND b.id = k.id`,
    values,
  }
}

/** Upserts of one table, likewise. */
export function upsertRows(books: Bookkeeping, table: Table, rows: readonly CellRow[], version: number, guard: Guard): Statement {
  return statement(version, guard, (place, stamp) => upsert(books, table, rowsSource(table, rows, place, guard), stamp, guard))
}

/** Upserts what was copied into the staging table. */
export function upsertStaged(books: Bookkeeping, table: Table, staging: string, version: number, guard: Guard): Statement {
  return { text: upsert(books, table, `${staging} AS k`, '$1::bigint', guard), values: [version] }
}

/** A statement whose rows are stamped with the version, or each with its own. */
function statement(version: number, { stamped }: Guard, write: (place: (value: unknown) => string, stamp: string) => string): Statement {
  const values: unknown[] = []
  const place = (value: unknown): string => `$${values.push(value)}`
  const text = write(place, stamped ? OWN_STAMP : String(version))
  return { text, values }
}

/** A table of the session's own that rows are copied into; it is empty at the end of every transaction. */
export function createStaging(table: Table, staging: string): string {
  const columns = ['document text', 'id text', ...table.columns.map(({ sql, type }) => `${sql} ${type}`)]
  return `CREATE TEMPORARY TABLE ${staging} (${columns.join(', ')}) ON COMMIT DELETE ROWS`
}

function keysSource(rows: readonly CellRow[], place: (value: unknown) => string, { stamped }: Pick<Guard, 'stamped'>): string {
  const stamps = stamped ? `, ${place(stampsText(rows))}::bigint[]` : ''
  return `unnest(${place(arrayText(rows, 0))}::text[], ${place(arrayText(rows, 1))}::text[]${stamps}) AS k(document, id${stamped ? `, ${STAMP}` : ''})`
}

function rowsSource(table: Table, rows: readonly CellRow[], place: (value: unknown) => string, { stamped }: Guard): string {
  const columns = [{ sql: 'document', type: 'text' }, { sql: 'id', type: 'text' }, ...table.columns]
  const arrays = columns.map(({ type }, i) => `${place(arrayText(rows, i))}::${type}[]`)
  if (stamped) arrays.push(`${place(stampsText(rows))}::bigint[]`)
  return `unnest(${arrays.join(', ')}) AS k(${columns.map(({ sql }) => sql).join(', ')}${stamped ? `, ${STAMP}` : ''})`
}

function remove(table: Table, source: string, version: string, { force }: Guard): string {
  return `DELETE FROM ${table.sql} AS r USING ${source} WHERE r.document = k.document AND r.id = k.id${force ? '' : ` AND r.${STAMP} <= ${version}`}`
}

/** Also for a key that was never here: what is older than this deletion must not bring it. */
function bury({ tombstones }: Bookkeeping, table: Table, source: string, version: string, { force }: Guard): string {
  return (
    `INSERT INTO ${tombstones} AS b SELECT ${literal(table.name)}, k.document, k.id, ${version} FROM ${source} ` +
    `ON CONFLICT (collection, document, id) DO UPDATE SET ${STAMP} = ${force ? '' : `greatest(b.${STAMP}, `}excluded.${STAMP}${force ? '' : ')'}`
  )
}

function upsert({ tombstones }: Bookkeeping, table: Table, source: string, version: string, { force, below }: Guard): string {
  const names = ['document', 'id', ...table.columns.map(({ sql }) => sql)]
  const set = [...table.columns.map(({ sql }) => sql), STAMP].map((column) => `${column} = excluded.${column}`)
  const alive =
    force || !below
      ? ''
      : `WHERE NOT EXISTS (SELECT FROM ${tombstones} AS b WHERE b.collection = ${literal(table.name)} AND b.document = k.document AND b.id = k.id AND b.${STAMP} > ${version}) `
  return (
    `INSERT INTO ${table.sql} AS r (${names.join(', ')}, ${STAMP}) SELECT ${names.map((name) => `k.${name}`).join(', ')}, ${version} FROM ${source} ${alive}` +
    `ON CONFLICT (document, id) DO UPDATE SET ${set.join(', ')}${force ? '' : ` WHERE r.${STAMP} <= excluded.${STAMP}`}`
  )
}
