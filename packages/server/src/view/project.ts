/**
 * From a document to its records (step 7 of the path). Pure but for the Y.Doc it is given: which records an entry may have changed, and how they read now.
 */
import type { Schema } from '@rejoin/shared'
import { readRecord } from '@rejoin/shared'
import * as Y from 'yjs'
import type { Misfit, RecordChange } from './view.ts'

/** Collection → ids of records that may have changed. */
export type Touched = ReadonlyMap<string, ReadonlySet<string>>

/** One record as the schema reads it now; `text` is its canonical JSON, null when there is no record. */
export interface Projected extends RecordChange {
  readonly text: string | null
  readonly misfits: readonly Omit<Misfit, 'document'>[]
}

/** A Y.Doc that reads as every replica does and changes only by what is applied to it. */
export function createReadingDoc(schema: Schema): Y.Doc {
  const doc = new Y.Doc()
  // As on a peer without write grant: otherwise Yjs cleans formatting up after remote updates and deletes marks that no entry deleted.
  doc.on('beforeObserverCalls', (transaction: Y.Transaction) => {
    transaction.local = true
  })
  // Declared before anything is applied, so that what the transaction reports are these maps.
  for (const collection of Object.keys(schema.collections)) doc.getMap(collection)
  return doc
}

/** Applies one entry and tells which records it may have changed. Throws when the bytes do not integrate; the document is then of no further use. */
export function applyEntry(doc: Y.Doc, schema: Schema, update: Uint8Array): Touched {
  const touched = new Map<string, Set<string>>()
  const roots = new Map<unknown, string>(Object.keys(schema.collections).map((collection) => [doc.getMap(collection), collection]))
  const collect = (transaction: Y.Transaction): void => collectTouched(transaction, roots, touched)
  doc.on('afterTransaction', collect)
  try {
    Y.applyUpdate(doc, update)
  } finally {
    doc.off('afterTransaction', collect)
  }
  refuseGap(doc)
  return touched
}

/** Throws when something applied to the document waits for something else: what it shows is then not what its replicas show. */
export function refuseGap(doc: Y.Doc): void {
  if (doc.store.pendingStructs !== null || doc.store.pendingDs !== null) throw new Error('its log has a gap: an entry needs structs that are not there')
}

/** Every record there is. */
export function allRecords(doc: Y.Doc, schema: Schema): Touched {
  return new Map(Object.keys(schema.collections).map((collection) => [collection, new Set(doc.getMap(collection).keys())]))
}

/** Reads the records named, in the order of their keys. */
export function project(doc: Y.Doc, schema: Schema, touched: Touched): readonly Projected[] {
  const read: Projected[] = []
  for (const collection of [...touched.keys()].sort()) {
    const declared = Object.hasOwn(schema.collections, collection) ? schema.collections[collection] : undefined
    const map = declared === undefined ? undefined : doc.getMap(collection)
    for (const id of [...(touched.get(collection) ?? [])].sort()) {
      if (declared === undefined || map?.has(id) !== true) read.push({ collection, id, value: null, text: null, misfits: [] })
      else if (id === '__proto__') read.push({ collection, id, value: null, text: null, misfits: [{ collection, id, field: undefined, message: 'a record whose id is __proto__' }] })
      else {
        const { value, violations } = readRecord(declared, map.get(id))
        const misfits = violations.map(({ field, message }) => ({ collection, id, field, message }))
        // Fields are sorted by readRecord, at every depth: equal records have equal text.
        read.push({ collection, id, value, text: value === null ? null : JSON.stringify(value), misfits })
      }
    }
  }
  return read
}

type Place = { readonly collection: string; readonly id: string } | undefined

/** A changed type is the collection itself (its changed keys are ids) or lies in a record (the key by which one climbs into the collection is its id). */
function collectTouched(transaction: Y.Transaction, roots: ReadonlyMap<unknown, string>, touched: Map<string, Set<string>>): void {
  const touch = (collection: string, id: string): void => {
    const ids = touched.get(collection)
    if (ids === undefined) touched.set(collection, new Set([id]))
    else ids.add(id)
  }
  const places = new Map<unknown, Place>()
  for (const [type, keys] of transaction.changed) {
    const collection = roots.get(type)
    if (collection !== undefined) {
      for (const key of keys) if (key !== null) touch(collection, key)
      continue
    }
    const place = placeOf(type, roots, places)
    if (place !== undefined) touch(place.collection, place.id)
  }
}

/** Climbs to the record; what is met on the way is remembered, so that thousands of types nested in one another cost one climb, not thousands. */
function placeOf(type: unknown, roots: ReadonlyMap<unknown, string>, places: Map<unknown, Place>): Place {
  const climbed: unknown[] = []
  let place: Place
  for (let at = type; at instanceof Y.AbstractType; ) {
    if (places.has(at)) {
      place = places.get(at)
      break
    }
    climbed.push(at)
    const item: Y.Item | null = at._item
    if (item === null) break
    const collection = roots.get(item.parent)
    if (collection !== undefined) {
      place = item.parentSub === null ? undefined : { collection, id: item.parentSub }
      break
    }
    at = item.parent
  }
  for (const each of climbed) places.set(each, place)
  return place
}
