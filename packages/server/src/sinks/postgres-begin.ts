/**
 * The beginning of a Postgres sink (step 8 of the path): what has to be made or widened, whose destination it is, where it stands, and the next fence. One transaction.
 */
import { SyncError, canonicalJson } from '@rejoin/shared'
import type { Cells, Session } from './postgres-connect.ts'
import type { Bookkeeping } from './postgres-statements.ts'
import type { Found, Table } from './postgres-tables.ts'
import { STAMP, alterations, inspect, literal, quote } from './postgres-tables.ts'
import type { Key, Parked, SinkContext, SinkPlace, SinkStanding } from './sink.ts'

/** What stays the same as long as a sink is open. */
export interface Destination {
  readonly context: SinkContext
  readonly schema: string
  readonly books: Bookkeeping
  readonly tables: readonly Table[]
  /** 'given': no DDL at all. */
  readonly given: boolean
}

/** A parked row; its value lies in the destination. */
export interface ParkedRow extends Parked {
  /** The target it waits for; '*': a table that is no target of ours. Undefined: it is refused whatever else comes. */
  readonly waits: string | undefined
}

/** A sink that has begun. */
export interface Begun {
  readonly standing: SinkStanding
  readonly fence: number
  readonly parked: readonly ParkedRow[]
  /** Of all its tables: as long as these exist nobody has dropped one. */
  readonly oids: readonly string[]
}

const BOOKS = ['rejoin_cursor', 'rejoin_tombstones', 'rejoin_parked']

/** Prepares the schema and takes the next fence. */
export async function begin(session: Session, destination: Destination): Promise<Begun> {
  await session.query('BEGIN')
  try {
    const begun = await beginWithin(session, destination)
    await session.query('COMMIT')
    return begun
  } catch (error) {
    await session.query('ROLLBACK').catch(() => undefined)
    throw error
  }
}

/** DDL that `begin` would run. */
export async function plan(session: Session, destination: Destination): Promise<readonly string[]> {
  const found = await look(session, destination)
  return [...bookDdl(destination, found), ...alterations(destination.tables, found)]
}

async function beginWithin(session: Session, destination: Destination): Promise<Begun> {
  const { context, schema, books, tables, given } = destination
  const { name, log, adopt } = context
  // Two sinks that begin at once would make the same tables.
  await session.query('SELECT pg_advisory_xact_lock(hashtextextended($1, 0))', [`rejoin ${schema}`])
  const encoding = String((await session.query('SHOW server_encoding'))[0]?.[0])
  if (encoding !== 'UTF8') throw new SyncError('bad_option', `postgres(): the database's encoding is ${encoding}; it has to be UTF8`)
  const before = await look(session, destination)
  const cursor = before?.has('rejoin_cursor') === true ? await readCursor(session, destination) : undefined
  refuseOthers(destination, cursor)
  const ddl = [...bookDdl(destination, before), ...alterations(tables, before)]
  if (given && ddl.length > 0) throw new SyncError('bad_option', `postgres(): tables: 'given', and this is missing: ${ddl.join('; ')}`)
  for (const statement of ddl) await session.query(statement)

  const own = cursor?.own
  const declared = canonicalJson(context.collections)
  const adopted = own !== undefined && own.log !== log && adopt
  // Actions cannot be had again: what happens to the tables does not move their place.
  const isWhole = context.forward.strategy === 'actions' || (ddl.length === 0 && own?.declared === declared)
  const stands = own !== undefined && own.view !== null && !adopted && isWhole
  const place = stands ? placeOf(own) : undefined
  const stamp = own?.stamp ?? (await highestStamp(session, tables))
  const [row] = await session.query(
    `INSERT INTO ${books.cursor} AS c (sink, log, fence, view, version, stamp, mark, refreshed, targets, declared) VALUES ($1, $2, 1, $3, $4, $5, $6, $7, $8::text[], $9)
     ON CONFLICT (sink) DO UPDATE SET log = excluded.log, fence = c.fence + 1, view = excluded.view, mark = excluded.mark, refreshed = excluded.refreshed, targets = excluded.targets, declared = excluded.declared
     RETURNING fence`,
    [
      name,
      log,
      place?.view ?? null,
      own?.version ?? 0,
      stamp,
      place?.mark ?? null,
      stands ? own.refreshed : null,
      tables.map((table) => table.name),
      declared,
    ],
  )
  const after = ddl.length === 0 ? before : await look(session, destination)
  const parked = await readParked(session, destination)
  return {
    standing: { place, stamp, parked: parked.map(({ key, reason }) => ({ key, reason })) },
    fence: Number(row?.[0]),
    parked,
    oids: [...(after?.values() ?? [])].map(({ oid }) => oid),
  }
}

