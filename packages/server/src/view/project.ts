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

/** A document for reading: it shows what every replica shows and changes only by what is applied to it. */
export interface ReadingDoc {
  readonly doc: Y.Doc
  /** Applies updates, in one transaction, and tells which records they may have changed. Throws when they do not integrate; the document is then of no further use. */
  apply(updates: readonly Uint8Array[]): Touched
}

/** An empty one. */
export function createReadingDoc(schema: Schema): ReadingDoc {
  const doc = new Y.Doc()
  // Declared before anything is applied, so that what a transaction reports are these maps.
  const roots = new Map<unknown, string>(Object.keys(schema.collections).map((collection) => [doc.getMap(collection), collection]))
  let touched = new Map<string, Set<string>>()
  doc.on('beforeObserverCalls', (transaction: Y.Transaction) => {
    // As on a peer without write grant: otherwise Yjs cleans formatting up after remote updates and deletes marks that no entry deleted.
    transaction.local = true
    collectTouched(transaction, roots, touched)
    // Nobody observes. Yjs would hand each change to all types around it: 5,000 maps nested in one another, all changed, are 12 million events.
    transaction.changed.clear()
  })
  return {
    doc,
    apply: (updates) => {
      touched = new Map()
      doc.transact(() => {
        for (const update of updates) Y.applyUpdate(doc, update)
      })
      // What waits for something else is not shown, here or anywhere.
      if (doc.store.pendingStructs !== null || doc.store.pendingDs !== null)
        throw new Error('its log has a gap: an entry needs structs that are not there')
      return touched
    },
  }
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
      else if (id === '__proto__')
        read.push({
          collection,
          id,
          value: null,
          text: null,
          misfits: [{ collection, id, field: undefined, message: 'a record whose id is __proto__' }],
        })
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
  for (let at = type; at instanceof Y.AbstractType;) {
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
