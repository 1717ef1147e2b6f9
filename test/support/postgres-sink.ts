/**
 * A Postgres database as the destination of tests: what lies there, and what its owner may do to it.
 */
import type { JsonValue, RecordValue, Schema } from '@rejoin/shared'
import pg from 'pg'
import type { Key } from '#server/sinks/sink.js'
import { compareKeys } from '#server/view/view.js'

/** Runs one statement, or several without values, and gives the rows. */
export async function sql(url: string, text: string, values?: readonly unknown[]): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({ connectionString: url })
  client.on('error', () => undefined)
  await client.connect()
  try {
    const result = await client.query<Record<string, unknown>>(text, values === undefined ? undefined : [...values])
    return result.rows
  } finally {
    await client.end()
  }
}

/** Every row of the schema's tables, ordered by key, the way somebody who knows only the schema would read them. */
export async function tableRows(
  url: string,
  schema: Schema,
  within = 'public',
): Promise<readonly { readonly key: Key; readonly value: RecordValue }[]> {
  const all = []
  for (const [collection, { fields }] of Object.entries(schema.collections)) {
    const rows = await sql(url, `SELECT * FROM ${within}."${collection}"`)
    for (const row of rows) {
      const value = Object.fromEntries(Object.keys(fields).map((field) => [field, row[field] as JsonValue]))
      all.push({ key: { collection, document: row['document'], id: row['id'] } as Key, value })
    }
  }
  return all.sort((a, b) => compareKeys(a.key, b.key))
}
