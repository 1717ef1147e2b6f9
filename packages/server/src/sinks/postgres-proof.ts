/**
 * Reading Postgres back (step 8 of the path): hashes are made where the rows lie, in one snapshot together with the place, on a connection of its own.
 */
import type { Destination } from './postgres-begin.ts'
import { readParked, readPlace } from './postgres-begin.ts'
import type { Session } from './postgres-connect.ts'
import { bucketSql, hashRow, hashSql } from './postgres-hash.ts'
import type { Table } from './postgres-tables.ts'
import { STAMP, inspect } from './postgres-tables.ts'
import { BUCKETS } from './digest.ts'
import type { Breathe, FoundRow, Key, SinkProof } from './sink.ts'

/** Rows of one page. */
const PAGE = 2_000
/** Whoever reads pages takes his time. The rows of one table are hashed on several cores; compiling would take longer than it saves. */
const SETTINGS = `SET LOCAL idle_in_transaction_session_timeout = 600000; SET LOCAL jit = off;
  SET LOCAL max_parallel_workers_per_gather = 4; SET LOCAL min_parallel_table_scan_size = 0; SET LOCAL parallel_setup_cost = 0; SET LOCAL parallel_tuple_cost = 0.001`

const giveWay: Breathe = () => new Promise((resolve) => setImmediate(resolve))

export function createProof(dial: () => Promise<Session>, destination: Destination): SinkProof {
  const tables = new Map(destination.tables.map((table) => [table.name, table]))
  return {
    hash: (key, value) => hashRow(tables.get(key.collection), key, value),
    survey: ({ strangers }) =>
      inSnapshot(dial, async (session) => {
        const buckets = new BigUint64Array(BUCKETS)
        let rows = 0
        const place = await readPlace(session, destination)
        const parked = place === undefined ? [] : await readParked(session, destination)
        for (const { table, hash } of await readable(session, destination)) {
          const found = await session.query(
            `SELECT ${bucketSql(table)}, count(*), sum(${hash}) FROM ${table.sql}${strangers ? '' : ` WHERE ${STAMP} > 0`} GROUP BY 1`,
          )
          for (const [bucket, count, sum] of found as readonly [number, string, string][]) {
            rows += Number(count)
            buckets[bucket] = (buckets[bucket] ?? 0n) + BigInt.asUintN(64, BigInt(sum))
          }
        }
        return { place, parked: parked.map(({ key, reason }) => ({ key, reason })), rows, buckets }
      }),
    rows: (buckets, breathe = giveWay) => pages(dial, destination, buckets, breathe),
  }
}

async function* pages(
  dial: () => Promise<Session>,
  destination: Destination,
  buckets: readonly number[],
  breathe: Breathe,
): AsyncGenerator<readonly FoundRow[]> {
  const session = await dial()
  try {
    await session.query(`BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; ${SETTINGS}`)
    for (const { table, hash } of await readable(session, destination)) {
      await session.query(
        `DECLARE found NO SCROLL CURSOR FOR SELECT document, id, ${hash}, ${STAMP} FROM ${table.sql} WHERE ${bucketSql(table)} = ANY ($1::integer[])`,
        [[...buckets]],
      )
      for (;;) {
        const rows = (await session.query(`FETCH ${PAGE} FROM found`)) as readonly [Key['document'], string, string, string][]
        if (rows.length === 0) break
        yield rows.map(([document, id, found, stamp]) => ({
          key: { collection: table.name, document, id },
          hash: BigInt.asUintN(64, BigInt(found)),
          stamp: Number(stamp),
        }))
        await breathe()
      }
      await session.query('CLOSE found')
    }
  } finally {
    await session.close()
  }
}

async function inSnapshot<T>(dial: () => Promise<Session>, work: (session: Session) => Promise<T>): Promise<T> {
  const session = await dial()
  try {
    await session.query(`BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; ${SETTINGS}`)
    return await work(session)
  } finally {
    await session.close()
  }
}

/** Tables that are there, with what is there of them: one that somebody dropped has no rows, a column none of its values. */
async function readable(
  session: Session,
  { schema, tables }: Destination,
): Promise<readonly { readonly table: Table; readonly hash: string }[]> {
  const found = await inspect(
    session,
    schema,
    tables.map(({ name }) => name),
  )
  return tables.flatMap((table) => {
    const there = found?.get(table.name)
    const has = (column: string): boolean => there?.columns.has(column) === true
    if (!has('document') || !has('id') || !has(STAMP)) return []
    // A column of another type than ours cannot hold what we sent.
    const same = table.columns.filter(({ field, type }) => there?.columns.get(field) === type).map(({ field }) => field)
    return [{ table, hash: hashSql(table, new Set(same)) }]
  })
}
