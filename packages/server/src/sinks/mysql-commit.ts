/**
 * One commit into MySQL (step 8 of the path): the cursor first, which only moves while the fence is ours and the place is where we left it; then the rows; then what is parked.
 */
import type { RecordValue } from '@rejoin/shared'
import type { Bench, Refusal } from './mysql-apply.ts'
import { apply } from './mysql-apply.ts'
import type { Begun, Destination } from './mysql-begin.ts'
import { hashOf, keyOf, layoutOf, readCursors } from './mysql-begin.ts'
import type { Session } from './mysql-connect.ts'
import { failure, literal } from './mysql-connect.ts'
import { STAMP } from './mysql-tables.ts'
import type { Key, Parked, SinkCommit, SinkOutcome, SinkPlace, SinkRow } from './sink.ts'
import { groupsOf, isSamePlace, keyText } from './sink.ts'

/** Parked rows that one commit tries again. */
const RETRIES = 500
/** A table, column or database is not there. */
const GONE: readonly number[] = [1046, 1049, 1054, 1146]

export function createCommit(
  session: Session,
  { context, tables }: Destination,
  begun: Begun,
): (commit: SinkCommit) => Promise<SinkOutcome> {
  const { name, forward } = context
  const bench: Bench = { session, tables: new Map(tables.map((table) => [table.name, table])) }
  const parking = createParking(session, name, begun.standing.parked.length > 0)
  let stamp = begun.standing.stamp

  const write = async ({ rows, to, force = false, whole = false }: SinkCommit): Promise<SinkOutcome> => {
    const parked: Parked[] = []
    const stuck = new Set<string>()
    for (const all of groupsOf(rows)) {
      // What comes behind a refused event of the same key waits with it.
      const group = stuck.size === 0 ? all : all.filter(({ key }) => !stuck.has(keyText(key)))
      const version = group[0]?.event?.version ?? to.version
      const refused = await apply(bench, group, { stamp: version, force, below: version < stamp })
      await parking.clear(group.map(({ key }) => key))
      for (const refusal of refused) {
        const { key, event } = refusal.row
        parked.push({ key, reason: refusal.reason, ...(event === undefined ? {} : { event: event.id }) })
        stuck.add(keyText(key))
      }
      if (whole && parked.length > 0) return { type: 'refused', parked }
      for (const refusal of refused) await parking.put(refusal, to.version)
    }
    // Events of a parked key wait outside, in their order; a state may be let in as soon as it fits.
    const again = forward.strategy === 'state' && rows.length > 0 ? await parking.next(stuck) : []
    const out = new Set((await apply(bench, again, { stamp: to.version, force: false, below: to.version < stamp })).map(({ row }) => row))
    const landed = again.filter((row) => !out.has(row)).map(({ key }) => key)
    await parking.clear(landed)
    return { type: 'committed', parked, ...(landed.length === 0 ? {} : { landed }) }
  }

  return async (commit) => {
    const { rows, from, to } = commit
    let isOpen = false
    try {
      if ((await layoutOf(session, tables)) !== begun.layout) return { type: 'lost' }
      if (rows.length === 0 && from !== undefined && isSamePlace(from, to)) {
        const [row] = await session.rows(`SELECT 1 FROM rejoin_cursor WHERE ${isOurs(name, begun.fence, from)}`)
        return row === undefined ? await whose(session, name, begun.fence) : { type: 'committed', parked: [] }
      }
      await session.run('BEGIN')
      isOpen = true
      const moved = (await session.run(move(name, begun.fence, from, to))) === 1
      const outcome = moved ? await write(commit) : await whose(session, name, begun.fence)
      await session.run(outcome.type === 'committed' ? 'COMMIT' : 'ROLLBACK')
      if (outcome.type === 'committed') stamp = Math.max(stamp, to.version)
      return outcome
    } catch (error) {
      if (isOpen) await session.run('ROLLBACK').catch(() => undefined)
      if (GONE.includes(failure(error).code ?? 0)) return { type: 'lost' }
      throw error
    }
  }
}

/** Why the cursor is not where we left it. */
async function whose(session: Session, name: string, fence: number): Promise<SinkOutcome> {
  const own = (await readCursors(session)).find(({ sink }) => sink === name)
  return { type: own !== undefined && own.fence > fence ? 'fenced' : 'lost' }
}

function move(sink: string, fence: number, from: SinkPlace | undefined, to: SinkPlace): string {
  const set = [
    `view = ${literal(to.view)}`,
    `version = ${to.version}`,
    `mark = ${orNull(to.mark)}`,
    `refreshed = ${orNull(refreshedText(to))}`,
    `stamp = GREATEST(stamp, ${to.version})`,
  ]
  return `UPDATE rejoin_cursor SET ${set.join(', ')} WHERE ${isOurs(sink, fence, from)}`
}

function isOurs(sink: string, fence: number, from: SinkPlace | undefined): string {
  const place =
    from === undefined
      ? 'view IS NULL'
      : `view <=> ${literal(from.view)} AND version = ${from.version} AND mark <=> ${orNull(from.mark)} AND refreshed <=> ${orNull(refreshedText(from))}`
  return `sink = ${literal(sink)} AND fence = ${fence} AND ${place}`
}

function orNull(text: string | undefined): string {
  return text === undefined ? 'NULL' : literal(text)
}

function refreshedText({ refreshed }: SinkPlace): string | undefined {
  return refreshed === undefined ? undefined : JSON.stringify(refreshed)
}

interface Parking {
  clear(keys: readonly Key[]): Promise<void>
  put(refusal: Refusal, version: number): Promise<void>
  /** Rows that others stood in the way of, a few at a time, in turn; without these. */
  next(but: ReadonlySet<string>): Promise<readonly SinkRow[]>
}

function createParking(session: Session, sink: string, mayHold: boolean): Parking {
  const name = literal(sink)
  let any = mayHold
  let at = ''
  return {
    clear: async (keys) => {
      if (any && keys.length > 0)
        await session.run(`DELETE FROM rejoin_parked WHERE sink = ${name} AND hash IN (${keys.map(hashOf).join(', ')})`)
    },
    put: async ({ row: { key, value }, reason, kind }, version) => {
      any = true
      const text = literal(JSON.stringify([key.collection, key.document, key.id]))
      const stored = value === null ? 'NULL' : literal(JSON.stringify(value))
      await session.run(
        `REPLACE INTO rejoin_parked (sink, hash, \`key\`, ${STAMP}, reason, retry, value) VALUES (${name}, ${hashOf(key)}, ${text}, ${version}, ${literal(reason)}, ${Number(kind !== 'other')}, ${kind === 'other' ? 'NULL' : stored})`,
      )
    },
    next: async (but) => {
      if (!any) return []
      const rows = await session.rows(
        `SELECT \`key\`, value, LOWER(HEX(hash)) FROM rejoin_parked WHERE sink = ${name} AND retry AND hash > x'${at}' ORDER BY hash LIMIT ${RETRIES}`,
      )
      at = rows.length < RETRIES ? '' : String(rows.at(-1)?.[2])
      return (rows as readonly [string, string | null, string][])
        .map(([key, value]) => ({ key: keyOf(key), value: value === null ? null : (JSON.parse(value) as RecordValue) }))
        .filter(({ key }) => !but.has(keyText(key)))
    },
  }
}
