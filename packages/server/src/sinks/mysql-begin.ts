/**
 * The bookkeeping of a MySQL sink (step 8 of the path): whose destination it is, where it stands, what is parked, and the next fence. DDL ends a transaction here, so the place goes before it and comes back after it.
 */
import { createHash } from 'node:crypto'
import { SyncError, canonicalJson } from '@rejoin/shared'
import type { Session } from './mysql-connect.ts'
import { literal, quote } from './mysql-connect.ts'
import type { Found, Table } from './mysql-tables.ts'
import { STAMP, alterations, inspect } from './mysql-tables.ts'
import type { Key, Parked, SinkContext, SinkPlace, SinkStanding } from './sink.ts'

/** What stays the same as long as a sink is open. */
export interface Destination {
  readonly context: SinkContext
  readonly tables: readonly Table[]
}

/** A sink that has begun. */
export interface Begun {
  readonly standing: SinkStanding
  readonly fence: number
  /** Table → when it was made or altered. */
  readonly layout: string
}

const BOOKS: Readonly<Record<string, string>> = {
  rejoin_cursor:
    'sink VARCHAR(255) NOT NULL PRIMARY KEY, log VARCHAR(64) NOT NULL, fence BIGINT NOT NULL, view VARCHAR(64) NULL, version BIGINT NOT NULL, stamp BIGINT NOT NULL, mark VARCHAR(255) NULL, refreshed LONGTEXT NULL, targets LONGTEXT NOT NULL, declared LONGTEXT NOT NULL',
  // By the hash of the key: with the collection it may be longer than an index takes.
  rejoin_tombstones: `hash BINARY(32) NOT NULL PRIMARY KEY, collection VARCHAR(64) NOT NULL, document LONGTEXT NOT NULL, id LONGTEXT NOT NULL, ${STAMP} BIGINT NOT NULL`,
  rejoin_parked: `sink VARCHAR(255) NOT NULL, hash BINARY(32) NOT NULL, \`key\` LONGTEXT NOT NULL, ${STAMP} BIGINT NOT NULL, reason LONGTEXT NOT NULL, retry TINYINT(1) NOT NULL, value LONGTEXT NULL, PRIMARY KEY (sink, hash)`,
}
const LOCK_S = 10

/** A key in the bookkeeping, as a literal. */
export function hashOf({ collection, document, id }: Key): string {
  return `x'${createHash('sha256')
    .update(JSON.stringify([collection, document, id]))
    .digest('hex')}'`
}

/** Prepares the database and takes the next fence. */
export async function begin(session: Session, destination: Destination): Promise<Begun> {
  // Two sinks that begin at once would make the same tables.
  const lock = literal(createHash('sha256').update(`rejoin ${session.database}`).digest('hex').slice(0, 32))
  const [got] = await session.rows(`SELECT GET_LOCK(${lock}, ${LOCK_S})`)
  if (got?.[0] !== 1)
    throw new SyncError(
      'overloaded',
      `sink ${destination.context.name}: another sink begins in ${session.database}, for more than ${LOCK_S} s`,
    )
  try {
    return await beginWithin(session, destination)
  } finally {
    await session.rows(`SELECT RELEASE_LOCK(${lock})`).catch(() => undefined)
  }
}

/** DDL that `begin` would run. */
export async function plan(session: Session, { tables }: Destination): Promise<readonly string[]> {
  return ddl(session, tables, await look(session, tables))
}

function ddl(session: Session, tables: readonly Table[], found: ReadonlyMap<string, Found>): readonly string[] {
  const options = `ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=${session.collation} ROW_FORMAT=DYNAMIC`
  const books = Object.entries(BOOKS).filter(([name]) => !found.has(name))
  return [
    ...books.map(([name, columns]) => `CREATE TABLE ${name} (${columns}) ${options}`),
    ...alterations(tables, found, session.collation),
  ]
}

function look(session: Session, tables: readonly Table[]): Promise<ReadonlyMap<string, Found>> {
  return inspect(session, [...Object.keys(BOOKS), ...tables.map(({ name }) => name)])
}

async function beginWithin(session: Session, { context, tables }: Destination): Promise<Begun> {
  const { name, log, collections, forward } = context
  const before = await look(session, tables)
  const cursors = before.has('rejoin_cursor') ? await readCursors(session) : []
  refuseOthers(context, tables, cursors)
  const own = cursors.find(({ sink }) => sink === name)
  const changes = ddl(session, tables, before)
  const declared = canonicalJson({
    collections,
    revisions: Object.fromEntries(forward.projections.map(({ to, revision }) => [to, revision])),
  })
  const actions = forward.strategy === 'actions'
  const stands = own !== undefined && own.log === log && (actions || (changes.length === 0 && own.declared === declared))
  // Ended on the way, a table that was made anew would count as written.
  if (own !== undefined && !stands) await session.run(`UPDATE rejoin_cursor SET view = NULL WHERE sink = ${literal(name)}`)
  for (const change of changes) await session.rows(change)
  const stamp = own?.stamp ?? (await highestStamp(session, tables))
  const targets = literal(JSON.stringify(tables.map((table) => table.name)))
  await session.run('BEGIN')
  try {
    await session.run(
      `INSERT INTO rejoin_cursor (sink, log, fence, version, stamp, targets, declared) VALUES (${literal(name)}, ${literal(log)}, 1, 0, ${stamp}, ${targets}, ${literal(declared)})
       ON DUPLICATE KEY UPDATE log = VALUES(log), fence = fence + 1, targets = VALUES(targets), declared = VALUES(declared)`,
    )
    const [now] = (await readCursors(session)).filter(({ sink }) => sink === name)
    const parked = await readParked(session, name)
    await session.run('COMMIT')
    const place = now === undefined ? undefined : placeOf(now)
    return { standing: { place, stamp: now?.stamp ?? stamp, parked }, fence: now?.fence ?? 0, layout: await layoutOf(session, tables) }
  } catch (error) {
    await session.run('ROLLBACK').catch(() => undefined)
    throw error
  }
}

