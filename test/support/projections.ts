/**
 * Projections of every form over random views, and T by brute force: everything read as of a version, nothing remembered.
 */
import type { DocumentId, Position, RecordValue, Seq } from '@rejoin/shared'
import { canonicalJson, collection, defineSchema, json, number, string } from '@rejoin/shared'
import { defineProjection, ref } from '#server/projection/define.js'
import fc from 'fast-check'
import type { Projection } from '#server/sinks/sink.js'
import type { Key, ProjectedEntry, ViewStore } from '#server/view/view.js'
import { compareKeys, keyText } from '#server/view/view.js'

export const CLINIC = defineSchema({
  pets: collection({ name: string(), ownerId: string(), clinic: string(), tags: json() }),
  owners: collection({ city: string() }),
})

const card = defineProjection(CLINIC, {
  from: 'pets',
  to: 'cards',
  join: { owner: ref('ownerId', 'owners') },
  fields: { name: string(), city: string() },
  revision: 1,
  where: ({ pet }) => pet.name !== 'hidden',
  select: ({ pet, owner }) => ({ name: pet.name, city: owner?.city }),
})

const abroad = defineProjection(CLINIC, {
  from: 'pets',
  to: 'abroad',
  as: 'it',
  join: { there: ref('ownerId', 'owners', { document: { field: 'clinic' } }), first: ref('ownerId', 'owners', { document: 'a' }) },
  revision: 3,
  select: ({ it, there, first, document }) =>
    there === undefined ? null : { name: it.name, there: there.city, first: first?.city, document },
})

const tags = defineProjection(CLINIC, {
  from: 'pets',
  to: 'tags',
  join: { owner: ref('ownerId', 'owners') },
  fields: { tag: string(), n: number(), city: string() },
  parts: true,
  revision: 1,
  select: ({ pet, owner }) => {
    const list = Array.isArray(pet.tags) ? [...new Set(pet.tags.map(String))] : []
    return list.map((tag, n) => ({ part: tag, value: { tag, n, city: owner?.city ?? null } }))
  },
})

const moody = defineProjection(CLINIC, {
  from: 'pets',
  to: 'moody',
  revision: 1,
  select: ({ pet }) => {
    if (pet.name === 'bad') throw new Error('a bad name')
    return pet.name === null ? null : { name: pet.name }
  },
})

const moodyTags = defineProjection(CLINIC, {
  from: 'pets',
  to: 'moodyTags',
  parts: true,
  revision: 1,
  select: ({ pet }) => {
    if (pet.name === 'bad') throw new Error('a bad name')
    return (Array.isArray(pet.tags) ? [...new Set(pet.tags.map(String))] : []).map((part) => ({ part, value: { name: pet.name } }))
  },
})

const towns = defineProjection(CLINIC, { from: 'owners', to: 'towns', revision: 1, select: ({ owner }) => ({ city: owner.city }) })

/** Sets of projections that one sink may have; the first is none: every collection as it is. */
export const PROJECTIONS: readonly (readonly Projection[])[] = [
  [],
  [card],
  [abroad, towns],
  [tags, card],
  [moody, moodyTags],
  [card, abroad, tags, moody, towns],
]
/** Those that strategy 'actions' takes. */
export const WITHOUT_JOINS: readonly (readonly Projection[])[] = [[], [towns, moody], [moodyTags]]

const DOCUMENTS = ['a', 'b'] as DocumentId[]

/** Names that are hard to keep apart and in order. */
const petId = fc.oneof({ weight: 2, arbitrary: fc.constant('1') }, { weight: 1, arbitrary: fc.constantFrom('1-1', '1/1', 'ü') })
const ownerId = fc.constantFrom('o', 'p', '1')

const pet = fc.record({
  clinic: fc.constantFrom('a', 'b', null),
  name: fc.constantFrom('Rex', 'bad', 'bad', 'hidden', 'Tom', null),
  ownerId: fc.oneof(ownerId, fc.constant(null)),
  tags: fc.constantFrom(null, [], ['x'], ['x', 'y'], ['y', '-']),
})

const change = fc.oneof(
  fc.record({ collection: fc.constant('pets'), id: petId, value: fc.option(pet, { nil: null, freq: 4 }) }),
  fc.record({
    collection: fc.constant('owners'),
    id: ownerId,
    value: fc.option(fc.record({ city: fc.constantFrom('Ulm', 'Bonn', null) }), { nil: null, freq: 3 }),
  }),
)

