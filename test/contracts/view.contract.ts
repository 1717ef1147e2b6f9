/**
 * What every view must do, run by each adapter.
 */
import type { DocumentId, JsonValue, Lineage, Position, RecordValue, Seq } from '@rejoin/shared'
import fc from 'fast-check'
import { afterEach, describe, expect, it } from 'vitest'
import type { DocumentState, Key, ProjectedEntry, RecordChange, RefField, ViewCommit, ViewStore } from '#server/view/view.js'
import { compareKeys } from '#server/view/view.js'
import type { Oracle } from '../support/view-oracle.ts'
import { compareView } from '../support/view-oracle.ts'

/** What an adapter gives to be tested. `reopen` is absent where nothing survives. */
export interface ViewUnderTest {
  readonly view: ViewStore
  readonly reopen?: (() => ViewStore) | undefined
  readonly dispose: () => void
}

const SOURCE = { log: 'a'.repeat(32), schema: '{}' }
const key = (collection: string, document: string, id: string): Key => ({ collection, document: document as DocumentId, id })
const change = (collection: string, id: string, value: RecordValue | null): RecordChange => ({ collection, id, value })
const NOTHING: ViewCommit = { entries: [], documents: [], places: [], misfits: [] }

function entry(version: number, changes: readonly RecordChange[], fields: Partial<ProjectedEntry> = {}): ProjectedEntry {
  const document = 'd' as DocumentId
  return {
    version,
    partition: 0,
    position: version as Position,
    epoch: 1,
    seq: version as Seq,
    document,
    actor: 'alice',
    at: 1,
    settled: true,
    changes,
    ...fields,
  }
}

function state(document: DocumentId, seq: Seq, parked?: string): DocumentState {
  return { document, partition: 0, lineage: 'l' as Lineage, seq, parked }
}

