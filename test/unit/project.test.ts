/**
 * The projection: what an entry is said to have touched covers what it changed, so that reading that alone equals reading everything.
 */
import { collection, defineSchema, string } from '@rejoin/shared'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import * as Y from 'yjs'
import { allRecords, createReadingDoc, project } from '#server/view/project.js'
import { growth } from '../support/growth.ts'
import { seeded } from '../support/histories.ts'
import { RECORDS, editRecords, recordsOf, strangeUpdate } from '../support/record-edits.ts'

/** Entries that devices produce who see one another now and then, in an order in which each leans on earlier ones only. */
function makeEntries(seed: number, steps: number): Uint8Array[] {
  const chance = seeded(seed)
  const entries: Uint8Array[] = []
  const devices = Array.from({ length: 3 }, () => new Y.Doc())
  const seen = devices.map(() => 0)
  for (const device of devices) {
    device.on('update', (update: Uint8Array, origin: unknown) => {
      if (origin !== 'log') entries.push(update)
    })
  }
  for (let step = 0; step < steps; step++) {
    const nth = Math.floor(chance() * devices.length)
    const device = devices[nth] as Y.Doc
    if (chance() < 0.4)
      for (; (seen[nth] ?? 0) < entries.length; seen[nth] = (seen[nth] ?? 0) + 1)
        Y.applyUpdate(device, entries[seen[nth] ?? 0] as Uint8Array, 'log')
    editRecords(device, chance)
    if (chance() < 0.02) entries.push(strangeUpdate())
  }
  return entries
}

function textOf(doc: Y.Doc): Map<string, string> {
  return new Map(
    project(doc, RECORDS, allRecords(doc, RECORDS)).flatMap(({ collection: name, id, text }) =>
      text === null ? [] : [[`${name}/${id}`, text]],
    ),
  )
}

const sorted = (map: ReadonlyMap<string, string>): [string, string][] => [...map].sort(([a], [b]) => (a < b ? -1 : 1))

describe('the projection', () => {
  it('of touched records equals the projection of all of them, entry by entry', () => {
    fc.assert(
      fc.property(fc.integer(), fc.integer({ min: 1, max: 60 }), (seed, steps) => {
        const reading = createReadingDoc(RECORDS)
        const kept = new Map<string, string>()
        for (const update of makeEntries(seed, steps)) {
          for (const { collection: name, id, text } of project(reading.doc, RECORDS, reading.apply([update]))) {
            if (text === null) kept.delete(`${name}/${id}`)
            else kept.set(`${name}/${id}`, text)
          }
          expect(sorted(kept)).toEqual(sorted(textOf(reading.doc)))
        }
      }),
      { numRuns: 100 },
    )
  })

  it('equals what any replica reads', () => {
    fc.assert(
      fc.property(fc.integer(), (seed) => {
        const reading = createReadingDoc(RECORDS)
        const replica = new Y.Doc({ gc: false })
        for (const update of makeEntries(seed, 30)) {
          reading.apply([update])
          Y.applyUpdate(replica, update)
        }
        expect(sorted(textOf(reading.doc))).toEqual(sorted(recordsOf(replica)))
      }),
      { numRuns: 50 },
    )
  })

  it('touches one record of thousands when one field of it changes, however deep', () => {
    const source = new Y.Doc()
    for (let i = 0; i < 2_000; i++) source.getMap('pets').set(String(i), new Y.Map([['extra', new Y.Map([['child', new Y.Map()]])]]))
    const reading = createReadingDoc(RECORDS)
    reading.apply([Y.encodeStateAsUpdate(source)])
    const before = Y.encodeStateVector(source)
    const deep = ((source.getMap('pets').get('77') as Y.Map<unknown>).get('extra') as Y.Map<unknown>).get('child') as Y.Map<unknown>
    deep.set('n', 1)
    expect(reading.apply([Y.encodeStateAsUpdate(source, before)])).toEqual(new Map([['pets', new Set(['77'])]]))
  })

  it('is linear where thousands of types are nested in one another', () => {
    const nested = (depth: number): (() => void) => {
      const source = new Y.Doc()
      const types = Array.from({ length: depth }, () => new Y.Map<unknown>())
      source.transact(() => {
        source.getMap('pets').set('1', types[0])
        for (let i = 1; i < depth; i++) types[i - 1]?.set('child', types[i])
      })
      const reading = createReadingDoc(RECORDS)
      reading.apply([Y.encodeStateAsUpdate(source)])
      const before = Y.encodeStateVector(source)
      source.transact(() => {
        for (const type of types) type.set('n', 1)
      })
      const change = Y.encodeStateAsUpdate(source, before)
      return () => {
        expect(reading.apply([change])).toEqual(new Map([['pets', new Set(['1'])]]))
        expect(project(reading.doc, RECORDS, new Map([['pets', new Set(['1'])]]))[0]?.id).toBe('1')
      }
    }
    // Quadratic would be 64.
    expect(growth(nested, 400, 8)).toBeLessThan(32)
  })

  it('says that a record is gone when its collection is no longer declared', () => {
    const reading = createReadingDoc(RECORDS)
    const narrow = defineSchema({ owners: collection({ name: string() }) })
    reading.doc.getMap('pets').set('1', new Y.Map([['name', 'Rex']]))
    expect(project(reading.doc, narrow, new Map([['pets', new Set(['1'])]]))).toEqual([
      { collection: 'pets', id: '1', value: null, text: null, misfits: [] },
    ])
  })

  it('reports what does not fit and never shows it as a value', () => {
    const source = new Y.Doc()
    source.getMap('pets').set(
      '1',
      new Y.Map<unknown>([
        ['age', 'old'],
        ['name', 'Rex'],
      ]),
    )
    source.getMap('pets').set('2', 'not a map')
    source.getMap('pets').set('__proto__', new Y.Map([['name', 'x']]))
    const reading = createReadingDoc(RECORDS)
    const read = project(reading.doc, RECORDS, reading.apply([Y.encodeStateAsUpdate(source)]))
    expect(read.map(({ id, value, misfits }) => [id, value?.['age'], value?.['name'], misfits.map(({ field }) => field)])).toEqual([
      ['1', null, 'Rex', ['age']],
      ['2', undefined, undefined, [undefined]],
      ['__proto__', undefined, undefined, [undefined]],
    ])
  })

  it('refuses an entry that leaves something pending', () => {
    const source = new Y.Doc()
    source.getMap('pets').set('1', new Y.Map([['name', 'Rex']]))
    const before = Y.encodeStateVector(source)
    ;(source.getMap('pets').get('1') as Y.Map<unknown>).set('name', 'Max')
    expect(() => createReadingDoc(RECORDS).apply([Y.encodeStateAsUpdate(source, before)])).toThrow(/gap/u)
  })
})
