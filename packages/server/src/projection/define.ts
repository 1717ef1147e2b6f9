/**
 * How an application says what a destination gets of its records (`defineProjection`, `ref`), checked when it is defined. It becomes T in transform.ts, between steps 7 and 8 of the path.
 */
import type { DocumentId, Field, Fields, RecordOf, Schema, ValueOf } from '@rejoin/shared'
import { SyncError, documentIdProblem, schemaProblem } from '@rejoin/shared'
import { hashText } from '../sinks/digest.ts'
import type { Projection, Ref } from '../sinks/sink.ts'

/** A reference from a record to one of another collection, made by `ref`. */
export interface RefTo<FieldName extends string = string, Collection extends string = string> extends Ref {
  readonly field: FieldName
  readonly collection: Collection
}

/** A record as select sees it. */
export type Seen<S extends Schema, Name extends keyof S['collections']> = RecordOf<S, Name> & {
  readonly id: string
  readonly document: DocumentId
}

/** The name without a final s. */
export type Singular<Name extends string> = Name extends `${infer One}s` ? (One extends '' ? Name : One) : Name

/** Join name → reference by a field of the collection. */
export type Joins<S extends Schema, From extends keyof S['collections']> = Readonly<
  Record<string, RefTo<keyof S['collections'][From]['fields'] & string, keyof S['collections'] & string>>
>

/** What select and where are given: the record under its name, each joined one under its (undefined: there is none), and the key. */
export type ProjectionInput<
  S extends Schema,
  From extends keyof S['collections'],
  As extends string,
  J extends Readonly<Record<string, RefTo>>,
> = Readonly<Record<As, Seen<S, From>>> & {
  readonly [Name in keyof J]: J[Name] extends RefTo<string, infer To> ? Seen<S, To & keyof S['collections']> | undefined : never
} & { readonly document: DocumentId; readonly id: string }

/** A row of the declared fields, null where they are left out; without declared fields any plain object. */
export type ProjectedRow<F extends Fields | undefined> = F extends Fields
  ? { readonly [Name in keyof F]?: (F[Name] extends Field ? ValueOf<F[Name]> : never) | null | undefined }
  : Readonly<Record<string, unknown>>

/** What select returns: the row or null for none; with parts a list of them. */
export type ProjectedRows<F extends Fields | undefined, Parts extends boolean> = Parts extends true
  ? readonly { readonly part: string; readonly value: ProjectedRow<F> }[] | null
  : ProjectedRow<F> | null

/** Which records become rows of what, and how. Checked when the projection is defined; `select` and `where` run in the relay for every record that changes, and for records joined to one. */
export interface ProjectionOptions<
  S extends Schema,
  From extends keyof S['collections'] & string,
  J extends Readonly<Record<string, RefTo>>,
  As extends string,
  F extends Fields | undefined,
  Parts extends boolean,
> {
  /** The collection whose records become rows. */
  readonly from: From
  /** Table, index, topic … in the destination. @default the collection's name */
  readonly to?: string | undefined
  /** What select calls the record. @default the collection's name without a final s */
  readonly as?: As | undefined
  /** What select calls each joined record → how it is found: `{ owner: ref('ownerId', 'owners') }`. @default none */
  readonly join?: J | undefined
  /** Fields of the rows, by which destinations with columns make their tables. @default not declared: for destinations that take any JSON */
  readonly fields?: F | undefined
  /** Raise it whenever select or where changes what they return: the destination is then written anew. */
  readonly revision: number
  /** Whether a record becomes several rows, of ids `<id>/<part>`. @default false */
  readonly parts?: Parts | undefined
  /** Records for which this is false have no row. @default all have */
  readonly where?: ((input: ProjectionInput<S, From, As, J>) => boolean) | undefined
  /** The row of one record. Depends on what it is given and on nothing else: no clock, no chance, no memory, nothing to wait for. */
  readonly select: (input: ProjectionInput<S, From, As, J>) => ProjectedRows<F, Parts>
}

/**
 * Says what a sink gets of the records of one collection. Throws `SyncError('bad_option')` naming what is wrong.
 *
 * ```ts
 * defineProjection(schema, {
 *   from: 'pets', join: { owner: ref('ownerId', 'owners') }, revision: 1,
 *   select: ({ pet, owner }) => ({ name: pet.name, city: owner?.city ?? null }),
 * })
 * ```
 */
export function defineProjection<
  S extends Schema,
  const From extends keyof S['collections'] & string,
  // oxlint-disable-next-line typescript/no-generated-empty-object-type -- no joins are an object without keys
  const J extends Joins<S, From> = Readonly<Record<never, never>>,
  const As extends string = Singular<From>,
  F extends Fields | undefined = undefined,
  const Parts extends boolean = false,
>(schema: S, options: ProjectionOptions<S, From, J, As, F, Parts>): Projection {
  const { from, to = from, as = singular(from), join = {}, fields, revision, parts = false, where, select } = options
  const problem =
    schemaProblem(schema) ??
    namesProblem(Object.keys(options)) ??
    fromProblem(schema, from) ??
    targetProblem(to, fields) ??
    inputProblem(as, Object.keys(join)) ??
    first(Object.entries(join), ([name, each]) => refProblem(schema, from, name, each)) ??
    restProblem({ revision, parts, where, select })
  if (problem !== undefined) throw new SyncError('bad_option', `defineProjection: ${problem}`)
  const pick = select as (input: unknown) => unknown
  const keep = where as ((input: unknown) => unknown) | undefined
  return Object.freeze({
    to,
    from,
    as,
    join: Object.freeze({ ...join }),
    fields,
    revision,
    parts,
    source: hashText(`${String(select)}\n${String(where ?? '')}`).toString(16),
    select: (input: unknown) => (keep === undefined || isKept(keep(input)) ? pick(input) : null),
  })
}

