/**
 * Records out of shared types (step 7 of the path, and the client's collections): a Y.Map in, canonical plain JSON out. Pure and total: what a stranger wrote is reported, never thrown on.
 */
import { Array as YArray, Map as YMap, Text as YText } from 'yjs'
import type { Doc } from 'yjs'
import { canonicalScalar, isPlainObject } from './canonical.ts'
import type { CollectionSchema, Field, FieldKind, JsonValue, Schema } from './schema.ts'
import { isRichText, richTextToXml } from './xml.ts'

/** A record's fields in canonical form: plain JSON, keys sorted, every field of its collection present. */
export type RecordValue = { readonly [field: string]: JsonValue }

/** One thing in a record that does not fit its collection. */
export interface Violation {
  /** The field; undefined when it is the record itself. */
  readonly field: string | undefined
  /** `type`: not what the field holds · `depth`: nested deeper than `MAX_DEPTH` · `key`: a key that is refused. */
  readonly problem: 'type' | 'depth' | 'key'
  readonly message: string
}

/** A record as read: null when there is no Y.Map to read. A field that does not fit reads as null. */
export interface ReadRecord {
  readonly value: RecordValue | null
  readonly violations: readonly Violation[]
}

/** The deepest JSON that is read: twice what a relay admits in one value, as shared types nest around values. */
export const MAX_DEPTH = 64

type Report = (problem: Violation['problem'], message: string) => void

/**
 * Reads one record. Fields that are absent or null read as null; fields that the collection does not declare are left out (a newer application may have written them).
 */
export function readRecord(collection: CollectionSchema, source: unknown): ReadRecord {
  if (!(source instanceof YMap))
    return { value: null, violations: [{ field: undefined, problem: 'type', message: `a record is a Y.Map, not ${nameOf(source)}` }] }
  const violations: Violation[] = []
  const value: Record<string, JsonValue> = {}
  for (const name of Object.keys(collection.fields).toSorted()) {
    const field = collection.fields[name]
    if (field === undefined) continue
    const report: Report = (problem, message) => violations.push({ field: name, problem, message: `${name}: ${message}` })
    const stored: unknown = source.get(name)
    value[name] = stored === undefined || stored === null ? null : readField(field, stored, report)
  }
  return { value, violations }
}

/** Every record of a document by collection and id, ids sorted, and what did not fit, named by collection and id. */
export function readDocument(
  schema: Schema,
  doc: Doc,
): {
  readonly collections: Readonly<Record<string, Readonly<Record<string, RecordValue>>>>
  readonly violations: readonly (Violation & { readonly collection: string; readonly id: string })[]
} {
  const collections: Record<string, Record<string, RecordValue>> = {}
  const violations: (Violation & { collection: string; id: string })[] = []
  for (const [name, collection] of Object.entries(schema.collections)) {
    const records: Record<string, RecordValue> = {}
    const map = doc.getMap(name)
    for (const id of [...map.keys()].toSorted()) {
      const read = id === '__proto__' ? refusedId() : readRecord(collection, map.get(id))
      for (const violation of read.violations) violations.push({ ...violation, collection: name, id })
      if (read.value !== null) records[id] = read.value
    }
    collections[name] = records
  }
  return { collections, violations }
}

/**
 * The plain JSON of what Yjs holds, shared types included: keys sorted, scalars as `canonicalScalar`, undefined left out of objects and null in arrays.
 * What JSON has no form for, what lies deeper than `MAX_DEPTH` and keys named `__proto__` go to `report`, and read as null or are left out.
 */
export function toPlain(value: unknown, report: Report = () => {}): JsonValue {
  let root: JsonValue = null
  const steps: { readonly source: unknown; readonly depth: number; readonly put: (made: JsonValue) => void }[] = [
    { source: value, depth: 0, put: (made) => (root = made) },
  ]
  for (let step = steps.pop(); step !== undefined; step = steps.pop()) {
    const { source, put } = step
    const depth = step.depth + 1
    const items = source instanceof YArray ? source.toArray() : source
    const entries = Array.isArray(items) ? undefined : entriesOf(items)
    if (!Array.isArray(items) && entries === undefined) put(plainScalar(source, report))
    else if (depth > MAX_DEPTH) {
      report('depth', `nested deeper than ${MAX_DEPTH}`)
      put(null)
    } else if (entries === undefined) {
      const made: JsonValue[] = []
      put(made)
      for (const [i, source] of (items as readonly unknown[]).entries()) {
        made.push(null)
        steps.push({ source: source ?? null, depth, put: (child) => (made[i] = child) })
      }
    } else {
      const made: Record<string, JsonValue> = {}
      put(made)
      for (const [key, source] of entries) {
        if (key === '__proto__') {
          report('key', 'a key named __proto__')
          continue
        }
        // The key is set now, in sorted order, and gets its value when its turn comes.
        made[key.toWellFormed()] = null
        steps.push({ source, depth, put: (child) => (made[key.toWellFormed()] = child) })
      }
    }
  }
  return root
}

