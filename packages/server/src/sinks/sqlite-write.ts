/**
 * One commit into the mirror (step 8 of the path): rows that stand in one another's way are put in another order, or taken out and put in together; what is refused even so is parked and tried again when others have moved.
 */
import Database from 'better-sqlite3'
import type { RecordValue } from '@rejoin/shared'
import { SyncError } from '@rejoin/shared'
import type { Key, Parked, SinkCommit, SinkContext, SinkOutcome, SinkRow } from './sink.ts'
import { groupsOf, isSamePlace, keyText } from './sink.ts'
import { createCursor } from './sqlite-cursor.ts'
import { STAMP, quote } from './sqlite-tables.ts'
import type { TableWriter } from './sqlite-tables.ts'

/** How often rows that others stand in the way of are tried again in one commit, there and back. */
const ROUNDS = 16
/** Parked rows that one commit tries again. */
const RETRIES = 500

/** Why a row was refused. */
interface Refusal {
  readonly row: SinkRow
  readonly reason: string
  /** 'unique', 'reference': another row stands in the way, or is missing; it may be let in later as it is. */
  readonly kind: 'unique' | 'reference' | 'other'
}

/** Rows that must not be tried: a constraint which is only looked at when all is done refused them. By `keyText`. */
type Guilty = Map<string, string>

interface Bench {
  readonly db: Database.Database
  readonly tables: ReadonlyMap<string, TableWriter>
}

export function createWrite(
  db: Database.Database,
  { name, forward }: SinkContext,
  fence: number,
  tables: ReadonlyMap<string, TableWriter>,
): (commit: SinkCommit) => SinkOutcome {
  const bench: Bench = { db, tables }
  const cursor = createCursor(db, name, fence)
  const parking = createParking(db, name)
  const write = db.transaction((commit: SinkCommit, guilty: Guilty | undefined): SinkOutcome => {
    const { rows, from, to, force = false, whole = false } = commit
    const checked = cursor.check(from)
    if (checked.type !== 'committed') return checked
    for (const table of tables.values()) table.begin()
    if (whole) db.exec('SAVEPOINT whole')
    const parked: Parked[] = []
    const tried: SinkRow[] = []
    const stuck = new Set<string>()
    for (const all of groupsOf(rows)) {
      // What comes behind a refused event of the same key waits with it.
      const group = stuck.size === 0 ? all : all.filter(({ key }) => !stuck.has(keyText(key)))
      tried.push(...group)
      const refused = apply(bench, group, group[0]?.event?.version ?? to.version, { force, guilty })
      parking.clear(group)
      for (const refusal of refused) {
        const { row, reason } = refusal
        parking.put(refusal, to.version)
        parked.push({ key: row.key, reason, ...(row.event === undefined ? {} : { event: row.event.id }) })
        stuck.add(keyText(row.key))
      }
    }
    if (whole && parked.length > 0) {
      db.exec('ROLLBACK TO whole; RELEASE whole')
      return { type: 'refused', parked }
    }
    // Events of a parked key wait outside, in their order; a state may be let in as soon as it fits.
    const again = forward.strategy === 'state' && rows.length > 0 ? parking.next(stuck) : []
    const landed = again.length === 0 ? [] : letIn(bench, again, to.version, guilty)
    parking.clear(landed)
    cursor.move(to)
    if (guilty !== undefined) findGuilty(db, [...tried, ...again], guilty)
    return { type: 'committed', parked, ...(landed.length === 0 ? {} : { landed: landed.map(({ key }) => key) }) }
  })
  return (commit) => {
    // Nothing to move, nothing to fsync.
    if (commit.rows.length === 0 && commit.from !== undefined && isSamePlace(commit.from, commit.to)) return cursor.check(commit.from)
    let guilty: Guilty | undefined
    for (;;) {
      const known = guilty?.size
      try {
        return write.immediate(commit, guilty)
      } catch (error) {
        // A reference that is looked at when the transaction ends: who broke it is found by doing it again and looking before the end.
        const isNews = guilty === undefined ? kindOf(error) === 'reference' : guilty.size !== known
        if (!isNews) throw error
        guilty ??= new Map()
      }
    }
  }
}

/** Writes rows and gives back what was refused. */
function apply(
  bench: Bench,
  rows: readonly SinkRow[],
  version: number,
  { force, guilty }: { readonly force: boolean; readonly guilty: Guilty | undefined },
): readonly Refusal[] {
  const attempt = (row: SinkRow): Refusal[] => {
    const reason = guilty?.get(keyText(row.key))
    const refusal = reason === undefined ? tryWrite(bench, row, version, force) : { row, reason, kind: 'reference' as const }
    return refusal === undefined ? [] : [refusal]
  }
  let refused = rows.flatMap(attempt)
  for (let round = 1; round < ROUNDS && refused.some(mayWait); round++) {
    // There and back: a chain of rows of which each waits for the one behind it is done in one round.
    const next = [...refused].reverse().flatMap((refusal) => (mayWait(refusal) ? attempt(refusal.row) : [refusal]))
    if (next.length === refused.length) break
    refused = next
  }
  return swap(bench, refused, version, force)
}

function mayWait({ kind }: Refusal): boolean {
  return kind !== 'other'
}

