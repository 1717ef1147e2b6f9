/**
 * P10: a snapshot and the entries behind it read exactly as all entries do, over random histories of several clients.
 */
import { describe, expect, it } from 'vitest'
import * as Y from 'yjs'
import { canonical } from '#server/log/canonical.js'
import { compact, mergeTree } from '#server/log/compact.js'
import { createAdmission, absorbTrusted, encodeAdmission } from '#server/relay/admission.js'
import type { Chance } from '../support/histories.ts'
import { below, makeHistory, pick, seeded } from '../support/histories.ts'

const SEEDS = 200

/** The document that entries give, one transaction each, as a replica without write grant has it. */
function replay(updates: readonly Uint8Array[], gc = false): Y.Doc {
  const doc = new Y.Doc({ gc })
  doc.on('beforeObserverCalls', (transaction: Y.Transaction) => {
    transaction.local = true
  })
  for (const update of updates) Y.applyUpdate(doc, update)
  return doc
}

/** What an application reads, by the types it declares; written without our own canonical form. */
function reading(doc: Y.Doc): unknown {
  const deletes = Y.createDeleteSetFromStructStore(doc.store)
  return {
    texts: ['text', 'other', 'ünïcode', ''].map((name) => plain(doc.getText(name).toDelta())),
    map: plain(doc.getMap('map').toJSON()),
    list: plain(doc.getArray('list').toJSON()),
    xml: doc.getXmlFragment('xml').toString(),
    stateVector: Y.encodeStateVector(doc),
    deletes: [...deletes.clients]
      .sort(([a], [b]) => a - b)
      .map(([client, ranges]) => [client, ranges.map(({ clock, len }) => [clock, len])]),
    pending: [doc.store.pendingStructs, doc.store.pendingDs],
  }
}

/** JSON, with subdocuments by what is stored of them. */
function plain(value: unknown): unknown {
  if (value instanceof Y.Doc) return { guid: value.guid, meta: value.meta as unknown, autoLoad: value.autoLoad }
  if (Array.isArray(value)) return value.map(plain)
  if (typeof value !== 'object' || value === null || value instanceof Uint8Array) return value
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, plain(inner)]))
}

function admissionOf(updates: readonly Uint8Array[]): Uint8Array {
  const admission = createAdmission()
  for (const update of updates) absorbTrusted(admission, update)
  return encodeAdmission(admission)
}

/** Two replicas that edit one nested rich text, do not clean up after each other, and tell each other only now and then. */
function formatConcurrently(chance: Chance): Uint8Array[] {
  const updates: Uint8Array[] = []
  const note = new Y.Text('a note with some words in it')
  const docs = [replay([], true), replay([], true)] as const
  for (const doc of docs) doc.on('update', (update: Uint8Array, origin: unknown) => origin !== 'remote' && updates.push(update))
  const exchange = (): void => {
    Y.applyUpdate(docs[0], Y.encodeStateAsUpdate(docs[1]), 'remote')
    Y.applyUpdate(docs[1], Y.encodeStateAsUpdate(docs[0]), 'remote')
  }
  docs[0].getMap('map').set('note', note)
  exchange()
  for (let i = 0; i < 60; i++) {
    const text = pick(chance, docs).getMap('map').get('note') as Y.Text
    const at = below(chance, text.length + 1)
    const roll = chance()
    if (roll < 0.3) text.delete(at, Math.min(text.length - at, 3))
    else if (roll < 0.5) text.insert(at, 'xyz')
    else text.format(at, Math.min(text.length - at, 5), { [pick(chance, ['bold', 'em'])]: pick(chance, [true, null]) })
    if (chance() < 0.2) exchange()
  }
  return updates
}