/** Changes when somebody drops, makes or alters a table of ours. */
export async function layoutOf(session: Session, tables: readonly Table[]): Promise<string> {
  const names = [...Object.keys(BOOKS), ...tables.map(({ name }) => name)].map(literal).join(', ')
  const rows = await session.rows(
    `SELECT TABLE_NAME, CREATE_TIME FROM information_schema.TABLES WHERE TABLE_SCHEMA = ${literal(session.database)} AND TABLE_NAME IN (${names}) ORDER BY TABLE_NAME`,
  )
  return JSON.stringify(rows)
}

export interface CursorRow {
  readonly sink: string
  readonly log: string
  readonly fence: number
  readonly view: string | null
  readonly version: number
  readonly stamp: number
  readonly mark: string | null
  readonly refreshed: string | null
  readonly targets: string
  readonly declared: string
}

export async function readCursors(session: Session): Promise<readonly CursorRow[]> {
  const rows = await session.rows('SELECT sink, log, fence, view, version, stamp, mark, refreshed, targets, declared FROM rejoin_cursor')
  return rows.map((cells) => {
    const [sink, log, fence, view, version, stamp, mark, refreshed, targets, declared] = cells as [
      string,
      string,
      unknown,
      string | null,
      unknown,
      unknown,
      string | null,
      string | null,
      string,
      string,
    ]
    return { sink, log, fence: Number(fence), view, version: Number(version), stamp: Number(stamp), mark, refreshed, targets, declared }
  })
}

/** Another log's destination, and tables that another sink keeps, are left alone. */
function refuseOthers({ name, log, adopt }: SinkContext, tables: readonly Table[], cursors: readonly CursorRow[]): void {
  const own = cursors.find(({ sink }) => sink === name)
  if (own !== undefined && own.log !== log && !adopt)
    throw new SyncError(
      'bad_option',
      `sink ${name}: that database mirrors the log ${own.log}, but this is the log ${log}; name another database, or run rejoin sinks adopt ${name}`,
    )
  for (const { sink, targets } of cursors) {
    if (sink === name) continue
    const theirs = JSON.parse(targets) as readonly string[]
    const shared = tables.find((table) => theirs.includes(table.name))
    if (shared !== undefined)
      throw new SyncError(
        'bad_option',
        `sink ${name}: the table ${shared.sql} is kept by the sink ${sink}; name another database, or run rejoin sinks drop ${sink}`,
      )
  }
}

export function placeOf({
  view,
  version,
  mark,
  refreshed,
}: Pick<CursorRow, 'view' | 'version' | 'mark' | 'refreshed'>): SinkPlace | undefined {
  if (view === null) return undefined
  return {
    view,
    version,
    ...(mark === null ? {} : { mark }),
    ...(refreshed === null ? {} : { refreshed: JSON.parse(refreshed) as Key | null }),
  }
}

/** The cursor was lost, and the rows were not: nothing may be stamped below them. */
async function highestStamp(session: Session, tables: readonly Table[]): Promise<number> {
  let highest = 0
  for (const { sql } of tables) {
    const [row] = await session.rows(`SELECT MAX(${STAMP}) FROM ${sql}`)
    highest = Math.max(highest, Number(row?.[0] ?? 0))
  }
  return highest
}

export async function readParked(session: Session, sink: string): Promise<readonly Parked[]> {
  const rows = await session.rows(`SELECT \`key\`, reason FROM rejoin_parked WHERE sink = ${literal(sink)}`)
  return rows.map(([key, reason]) => ({ key: keyOf(String(key)), reason: String(reason) }))
}

export function keyOf(text: string): Key {
  const [collection, document, id] = JSON.parse(text) as [string, Key['document'], string]
  return { collection, document, id }
}

/** Removes the tables of this sink, and the bookkeeping when no other sink needs it. */
export async function drop(session: Session, { context: { name }, tables }: Destination): Promise<void> {
  const found = await look(session, tables)
  if (!found.has('rejoin_cursor')) return
  const cursors = await readCursors(session)
  const targets = cursors.filter(({ sink }) => sink === name).flatMap((own) => JSON.parse(own.targets) as readonly string[])
  const ours = [...new Set([...tables.map((table) => table.name), ...targets])]
  const there = await inspect(session, ours)
  for (const table of ours) {
    if (there.get(table)?.columns.has(STAMP) === true) await session.rows(`DROP TABLE ${quote(table)}`)
    if (found.has('rejoin_tombstones')) await session.run(`DELETE FROM rejoin_tombstones WHERE collection = ${literal(table)}`)
  }
  if (found.has('rejoin_parked')) await session.run(`DELETE FROM rejoin_parked WHERE sink = ${literal(name)}`)
  await session.run(`DELETE FROM rejoin_cursor WHERE sink = ${literal(name)}`)
  if (cursors.every(({ sink }) => sink === name))
    for (const table of Object.keys(BOOKS)) await session.rows(`DROP TABLE IF EXISTS ${table}`)
}
