/**
 * T (between steps 7 and 8 of the path): from records of the view to rows of a destination, for all projections of one sink together. Pure, given the view and the functions.
 */
import type { Collections, DocumentId, RecordValue, Schema } from '@rejoin/shared'
import { SyncError, canonicalJson } from '@rejoin/shared'
import { hashText } from '../sinks/digest.ts'
import type { Key, Projection, Ref } from '../sinks/sink.ts'
import type { RefField, View } from '../view/view.ts'
import { compareKeys, keyText } from '../view/view.ts'
import type { SelectInput, Selected } from './select.ts'
import { runSelect } from './select.ts'

/** A row of the destination. Its key's collection is the target. */
export interface TargetRow {
  readonly key: Key
  readonly value: RecordValue
}

/** A record, as of a version. */
export interface SourceAt {
  readonly source: Key
  readonly version: number
  /** The record, null when there is none, from who has read it already and leaves it to T. @default read from the view */
  readonly record?: RecordValue | null | undefined
}

/** What T gives for one record. */
export interface SourceRows extends Omit<SourceAt, 'record'> {
  /** Each key once. */
  readonly rows: readonly TargetRow[]
  /** Targets for which it could not be had: the key is the record's own id in that target, whatever its parts. Their rows are not in `rows`. */
  readonly poison: readonly { readonly key: Key; readonly reason: string }[]
}

/** Runs the select function of the projection with this index, here or elsewhere; one outcome for each input, in their order. */
export type CallSelect = (projection: number, inputs: readonly SelectInput[]) => readonly Selected[] | Promise<readonly Selected[]>

/** T of one sink. */
export interface Transform {
  /** Target → its fields. */
  readonly targets: Collections
  /** Targets whose fields are not declared; they stand in `targets` with none. */
  readonly untyped: readonly string[]
  /** Target → collection that it is made from. */
  readonly sources: ReadonlyMap<string, { readonly collection: string; readonly parts: boolean; readonly revision: number }>
  /** Canonical text that changes when rows may change because T did. */
  readonly revision: string
  /** Hash of the functions' source text; '' when there are none. */
  readonly source: string
  /** Collections that rows are made from, joined ones included. */
  readonly collections: ReadonlySet<string>
  /** Records whose rows may differ after these keys changed, each once, in the order of keys. `version` is where the changes end: a record whose own reference changed is among the keys itself. */
  affected(view: Pick<View, 'get' | 'dependents'>, dirty: readonly Key[], version: number): readonly Key[]
  /** What T gives for each, in the order asked. */
  rows(view: Pick<View, 'get'>, asked: readonly SourceAt[]): Promise<readonly SourceRows[]>
  /** The record that a row of the destination belongs to; undefined when it cannot be one of this T. */
  sourceOf(target: Key): Key | undefined
}

/** `projections` none: every collection as it is, a target of its own name. `call` is needed where the functions are not. */
export function compileTransform(
  schema: Schema,
  projections: readonly Projection[],
  call: CallSelect = (index, inputs) => runSelect(at(projections, index), inputs),
): Transform {
  return projections.length === 0 ? identity(schema.collections) : projected(schema, projections, call)
}

/** By which fields the view is asked for dependents. */
export function refsOf(projections: readonly Pick<Projection, 'from' | 'join'>[]): readonly RefField[] {
  return projections.flatMap(({ from, join }) => Object.values(join).map(({ field }) => ({ collection: from, field })))
}

function identity(collections: Collections): Transform {
  const names = new Set(Object.keys(collections))
  return {
    targets: collections,
    untyped: [],
    sources: new Map([...names].map((collection) => [collection, { collection, parts: false, revision: 1 }])),
    revision: canonicalJson(collections),
    source: '',
    collections: names,
    affected: (_view, dirty) => dirty.filter(({ collection }) => names.has(collection)),
    rows: async (view, asked) =>
      asked.map(({ source, version, record }) => {
        const value = names.has(source.collection) ? (record ?? (record === null ? null : view.get(source, version))) : null
        return { source, version, rows: value === null ? [] : [{ key: source, value }], poison: [] }
      }),
    sourceOf: (target) => (names.has(target.collection) ? target : undefined),
  }
}

/** A reference by which records of `from` depend on those of another collection. */
interface Edge {
  readonly from: string
  readonly ref: Ref
}

function projected(schema: Schema, projections: readonly Projection[], call: CallSelect): Transform {
  const froms = new Set(projections.map(({ from }) => from))
  const byTarget = new Map(projections.map((projection) => [projection.to, projection]))
  const edges = new Map<string, Edge[]>()
  for (const { from, join } of projections)
    for (const ref of Object.values(join)) edges.set(ref.collection, [...(edges.get(ref.collection) ?? []), { from, ref }])
  const collections = new Set([...froms, ...edges.keys()])
  const unknown = [...collections].find((name) => !Object.hasOwn(schema.collections, name))
  if (unknown !== undefined)
    throw new SyncError('bad_option', `a projection reads the collection ${JSON.stringify(unknown)}, which the schema does not declare`)
  return {
    targets: Object.fromEntries(projections.map(({ to, fields }) => [to, { fields: fields ?? {} }])),
    untyped: projections.filter(({ fields }) => fields === undefined).map(({ to }) => to),
    sources: new Map(projections.map(({ to, from, parts, revision }) => [to, { collection: from, parts, revision }])),
    revision: canonicalJson(
      projections.map(({ to, from, as, join, fields, parts, revision }) => ({
        to,
        from,
        as,
        join,
        fields: fields ?? null,
        parts,
        revision,
      })),
    ),
    source: hashText(projections.map(({ source }) => source).join('\n')).toString(16),
    collections,
    affected: (view, dirty, version) => affected(view, dirty, version, { froms, edges }),
    rows: (view, asked) => rows(view, asked, projections, call),
    sourceOf: (target) => {
      const projection = byTarget.get(target.collection)
      return projection === undefined ? undefined : sourceOf(projection, target)
    },
  }
}

