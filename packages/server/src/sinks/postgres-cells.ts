/**
 * Values on their way into Postgres (step 8 of the path): cells as text, and many of them as arrays or as lines of COPY.
 */
import type { FieldKind, JsonValue } from '@rejoin/shared'
import { canonicalJson } from '@rejoin/shared'
import type { Table } from './postgres-tables.ts'
import type { SinkRow } from './sink.ts'

/** A cell in Postgres' text form; null is NULL. */
export type Cell = string | null

/** A row whose cells are text. */
export interface CellRow {
  readonly row: SinkRow
  /** With strategy 'actions': of its event. Otherwise all rows of a commit have the same. */
  readonly stamp: string | undefined
  /** document, id, fields; only the key of a row that is to go. */
  readonly cells: readonly Cell[]
}

/** Of document and id together: an entry of Postgres' indexes has at most 2,704 bytes. */
const MAX_KEY_BYTES = 2_500

/** The row's cells, or why Postgres cannot hold it. */
export function cellsOf(table: Table, row: SinkRow): CellRow | string {
  const { document, id } = row.key
  if (document.includes('\0') || id.includes('\0')) return 'its key holds the character NUL, which Postgres cannot store'
  if ((document.length + id.length) * 3 > MAX_KEY_BYTES && Buffer.byteLength(document) + Buffer.byteLength(id) > MAX_KEY_BYTES)
    return `its key has more than ${MAX_KEY_BYTES} bytes, and an index of Postgres cannot hold it`
  const cells: Cell[] = [document, id]
  const { value } = row
  if (value !== null) {
    for (const { field, kind } of table.columns) {
      const cell = cellOf(kind, Object.hasOwn(value, field) ? value[field] : null)
      if (cell !== null && hasNul(kind, cell)) return `${field} holds the character NUL, which Postgres cannot store`
      cells.push(cell)
    }
  }
  return { row, cells, stamp: row.event === undefined ? undefined : String(row.event.version) }
}

/** A field's value as Postgres reads it. A value of another kind can only come of a schema that is being replaced, and is written again. */
export function cellOf(kind: FieldKind, value: JsonValue | undefined): Cell {
  if (value === null || value === undefined) return null
  switch (kind) {
    case 'number':
      return typeof value === 'number' && Number.isFinite(value) ? String(value) : null
    case 'boolean':
      return typeof value === 'boolean' ? (value ? 't' : 'f') : null
    case 'json':
      return canonicalJson(value)
    default:
      return typeof value === 'string' ? value : null
  }
}

function hasNul(kind: FieldKind, cell: string): boolean {
  if (kind !== 'json') return cell.includes('\0')
  // In JSON it is escaped, and what looks like its escape may be a backslash followed by u0000.
  return cell.includes('\\u0000') && /(?<!\\)(?:\\\\)*\\u0000/u.test(cell)
}

/** The cells of one column as the text of an array. */
export function arrayText(rows: readonly CellRow[], column: number): string {
  let text = '{'
  for (let i = 0; i < rows.length; i++) {
    const cell = rows[i]?.cells[column] ?? null
    if (i > 0) text += ','
    text += cell === null ? 'NULL' : `"${/["\\]/u.test(cell) ? cell.replaceAll(/["\\]/gu, '\\$&') : cell}"`
  }
  return `${text}}`
}

/** The stamps of the rows, likewise. */
export function stampsText(rows: readonly CellRow[]): string {
  return `{${rows.map(({ stamp }) => stamp).join(',')}}`
}

/** Bytes of COPY that are handed to the socket at once. */
const CHUNK = 256 << 10

/** The rows as COPY's text format. */
export function* copyText(rows: readonly CellRow[]): Generator<string> {
  let text = ''
  for (const { cells } of rows) {
    for (let i = 0; i < cells.length; i++) {
      const cell = cells[i] ?? null
      if (i > 0) text += '\t'
      text += cell === null ? '\\N' : /[\\\t\n\r]/u.test(cell) ? cell.replaceAll(/[\\\t\n\r]/gu, escaped) : cell
    }
    text += '\n'
    if (text.length < CHUNK) continue
    yield text
    text = ''
  }
  if (text !== '') yield text
}

function escaped(character: string): string {
  switch (character) {
    case '\t':
      return '\\t'
    case '\n':
      return '\\n'
    case '\r':
      return '\\r'
    default:
      return '\\\\'
  }
}
