/**
 * One commit into Postgres (step 8 of the path): a small one is a single statement, and so a single round trip; a large one, or one with a row that is refused, is a transaction that begins with the cursor.
 */
import { createHash } from 'node:crypto'
import type { RecordValue } from '@rejoin/shared'
import { canonicalJson } from '@rejoin/shared'
import type { Hand, Refusal } from './postgres-apply.ts'
import { COPY_ROWS, apply, copyRows, isRefusal, makeStaging } from './postgres-apply.ts'
import type { Begun, Destination, ParkedRow } from './postgres-begin.ts'
import { placeOf } from './postgres-begin.ts'
import type { CellRow } from './postgres-cells.ts'
import { cellsOf } from './postgres-cells.ts'
import type { Session } from './postgres-connect.ts'
import { failure } from './postgres-connect.ts'
import type { Guard, TableRows } from './postgres-statements.ts'
import { moveCursor, oneStatement } from './postgres-statements.ts'
import { STAMP, alterations, inspect } from './postgres-tables.ts'
import type { Table } from './postgres-tables.ts'
import type { Key, Parked, SinkCommit, SinkOutcome, SinkPlace, SinkRow } from './sink.ts'
import { isSamePlace, keyText } from './sink.ts'

/** Parked rows that one commit tries again. */
const RETRIES = 2_000
/** Texts that a session keeps prepared: one for each set of tables that commits touch. */
const MAX_PREPARED = 200

/** Rows that come together, each key once. */
interface Run {
  readonly rows: readonly SinkRow[]
  readonly all: readonly TableRows[]
  readonly refused: readonly Refusal[]
}

