/**
 * Rows into MySQL's tables, inside a transaction (step 8 of the path): many in one statement; where that fails, halves of it down to the guilty row; rows that stand in one another's way in another order, or taken out and put in together.
 */
import type { Session } from './mysql-connect.ts'
import { failure } from './mysql-connect.ts'
import { hashOf } from './mysql-begin.ts'
import type { Table, Tuple } from './mysql-tables.ts'
import { STAMP, insert, remove, tupleOf, update, upsert, whereKey } from './mysql-tables.ts'
import type { SinkRow } from './sink.ts'

/** Why a row was refused. */
export interface Refusal {
  readonly row: SinkRow
  readonly reason: string
  /** 'unique', 'reference': another row stands in the way, or is missing; it may be let in later as it is. */
  readonly kind: 'unique' | 'reference' | 'other'
}

export interface Bench {
  readonly session: Session
  readonly tables: ReadonlyMap<string, Table>
}

/** How rows of a group are written. */
export interface How {
  readonly stamp: number
  readonly force: boolean
  /** It is stamped below something that was written before: what was deleted since must not come back. */
  readonly below: boolean
}

/** Of one statement. */
const ROWS = 2_000
const BYTES = 1 << 20
/** How often rows that others stand in the way of are tried again in one commit, there and back. */
const ROUNDS = 16

/** Writes rows of one stamp, each key at most once, and gives back what was refused. */
export async function apply(bench: Bench, rows: readonly SinkRow[], how: How): Promise<readonly Refusal[]> {
  const given: Refusal[] = []
  const tuples: Tuple[] = []
  for (const row of rows) {
    const table = bench.tables.get(row.key.collection)
    const tuple = table === undefined ? `there is no table for ${row.key.collection}` : tupleOf(table, row, how.stamp, bench.session.packet)
    if (typeof tuple === 'string') given.push({ row, reason: tuple, kind: 'other' })
    else tuples.push(tuple)
  }
  const deletes = tuples.filter(({ row }) => row.value === null)
  const upserts =
    how.below && !how.force
      ? await withoutBuried(
          bench,
          tuples.filter(({ row }) => row.value !== null),
          how.stamp,
        )
      : tuples.filter(({ row }) => row.value !== null)
  let refused: readonly Refusal[] = []
  // Children go before their parents, and come after them.
  for (const table of [...bench.tables.values()].reverse()) refused = [...refused, ...(await many(bench, table, deletes, how))]
  for (const table of bench.tables.values()) refused = [...refused, ...(await many(bench, table, upserts, how))]
  for (let round = 1; round < ROUNDS && refused.some(mayWait); round++) {
    // There and back: a chain of rows of which each waits for the one behind it is done in one round.
    const next: Refusal[] = []
    for (const refusal of [...refused].reverse()) next.push(...(mayWait(refusal) ? await one(bench, refusal.row, how) : [refusal]))
    if (next.length === refused.length) break
    refused = next
  }
  refused = await swap(bench, refused, how)
  const out = new Set(refused.map(({ row }) => row))
  await bury(
    bench,
    deletes.filter(({ row }) => !out.has(row)),
    how,
  )
  if (how.force)
    await unbury(
      bench,
      upserts.filter(({ row }) => !out.has(row)),
    )
  return [...given, ...refused]
}

function mayWait({ kind }: Refusal): boolean {
  return kind !== 'other'
}

/** Those of one table, in few statements. */
async function many(bench: Bench, table: Table, all: readonly Tuple[], how: How): Promise<readonly Refusal[]> {
  const refused: Refusal[] = []
  for (const chunk of chunksOf(all.filter(({ row }) => row.key.collection === table.name)))
    refused.push(...(await halving(bench, table, chunk, how)))
  return refused
}

async function halving(bench: Bench, table: Table, tuples: readonly Tuple[], how: How): Promise<readonly Refusal[]> {
  const [first] = tuples
  if (first === undefined) return []
  try {
    await bench.session.run(first.row.value === null ? remove(table, tuples, how.stamp, how.force) : upsert(table, tuples, how.force))
    return []
  } catch (error) {
    // A statement that fails takes back what it did, and nothing before it.
    if (kindOf(error) === undefined) throw error
    if (tuples.length === 1) return one(bench, first.row, how)
    const middle = tuples.length >> 1
    return [...(await halving(bench, table, tuples.slice(0, middle), how)), ...(await halving(bench, table, tuples.slice(middle), how))]
  }
}

/** One row with the plainest statements, whose errors say what is wrong. */
async function one({ session, tables }: Bench, row: SinkRow, how: How): Promise<readonly Refusal[]> {
  const { key, value } = row
  const table = tables.get(key.collection)
  if (table === undefined) return [{ row, reason: `there is no table for ${key.collection}`, kind: 'other' }]
  const tuple = tupleOf(table, row, how.stamp, session.packet)
  if (typeof tuple === 'string') return [{ row, reason: tuple, kind: 'other' }]
  try {
    if (value === null) {
      await session.run(remove(table, [tuple], how.stamp, how.force))
    } else if ((await session.run(update(table, { ...row, value }, how.stamp, how.force))) === 0) {
      // A newer one lies there, or none.
      const there = await session.rows(`SELECT 1 FROM ${table.sql} WHERE ${whereKey(key)}`)
      if (there.length === 0) await session.run(insert(table, tuple))
    }
    return []
  } catch (error) {
    const kind = kindOf(error)
    if (kind === undefined) throw error
    return [{ row, reason: failure(error).message, kind }]
  }
}