function look(session: Session, { schema, tables }: Destination): Promise<ReadonlyMap<string, Found> | undefined> {
  return inspect(session, schema, [...BOOKS, ...tables.map(({ name }) => name)])
}

function bookDdl({ schema, books }: Destination, found: ReadonlyMap<string, Found> | undefined): readonly string[] {
  const text = (name: string): string => `${name} text COLLATE "C" NOT NULL`
  const key = `${text('collection')}, ${text('document')}, ${text('id')}`
  const all = [
    // Little in a page, so that the row that every commit updates finds room beside itself.
    `CREATE TABLE ${books.cursor} (${text('sink')} PRIMARY KEY, log text NOT NULL, fence bigint NOT NULL, view text, version bigint NOT NULL, stamp bigint NOT NULL, mark text, refreshed text, targets text[] NOT NULL, declared text NOT NULL) WITH (fillfactor = 10)`,
    `CREATE TABLE ${books.tombstones} (${key}, ${STAMP} bigint NOT NULL, PRIMARY KEY (collection, document, id))`,
    // Keys as JSON, by their md5: the key that was refused may hold NUL, or be longer than an index takes.
    `CREATE TABLE ${books.parked} (sink text NOT NULL, key text NOT NULL, hash text NOT NULL, ${STAMP} bigint NOT NULL, reason text NOT NULL, waits text, value text, PRIMARY KEY (sink, hash))`,
  ]
  return [...(found === undefined ? [`CREATE SCHEMA ${quote(schema)}`] : []), ...all.filter((_, i) => found?.has(BOOKS[i] ?? '') !== true)]
}

interface CursorRow {
  readonly sink: string
  readonly log: string
  readonly view: string | null
  readonly version: number
  readonly stamp: number
  readonly mark: string | null
  readonly refreshed: string | null
  readonly targets: readonly string[]
  readonly declared: string
}

/** Our own row, locked, and those of other sinks in the same schema. */
async function readCursor(
  session: Session,
  { context, books }: Destination,
): Promise<{ readonly own: CursorRow | undefined; readonly others: readonly CursorRow[] }> {
  const columns = 'sink, log, view, version, stamp, mark, refreshed, targets, declared'
  const [own] = await session.query(`SELECT ${columns} FROM ${books.cursor} WHERE sink = $1 FOR UPDATE`, [context.name])
  const others = await session.query(`SELECT ${columns} FROM ${books.cursor} WHERE sink <> $1`, [context.name])
  return { own: own === undefined ? undefined : cursorRow(own), others: others.map(cursorRow) }
}

function cursorRow(cells: Cells): CursorRow {
  const [sink, log, view, version, stamp, mark, refreshed, targets, declared] = cells as [
    string,
    string,
    string | null,
    string,
    string,
    string | null,
    string | null,
    string[],
    string,
  ]
  return { sink, log, view, version: Number(version), stamp: Number(stamp), mark, refreshed, targets, declared }
}

/** Another log's destination, and tables that another sink keeps, are left alone. */
function refuseOthers(
  { context: { name, log, adopt }, schema, tables }: Destination,
  cursor: { readonly own: CursorRow | undefined; readonly others: readonly CursorRow[] } | undefined,
): void {
  const own = cursor?.own
  if (own !== undefined && own.log !== log && !adopt)
    throw new SyncError(
      'bad_option',
      `sink ${name}: the schema ${schema} mirrors the log ${own.log}, but this is the log ${log}; name another schema, or run rejoin sinks adopt ${name}`,
    )
  for (const other of cursor?.others ?? []) {
    const shared = tables.find((table) => other.targets.includes(table.name))
    if (shared !== undefined)
      throw new SyncError(
        'bad_option',
        `sink ${name}: the table ${shared.sql} is kept by the sink ${other.sink}; name another schema, or run rejoin sinks drop ${other.sink}`,
      )
  }
}