/** The commits of one sink that has begun. */
export function createCommit(session: Session, destination: Destination, begun: Begun): (commit: SinkCommit) => Promise<SinkOutcome> {
  const { context, books, tables } = destination
  const byName = new Map(tables.map((table) => [table.name, table]))
  const parked = new Map(begun.parked.map((row) => [keyText(row.key), row]))
  /** Parked rows whose reason may have gone. */
  const due = new Set<string>()
  const prepared = new Map<string, string>()
  /** Undefined: this role may not make temporary tables. */
  const stagings = new Map<Table, string | undefined>()
  let stamp = begun.standing.stamp

  const diagnose = async (): Promise<SinkOutcome> => {
    const rows = await session.query(`SELECT fence FROM ${books.cursor} WHERE sink = $1`, [context.name])
    return { type: Number(rows[0]?.[0] ?? 0) > begun.fence ? 'fenced' : 'lost' }
  }
  const check = async (at: SinkPlace): Promise<SinkOutcome> => {
    const [row] = await session.query(
      `SELECT fence, view, version, mark, refreshed, (SELECT count(*) FROM pg_catalog.pg_class WHERE oid = ANY ($2::oid[])) FROM ${books.cursor} WHERE sink = $1`,
      [context.name, begun.oids],
      'rejoin_check',
    )
    const [fence, view, version, mark, refreshed, count] = (row ?? []) as [
      string,
      string | null,
      string,
      string | null,
      string | null,
      string,
    ]
    if (row !== undefined && Number(fence) > begun.fence) return { type: 'fenced' }
    const stands = row !== undefined && Number(fence) === begun.fence && Number(count) === begun.oids.length
    return stands && isSamePlace(placeOf({ view, version: Number(version), mark, refreshed }), at)
      ? { type: 'committed', parked: [] }
      : { type: 'lost' }
  }
  const quick = async (commit: SinkCommit, { all }: Run, guard: Guard): Promise<SinkOutcome> => {
    const { text, values } = oneStatement(books, { sink: context.name, fence: begun.fence, from: commit.from, to: commit.to }, all, guard)
    let name = prepared.get(text)
    if (name === undefined && prepared.size < MAX_PREPARED) prepared.set(text, (name = `rejoin_${prepared.size}`))
    const moved = await session.query(text, values, name)
    return moved.length === 1 ? { type: 'committed', parked: [] } : diagnose()
  }
  /**
   * Copies large lots beside the tables. Before the cursor is locked: no timeout of Postgres ends a COPY whose sender was frozen, and a locked cursor would hold up its successor.
   */
  const stage = async (runs: readonly Run[], guard: Guard): Promise<ReadonlyMap<Table, string>> => {
    const staged = new Map<Table, string>()
    const [only, ...more] = runs
    for (const { table, upserts } of more.length > 0 || guard.stamped ? [] : (only?.all ?? [])) {
      const name = stagings.get(table)
      if (upserts.length >= COPY_ROWS && name !== undefined && (await copyRows(session, name, upserts))) staged.set(table, name)
    }
    return staged
  }
  const makeStagings = async (runs: readonly Run[]): Promise<void> => {
    // Outside of the transaction, so that they outlive one that is rolled back.
    for (const { table, upserts } of runs.flatMap(({ all }) => all)) {
      if (upserts.length < COPY_ROWS || stagings.has(table)) continue
      const name = `pg_temp.rejoin_staged_${tables.indexOf(table)}`
      stagings.set(table, (await makeStaging(session, table, name)) ? name : undefined)
    }
  }
  const thorough = async (commit: SinkCommit, runs: readonly Run[], guard: Guard): Promise<SinkOutcome> => {
    const { from, to, rows } = commit
    await makeStagings(runs)
    await session.query('BEGIN')
    try {
      const staged = await stage(runs, guard)
      const { text, values } = moveCursor(books, { sink: context.name, fence: begun.fence, from, to })
      const moved = await session.query(text, values)
      if (moved.length !== 1) {
        await session.query('ROLLBACK')
        return await diagnose()
      }
      await session.query('SET CONSTRAINTS ALL DEFERRED')
      const hand: Hand = { session, books, version: to.version, guard, staged }
      const refused = await applyRuns(hand, runs)
      if (commit.whole === true && refused.length > 0) {
        await session.query('ROLLBACK')
        return { type: 'refused', parked: refused.map(parkedOf) }
      }
      const stuck = new Set(refused.map(({ row }) => keyText(row.row.key)))
      const again = await readDue(stuck)
      const stillRefused =
        again.rows.length === 0
          ? []
          : [
              ...again.refused,
              ...(await apply({ ...hand, staged: new Map(), guard: { ...guard, force: false, stamped: false } }, again.all)),
            ]
      const still = new Set(stillRefused.map(({ row }) => keyText(row.row.key)))
      const landed = again.rows.filter((row) => !still.has(keyText(row.key)))
      await unpark([...rows, ...landed])
      await park([...refused, ...stillRefused], to.version)
      await session.query('COMMIT')
      for (const { key } of again.rows) due.delete(keyText(key))
      for (const { key } of [...rows, ...landed]) parked.delete(keyText(key))
      for (const refusal of [...refused, ...stillRefused]) parked.set(keyText(refusal.row.row.key), parkedRow(refusal))
      return {
        type: 'committed',
        parked: refused.map(parkedOf),
        ...(landed.length === 0 ? {} : { landed: landed.map(({ key }) => key) }),
      }
    } catch (error) {
      await session.query('ROLLBACK').catch(() => undefined)
      throw error
    }
  }
  /** What comes behind a refused event of the same key waits with it. */
  const applyRuns = async (hand: Hand, runs: readonly Run[]): Promise<readonly Refusal[]> => {
    const refused: Refusal[] = []
    const stuck = new Set<string>()
    for (const { rows, all, refused: unwritable } of runs) {
      const free =
        stuck.size === 0
          ? { all, refused: unwritable }
          : sortRows(
              byName,
              rows.filter(({ key }) => !stuck.has(keyText(key))),
            )
      const now = [...free.refused, ...(await apply(hand, free.all))]
      for (const { row } of now) stuck.add(keyText(row.row.key))
      refused.push(...now)
    }
    return refused
  }
  const readDue = async (but: ReadonlySet<string>): Promise<Run> => {
    const keys = [...due].filter((text) => !but.has(text)).slice(0, RETRIES)
    if (keys.length === 0) return { rows: [], all: [], refused: [] }
    const hashes = keys.flatMap((text) => hashOf(parked.get(text)?.key) ?? [])
    const found = await session.query(`SELECT key, value FROM ${books.parked} WHERE sink = $1 AND hash = ANY ($2::text[])`, [
      context.name,
      hashes,
    ])
    const rows = found.map(([key, value]): SinkRow => {
      const [collection, document, id] = JSON.parse(String(key)) as [string, Key['document'], string]
      return { key: { collection, document, id }, value: typeof value === 'string' ? (JSON.parse(value) as RecordValue) : null }
    })
    return { rows, ...sortRows(byName, rows) }
  }
  const unpark = async (rows: readonly SinkRow[]): Promise<void> => {
    const hashes = rows.flatMap(({ key }) => (parked.has(keyText(key)) ? (hashOf(key) ?? []) : []))
    if (hashes.length > 0)
      await session.query(`DELETE FROM ${books.parked} WHERE sink = $1 AND hash = ANY ($2::text[])`, [context.name, hashes])
  }
  const park = async (refused: readonly Refusal[], version: number): Promise<void> => {
    if (refused.length === 0) return
    const columns = [0, 1, 2, 3, 4].map((i) => refused.map((refusal) => parkedCells(refusal)[i] ?? null))
    await session.query(
      `INSERT INTO ${books.parked} AS p (sink, key, hash, reason, waits, value, ${STAMP}) SELECT $1, k.*, $2 FROM unnest($3::text[], $4::text[], $5::text[], $6::text[], $7::text[]) AS k
       ON CONFLICT (sink, hash) DO UPDATE SET reason = excluded.reason, waits = excluded.waits, value = excluded.value, ${STAMP} = excluded.${STAMP}`,
      [context.name, version, ...columns],
    )
  }
  /** Rows that waited for one of these tables, or for one that cannot be seen from here. */
  const findDue = (rows: readonly SinkRow[]): void => {
    if (context.forward.strategy !== 'state') return
    const touched = new Set(rows.map(({ key }) => key.collection))
    for (const [text, { waits }] of parked) {
      if (waits === undefined) continue
      if (touched.has(waits) || (rows.length === 0 && !byName.has(waits))) due.add(text)
    }
  }
  /** Somebody changed the tables under us. Otherwise it is what it says, such as a trigger that is broken. */
  const isLost = async (): Promise<boolean> => {
    const found = await inspect(session, destination.schema, [
      ...tables.map(({ name }) => name),
      'rejoin_cursor',
      'rejoin_tombstones',
      'rejoin_parked',
    ])
    const there = new Set([...(found?.values() ?? [])].map(({ oid }) => oid))
    if (begun.oids.some((oid) => !there.has(oid))) return true
    try {
      return alterations(tables, found).length > 0
    } catch {
      return true
    }
  }
  return async (commit) => {
    const { rows, from, to, force = false } = commit
    if (parked.size > 0) findDue(rows)
    try {
      if (rows.length === 0 && from !== undefined && isSamePlace(from, to) && due.size === 0) return await check(from)
      const lowest = rows.reduce((least, { event }) => Math.min(least, event?.version ?? least), to.version)
      const guard: Guard = { force, below: lowest < stamp, stamped: rows[0]?.event !== undefined }
      const runs = runsOf(rows).map((each): Run => ({ rows: each, ...sortRows(byName, each) }))
      const [only, ...more] = runs
      const isSmall = !force && more.length === 0 && rows.length < COPY_ROWS && due.size === 0
      const isPlain =
        only === undefined || (only.refused.length === 0 && !(parked.size > 0 && rows.some(({ key }) => parked.has(keyText(key)))))
      let outcome: SinkOutcome | undefined
      if (isSmall && isPlain) {
        outcome = await quick(commit, only ?? { rows, all: [], refused: [] }, guard).catch((error: unknown) => {
          if (isRefusal(failure(error))) return undefined
          throw error
        })
      }
      outcome ??= await thorough(commit, runs, guard)
      if (outcome.type === 'committed') stamp = Math.max(stamp, to.version)
      return outcome
    } catch (error) {
      const { state } = failure(error)
      if (state !== undefined && /^(?:42|3F)/u.test(state) && (await isLost())) return { type: 'lost' }
      throw error
    }
  }
}

