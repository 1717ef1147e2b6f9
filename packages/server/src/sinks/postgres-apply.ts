/**
 * Rows into tables inside a transaction (step 8 of the path): all at once where nothing is in the way; otherwise by halves until what Postgres refuses is known row by row, while the others go in.
 */
import type { Session } from './postgres-connect.ts'
import type { CellRow } from './postgres-cells.ts'
import { arrayText, copyText } from './postgres-cells.ts'
import { failure } from './postgres-connect.ts'
import type { Failure } from './postgres-connect.ts'
import type { Bookkeeping, Guard, Statement, TableRows } from './postgres-statements.ts'
import { buryRows, createStaging, removeRows, unburyRows, upsertRows, upsertStaged } from './postgres-statements.ts'
import type { Table } from './postgres-tables.ts'
import { quote } from './postgres-tables.ts'

/** Rows from which on COPY is the faster way. */
export const COPY_ROWS = 2_000
/** Keys of one DELETE. */
const DELETE_ROWS = 5_000
/** How often rows that others stand in the way of are tried again in one commit, there and back. */
const ROUNDS = 16
const MAX_REASON = 500

/** Why a row is not in. */
export interface Refusal {
  readonly table: Table
  readonly row: CellRow
  readonly reason: string
  /** The table whose next row may change that, where it is one of the schema's; '*': another one. */
  readonly waits: string | undefined
  readonly kind: 'unique' | 'reference' | 'other'
}

/** What a transaction writes with. */
export interface Hand {
  readonly session: Session
  readonly books: Bookkeeping
  readonly version: number
  readonly guard: Guard
  /** Tables whose rows were copied beside them: where to. */
  readonly staged: ReadonlyMap<Table, string>
}

/** A piece of a commit: rows of one table that all come or all go. */
interface Piece {
  readonly table: Table
  readonly op: 'remove' | 'upsert'
  readonly rows: readonly CellRow[]
}

/** Whether Postgres refuses what the statement wrote, as opposed to being unable to do anything: data, constraints, triggers, limits. */
export function isRefusal({ state }: Failure): boolean {
  return state !== undefined && /^(?:21|22|23|38|44|54|P0)/u.test(state)
}

/** Writes the rows, deletes first. Returns what was refused. */
export async function apply(hand: Hand, all: readonly TableRows[]): Promise<readonly Refusal[]> {
  const pieces = piecesOf(all)
  const refused = await attempt(hand, async () => {
    for (const piece of pieces) await write(hand, piece, true)
  })
  return refused === undefined ? [] : applyByHalves(hand, pieces)
}

/** Deletes against the order of tables, so that children go before their parents; upserts in it. */
function piecesOf(all: readonly TableRows[]): readonly Piece[] {
  return [
    ...[...all].reverse().map(({ table, deletes }): Piece => ({ table, op: 'remove', rows: deletes })),
    ...all.map(({ table, upserts }): Piece => ({ table, op: 'upsert', rows: upserts })),
  ].filter(({ rows }) => rows.length > 0)
}

async function write(hand: Hand, { table, op, rows }: Piece, all: boolean): Promise<void> {
  const { session, books, version, guard } = hand
  const run = ({ text, values }: Statement): Promise<unknown> => session.query(text, values)
  if (op === 'remove') {
    for (const some of slices(rows, DELETE_ROWS)) {
      await run(removeRows(table, some, version, guard))
      await run(buryRows(books, table, some, version, guard))
    }
    return
  }
  const staging = all ? hand.staged.get(table) : undefined
  if (staging !== undefined) {
    await run(upsertStaged(books, table, staging, version, guard))
  } else {
    for (const some of slices(rows, COPY_ROWS)) await run(upsertRows(books, table, some, version, guard))
  }
  if (guard.force) for (const some of slices(rows, DELETE_ROWS)) await run(unburyRows(books, table, some))
}

/** Runs it with all constraints looked at; what was refused is undone, and said. Everything else is thrown. */
async function attempt({ session }: Hand, run: () => Promise<void>): Promise<Failure | undefined> {
  await session.query('SAVEPOINT attempt')
  try {
    await run()
    await session.query('SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED; RELEASE attempt')
    return undefined
  } catch (error) {
    const failed = failure(error)
    if (!isRefusal(failed)) throw error
    await session.query('ROLLBACK TO attempt; RELEASE attempt')
    return failed
  }
}

