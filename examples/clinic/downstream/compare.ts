/**
 * A look with one's own eyes, beside `rejoin sinks verify`: what Postgres shows, against what a device holds.
 */
import type { Device } from './devices.ts'
import type { Postgres } from './postgres.ts'

type Row = Readonly<Record<string, unknown>>

/** How many rows were compared, and the first difference if there is one. */
export async function compare(postgres: Postgres, device: Device): Promise<{ readonly rows: number; readonly difference?: string }> {
  const [pets, owners] = [device.records('pets'), device.records('owners')]
  const cards = new Map(
    [...pets].map(([key, pet]) => {
      const owner = owners.get(`${key.split('/')[0]}/${String(pet['ownerId'])}`)
      return [key, { name: pet['name'], kind: pet['kind'], owner: owner?.['name'], city: owner?.['city'] }] as const
    }),
  )
  const tables = [
    ['pets', pets],
    ['owners', owners],
    ['pet_cards', cards],
  ] as const
  let compared = 0
  for (const [table, records] of tables) {
    const rows = await postgres.query(`SELECT * FROM ${table}`)
    const shown = new Map(rows.map((row) => [`${String(row['document'])}/${String(row['id'])}`, row]))
    const difference = firstDifference(table, records, shown)
    if (difference !== undefined) return { rows: compared, difference }
    compared += rows.length
  }
  return { rows: compared }
}

function firstDifference(table: string, records: ReadonlyMap<string, Row>, rows: ReadonlyMap<string, Row>): string | undefined {
  for (const [key, record] of records) {
    const row = rows.get(key)
    if (row === undefined) return `${table} ${key} is on the devices, but not in Postgres`
    const field = Object.keys(record).find((name) => textOf(row[name]) !== textOf(record[name]))
    if (field !== undefined)
      return `${table} ${key}: ${field} is ${textOf(record[field])} on the devices, and ${textOf(row[field])} in Postgres`
  }
  const surplus = [...rows.keys()].find((key) => !records.has(key))
  return surplus === undefined ? undefined : `${table} ${surplus} is in Postgres, but on no device`
}

function textOf(value: unknown): string {
  return JSON.stringify(value ?? null)
}
