/**
 * A MySQL database as the destination of tests: what lies there, and what its owner may do to it.
 */
import type { FieldKind, JsonValue, RecordValue, Schema } from '@rejoin/shared'
import { createConnection } from 'mysql2/promise'
import type { Key } from '#server/sinks/sink.js'
import { compareKeys } from '#server/view/view.js'

/** Runs statements and gives the rows of the last. */
export async function sql(url: string, ...statements: readonly string[]): Promise<Record<string, unknown>[]> {
  const connection = await createConnection({ uri: url, charset: 'utf8mb4' })
  try {
    let rows: unknown = []
    for (const statement of statements) [rows] = await connection.query(statement)
    return Array.isArray(rows) ? (rows as Record<string, unknown>[]) : []
  } finally {
    await connection.end()
  }
}

/** Every row of the schema's tables, ordered by key, the way somebody who knows only the schema would read them. */
export async function tableRows(url: string, schema: Schema): Promise<readonly { readonly key: Key; readonly value: RecordValue }[]> {
  const all = []
  for (const [collection, { fields }] of Object.entries(schema.collections)) {
    const rows = await sql(url, `SELECT * FROM \`${collection}\``).catch((error: unknown) => {
      if ((error as { code?: unknown }).code === 'ER_NO_SUCH_TABLE') return []
      throw error
    })
    for (const row of rows) {
      const value = Object.fromEntries(Object.entries(fields).map(([field, { kind }]) => [field, read(kind, row[field])]))
      all.push({ key: { collection, document: row['document'], id: row['id'] } as Key, value })
    }
  }
  return all.sort((a, b) => compareKeys(a.key, b.key))
}

function read(kind: FieldKind, cell: unknown): JsonValue {
  if (cell === null) return null
  if (kind === 'boolean') return cell === 1
  return kind === 'json' ? (JSON.parse(String(cell)) as JsonValue) : (cell as JsonValue)
}