async function applyByHalves(hand: Hand, pieces: readonly Piece[]): Promise<readonly Refusal[]> {
  const refused: Refusal[] = []
  for (const piece of pieces) refused.push(...(await halve(hand, piece)))
  let waiting: readonly Refusal[] = refused.filter(({ kind }) => kind !== 'other')
  const final = refused.filter(({ kind }) => kind === 'other')
  // There and back: a chain of rows of which each waits for the one behind it is done in one round.
  for (let round = 1; round < ROUNDS && waiting.length > 0; round++) {
    const next: Refusal[] = []
    for (const piece of again(waiting)) next.push(...(await halve(hand, piece)))
    if (next.length === waiting.length) break
    final.push(...next.filter(({ kind }) => kind === 'other'))
    waiting = next.filter(({ kind }) => kind !== 'other')
  }
  return [...final, ...(await swap(hand, waiting))]
}

/** The refused rows as pieces, last first. */
function again(waiting: readonly Refusal[]): readonly Piece[] {
  const pieces: { table: Table; op: Piece['op']; rows: CellRow[] }[] = []
  for (const { table, row } of [...waiting].reverse()) {
    const op = row.row.value === null ? 'remove' : 'upsert'
    const last = pieces.at(-1)
    if (last?.table === table && last.op === op) last.rows.push(row)
    else pieces.push({ table, op, rows: [row] })
  }
  return pieces
}

/** Writes what can be written of a piece. */
async function halve(hand: Hand, piece: Piece): Promise<readonly Refusal[]> {
  const { table, op, rows } = piece
  const failed = await attempt(hand, () => write(hand, piece, false))
  if (failed === undefined) return []
  const [only] = rows
  if (rows.length === 1 && only !== undefined) return [await refusalOf(hand, table, only, failed)]
  if (op === 'upsert' && failed.state === '23503') {
    const orphans = await findOrphans(hand, piece, failed)
    if (orphans.length > 0) {
      const out = new Set(orphans.map(({ row }) => row))
      const others = rows.filter((row) => !out.has(row))
      return [...orphans, ...(others.length === 0 ? [] : await halve(hand, { ...piece, rows: others }))]
    }
  }
  const middle = Math.ceil(rows.length / 2)
  const first = await halve(hand, { ...piece, rows: rows.slice(0, middle) })
  return [...first, ...(await halve(hand, { ...piece, rows: rows.slice(middle) }))]
}

async function refusalOf(hand: Hand, table: Table, row: CellRow, failed: Failure): Promise<Refusal> {
  const reason = failed.message.slice(0, MAX_REASON)
  if (failed.state === '23505' || failed.state === '23P01') return { table, row, reason, waits: table.name, kind: 'unique' }
  if (failed.state !== '23503') return { table, row, reason, waits: undefined, kind: 'other' }
  const reference = await findReference(hand, failed)
  // A child waits for its parent; a parent that is to go, for its children.
  const waits =
    reference === undefined ? '*' : row.row.value !== null && reference.child === table.name ? reference.parent : reference.child
  return { table, row, reason, waits, kind: 'reference' }
}

interface Reference {
  readonly child: string
  readonly parent: string
  /** Quoted, with its schema. */
  readonly parentSql: string
  /** Columns of the child and the parent's that they name. */
  readonly columns: readonly (readonly [string, string])[]
}

async function findReference({ session }: Hand, { schema, table, constraint }: Failure): Promise<Reference | undefined> {
  const rows = await session.query(
    `SELECT c.relname, p.relname, n.nspname,
       array(SELECT a.attname::text FROM unnest(f.conkey) WITH ORDINALITY AS u(k, i) JOIN pg_catalog.pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = u.k ORDER BY i),
       array(SELECT a.attname::text FROM unnest(f.confkey) WITH ORDINALITY AS u(k, i) JOIN pg_catalog.pg_attribute a ON a.attrelid = f.confrelid AND a.attnum = u.k ORDER BY i)
     FROM pg_catalog.pg_constraint f JOIN pg_catalog.pg_class c ON c.oid = f.conrelid JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace
       JOIN pg_catalog.pg_class p ON p.oid = f.confrelid JOIN pg_catalog.pg_namespace n ON n.oid = p.relnamespace
     WHERE f.contype = 'f' AND s.nspname = $1 AND c.relname = $2 AND f.conname = $3`,
    [schema ?? '', table ?? '', constraint ?? ''],
  )
  if (rows[0] === undefined) return undefined
  const [child, parent, parentSchema, own, named] = rows[0] as [string, string, string, readonly string[], readonly string[]]
  return { child, parent, parentSql: `${quote(parentSchema)}.${quote(parent)}`, columns: own.map((column, i) => [column, named[i] ?? '']) }
}