describe('compaction', () => {
  it(`keeps what ${SEEDS} random histories read, folded at any place and folded again`, () => {
    for (let seed = 1; seed <= SEEDS; seed++) {
      const chance = seeded(seed)
      const { updates } = makeHistory(chance, 3, 30)
      const whole = replay(updates)
      const first = below(chance, updates.length + 1)
      const second = first + below(chance, updates.length + 1 - first)
      const snapshot = compact(updates.slice(0, first))
      const next = compact([snapshot.update, ...updates.slice(first, second)])
      const tail = updates.slice(second)
      for (const gc of [true, false]) {
        const resumed = replay([next.update, ...tail], gc)
        expect(reading(resumed), `seed ${seed}`).toEqual(reading(whole))
        expect(Buffer.compare(canonical(resumed), canonical(whole)), `seed ${seed}`).toBe(0)
      }
      expect([snapshot.type, next.type], `seed ${seed}`).toEqual(['folded', 'folded'])
    }
  })

  it('keeps the state that admission needs: none of the folded entries adds anything to it', () => {
    for (let seed = 1; seed <= 100; seed++) {
      const { updates } = makeHistory(seeded(seed), 3, 30)
      const { update } = compact(updates)
      expect(admissionOf([update, ...updates]), `seed ${seed}`).toEqual(admissionOf([update]))
    }
  })

  it('does not clean up formats that no entry deleted, as Yjs does after remote changes', () => {
    let cleanedUp = 0
    for (let seed = 1; seed <= 150; seed++) {
      const updates = formatConcurrently(seeded(seed))
      const { update } = compact(updates)
      expect(reading(replay([update])), `seed ${seed}`).toEqual(reading(replay(updates)))
      const cleaned = new Y.Doc()
      for (const entry of updates) Y.applyUpdate(cleaned, entry)
      if (Buffer.compare(canonical(cleaned), canonical(replay([update]))) !== 0) cleanedUp++
    }
    expect(cleanedUp, 'histories in which a plain replica deletes marks').toBeGreaterThan(0)
  })

  it('drops what was deleted', () => {
    const doc = new Y.Doc()
    const updates: Uint8Array[] = []
    doc.on('update', (update: Uint8Array) => updates.push(update))
    for (let i = 0; i < 200; i++) {
      doc.getText('text').insert(0, 'x'.repeat(100))
      doc.getText('text').delete(0, 100)
    }
    expect(compact(updates).update.length).toBeLessThan(mergeTree(updates).length / 10)
  })

  it('keeps the merged bytes when the fold, loaded again, does not read as it did', () => {
    const { updates } = makeHistory(seeded(7), 3, 30)
    for (const lose of [
      (doc: Y.Doc) => doc.getText('text').delete(0, 1),
      (doc: Y.Doc) => doc.getMap('new').set('key', 1),
      (doc: Y.Doc) => doc.getText('text').format(0, 2, { bold: true }),
    ]) {
      const result = compact(updates, (folded) => {
        const other = replay([Y.encodeStateAsUpdate(folded)])
        lose(other)
        return Y.encodeStateAsUpdate(other)
      })
      expect(result).toMatchObject({ type: 'merged', reason: expect.stringContaining('does not read') as unknown })
      expect(reading(replay([result.update]))).toEqual(reading(replay(updates)))
    }
  })

  it('leaves entries alone that are no updates, or have a hole', () => {
    const { updates } = makeHistory(seeded(3), 2, 30)
    expect(() => compact([...updates, Uint8Array.of(9, 9, 9)])).toThrow()
    expect(() => compact(updates.slice(1))).toThrow('pending')
  })

  it('folds nothing into the empty update', () => {
    expect(compact([]).update).toEqual(Uint8Array.of(0, 0))
  })

  it('reads types that are nested deeper than the stack', () => {
    const doc = new Y.Doc()
    doc.transact(() => {
      let map = doc.getMap('deep')
      for (let depth = 0; depth < 20_000; depth++) {
        const inner = new Y.Map<unknown>()
        map.set('in', inner)
        map = inner
      }
    })
    expect(compact([Y.encodeStateAsUpdate(doc)]).type).toBe('folded')
  })
})

describe('merging', () => {
  it('as a tree takes few at a time and each only once a level: work grows with the number of updates, not with its square', () => {
    const doc = new Y.Doc()
    const updates: Uint8Array[] = []
    doc.on('update', (update: Uint8Array) => updates.push(update))
    for (let i = 0; i < 10_000; i++) doc.getText('text').insert(i % 7, 'x')
    const taken: number[] = []
    const merged = mergeTree(updates, (some) => {
      taken.push(some.length)
      return Y.mergeUpdates(some)
    })
    expect(Math.max(...taken)).toBe(64)
    expect(taken.reduce((sum, count) => sum + count, 0)).toBeLessThan(updates.length * 1.02)
    expect(reading(replay([merged]))).toEqual(reading(doc))
  })

  it('reads as the updates do', () => {
    for (let seed = 1; seed <= 50; seed++) {
      const { updates } = makeHistory(seeded(seed), 3, 60)
      expect(reading(replay([mergeTree(updates)])), `seed ${seed}`).toEqual(reading(replay(updates)))
    }
  })
})