/** Where a row of the cursor says it is. */
export function placeOf(row: Pick<CursorRow, 'view' | 'version' | 'mark' | 'refreshed'>): SinkPlace | undefined {
  if (row.view === null) return undefined
  return {
    view: row.view,
    version: row.version,
    ...(row.mark === null ? {} : { mark: row.mark }),
    ...(row.refreshed === null ? {} : { refreshed: JSON.parse(row.refreshed) as Key | null }),
  }
}

/** The cursor was lost, and the rows were not: nothing may be stamped below them. */
async function highestStamp(session: Session, tables: readonly Table[]): Promise<number> {
  let highest = 0
  for (const { sql } of tables) {
    const [row] = await session.query(`SELECT max(${STAMP}) FROM ${sql}`)
    highest = Math.max(highest, Number(row?.[0] ?? 0))
  }
  return highest
}

export async function readParked(session: Session, { context, books }: Destination): Promise<readonly ParkedRow[]> {
  const rows = await session.query(`SELECT key, reason, waits FROM ${books.parked} WHERE sink = $1`, [context.name])
  return rows.map((cells) => {
    const [key, reason, waits] = cells as [string, string, string | null]
    const [collection, document, id] = JSON.parse(key) as [string, Key['document'], string]
    return { key: { collection, document, id }, reason, waits: waits ?? undefined }
  })
}

/** Where the destination is, as anybody may ask; undefined also where there is no cursor. */
export async function readPlace(session: Session, { context, books, schema }: Destination): Promise<SinkPlace | undefined> {
  const found = await inspect(session, schema, ['rejoin_cursor'])
  if (found?.has('rejoin_cursor') !== true) return undefined
  const [row] = await session.query(`SELECT view, version, mark, refreshed FROM ${books.cursor} WHERE sink = $1`, [context.name])
  if (row === undefined) return undefined
  const [view, version, mark, refreshed] = row as [string | null, string, string | null, string | null]
  return placeOf({ view, version: Number(version), mark, refreshed })
}

/** Removes the tables of this sink, and the bookkeeping when no other sink needs it. Tables that were given are emptied of what Rejoin wrote. */
export async function drop(session: Session, destination: Destination): Promise<void> {
  const { context, books, tables, given, schema } = destination
  const found = await look(session, destination)
  if (found?.has('rejoin_cursor') !== true) return
  await session.query('BEGIN')
  try {
    const targets = await session.query(`DELETE FROM ${books.cursor} WHERE sink = $1 RETURNING targets`, [context.name])
    const ours = new Set([...tables.map(({ name }) => name), ...targets.flatMap(([names]) => names as string[])])
    const there = await inspect(session, schema, [...ours])
    for (const [name, { columns }] of there ?? []) {
      if (!columns.has(STAMP)) continue
      const sql = `${quote(schema)}.${quote(name)}`
      await session.query(given ? `DELETE FROM ${sql} WHERE ${STAMP} > 0` : `DROP TABLE ${sql}`)
      if (found.has('rejoin_tombstones')) await session.query(`DELETE FROM ${books.tombstones} WHERE collection = ${literal(name)}`)
    }
    if (found.has('rejoin_parked')) await session.query(`DELETE FROM ${books.parked} WHERE sink = $1`, [context.name])
    const [left] = await session.query(`SELECT count(*) FROM ${books.cursor}`)
    if (!given && Number(left?.[0]) === 0) await session.query(`DROP TABLE IF EXISTS ${books.cursor}, ${books.tombstones}, ${books.parked}`)
    await session.query('COMMIT')
  } catch (error) {
    await session.query('ROLLBACK').catch(() => undefined)
    throw error
  }
}