/**
 * Follows `field` of a record to the record of `collection` with that id. In the same document, unless `document` says which: the id of a document, or `{ field }`, which holds one.
 */
export function ref<const FieldName extends string, const Collection extends string>(
  field: FieldName,
  collection: Collection,
  options: { readonly document?: string | { readonly field: string } | undefined } = {},
): RefTo<FieldName, Collection> {
  const { document } = options
  const where = typeof document === 'string' ? Object.freeze({ id: document as DocumentId }) : document
  return Object.freeze({ field, collection, document: where })
}

const OPTIONS: readonly string[] = [
  'from',
  'to',
  'as',
  'join',
  'fields',
  'revision',
  'parts',
  'where',
  'select',
] satisfies readonly (keyof ProjectionOptions<Schema, string, never, string, undefined, false>)[]
/** What is a name in JavaScript and can be destructured. */
const NAME = /^[A-Za-z_$][\w$]*$/u
const TAKEN: ReadonlySet<string> = new Set(['id', 'document', '__proto__'])

function namesProblem(names: readonly string[]): string | undefined {
  const unknown = names.find((name) => !OPTIONS.includes(name))
  return unknown === undefined ? undefined : `does not know ${unknown}; it takes ${OPTIONS.join(', ')}`
}

function fromProblem({ collections }: Schema, from: unknown): string | undefined {
  return typeof from === 'string' && Object.hasOwn(collections, from)
    ? undefined
    : `from: ${JSON.stringify(from)} is no collection of the schema, which has ${Object.keys(collections).join(', ')}`
}

/** Targets and their fields become names in the destination, as collections and theirs do. */
function targetProblem(to: unknown, fields: Fields | undefined): string | undefined {
  if (typeof to !== 'string') return `to: the name of a table, index or topic; this is ${JSON.stringify(to)}`
  const declared = fields ?? { any: { kind: 'json' } }
  const problem = schemaProblem({ collections: { [to]: { fields: declared } } })
  return problem === undefined ? undefined : `what it writes to: ${problem}`
}

function inputProblem(as: unknown, joins: readonly string[]): string | undefined {
  return first([as, ...joins], (name, i) => {
    const what = i === 0 ? 'as' : 'join'
    if (typeof name !== 'string' || !NAME.test(name)) return `${what}: ${JSON.stringify(name)} is no name of an argument`
    if (TAKEN.has(name)) return `${what}: ${name} is what select is given of the record's key; choose another name`
    return i > 0 && name === as ? `join: ${name} is the record itself; choose another name, or another for it (as: '…')` : undefined
  })
}

function refProblem({ collections }: Schema, from: string, name: string, given: unknown): string | undefined {
  const { field, collection, document } = (given ?? {}) as Partial<Ref>
  const fields = collections[from]?.fields ?? {}
  if (typeof field !== 'string' || typeof collection !== 'string') return `join.${name} is made by ref('field', 'collection')`
  if (!Object.hasOwn(collections, collection)) return `join.${name}: ${JSON.stringify(collection)} is no collection of the schema`
  const names = [field, ...(document !== undefined && 'field' in document ? [document.field] : [])]
  const wrong = names.find((each) => !Object.hasOwn(fields, each) || fields[each]?.kind !== 'string')
  if (wrong !== undefined) return `join.${name}: ${from}.${wrong} has to be a field of kind string()`
  const invalid = document !== undefined && 'id' in document ? documentIdProblem(document.id) : undefined
  return invalid === undefined ? undefined : `join.${name}: document ${JSON.stringify(document)}: ${invalid}`
}

function restProblem(given: {
  readonly revision: unknown
  readonly parts: unknown
  readonly where: unknown
  readonly select: unknown
}): string | undefined {
  const { revision, parts, where, select } = given
  if (typeof revision !== 'number' || !Number.isSafeInteger(revision) || revision < 1)
    return `revision: a whole number from 1 on, raised when select or where changes; this is ${JSON.stringify(revision)}`
  if (typeof parts !== 'boolean') return `parts: true or false; this is ${JSON.stringify(parts)}`
  if (typeof select !== 'function') return 'select: a function from the record to its row'
  return where === undefined || typeof where === 'function' ? undefined : 'where: a function from the record to true or false'
}

function isKept(kept: unknown): boolean {
  if (typeof kept !== 'boolean') throw new Error('where returned something that is neither true nor false')
  return kept
}

function singular(name: unknown): string {
  const text = String(name)
  return text.length > 1 && text.endsWith('s') ? text.slice(0, -1) : text
}

function first<T>(items: readonly T[], problemOf: (item: T, index: number) => string | undefined): string | undefined {
  for (const [i, item] of items.entries()) {
    const problem = problemOf(item, i)
    if (problem !== undefined) return problem
  }
  return undefined
}
