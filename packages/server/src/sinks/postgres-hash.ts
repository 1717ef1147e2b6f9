/**
 * The hash of a row, twice (step 8 of the path): as a Postgres expression over its columns, and over what was sent. They agree bit by bit on a row that lies there as it was sent.
 *
 * What is hashed: collection, document, id, and the fields in the order of their names. A text is `v<bytes>:<text>`, a number the 16 hex digits of its IEEE 754 double, a boolean t or f, JSON `j<text>;` as Postgres prints jsonb, NULL n.
 */
import type { FieldKind, JsonValue, RecordValue } from '@rejoin/shared'
import { KEY_SEPARATOR, hashText } from './digest.ts'
import { cellOf } from './postgres-cells.ts'
import type { Column, Table } from './postgres-tables.ts'
import { literal } from './postgres-tables.ts'
import type { Key } from './sink.ts'

/** SQL of the row's hash, as a bigint, in a query of the table. `there`: columns that exist; others count as NULL. */
export function hashSql(table: Table, there: ReadonlySet<string>): string {
  const parts = [
    literal(textPart(table.name)),
    textSql('document'),
    textSql('id'),
    ...inOrder(table).map(({ field, kind, sql }) => (there.has(field) ? `coalesce(${fieldSql(kind, sql)}, 'n')` : "'n'")),
  ]
  return `('x' || substr(md5(${parts.join(' || ')}), 1, 16))::bit(64)::bigint`
}

/** SQL of the bucket, as an integer: digest.ts's. */
export function bucketSql(table: Table): string {
  const separator = `chr(${KEY_SEPARATOR.charCodeAt(0)})`
  return `('x' || substr(md5(${literal(table.name)} || ${separator} || document || ${separator} || id), 1, 3))::bit(12)::integer >> 2`
}

function textSql(column: string): string {
  return `'v' || octet_length(${column}) || ':' || ${column}`
}

function fieldSql(kind: FieldKind, column: string): string {
  switch (kind) {
    case 'number':
      return `encode(float8send(${column}), 'hex')`
    case 'boolean':
      return `CASE WHEN ${column} THEN 't' WHEN NOT ${column} THEN 'f' END`
    case 'json':
      // JSON says itself where it ends, but for a number.
      return `'j' || ${column}::text || ';'`
    default:
      return textSql(column)
  }
}

/** The same of a row that is to lie there. */
export function hashRow(table: Table | undefined, { collection, document, id }: Key, value: RecordValue): bigint {
  let text = textPart(collection) + textPart(document) + textPart(id)
  for (const { field, kind } of table === undefined ? [] : inOrder(table)) {
    text += fieldPart(kind, Object.hasOwn(value, field) ? value[field] : null)
  }
  return hashText(text)
}

function textPart(text: string): string {
  return `v${Buffer.byteLength(text)}:${text}`
}

const double = new DataView(new ArrayBuffer(8))

function fieldPart(kind: FieldKind, value: JsonValue | undefined): string {
  if (kind === 'json') return value === null || value === undefined ? 'n' : `j${jsonbText(value)};`
  const cell = cellOf(kind, value)
  if (cell === null) return 'n'
  if (kind === 'boolean') return cell
  if (kind !== 'number') return textPart(cell)
  double.setFloat64(0, Number(cell))
  return double.getBigUint64(0).toString(16).padStart(16, '0')
}

/** A value as Postgres prints it when it lies in a jsonb: keys by length and then by bytes, numbers without exponent. */
export function jsonbText(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(wellFormed(value))
  if (typeof value === 'number') return Number.isFinite(value) ? plainNumber(value) : 'null'
  if (Array.isArray(value)) return `[${value.map(jsonbText).join(', ')}]`
  if (typeof value !== 'object' || value === null) return String(value)
  const entries = Object.entries(value).map(([key, child]) => ({ key: wellFormed(key), bytes: Buffer.from(key), child: child as unknown }))
  entries.sort((a, b) => a.bytes.length - b.bytes.length || Buffer.compare(a.bytes, b.bytes))
  return `{${entries.map(({ key, child }) => `${JSON.stringify(key)}: ${jsonbText(child)}`).join(', ')}}`
}

/** Half a pair of surrogates becomes U+FFFD, as in everything that is sent. */
function wellFormed(text: string): string {
  return /[\ud800-\udfff]/.test(text) ? Buffer.from(text).toString() : text
}

function plainNumber(value: number): string {
  const text = String(value)
  const [, sign = '', whole = '', fraction = '', exponent] = /^(-?)(\d+)(?:\.(\d+))?(?:e([+-]\d+))?$/u.exec(text) ?? []
  if (exponent === undefined) return text
  const digits = whole + fraction
  const point = whole.length + Number(exponent)
  if (point <= 0) return `${sign}0.${'0'.repeat(-point)}${digits}`
  return `${sign}${digits.padEnd(point, '0')}`
}

const ordered = new WeakMap<Table, readonly Column[]>()

function inOrder(table: Table): readonly Column[] {
  let columns = ordered.get(table)
  if (columns === undefined) ordered.set(table, (columns = [...table.columns].sort((a, b) => (a.field < b.field ? -1 : 1))))
  return columns
}