function affected(
  view: Pick<View, 'get' | 'dependents'>,
  dirty: readonly Key[],
  version: number,
  { froms, edges }: { readonly froms: ReadonlySet<string>; readonly edges: ReadonlyMap<string, readonly Edge[]> },
): readonly Key[] {
  const own = dirty.filter(({ collection }) => froms.has(collection))
  const found = new Map(own.map((key) => [keyText(key), key]))
  for (const key of dirty) {
    for (const { from, ref } of edges.get(key.collection) ?? []) {
      for (const dependent of dependentsOf(view, key, from, ref, version)) found.set(keyText(dependent), dependent)
    }
  }
  // Those alone came in order.
  return found.size === own.length ? own : [...found.values()].sort(compareKeys)
}

function dependentsOf(view: Pick<View, 'get' | 'dependents'>, key: Key, from: string, ref: Ref, version: number): readonly Key[] {
  const { document, field } = ref
  const by = { collection: from, field }
  if (document === undefined) return view.dependents(by, key.id, key.document, version)
  if ('id' in document) return document.id === key.document ? view.dependents(by, key.id, undefined, version) : []
  return view
    .dependents(by, key.id, undefined, version)
    .filter((dependent) => view.get(dependent, version)?.[document.field] === key.document)
}

const NONE: readonly never[] = []

async function rows(
  view: Pick<View, 'get'>,
  asked: readonly SourceAt[],
  projections: readonly Projection[],
  call: CallSelect,
): Promise<readonly SourceRows[]> {
  const records = asked.map(({ source, version, record }) => (record === undefined ? view.get(source, version) : record))
  const made = asked.map(({ source, version }) => ({ source, version, rows: [] as TargetRow[], poison: NONE as SourceRows['poison'] }))
  // Thousands of records may join the same one.
  const joined = createJoins(view)
  for (const [index, projection] of projections.entries()) {
    const isLast = projections.findLastIndex(({ from }) => from === projection.from) === index
    const inputOf = inputsOf(projection, joined, isLast)
    const picked: (typeof made)[number][] = []
    const given: SelectInput[] = []
    for (const [i, into] of made.entries()) {
      const record = records[i]
      if (record === null || record === undefined || into.source.collection !== projection.from) continue
      picked.push(into)
      given.push({ key: into.source, input: inputOf(into.source, into.version, record) })
    }
    if (picked.length === 0) continue
    const outcomes = await call(index, given)
    for (const [i, into] of picked.entries()) {
      const { document, id } = into.source
      const outcome = at(outcomes, i)
      if ('error' in outcome) into.poison = [...into.poison, { key: { collection: projection.to, document, id }, reason: outcome.error }]
      else
        for (const { part, value } of outcome.rows)
          into.rows.push({ key: { collection: projection.to, document, id: part === undefined ? id : `${id}/${part}` }, value })
    }
  }
  return made
}

/** The record as select sees it, undefined when there is none. */
type Joins = (collection: string, document: DocumentId, id: string, version: number) => unknown

function createJoins(view: Pick<View, 'get'>): Joins {
  // By place and then by id: most of a batch joins within one document, as of one or two versions.
  const places = new Map<string, Map<string, unknown>>()
  return (collection, document, id, version) => {
    const place = `${version} ${collection} ${document}`
    const known = places.get(place) ?? new Map<string, unknown>()
    places.set(place, known)
    if (known.has(id)) return known.get(id)
    const value = view.get({ collection, document, id }, version)
    // Shared by many calls of select: none may leave something in it for the next.
    const shown = value === null ? undefined : Object.freeze({ ...value, document, id })
    known.set(id, shown)
    return shown
  }
}

/** Makes what select is given, of one record after another. `isLast`: nobody else needs the record, it can be what select sees. */
function inputsOf(
  { as, join }: Projection,
  joined: Joins,
  isLast: boolean,
): (source: Key, version: number, record: RecordValue) => SelectInput['input'] {
  const joins = Object.entries(join)
  return ({ document, id }, version, record) => {
    const input: Record<string, unknown> = { [as]: Object.assign(isLast ? record : { ...record }, { document, id }), document, id }
    for (const [name, ref] of joins) {
      const [target, where] = [record[ref.field], documentOf(ref, document, record)]
      const leads = typeof target === 'string' && typeof where === 'string'
      input[name] = leads ? joined(ref.collection, where as DocumentId, target, version) : undefined
    }
    return input
  }
}

/** Where the record lies that a reference leads to. */
function documentOf({ document }: Ref, own: DocumentId, record: RecordValue): unknown {
  if (document === undefined) return own
  return 'id' in document ? document.id : record[document.field]
}

/** Parts have no '/': the last one ends the record's id. */
function sourceOf({ from, parts }: Projection, { document, id }: Key): Key | undefined {
  const end = parts ? id.lastIndexOf('/') : id.length
  return end === -1 ? undefined : { collection: from, document, id: id.slice(0, end) }
}

function at<T>(list: readonly T[], index: number): T {
  const found = list[index]
  if (found === undefined) throw new Error(`${list.length} outcomes, and number ${index + 1} was asked for`)
  return found
}