function readField(field: Field, stored: unknown, report: Report): JsonValue {
  if (field.kind === 'json') return toPlain(stored, report)
  const { wanted, read } = READERS[field.kind]
  const value = read(stored)
  if (value === undefined) report('type', `${wanted}, not ${nameOf(stored)}`)
  return value ?? null
}

/** Kind → what it wants, and how that reads; undefined when it is something else. */
const READERS: {
  readonly [Kind in Exclude<FieldKind, 'json'>]: { readonly wanted: string; readonly read: (stored: unknown) => JsonValue | undefined }
} = {
  string: { wanted: 'a string', read: (stored) => (typeof stored === 'string' ? canonicalScalar(stored) : undefined) },
  number: { wanted: 'a number', read: (stored) => (typeof stored === 'number' ? canonicalScalar(stored) : undefined) },
  boolean: { wanted: 'true or false', read: (stored) => (typeof stored === 'boolean' ? stored : undefined) },
  date: {
    wanted: 'an ISO 8601 date, or time with its offset',
    read: (stored) => (typeof stored === 'string' ? canonicalDate(stored) : undefined),
  },
  text: { wanted: 'a Y.Text', read: (stored) => (stored instanceof YText ? stored.toJSON().toWellFormed() : undefined) },
  richText: { wanted: 'a Y.XmlFragment or Y.Text', read: (stored) => (isRichText(stored) ? richTextToXml(stored) : undefined) },
}

const CALENDAR = /^\d{4}-\d{2}-\d{2}$/u
const INSTANT = /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(?::\d{2}(?:\.\d{1,9})?)?(?:Z|[+-]\d{2}:\d{2})$/u

/** `2020-05-17` as it is, an instant as UTC with milliseconds; undefined for anything else, days that do not exist included. */
export function canonicalDate(text: string): string | undefined {
  const day = text.slice(0, 10)
  if (!CALENDAR.test(day)) return undefined
  const midnight = new Date(`${day}T00:00:00.000Z`)
  // A day beyond its month rolls over and comes back as another one.
  if (Number.isNaN(midnight.getTime()) || midnight.toISOString().slice(0, 10) !== day) return undefined
  if (text === day) return day
  if (!INSTANT.test(text)) return undefined
  const instant = new Date(text)
  if (Number.isNaN(instant.getTime())) return undefined
  const shown = instant.toISOString()
  // An offset at the edge of the four-digit years leads beyond them.
  return shown.length === 24 ? shown : undefined
}

/** Sorted entries of what reads as an object; undefined for everything else. */
function entriesOf(source: unknown): readonly (readonly [string, unknown])[] | undefined {
  const entries = source instanceof YMap ? [...source.entries()] : isPlainObject(source) ? Object.entries(source) : undefined
  return entries?.filter(([, child]) => child !== undefined).toSorted(([a], [b]) => (a < b ? -1 : 1))
}

function plainScalar(source: unknown, report: Report): JsonValue {
  if (source instanceof YText && source.constructor === YText) return source.toJSON().toWellFormed()
  if (isRichText(source)) return richTextToXml(source)
  const scalar = canonicalScalar(source)
  if (scalar !== undefined) return scalar
  report('type', `${nameOf(source)} has no JSON form`)
  return null
}

function refusedId(): ReadRecord {
  return { value: null, violations: [{ field: undefined, problem: 'key', message: 'a record whose id is __proto__' }] }
}

function nameOf(value: unknown): string {
  if (value === null || value === undefined) return String(value)
  if (Array.isArray(value)) return 'an array'
  if (typeof value !== 'object') return `a ${typeof value}`
  if (value instanceof Uint8Array) return 'bytes'
  // Yjs marks its types by this property; their class names do not survive minification.
  return '_item' in value ? 'another shared type' : 'an object'
}
