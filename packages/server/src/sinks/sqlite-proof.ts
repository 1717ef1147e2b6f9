/**
 * Reading the mirror back (step 8 of the path): every row of every table, on a connection of its own, as of one moment.
 */
import type { Collections } from '@rejoin/shared'
import Database from 'better-sqlite3'
import { BUCKETS, bucketOf } from './digest.ts'
import type { Breathe, FoundRow, Key, SinkContext, SinkProof } from './sink.ts'
import { parkedIn, placeIn } from './sqlite-cursor.ts'
import { STAMP, cellsOf, quote } from './sqlite-tables.ts'
import type { Cell } from './sqlite-tables.ts'

/** Rows between two breaths: a few ms. */
const BREATH = 1_000

const giveWay: Breathe = () => new Promise((resolve) => setImmediate(resolve))

/** A table's row as an array: document, id, cells, stamp. */
type Raw = [Key['document'], string, ...Cell[]]

export function createProof(path: string, { name, collections }: SinkContext): SinkProof {
  return {
    hash: (key, value) => {
      const collection = collections[key.collection]
      return hashRow(key, collection === undefined ? [] : cellsOf(collection, value))
    },
    survey: async ({ strangers, breathe = giveWay }) => {
      const buckets = new BigUint64Array(BUCKETS)
      const db = openToRead(path)
      if (db === undefined) return { place: undefined, rows: 0, buckets, parked: [] }
      let rows = 0
      try {
        db.exec('BEGIN')
        // The first read takes the snapshot that the others see.
        const has = hasBookkeeping(db)
        const [place, parked] = has ? [placeIn(db, name), parkedIn(db, name)] : [undefined, []]
        for (const { key, hash, stamp } of readRows(db, collections)) {
          if (stamp === 0 && !strangers) continue
          const bucket = bucketOf(key)
          buckets[bucket] = (buckets[bucket] ?? 0n) + hash
          if (++rows % BREATH === 0) await breathe()
        }
        return { place, parked, rows, buckets }
      } finally {
        db.close()
      }
    },
    rows: (wanted, breathe = giveWay) => pages(path, collections, new Set(wanted), breathe),
  }
}

async function* pages(
  path: string,
  collections: Collections,
  wanted: ReadonlySet<number>,
  breathe: Breathe,
): AsyncGenerator<readonly FoundRow[]> {
  const db = openToRead(path)
  if (db === undefined) return
  try {
    db.exec('BEGIN')
    let page: FoundRow[] = []
    let seen = 0
    for (const row of readRows(db, collections)) {
      if (wanted.has(bucketOf(row.key))) page.push(row)
      if (++seen % BREATH !== 0) continue
      await breathe()
      if (page.length === 0) continue
      yield page
      page = []
    }
    if (page.length > 0) yield page
  } finally {
    db.close()
  }
}

function openToRead(path: string): Database.Database | undefined {
  try {
    return new Database(path, { readonly: true, fileMustExist: true })
  } catch (error) {
    if (error instanceof Database.SqliteError && error.code === 'SQLITE_CANTOPEN') return undefined
    throw error
  }
}

function hasBookkeeping(db: Database.Database): boolean {
  const named = db.prepare("SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name IN ('rejoin_cursor', 'rejoin_parked')").pluck()
  return named.get() === 2
}

/** Every row, table by table. A table or column that is not there has nothing in it. */
function* readRows(db: Database.Database, collections: Collections): Generator<FoundRow> {
  for (const [collection, { fields }] of Object.entries(collections)) {
    const columns = new Set(
      (db.pragma(`table_xinfo(${quote(collection)})`) as { name: string }[]).map((column) => column.name.toLowerCase()),
    )
    if (!columns.has('document') || !columns.has('id') || !columns.has(STAMP)) continue
    const cells = Object.keys(fields).map((field) => (columns.has(field.toLowerCase()) ? quote(field) : 'NULL'))
    const read = db.prepare(`SELECT ${['document', 'id', ...cells, STAMP].join(', ')} FROM ${quote(collection)}`).raw()
    for (const [document, id, ...rest] of read.iterate() as IterableIterator<Raw>) {
      const stamp = Number(rest.pop())
      const key = { collection, document, id }
      yield { key, hash: hashRow(key, rest), stamp: Number.isSafeInteger(stamp) ? stamp : 0 }
    }
  }
}

/** Of what SQLite gives for the row. A blob, which only somebody else can have put there, equals nothing of ours. */
function hashRow({ collection, document, id }: Key, cells: readonly Cell[]): bigint {
  return mix(JSON.stringify([collection, document, id, cells]))
}

/** 64 bits of a text, in a third of the time that md5 takes: rows are read back by JavaScript, so that SQLite need not know the hash. */
function mix(text: string): bigint {
  let [a, b] = [0x9e3779b9, 0x85ebca6b]
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i)
    a = Math.imul(a ^ unit, 0x9e3779b1)
    b = Math.imul(b ^ unit, 0x5f356495)
    // Neither lane forgets: what is high in one reaches what is low in the other.
    a ^= b >>> 15
  }
  a = Math.imul(a ^ (a >>> 16), 0x85ebca6b) ^ Math.imul(b ^ (b >>> 13), 0xc2b2ae35)
  b = Math.imul(b ^ (b >>> 16), 0x85ebca6b) ^ Math.imul(a ^ (a >>> 13), 0xc2b2ae35)
  return (BigInt(a >>> 0) << 32n) | BigInt(b >>> 0)
}
