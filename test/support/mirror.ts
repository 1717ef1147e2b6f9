/**
 * Reading a SQLite mirror back as records, the way somebody who knows only the schema would.
 */
import type { Field, JsonValue, RecordValue, Schema } from '@rejoin/shared'
import Database from 'better-sqlite3'
import type { Key } from '#server/sinks/sink.js'
import { compareKeys } from '#server/view/view.js'

/** Every row of the schema's tables, ordered by key. */
export function mirrorRows(path: string, schema: Schema): readonly { readonly key: Key; readonly value: RecordValue }[] {
  const db = new Database(path, { readonly: true })
  try {
    const rows = Object.entries(schema.collections).flatMap(([collection, { fields }]) =>
      (db.prepare(`SELECT * FROM "${collection}"`).all() as Record<string, unknown>[]).map((row) => ({
        key: { collection, document: row['document'], id: row['id'] } as Key,
        value: Object.fromEntries(Object.entries(fields).map(([field, { kind }]) => [field, valueOf(kind, row[field])])),
      })),
    )
    return rows.sort((a, b) => compareKeys(a.key, b.key))
  } finally {
    db.close()
  }
}

function valueOf(kind: Field['kind'], cell: unknown): JsonValue {
  if (cell === null) return null
  if (kind === 'boolean') return cell === 1
  return kind === 'json' ? (JSON.parse(String(cell)) as JsonValue) : (cell as JsonValue)
}