/** Rows that hold what others of them are to have: taken out together, put in together. Those that do not fit even then stay as they were. */
function swap({ db, tables }: Bench, refused: readonly Refusal[], version: number, force: boolean): readonly Refusal[] {
  let [stay, move] = [
    refused.filter(({ kind, row }) => kind !== 'unique' || row.value === null),
    refused.filter(({ kind, row }) => kind === 'unique' && row.value !== null),
  ]
  for (let round = 0; round < ROUNDS && move.length > 1; round++) {
    db.exec('SAVEPOINT swap')
    const free = move.filter(({ row }) => tables.get(row.key.collection)?.lift(row.key, version, force))
    const failed = free.flatMap(({ row }) => tryWrite({ db, tables }, row, version, force) ?? [])
    db.exec(failed.length === 0 ? 'RELEASE swap' : 'ROLLBACK TO swap; RELEASE swap')
    if (failed.length === 0) return stay
    const out = new Set(failed.map(({ row }) => row))
    stay = [...stay, ...failed]
    move = free.filter(({ row }) => !out.has(row))
  }
  return [...stay, ...move]
}

/** Tries what is parked once more. Returns what got in. */
function letIn(bench: Bench, rows: readonly SinkRow[], version: number, guilty: Guilty | undefined): readonly SinkRow[] {
  const refused = new Set(apply(bench, rows, version, { force: false, guilty }).map(({ row }) => row))
  return rows.filter((row) => !refused.has(row))
}

/** Undefined: written. A constraint or trigger of its owner, a value beyond SQLite's limits: refused. Everything else is thrown. */
function tryWrite({ db, tables }: Bench, row: SinkRow, version: number, force: boolean): Refusal | undefined {
  const { key, value } = row
  const table = tables.get(key.collection)
  if (table === undefined) return { row, reason: `there is no table for ${key.collection}`, kind: 'other' }
  try {
    if (value === null) table.remove(key, version, force)
    else table.put(key, value, version, force)
    return undefined
  } catch (error) {
    const kind = kindOf(error)
    // A refusal undoes its statement only, unless a trigger rolled the whole transaction back.
    if (kind === undefined || !db.inTransaction) throw error
    return { row, reason: error instanceof Error ? error.message : String(error), kind }
  }
}

function kindOf(error: unknown): Refusal['kind'] | undefined {
  if (!(error instanceof Database.SqliteError)) return undefined
  if (error.code === 'SQLITE_CONSTRAINT_UNIQUE') return 'unique'
  if (error.code === 'SQLITE_CONSTRAINT_FOREIGNKEY') return 'reference'
  return /^SQLITE_(?:CONSTRAINT|TOOBIG|MISMATCH|RANGE)/u.test(error.code) ? 'other' : undefined
}

/** Looks for broken references before the transaction ends, and throws when rows of this commit broke them: the child that came, or the parent that went. */
function findGuilty(db: Database.Database, rows: readonly SinkRow[], guilty: Guilty): void {
  const broken = db.pragma('foreign_key_check') as { table: string; rowid: number; parent: string }[]
  if (broken.length === 0) return
  const written = new Map(rows.map((row) => [keyText(row.key), row]))
  const before = guilty.size
  for (const { table, rowid, parent } of broken) {
    const child = db.prepare(`SELECT document, id FROM ${quote(table)} WHERE rowid = ?`).get(rowid) as
      | Pick<Key, 'document' | 'id'>
      | undefined
    const text = child === undefined ? '' : keyText({ collection: table, ...child })
    const reason = `FOREIGN KEY constraint failed: ${table} refers to ${parent}`
    if (written.has(text)) guilty.set(text, reason)
    else for (const [each, row] of written) if (row.value === null && row.key.collection === parent) guilty.set(each, reason)
  }
  // Somebody else's broken reference: the end of the transaction says so.
  if (guilty.size > before) throw new SyncError('internal', 'rows of this commit break references')
}

interface Parking {
  clear(rows: readonly SinkRow[]): void
  put(refusal: Refusal, version: number): void
  /** Rows that others stood in the way of, a few at a time, in turn; without these. */
  next(but: ReadonlySet<string>): readonly SinkRow[]
}

function createParking(db: Database.Database, name: string): Parking {
  const clear = db.prepare('DELETE FROM rejoin_parked WHERE sink = ? AND collection = ? AND document = ? AND id = ?')
  const put = db.prepare(
    `INSERT OR REPLACE INTO rejoin_parked (sink, collection, document, id, ${STAMP}, reason, retry, value) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
  )
  const some = db.prepare('SELECT 1 FROM rejoin_parked WHERE sink = ? LIMIT 1').pluck()
  const page = db.prepare(
    `SELECT collection, document, id, value FROM rejoin_parked
     WHERE sink = ? AND retry AND (collection, document, id) > (?, ?, ?) ORDER BY collection, document, id LIMIT ${RETRIES}`,
  )
  let at: Key | undefined
  return {
    clear: (rows) => {
      if (rows.length === 0 || some.get(name) === undefined) return
      for (const { key } of rows) clear.run(name, key.collection, key.document, key.id)
    },
    put: ({ row: { key, value }, reason, kind }, version) => {
      const text = value === null ? null : JSON.stringify(value)
      put.run(name, key.collection, key.document, key.id, version, reason, Number(kind !== 'other'), text)
    },
    next: (but) => {
      const rows = page.all(name, at?.collection ?? '', at?.document ?? '', at?.id ?? '') as (Key & { value: string | null })[]
      at = rows.length < RETRIES ? undefined : rows.at(-1)
      return rows
        .map(({ value, ...key }) => ({ key, value: value === null ? null : (JSON.parse(value) as RecordValue) }))
        .filter(({ key }) => !but.has(keyText(key)))
    },
  }
}