export function describeView(name: string, make: () => ViewUnderTest): void {
  describe(`a view ${name}`, () => {
    let made: ViewUnderTest | undefined
    const open = (): ViewStore => {
      made = make()
      return made.view
    }
    afterEach(() => {
      made?.dispose()
      made = undefined
    })

    it('has no head until it has taken stock', () => {
      const view = open()
      expect(view.head()).toBeUndefined()
      view.commit({ ...NOTHING, entries: [entry(1, [change('pets', 'a', { n: 1 })], { settled: false })] })
      expect(view.head()).toBeUndefined()
      view.commit({ ...NOTHING, source: SOURCE, settled: true })
      expect(view.head()).toBe(1)
      expect(view.standing().source).toEqual(SOURCE)
      view.commit({ ...NOTHING, source: null })
      expect(view.head()).toBeUndefined()
    })

    it('reads as of any version', () => {
      const view = open()
      view.commit({
        ...NOTHING,
        source: SOURCE,
        entries: [
          entry(1, [change('pets', 'a', { n: 1 }), change('pets', 'b', { n: 1 })]),
          entry(2, [change('pets', 'a', null)]),
          entry(3, [change('pets', 'a', { n: 3 })]),
        ],
      })
      expect([0, 1, 2, 3].map((version) => view.get(key('pets', 'd', 'a'), version))).toEqual([null, { n: 1 }, null, { n: 3 }])
      expect([0, 1, 2, 3].map((version) => view.keys(version, 10).map(({ id }) => id))).toEqual([[], ['a', 'b'], ['b'], ['a', 'b']])
      expect(view.dirty(1, 3).map(({ id }) => id)).toEqual(['a'])
      expect(view.dirty(3, 3)).toEqual([])
    })

    it('gives no version twice and none below one that was given or raised to', () => {
      const view = open()
      view.commit({ ...NOTHING, source: SOURCE, entries: [entry(5, [change('pets', 'a', { n: 1 })])] })
      expect(() => view.commit({ ...NOTHING, entries: [entry(5, [])] })).toThrow(/before/u)
      view.raise(100)
      view.raise(50)
      expect(view.standing().version).toBe(100)
      expect(view.head()).toBe(100)
      expect(() => view.commit({ ...NOTHING, entries: [entry(100, [])] })).toThrow(/before/u)
      view.commit({ ...NOTHING, entries: [entry(101, [change('pets', 'a', { n: 2 })])] })
      expect(view.get(key('pets', 'd', 'a'), 100)).toEqual({ n: 1 })
      expect(view.get(key('pets', 'd', 'a'), 101)).toEqual({ n: 2 })
      expect(view.dirty(100, 101)).toEqual([key('pets', 'd', 'a')])
    })

    it('writes all of a commit or nothing', () => {
      const view = open()
      view.commit({ ...NOTHING, source: SOURCE, entries: [entry(1, [change('pets', 'a', { n: 1 })])] })
      expect(() => view.commit({ ...NOTHING, entries: [entry(2, [change('pets', 'b', { n: 1 })]), entry(2, [])] })).toThrow(/before/u)
      expect(view.standing().version).toBe(1)
      expect(view.keys(2, 10)).toEqual([key('pets', 'd', 'a')])
    })

    it('cuts only where a version is settled, within the limits where it can', () => {
      const view = open()
      const many = (version: number, n: number, settled = true): ProjectedEntry =>
        entry(
          version,
          Array.from({ length: n }, (_, i) => change('pets', `${version}-${i}`, { n: i })),
          { settled },
        )
      view.commit({ ...NOTHING, source: SOURCE, entries: [many(1, 2), many(2, 2), many(3, 9, false), many(4, 1), many(5, 0)] })
      const limits = { items: 4, bytes: 1_000_000 }
      expect(view.cut(0, limits)).toBe(2)
      expect(view.cut(2, limits), 'the next settled one, though it is more').toBe(4)
      expect(view.cut(4, limits)).toBe(5)
      expect(view.cut(5, limits)).toBe(5)
      expect(view.cut(0, { items: 100, bytes: 15 }), 'bytes count too').toBe(1)
      view.commit({ ...NOTHING, entries: [many(6, 1, false)] })
      expect(view.head()).toBe(5)
      expect(view.cut(5, limits)).toBe(5)
      view.commit({ ...NOTHING, settled: true })
      expect(view.cut(5, limits)).toBe(6)
      view.raise(50)
      expect(view.cut(5, limits)).toBe(50)
    })

    it('keeps where documents and partitions stand, what is parked and what does not fit', () => {
      const view = open()
      const standing = (document: string, parked?: string): DocumentState => state(document as DocumentId, 3 as Seq, parked)
      const misfit = { ...key('pets', 'b', 'x'), field: 'age', message: 'age: a number' }
      const whole = { ...key('pets', 'b', 'x'), field: undefined, message: 'a record is a Y.Map' }
      view.commit({
        ...NOTHING,
        documents: [standing('b'), standing('a', 'it threw'), standing('c')],
        misfits: [{ key: key('pets', 'b', 'x'), found: [misfit, whole] }],
      })
      view.commit({ ...NOTHING, places: [{ partition: 0, position: 7 as Position, hash: undefined, ahead: 9 as Position }] })
      expect(view.document('a' as DocumentId)).toEqual(standing('a', 'it threw'))
      expect(view.document('z' as DocumentId)).toBeUndefined()
      expect(view.documents(2).map(({ document }) => document)).toEqual(['a', 'b'])
      expect(view.documents(2, 'b' as DocumentId)).toEqual([standing('c')])
      expect(view.parked(5)).toEqual({ total: 1, first: [standing('a', 'it threw')] })
      expect(view.misfits(1)).toEqual({ total: 2, first: [misfit] })
      expect(view.standing().places.map(({ position, ahead }) => [position, ahead])).toEqual([[7, 9]])
      view.commit({ ...NOTHING, misfits: [{ key: key('pets', 'b', 'x'), found: [whole] }], documents: [standing('a')] })
      expect(view.misfits(5)).toEqual({ total: 1, first: [whole] })
      expect(view.parked(5).total).toBe(0)
      view.commit({ ...NOTHING, gone: ['b' as DocumentId] })
      expect(view.misfits(5).total).toBe(0)
      expect(view.documents(5).map(({ document }) => document)).toEqual(['a', 'c'])
    })

    it('tells histories apart by their marks, whatever they have in common', () => {
      const view = open()
      view.commit({ ...NOTHING, source: SOURCE, entries: [entry(1, [change('pets', 'a', { n: 1 })]), entry(2, [])] })
      const others = [
        entry(2, [], { at: 2 }),
        entry(2, [], { seq: 9 as Seq }),
        entry(2, [change('pets', 'a', null)]),
        entry(2, [change('pets', 'a', { n: 2 })]),
      ]
      const marks = others.map((last) => {
        const other = make()
        try {
          other.view.commit({ ...NOTHING, source: SOURCE, entries: [entry(1, [change('pets', 'a', { n: 1 })]), last] })
          expect(other.view.mark(1)).toBe(view.mark(1))
          return other.view.mark(2)
        } finally {
          other.dispose()
        }
      })
      expect(new Set([view.mark(0), view.mark(1), view.mark(2), ...marks]).size).toBe(7)
      view.raise(50)
      expect(view.mark(50)).toBe(view.mark(2))
    })

    it('knows no version of a document that is parked, or of entries it has not read', () => {
      const view = open()
      const [d, e] = ['d', 'e'] as DocumentId[] as [DocumentId, DocumentId]
      const first = entry(3, [change('pets', 'a', { n: 1 })], { seq: 4 as Seq })
      view.commit({ ...NOTHING, source: SOURCE, entries: [first], documents: [state(d, 6 as Seq), state(e, 1 as Seq, 'it threw')] })
      expect(view.versionOf(d, 4 as Seq)).toBe(3)
      expect(view.versionOf(d, 6 as Seq), 'read as a whole, and nothing differed').toBe(3)
      expect(view.versionOf(d, 7 as Seq)).toBeUndefined()
      expect(view.versionOf(e, 1 as Seq)).toBeUndefined()
      expect(view.versionOf('z' as DocumentId, 1 as Seq)).toBeUndefined()
    })

    it('finds who refers to a record as of a version, by an index that comes and goes', () => {
      const view = open()
      const [owner, vet] = [
        { collection: 'pets', field: 'owner' },
        { collection: 'pets', field: 'vet' },
      ]
      view.prepareRefs([owner])
      view.commit({
        ...NOTHING,
        source: SOURCE,
        entries: [
          entry(1, [change('pets', 'a', { owner: 'x', vet: 'x' }), change('pets', 'b', { owner: 'x', vet: null })]),
          entry(2, [change('pets', 'a', { owner: 'y', vet: 'x' }), change('cats', 'c', { owner: 'x' })]),
          entry(3, [change('pets', 'b', null), change('pets', 'a', { owner: 'x', vet: 'y' })], { document: 'e' as DocumentId }),
        ],
      })
      const ids = (ref: RefField, id: string, version: number, document?: string): string[] =>
        view.dependents(ref, id, document as DocumentId | undefined, version).map((each) => `${each.document}/${each.id}`)
      expect([1, 2, 3].map((version) => ids(owner, 'x', version))).toEqual([['d/a', 'd/b'], ['d/b'], ['d/b', 'e/a']])
      expect(ids(owner, 'x', 3, 'e')).toEqual(['e/a'])
      expect(ids(vet, 'x', 3), 'not announced').toEqual(['d/a'])
      view.prepareRefs([vet])
      expect(ids(owner, 'x', 3)).toEqual(['d/b', 'e/a'])
    })

    it('keeps hostile names and values apart and whole', () => {
      const view = open()
      const ids = [
        '__proto__',
        'constructor',
        '"; DROP TABLE changes; --',
        "it's",
        '\u0000',
        'a\u0000b',
        'a',
        '😀',
        '\uffee',
        'x'.repeat(100_000),
      ]
      view.commit({
        ...NOTHING,
        source: SOURCE,
        entries: [
          entry(
            1,
            ids.map((id) => change('pets', id, { text: id, deep: { ['__proto__x']: [id] } })),
          ),
        ],
      })
      for (const id of ids) expect(view.get(key('pets', 'd', id), 1)).toEqual({ text: id, deep: { ['__proto__x']: [id] } })
      const keys = view.keys(1, 100)
      expect(keys).toEqual([...keys].sort(compareKeys))
      expect(new Set(keys.map(({ id }) => id))).toEqual(new Set(ids))
      expect(
        keys.findIndex(({ id }) => id === '😀'),
        'by code point, as databases order',
      ).toBeGreaterThan(keys.findIndex(({ id }) => id === '\uffee'))
      const paged: Key[] = []
      for (let page = view.keys(1, 3); page.length > 0; page = view.keys(1, 3, page.at(-1))) paged.push(...page)
      expect(paged).toEqual(keys)
    })

    it('reads like a list of everything, whatever is committed, trimmed and reopened', () => {
      const names = fc.constantFrom('pets', 'owners', 'p')
      const oneChange = fc.record({
        collection: names,
        id: fc.constantFrom('1', '2', '3'),
        value: fc.option(fc.record({ n: fc.nat(3), ref: fc.constantFrom<JsonValue>('1', '2', 'a\u0000b', '"\\', '3', 3, null) }), {
          nil: null,
        }),
      })
      const oneEntry = fc.record({
        document: fc.constantFrom('a', 'b'),
        settled: fc.boolean(),
        skip: fc.nat(2),
        at: fc.nat(5),
        changes: fc.uniqueArray(oneChange, { maxLength: 4, selector: ({ collection, id }) => `${collection}/${id}` }),
      })
      const step = fc.oneof(
        { weight: 6, arbitrary: fc.record({ type: fc.constant('commit' as const), entries: fc.array(oneEntry, { maxLength: 4 }) }) },
        { weight: 1, arbitrary: fc.record({ type: fc.constant('trim' as const), to: fc.nat(40), rows: fc.integer({ min: 1, max: 5 }) }) },
        { weight: 1, arbitrary: fc.record({ type: fc.constant('reopen' as const) }) },
      )
      fc.assert(
        fc.property(fc.array(step, { maxLength: 25 }), (steps) => {
          const under = make()
          let { view } = under
          const oracle: Oracle = { entries: [], marks: new Map() }
          try {
            view.commit({ ...NOTHING, source: SOURCE })
            for (const each of steps) {
              if (each.type === 'trim') view.trim(each.to, each.rows)
              else if (each.type === 'reopen') view = under.reopen?.() ?? view
              else {
                const entries: ProjectedEntry[] = []
                let { version } = view.standing()
                for (const { document, settled, skip, at, changes } of each.entries) {
                  version += 1 + skip
                  entries.push(entry(version, changes, { document: document as DocumentId, settled, at }))
                }
                view.commit({ ...NOTHING, entries, documents: entries.map(({ document, seq }) => state(document, seq)) })
                oracle.entries.push(...entries)
              }
              compareView(view, oracle)
            }
          } finally {
            under.dispose()
          }
        }),
        { numRuns: 60 },
      )
    })
  })
}