/** All rows of the piece that lack the parent which one of them was refused for: a thousand orphans are one question. */
async function findOrphans(hand: Hand, { table, rows }: Piece, failed: Failure): Promise<readonly Refusal[]> {
  const reference = await findReference(hand, failed)
  if (reference === undefined || reference.child !== table.name) return []
  const columns = [{ field: 'document', type: 'text' }, { field: 'id', type: 'text' }, ...table.columns]
  const values: unknown[] = []
  const used = reference.columns.map(([own, named]) => {
    const i = columns.findIndex(({ field }) => field === own)
    return { named, i, type: columns[i]?.type ?? '' }
  })
  // A column of the owner's own: what is in it cannot be seen from here.
  if (used.some(({ i }) => i === -1)) return []
  const arrays = used.map(({ i, type }) => `$${values.push(arrayText(rows, i))}::${type}[]`)
  const given = used.map((_, i) => `c${i}`)
  const lacking = await hand.session.query(
    `SELECT k.i FROM unnest(${arrays.join(', ')}) WITH ORDINALITY AS k(${given.join(', ')}, i) WHERE ${given.map((name) => `k.${name} IS NOT NULL`).join(' AND ')}
       AND NOT EXISTS (SELECT FROM ${reference.parentSql} AS p WHERE ${used.map(({ named }, i) => `p.${quote(named)} = k.c${i}`).join(' AND ')})`,
    values,
  )
  return lacking.flatMap(([i]) => {
    const row = rows[Number(i) - 1]
    if (row === undefined) return []
    return [{ table, row, reason: failed.message.slice(0, MAX_REASON), waits: reference.parent, kind: 'reference' as const }]
  })
}

/** Rows that hold what others of them are to have: taken out together, put in together. Those that do not fit even then stay as they were. */
async function swap(hand: Hand, refused: readonly Refusal[]): Promise<readonly Refusal[]> {
  const movable = (each: Refusal): boolean => each.kind === 'unique' && each.row.row.value !== null
  let stay = refused.filter((each) => !movable(each))
  let move = refused.filter(movable)
  for (const table of new Set(move.map((each) => each.table))) {
    if (!(await hasFollowers(hand, table))) continue
    // To take such a row out, be it for a moment, is to lose the rows that follow it.
    stay = [...stay, ...move.filter((each) => each.table === table)]
    move = move.filter((each) => each.table !== table)
  }
  for (let round = 0; round < ROUNDS && move.length > 1; round++) {
    const failed: Refusal[] = []
    await hand.session.query('SAVEPOINT swap')
    const out = await attempt(hand, async () => {
      for (const { table, row } of move) {
        const { text, values } = removeRows(table, [row], hand.version, hand.guard)
        await hand.session.query(text, values)
      }
    })
    if (out === undefined) for (const piece of again(move)) failed.push(...(await halve(hand, piece)))
    const isDone = out === undefined && failed.length === 0
    await hand.session.query(isDone ? 'RELEASE swap' : 'ROLLBACK TO swap; RELEASE swap')
    if (isDone) return stay
    if (out !== undefined) break
    const stuck = new Set(failed.map(({ row }) => row))
    stay = [...stay, ...failed]
    move = move.filter(({ row }) => !stuck.has(row))
  }
  return [...stay, ...move]
}

/** Whether deleting a row changes rows that refer to it: ON DELETE CASCADE, SET NULL or SET DEFAULT. */
async function hasFollowers({ session }: Hand, table: Table): Promise<boolean> {
  const rows = await session.query(
    "SELECT 1 FROM pg_catalog.pg_constraint WHERE contype = 'f' AND confrelid = $1::regclass AND confdeltype IN ('c', 'n', 'd') LIMIT 1",
    [table.sql],
  )
  return rows.length > 0
}

/** Copies rows into a staging table, inside a transaction. False: one of them is refused even there. */
export async function copyRows(session: Session, staging: string, rows: readonly CellRow[]): Promise<boolean> {
  await session.query('SAVEPOINT copying')
  try {
    await session.copy(`COPY ${staging} FROM STDIN`, copyText(rows))
    return true
  } catch (error) {
    if (!isRefusal(failure(error))) throw error
    await session.query('ROLLBACK TO copying')
    return false
  }
}

/** Makes the staging table of a target. False: this role may not make temporary tables. */
export async function makeStaging(session: Session, table: Table, staging: string): Promise<boolean> {
  try {
    await session.query(createStaging(table, staging))
    return true
  } catch (error) {
    if (failure(error).state === '42501') return false
    throw error
  }
}

function slices<T>(rows: readonly T[], size: number): readonly (readonly T[])[] {
  if (rows.length <= size) return [rows]
  return Array.from({ length: Math.ceil(rows.length / size) }, (_, i) => rows.slice(i * size, (i + 1) * size))
}
