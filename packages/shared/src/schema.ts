/**
 * What an application declares of its records, as plain data: used by the client's app and the relay's config alike, and sent to workers as it is.
 */
import { SyncError } from './errors.ts'

declare const valueType: unique symbol

/** What a field holds. `text` is a Y.Text, `richText` a Y.XmlFragment (or a Y.Text with formatting), `date` an ISO 8601 string; the others are plain values. */
export type FieldKind = 'string' | 'number' | 'boolean' | 'date' | 'json' | 'text' | 'richText'

/** Anything JSON can hold. */
export type JsonValue = null | boolean | number | string | readonly JsonValue[] | { readonly [key: string]: JsonValue }

/** One field of a record. Own properties are plain data, so that a field can be sent to a worker; `T` exists for the compiler only. */
export interface Field<T = unknown, Kind extends FieldKind = FieldKind> {
  readonly kind: Kind
  readonly [valueType]?: T
}

/** Field name → field. */
export type Fields = Readonly<Record<string, Field>>

/** A named top-level Y.Map of records. */
export interface CollectionSchema<F extends Fields = Fields> {
  readonly fields: F
}

/** Collection name → collection. */
export type Collections = Readonly<Record<string, CollectionSchema>>

/** Everything an application declares. */
export interface Schema<C extends Collections = Collections> {
  readonly collections: C
}

/** The value of a field as records show it. */
export type ValueOf<F extends Field> = F extends Field<infer T> ? T : never

/**
 * A record of a collection in canonical form: `RecordOf<typeof schema, 'pets'>`. A field is null when it is absent: peers that know no schema may leave it out.
 */
export type RecordOf<S extends Schema, Name extends keyof S['collections']> = {
  readonly [F in keyof S['collections'][Name]['fields']]: ValueOf<S['collections'][Name]['fields'][F]> | null
}

/** A short string; concurrent changes: one of them wins whole. */
export const string = (): Field<string, 'string'> => field('string')
/** A finite number; NaN and the infinities read as null. */
export const number = (): Field<number, 'number'> => field('number')
/** true or false. */
export const boolean = (): Field<boolean, 'boolean'> => field('boolean')
/** A calendar date (`2020-05-17`) or an instant (`2020-05-17T10:00:00.000Z`, any offset), stored as an ISO 8601 string: Yjs cannot carry a `Date`. Instants read in UTC. */
export const date = (): Field<string, 'date'> => field('date')
/** Any JSON value, at most 64 deep. */
export const json = (): Field<JsonValue, 'json'> => field('json')
/** A Y.Text without formatting, which several people may type into; records show its string. */
export const text = (): Field<string, 'text'> => field('text')
/** A Y.XmlFragment, Y.XmlElement, Y.XmlText or formatted Y.Text; records show it as XML. */
export const richText = (): Field<string, 'richText'> => field('richText')

/** Declares a collection: `collection({ name: string(), dob: date() })`. `defineSchema` checks it. */
export function collection<const F extends Fields>(fields: F): CollectionSchema<F> {
  return Object.freeze({ fields: Object.freeze({ ...fields }) })
}

/**
 * Declares the application's collections: `defineSchema({ pets: collection({ name: string() }) })`. The result is frozen plain data.
 * Throws `SyncError('bad_option')` that names what is wrong and where.
 */
export function defineSchema<const C extends Collections>(collections: C): Schema<C> {
  const schema: Schema<C> = Object.freeze({ collections: Object.freeze({ ...collections }) })
  const problem = schemaProblem(schema)
  if (problem !== undefined) throw new SyncError('bad_option', `defineSchema: ${problem}`)
  return schema
}

/** Why `value` is not a schema, or undefined when it is one. */
export function schemaProblem(value: unknown): string | undefined {
  if (!isObject(value) || !isObject(value['collections'])) return 'a schema is made by defineSchema({ name: collection({ … }) })'
  const collections = Object.entries(value['collections'])
  if (collections.length === 0) return 'there is no collection in it'
  return (
    namesProblem('collection', Object.keys(value['collections'])) ??
    firstProblem(collections, ([name, declared]) => collectionProblem(name, declared))
  )
}

const KINDS: ReadonlySet<unknown> = new Set<FieldKind>(['string', 'number', 'boolean', 'date', 'json', 'text', 'richText'])
/** Names become tables and columns: what every destination takes unquoted, and at most the 63 bytes of a Postgres identifier. */
const NAME = /^[A-Za-z][A-Za-z0-9_]{0,62}$/u
/** Names on every object's prototype: `value[name]` would find something where nothing was set. */
const INHERITED: ReadonlySet<string> = new Set(Object.getOwnPropertyNames(Object.prototype))
/** Every destination's key is (document, id). */
const RESERVED_FIELDS: ReadonlySet<string> = new Set(['id', 'document'])

function field<T, Kind extends FieldKind>(kind: Kind): Field<T, Kind> {
  return Object.freeze({ kind })
}

function collectionProblem(name: string, declared: unknown): string | undefined {
  if (!isObject(declared) || !isObject(declared['fields'])) return `${name} is not made by collection({ … })`
  const fields = Object.entries(declared['fields'])
  if (fields.length === 0) return `collection ${name} has no fields`
  return (
    namesProblem('field', Object.keys(declared['fields']), `${name}.`) ??
    firstProblem(fields, ([fieldName, declaredField]) => {
      if (RESERVED_FIELDS.has(fieldName.toLowerCase()))
        return `field ${name}.${fieldName}: every record has its document and its id already; name it otherwise`
      if (!isObject(declaredField))
        return `field ${name}.${fieldName} is not made by string(), number(), boolean(), date(), json(), text() or richText()${typeof declaredField === 'function' ? '; call it' : ''}`
      if (!KINDS.has(declaredField['kind']))
        return `field ${name}.${fieldName} has the unknown kind ${JSON.stringify(declaredField['kind'])}`
      return undefined
    })
  )
}

function namesProblem(what: string, names: readonly string[], prefix = ''): string | undefined {
  const seen = new Map<string, string>()
  return firstProblem(names, (name) => {
    const shown = `${what} ${prefix}${JSON.stringify(name)}`
    if (INHERITED.has(name)) return `${shown}: a name that every JavaScript object has already`
    if (!NAME.test(name)) return `${shown}: a name is 1 to 63 letters, digits and _, and begins with a letter`
    if (/^rejoin_/iu.test(name)) return `${shown}: names that begin with rejoin_ are the tables and columns of Rejoin itself`
    const twin = seen.get(name.toLowerCase())
    if (twin !== undefined) return `${shown} differs from ${JSON.stringify(twin)} by case only, which SQL does not tell apart`
    seen.set(name.toLowerCase(), name)
    return undefined
  })
}

function firstProblem<T>(items: readonly T[], problemOf: (item: T) => string | undefined): string | undefined {
  for (const item of items) {
    const problem = problemOf(item)
    if (problem !== undefined) return problem
  }
  return undefined
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null
}