/** Rows that hold what others of them are to have: taken out together, put in together. Those that do not fit even then stay as they were. */
async function swap(bench: Bench, refused: readonly Refusal[], how: How): Promise<readonly Refusal[]> {
  const isMover = ({ kind, row }: Refusal): boolean => kind === 'unique' && row.value !== null
  let stay = refused.filter((refusal) => !isMover(refusal))
  let move = refused.filter(isMover)
  for (let round = 0; round < ROUNDS && move.length > 1; round++) {
    await bench.session.run('SAVEPOINT swap')
    const failed: Refusal[] = []
    for (const { row } of move) failed.push(...(await one(bench, { ...row, value: null }, how)).map((refusal) => ({ ...refusal, row })))
    const lifted = new Set(failed.map(({ row }) => row))
    for (const { row } of move) if (!lifted.has(row)) failed.push(...(await one(bench, row, how)))
    await bench.session.run(failed.length === 0 ? 'RELEASE SAVEPOINT swap' : 'ROLLBACK TO SAVEPOINT swap')
    if (failed.length === 0) return stay
    const out = new Set(failed.map(({ row }) => row))
    stay = [...stay, ...failed]
    move = move.filter(({ row }) => !out.has(row))
  }
  return [...stay, ...move]
}

/** Rows without those that were deleted by something newer. */
async function withoutBuried({ session }: Bench, tuples: readonly Tuple[], stamp: number): Promise<readonly Tuple[]> {
  const left: Tuple[] = []
  for (const chunk of chunksOf(tuples)) {
    const hashes = chunk.map(({ row }) => hashOf(row.key))
    const found = await session.rows(
      `SELECT LOWER(HEX(hash)) FROM rejoin_tombstones WHERE hash IN (${hashes.join(', ')}) AND ${STAMP} > ${stamp}`,
    )
    const buried = new Set(found.map(([hash]) => `x'${String(hash)}'`))
    left.push(...chunk.filter((_, i) => !buried.has(hashes[i] ?? '')))
  }
  return left
}

/** Remembers deletions, also of keys that were never here: what is older than a deletion must not bring them. */
async function bury({ session }: Bench, tuples: readonly Tuple[], { stamp, force }: How): Promise<void> {
  for (const chunk of chunksOf(tuples)) {
    const rows = chunk.map(({ row: { key }, text }) => `(${hashOf(key)}, '${key.collection}', ${text.slice(1, -1)}, ${stamp})`)
    await session.run(
      `INSERT INTO rejoin_tombstones (hash, collection, document, id, ${STAMP}) VALUES ${rows.join(', ')}
       ON DUPLICATE KEY UPDATE ${STAMP} = ${force ? `VALUES(${STAMP})` : `GREATEST(${STAMP}, VALUES(${STAMP}))`}`,
    )
  }
}

/** What was written by force must not be held off by a deletion. */
async function unbury({ session }: Bench, tuples: readonly Tuple[]): Promise<void> {
  for (const chunk of chunksOf(tuples))
    await session.run(`DELETE FROM rejoin_tombstones WHERE hash IN (${chunk.map(({ row }) => hashOf(row.key)).join(', ')})`)
}

function chunksOf(tuples: readonly Tuple[]): readonly (readonly Tuple[])[] {
  const chunks: Tuple[][] = []
  let bytes = 0
  for (const tuple of tuples) {
    const last = chunks.at(-1)
    if (last === undefined || last.length === ROWS || bytes + tuple.bytes > BYTES) {
      chunks.push([tuple])
      bytes = tuple.bytes
    } else {
      last.push(tuple)
      bytes += tuple.bytes
    }
  }
  return chunks
}

const UNIQUE: readonly number[] = [1062, 1169, 1242, 1586]
const REFERENCE: readonly number[] = [1216, 1217, 1451, 1452]
/** Values that do not fit, checks and triggers of its owner. */
const OTHER: readonly number[] = [1048, 1118, 1264, 1265, 1292, 1300, 1364, 1366, 1406, 1644, 1690, 3819, 4025]

/** What a statement's error says of its rows; undefined: it says something of the server. */
function kindOf(error: unknown): Refusal['kind'] | undefined {
  const { code, state } = failure(error)
  if (code === undefined) return undefined
  if (UNIQUE.includes(code)) return 'unique'
  if (REFERENCE.includes(code)) return 'reference'
  return OTHER.includes(code) || /^(?:22|23|45)/u.test(state) ? 'other' : undefined
}