/** With strategy 'actions' a key may come several times: each time is a run of its own. */
function runsOf(rows: readonly SinkRow[]): readonly (readonly SinkRow[])[] {
  if (rows[0]?.event === undefined) return rows.length === 0 ? [] : [rows]
  const runs: SinkRow[][] = []
  let seen = new Set<string>()
  for (const row of rows) {
    const text = keyText(row.key)
    if (runs.length === 0 || seen.has(text)) {
      runs.push([])
      seen = new Set()
    }
    seen.add(text)
    runs.at(-1)?.push(row)
  }
  return runs
}

/** Rows by table, in the order of the tables, and those that Postgres cannot hold. */
function sortRows(tables: ReadonlyMap<string, Table>, rows: readonly SinkRow[]): Pick<Run, 'all' | 'refused'> {
  const sorted = new Map([...tables.values()].map((table) => [table, { deletes: [] as CellRow[], upserts: [] as CellRow[] }]))
  const refused: Refusal[] = []
  for (const row of rows) {
    const table = tables.get(row.key.collection)
    if (table === undefined) continue
    const cells = cellsOf(table, row)
    const group = sorted.get(table)
    if (typeof cells !== 'string') (row.value === null ? group?.deletes : group?.upserts)?.push(cells)
    // A key that cannot be there is gone already.
    else if (row.value !== null)
      refused.push({ table, row: { row, cells: [], stamp: undefined }, reason: cells, waits: undefined, kind: 'other' })
  }
  const all = [...sorted].flatMap(([table, { deletes, upserts }]) =>
    deletes.length + upserts.length === 0 ? [] : [{ table, deletes, upserts }],
  )
  return { all, refused }
}

function parkedOf({ row: { row }, reason }: Refusal): Parked {
  return { key: row.key, reason, ...(row.event === undefined ? {} : { event: row.event.id }) }
}

function parkedRow({ row: { row }, reason, waits }: Refusal): ParkedRow {
  return { key: row.key, reason, waits }
}

/** key, hash, reason, waits, value. */
function parkedCells({ row: { row }, reason, waits }: Refusal): readonly (string | null)[] {
  const value = waits === undefined || row.value === null ? null : canonicalJson(row.value)
  return [keyJson(row.key), hashOf(row.key) ?? '', reason.replaceAll('\0', '\\0'), waits ?? null, value]
}

/** JSON spells NUL without holding it. */
function keyJson({ collection, document, id }: Key): string {
  return JSON.stringify([collection, document, id])
}

function hashOf(key: Key | undefined): string | undefined {
  return key === undefined ? undefined : createHash('md5').update(keyJson(key)).digest('hex')
}
