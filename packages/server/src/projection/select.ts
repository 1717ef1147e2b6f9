/**
 * Runs the select function of a projection over a batch of records (between steps 7 and 8 of the path), wherever that function lives: what goes in and what comes out is plain data.
 *
 * What comes out is normalised, so that equal rows have equal JSON: keys sorted, strings well formed, NaN and infinities null, −0 as 0, undefined left out, every declared field present.
 */
import type { Field, JsonValue, RecordValue } from '@rejoin/shared'
import { canonicalDate, toPlain } from '@rejoin/shared'
import type { Key, Projection } from '../sinks/sink.ts'

/** What select is given for one record: the record, each joined one, `document` and `id`. */
export interface SelectInput {
  /** Of the record. */
  readonly key: Key
  readonly input: Readonly<Record<string, unknown>>
}

/** What select gave for one record: rows, or why there are none to be had. */
export type Selected = { readonly rows: readonly SelectedRow[] } | { readonly error: string }

export interface SelectedRow {
  /** Undefined: the row has the record's own id. */
  readonly part: string | undefined
  readonly value: RecordValue
}

/** Characters of an error that are kept: it is shown, and stored for each key. */
const MAX_REASON = 500

/** One outcome for each input, in their order. Never throws: a record on which select throws says so in its place. */
export function runSelect(
  projection: Pick<Projection, 'select' | 'fields' | 'parts'>,
  inputs: readonly SelectInput[],
): readonly Selected[] {
  const fields = projection.fields === undefined ? undefined : Object.entries(projection.fields)
  return inputs.map(({ input }) => {
    try {
      return { rows: rowsOf(projection.select(input), projection.parts, fields) }
    } catch (error) {
      return { error: (error instanceof Error ? error.message : String(error)).slice(0, MAX_REASON) }
    }
  })
}

type DeclaredFields = readonly (readonly [name: string, field: Field])[] | undefined

function rowsOf(output: unknown, parts: boolean, fields: DeclaredFields): readonly SelectedRow[] {
  if (output === null || output === undefined) return []
  if (isThenable(output)) {
    // Nobody waits for it: what it may reject with must not end the process.
    output.then(undefined, () => {})
    throw new Error('select returned a promise; it has to be a plain function of the records it is given')
  }
  if (!parts) {
    if (Array.isArray(output)) throw new Error('select returned a list; a projection with several rows for a record says parts: true')
    return [{ part: undefined, value: rowOf(output, fields) }]
  }
  if (!Array.isArray(output)) throw new Error('select returned no list; with parts: true it returns a list of { part, value }')
  const seen = new Set<string>()
  return (output as readonly unknown[]).map((each) => {
    const { part, value } = (typeof each === 'object' && each !== null ? each : {}) as { readonly part?: unknown; readonly value?: unknown }
    if (typeof part !== 'string' || part === '' || part.includes('/'))
      throw new Error(`a part is named by a string without '/'; this is ${shown(part)}`)
    const name = part.toWellFormed()
    if (seen.has(name)) throw new Error(`select returned the part ${shown(name)} twice`)
    seen.add(name)
    return { part: name, value: rowOf(value, fields) }
  })
}

function rowOf(output: unknown, fields: DeclaredFields): RecordValue {
  if (typeof output !== 'object' || output === null || Array.isArray(output))
    throw new Error(`a row is an object of fields; select returned ${nameOf(output)}`)
  // Of most rows every value is a scalar; the rest goes the long way.
  const value = flatOf(output as Readonly<Record<string, unknown>>) ?? plainOf(output)
  if (fields === undefined) return value
  const row: Record<string, JsonValue> = {}
  for (const [name, field] of fields) row[name] = Object.hasOwn(value, name) ? fitted(name, field, value[name] ?? null) : null
  for (const name in value) if (!Object.hasOwn(row, name)) throw new Error(`select returned ${shown(name)}, which fields does not declare`)
  return row
}

/** The row when it is plain, its keys are names and its values scalars; undefined otherwise. */
function flatOf(output: Readonly<Record<string, unknown>>): RecordValue | undefined {
  if (Object.getPrototypeOf(output) !== Object.prototype) return undefined
  const names = Object.keys(output).sort()
  const row: Record<string, JsonValue> = {}
  for (const name of names) {
    const value = output[name]
    if (!NAME.test(name)) return undefined
    if (value === null || typeof value === 'boolean') row[name] = value
    else if (typeof value === 'string') row[name] = value.toWellFormed()
    else if (typeof value === 'number') row[name] = Number.isFinite(value) ? value + 0 : null
    else if (value !== undefined) return undefined
  }
  return row
}

const NAME = /^[A-Za-z]\w*$/u

/** Canonical JSON of what select returned. Throws on what JSON has no form for, which would be lost without a word. */
function plainOf(output: unknown): RecordValue {
  const plain = toPlain(output, (_problem, message) => {
    throw new Error(`a row holds ${message}`)
  })
  if (typeof plain !== 'object' || plain === null || Array.isArray(plain))
    throw new Error('a row is a plain object; select returned another')
  return plain as RecordValue
}

/** The value as a field of this kind, or an error that names the field. */
function fitted(name: string, field: Field, value: JsonValue): JsonValue {
  if (value === null || field.kind === 'json') return value
  if (field.kind === 'number' || field.kind === 'boolean') {
    if (typeof value === field.kind) return value
  } else if (typeof value === 'string') {
    const text = field.kind === 'date' ? canonicalDate(value) : value
    if (text !== undefined) return text
  }
  throw new Error(`${name} is declared as ${field.kind}() and is ${nameOf(value)}`)
}

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof value === 'object' && value !== null && 'then' in value && typeof value.then === 'function'
}

/** Never the value itself: reasons are logged. */
function nameOf(value: unknown): string {
  if (value === null || value === undefined) return String(value)
  if (Array.isArray(value)) return 'a list'
  return typeof value === 'object' ? 'an object' : `a ${typeof value}`
}

function shown(value: unknown): string {
  return typeof value === 'string' ? JSON.stringify(value.slice(0, 50)) : nameOf(value)
}