/** Entries of a history, each of several changes, versions 1, 2, 3 … */
export const histories = fc
  .array(
    fc.record({
      document: fc.constantFrom(...DOCUMENTS),
      changes: fc.uniqueArray(change, { maxLength: 4, selector: (one) => `${one.collection}/${one.id}` }),
    }),
    { minLength: 1, maxLength: 12 },
  )
  .map((made) => made.map(({ document, changes }, i) => entryOf(i + 1, document, changes)))

export function entryOf(version: number, document: string, changes: ProjectedEntry['changes']): ProjectedEntry {
  const place = { partition: 0, position: version as Position, epoch: 1, seq: version as Seq }
  return { version, ...place, document: document as DocumentId, actor: 'alice', at: version, settled: true, changes }
}

/** The view of these entries. */
export function withEntries(view: ViewStore, entries: readonly ProjectedEntry[]): ViewStore {
  view.commit({ entries, documents: [], places: [], misfits: [], source: { log: 'l', schema: '' } })
  return view
}

/** Rows by key text, as canonical JSON; and keys whose select throws. */
export interface Truth {
  readonly rows: ReadonlyMap<string, { readonly key: Key; readonly text: string }>
  readonly poisoned: ReadonlySet<string>
}

/** T as of a version. */
export function truthOf(entries: readonly ProjectedEntry[], version: number, projections: readonly Projection[]): Truth {
  const records = new Map<string, { readonly key: Key; readonly value: RecordValue }>()
  for (const { document, changes } of entries.filter((entry) => entry.version <= version)) {
    for (const { collection, id, value } of changes) {
      const key = { collection, document, id }
      if (value === null) records.delete(keyText(key))
      else records.set(keyText(key), { key, value })
    }
  }
  const rows = new Map<string, { readonly key: Key; readonly text: string }>()
  const poisoned = new Set<string>()
  const put = (key: Key, value: unknown): void => void rows.set(keyText(key), { key, text: canonicalJson(value) })
  if (projections.length === 0) for (const { key, value } of records.values()) put(key, value)
  const seen = (key: Key): unknown => {
    const found = records.get(keyText(key))
    return found === undefined ? undefined : { ...found.value, id: key.id, document: key.document }
  }
  for (const projection of projections) {
    for (const { key, value } of records.values()) {
      if (key.collection !== projection.from) continue
      const { document, id } = key
      const input: Record<string, unknown> = { [projection.as]: seen(key), document, id }
      for (const [name, { field, collection, document: where }] of Object.entries(projection.join)) {
        const there = where === undefined ? document : 'id' in where ? where.id : value[where.field]
        const other = value[field]
        input[name] =
          typeof there === 'string' && typeof other === 'string'
            ? seen({ collection, document: there as DocumentId, id: other })
            : undefined
      }
      try {
        const selected = projection.select(input) as
          | Record<string, unknown>
          | readonly { part: string; value: Record<string, unknown> }[]
          | null
        const declared = Object.fromEntries(Object.keys(projection.fields ?? {}).map((name) => [name, null]))
        const parts = (projection.parts ? selected : [{ part: undefined, value: selected }]) as readonly {
          part?: string
          value: object | null
        }[]
        for (const { part, value: row } of parts)
          if (row !== null)
            put(
              { collection: projection.to, document, id: part === undefined ? id : `${id}/${part}` },
              { ...declared, ...Object.fromEntries(Object.entries(row).filter(([, each]) => each !== undefined)) },
            )
      } catch {
        poisoned.add(keyText({ collection: projection.to, document, id }))
      }
    }
  }
  return { rows, poisoned }
}

/** Rows without those of poisoned keys, in the order of keys: what a destination has to hold. */
export function shownOf(rows: Iterable<{ readonly key: Key; readonly text: string }>, poisoned: ReadonlySet<string>): readonly string[] {
  return [...rows]
    .filter(({ key }) => !poisoned.has(keyText(key)))
    .sort((a, b) => compareKeys(a.key, b.key))
    .map(({ key, text }) => `${key.collection} ${key.document} ${key.id} ${text}`)
}
