/**
 * Reading MySQL back (step 8 of the path): every row of every table, a page at a time in one snapshot together with the place, on a connection of its own.
 */
import { BUCKETS, bucketOf, hashText } from './digest.ts'
import type { Destination } from './mysql-begin.ts'
import { placeOf, readCursors, readParked } from './mysql-begin.ts'
import type { Session } from './mysql-connect.ts'
import { literal } from './mysql-connect.ts'
import type { Cell, Table } from './mysql-tables.ts'
import { STAMP, cellsOf, inspect } from './mysql-tables.ts'
import type { Breathe, FoundRow, Key, Parked, SinkPlace, SinkProof } from './sink.ts'

/** Rows of one page. */
const PAGE = 2_000

const giveWay: Breathe = () => new Promise((resolve) => setImmediate(resolve))

export function createProof(dial: () => Promise<Session>, destination: Destination): SinkProof {
  const tables = new Map(destination.tables.map((table) => [table.name, table]))
  return {
    hash: (key, value) => {
      const table = tables.get(key.collection)
      return hashRow(key, table === undefined ? [] : cellsOf(table, value))
    },
    survey: async ({ strangers, breathe = giveWay }) => {
      const session = await snapshot(dial)
      try {
        const buckets = new BigUint64Array(BUCKETS)
        let rows = 0
        const standing = await standingIn(session, destination.context.name)
        for await (const page of read(session, destination, breathe)) {
          for (const { key, hash, stamp } of page) {
            if (stamp === 0 && !strangers) continue
            rows++
            buckets[bucketOf(key)] = (buckets[bucketOf(key)] ?? 0n) + hash
          }
        }
        return { ...standing, rows, buckets }
      } finally {
        await session.close()
      }
    },
    rows: async function* (wanted, breathe = giveWay) {
      const buckets = new Set(wanted)
      const session = await snapshot(dial)
      try {
        for await (const page of read(session, destination, breathe)) yield page.filter(({ key }) => buckets.has(bucketOf(key)))
      } finally {
        await session.close()
      }
    },
  }
}

/** Keys of a table in their order, behind `from`. `all`: also of rows that others wrote. */
export async function keysOf(
  session: Session,
  { name, sql }: Table,
  limit: number,
  from: Key | undefined,
  all: boolean,
): Promise<readonly Key[]> {
  const where = [all ? 'TRUE' : `${STAMP} > 0`, from === undefined ? 'TRUE' : behind(from)].join(' AND ')
  const rows = await session.rows(`SELECT document, id FROM ${sql} WHERE ${where} ORDER BY document, id LIMIT ${limit}`)
  return rows.map(([document, id]) => ({ collection: name, document: document as Key['document'], id: String(id) }))
}

/** Two ranges of the primary key; the server would read a comparison of pairs from the table's beginning. */
function behind({ document, id }: Pick<Key, 'document' | 'id'>): string {
  return `(document > ${literal(document)} OR (document = ${literal(document)} AND id > ${literal(id)}))`
}

/** The first read takes the snapshot that the others see. */
async function snapshot(dial: () => Promise<Session>): Promise<Session> {
  const session = await dial()
  await session.run('SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ')
  await session.run('START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY')
  return session
}

async function standingIn(
  session: Session,
  name: string,
): Promise<{ readonly place: SinkPlace | undefined; readonly parked: readonly Parked[] }> {
  const books = await inspect(session, ['rejoin_cursor', 'rejoin_parked'])
  const own = books.has('rejoin_cursor') ? (await readCursors(session)).find(({ sink }) => sink === name) : undefined
  return { place: own === undefined ? undefined : placeOf(own), parked: books.has('rejoin_parked') ? await readParked(session, name) : [] }
}

/** Every row, table by table. A table or column that is not there has nothing in it. */
async function* read(session: Session, { tables }: Destination, breathe: Breathe): AsyncGenerator<readonly FoundRow[]> {
  const found = await inspect(
    session,
    tables.map(({ name }) => name),
  )
  for (const { name, sql, columns } of tables) {
    const there = found.get(name)?.columns
    if (there?.has('document') !== true || !there.has('id') || !there.has(STAMP)) continue
    const cells = columns.map((column) => (there.has(column.field.toLowerCase()) ? column.sql : 'NULL'))
    const select = `SELECT ${['document', 'id', STAMP, ...cells].join(', ')} FROM ${sql}`
    for (let from: Key | undefined; ;) {
      const rows = await session.rows(`${select}${from === undefined ? '' : ` WHERE ${behind(from)}`} ORDER BY document, id LIMIT ${PAGE}`)
      const page = rows.map(([document, id, stamp, ...values]) => {
        const key: Key = { collection: name, document: document as Key['document'], id: String(id) }
        return { key, hash: hashRow(key, values as readonly Cell[]), stamp: Number(stamp) }
      })
      from = page.at(-1)?.key
      if (from === undefined) break
      yield page
      await breathe()
      if (page.length < PAGE) break
    }
  }
}

function hashRow({ collection, document, id }: Key, cells: readonly Cell[]): bigint {
  return hashText(JSON.stringify([collection, document, id, ...cells]))
}
