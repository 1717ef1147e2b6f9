/**
 * What a sink has to write, from version to version: applied row by row it equals T by brute force, at every version, however the versions are cut.
 */
import type { DocumentId, RecordValue } from '@rejoin/shared'
import { canonicalJson } from '@rejoin/shared'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { chooseCut, deriveActions, deriveState, digestDelta } from '#server/forwarding/derive.js'
import { deriveRefresh, pagesOfT } from '#server/forwarding/refresh.js'
import { compileTransform } from '#server/projection/transform.js'
import { bucketOf, hashText } from '#server/sinks/digest.js'
import type { SinkRow } from '#server/sinks/sink.js'
import { createMemoryView } from '#server/storage/view-memory.js'
import type { Key, ProjectedEntry } from '#server/view/view.js'
import { compareKeys, keyText } from '#server/view/view.js'
import { CLINIC, PROJECTIONS, WITHOUT_JOINS, entryOf, histories, shownOf, truthOf, withEntries } from '../support/projections.ts'

type Destination = Map<string, { readonly key: Key; readonly text: string }>

function write(destination: Destination, { key, value }: SinkRow): void {
  if (value === null) destination.delete(keyText(key))
  else destination.set(keyText(key), { key, text: canonicalJson(value) })
}

const viewOf = (entries: readonly ProjectedEntry[]) => withEntries(createMemoryView('0'.repeat(32)), entries)
const textOf = (value: RecordValue | null | undefined): string | null =>
  value === null || value === undefined ? null : canonicalJson(value)
const hash = (key: Key, value: RecordValue): bigint => hashText(keyText(key) + canonicalJson(value))

/** Adds modulo 2^64; a bucket of nothing is none. */
function plus(buckets: Map<number, bigint>, bucket: number, change: bigint): void {
  const sum = BigInt.asUintN(64, (buckets.get(bucket) ?? 0n) + change)
  if (sum === 0n) buckets.delete(bucket)
  else buckets.set(bucket, sum)
}

const anyProjections = fc.constantFrom(...PROJECTIONS)
/** Cuts at these versions, and at the last. */
const cuts = fc.oneof(
  fc.uniqueArray(fc.integer({ min: 1, max: 12 }), { maxLength: 5 }),
  fc.constant(Array.from({ length: 12 }, (_, i) => i + 1)),
)
const versionsOf = (entries: readonly ProjectedEntry[], at: readonly number[]): readonly number[] =>
  [...new Set([...at.filter((each) => each < entries.length), entries.length])].sort((a, b) => a - b)

describe('a cut, strategy state', () => {
  it('leads from T as of one version to T as of another, with no row that changes nothing', async () => {
    await fc.assert(
      fc.asyncProperty(histories, anyProjections, cuts, async (entries, projections, at) => {
        const view = viewOf(entries)
        const transform = compileTransform(CLINIC, projections)
        const destination: Destination = new Map()
        const digest = new Map<number, bigint>()
        const poisoned = new Set<string>()
        let count = 0
        let from = 0
        for (const to of versionsOf(entries, at)) {
          const truth = truthOf(entries, to, projections)
          const before = truthOf(entries, from, projections)
          const state = await deriveState(view, transform, { from, to })
          const keys = state.rows.map(({ key }) => keyText(key))
          expect(new Set(keys).size, 'each key once').toBe(keys.length)
          expect(
            state.rows.findLastIndex(({ value }) => value === null),
            'deletes first',
          ).toBeLessThan(state.rows.findIndex(({ value }) => value !== null) >>> 0)
          for (const row of state.rows) {
            expect(textOf(row.before)).toBe(before.rows.get(keyText(row.key))?.text ?? null)
            if (textOf(row.before) === textOf(row.value)) expect(before.poisoned).toContain(keyText(row.key))
            write(destination, row)
          }
          for (const key of state.cured) expect(poisoned.delete(keyText(key))).toBe(true)
          for (const { key } of state.poisoned) poisoned.add(keyText(key))
          expect(poisoned).toEqual(truth.poisoned)
          expect(shownOf(destination.values(), truth.poisoned)).toEqual(shownOf(truth.rows.values(), truth.poisoned))
          const delta = digestDelta(state, hash)
          for (const [bucket, change] of delta?.buckets ?? []) plus(digest, bucket, change)
          count += delta?.rows ?? Number.NaN
          const expected = new Map<number, bigint>()
          for (const { key, text } of truth.rows.values()) plus(expected, bucketOf(key), hash(key, JSON.parse(text) as RecordValue))
          expect([count, digest]).toEqual([truth.rows.size, expected])
          from = to
        }
      }),
      { numRuns: 250 },
    )
  })

  it('mends whatever earlier attempts, whose end nobody knows, have left there', async () => {
    const lost = fc.record({ upTo: fc.integer({ min: 1, max: 12 }), rows: fc.nat(8) })
    await fc.assert(
      fc.asyncProperty(histories, anyProjections, cuts, lost, lost, async (entries, projections, at, first, second) => {
        const view = viewOf(entries)
        const transform = compileTransform(CLINIC, projections)
        const destination: Destination = new Map()
        // Of several attempts that ended at different versions only single rows can be put right.
        const attempts = projections.some(({ parts }) => parts) ? [first] : [first, second]
        for (const { upTo, rows } of attempts) {
          const state = await deriveState(view, transform, { from: 0, to: Math.min(upTo, entries.length) })
          for (const row of state.rows.slice(0, rows)) write(destination, row)
        }
        const attempted = Math.max(...attempts.map(({ upTo }) => Math.min(upTo, entries.length)))
        let from = 0
        for (const to of versionsOf(entries, at)) {
          const state = await deriveState(view, transform, { from, to, attempted })
          for (const row of state.rows) write(destination, row)
          from = to
          if (to < attempted) continue
          const truth = truthOf(entries, to, projections)
          expect(shownOf(destination.values(), truth.poisoned)).toEqual(shownOf(truth.rows.values(), truth.poisoned))
        }
      }),
      { numRuns: 250 },
    )
  })

  it('is chosen so that what depends on the changes fits, too', async () => {
    const pets = Array.from({ length: 30 }, (_, i) => ({ collection: 'pets', id: String(i), value: { ownerId: i < 10 ? 'o' : 'p' } }))
    const city = (id: string, name: string) => ({ collection: 'owners', id, value: { city: name } })
    const view = viewOf([
      entryOf(1, 'a', pets),
      entryOf(2, 'a', [city('x', 'Ulm')]),
      entryOf(3, 'a', [city('o', 'Ulm')]),
      entryOf(4, 'a', [city('p', 'Ulm')]),
      entryOf(5, 'a', [city('o', 'Bonn')]),
    ])
    const transform = compileTransform(CLINIC, PROJECTIONS[1] ?? [])
    const chosen = (after: number, items: number) => {
      const { to, sources } = chooseCut(view, transform, after, { items, bytes: 1e9 })
      return [to, sources.length]
    }
    expect(chosen(1, 1_000)).toEqual([5, 30])
    expect(chosen(1, 15)).toEqual([3, 10])
    expect(chosen(3, 9), 'one version, though it is more').toEqual([4, 20])
    expect(chosen(3, 15), 'with the next, which adds no more than a batch').toEqual([5, 30])
    expect(chosen(5, 15)).toEqual([5, 0])
  })

  it('comes to an end whatever the limits, one after another to the head', () => {
    const limits = fc.record({ items: fc.integer({ min: 1, max: 4 }), bytes: fc.constantFrom(1, 40, 1_000) })
    fc.assert(
      fc.property(histories, anyProjections, limits, (entries, projections, limit) => {
        const view = viewOf(entries)
        const transform = compileTransform(CLINIC, projections)
        let after = 0
        for (let cuts = 0; after < entries.length; cuts++) {
          expect(cuts).toBeLessThan(50)
          const { to, sources } = chooseCut(view, transform, after, limit)
          expect(to).toBeGreaterThan(after)
          expect(sources).toEqual(transform.affected(view, view.dirty(after, to), to))
          const least = view.cut(after, { items: 1, bytes: limit.bytes })
          const first = transform.affected(view, view.dirty(after, least), least).length
          if (sources.length > limit.items) expect(first, 'more than the limit only where it cannot be less').toBeGreaterThan(limit.items)
          if (to > least)
            expect(sources.length, 'and then no more than a batch beyond').toBeLessThanOrEqual(
              limit.items + (first > limit.items ? first : 0),
            )
          expect(to, 'never more changes than a batch has').toBeLessThanOrEqual(view.cut(after, limit))
          after = to
        }
      }),
      { numRuns: 150 },
    )
  })

  it('chosen one after another, leaves T at every cursor', async () => {
    const limits = fc.record({ items: fc.integer({ min: 1, max: 4 }), bytes: fc.constantFrom(1, 40, 1_000) })
    await fc.assert(
      fc.asyncProperty(histories, anyProjections, limits, async (entries, projections, limit) => {
        const view = viewOf(entries)
        const transform = compileTransform(CLINIC, projections)
        const destination: Destination = new Map()
        for (let from = 0; from < entries.length;) {
          const cut = chooseCut(view, transform, from, limit)
          const { rows } = await deriveState(view, transform, { ...cut, from })
          for (const row of rows) write(destination, row)
          const truth = truthOf(entries, cut.to, projections)
          expect(shownOf(destination.values(), truth.poisoned)).toEqual(shownOf(truth.rows.values(), truth.poisoned))
          from = cut.to
        }
      }),
      { numRuns: 250 },
    )
  })

  it('takes edits of one record with many dependents together, and what another document changes behind them', () => {
    const pets = Array.from({ length: 5_000 }, (_, i) => ({ collection: 'pets', id: String(i), value: { ownerId: 'o' } }))
    const city = (id: string, name: string) => [{ collection: 'owners', id, value: { city: name } }]
    const edits = Array.from({ length: 10 }, (_, i) => entryOf(i + 3, 'a', city('o', `c${i}`)))
    const other = entryOf(13, 'b', [{ collection: 'pets', id: 'x', value: { name: 'Rex' } }])
    const transform = compileTransform(CLINIC, PROJECTIONS[1] ?? [])
    const stretch = (...behind: readonly ProjectedEntry[]) => {
      const view = viewOf([entryOf(1, 'a', pets), entryOf(2, 'b', pets), ...edits, ...behind])
      let asked = 0
      const counted = {
        ...transform,
        affected: (...given: Parameters<typeof transform.affected>) => (asked++, transform.affected(...given)),
      }
      const { to, sources } = chooseCut(view, counted, 2, { items: 1_000, bytes: 1e9 })
      return { to, sources: sources.length, asked }
    }
    expect(stretch()).toMatchObject({ to: 12, sources: 5_000 })
    expect(stretch(other)).toMatchObject({ to: 13, sources: 5_001 })
    // As many dependents of another record would be another such batch: they come after these.
    const apart = stretch(other, entryOf(14, 'b', city('o', 'Ulm')))
    expect(apart).toMatchObject({ to: 13, sources: 5_001 })
    expect(apart.asked, 'bounded: the versions are doubled').toBeLessThan(20)
  })
})

describe('a stretch, strategy actions', () => {
  it('tells every change in order, with what was there before, and leads from version to version', async () => {
    await fc.assert(
      fc.asyncProperty(histories, fc.constantFrom(...WITHOUT_JOINS), cuts, async (entries, projections, at) => {
        const view = viewOf(entries)
        const transform = compileTransform(CLINIC, projections)
        const destination: Destination = new Map()
        const ids: string[] = []
        let after = 0
        for (const upTo of versionsOf(entries, at)) {
          const { rows, poisoned } = await deriveActions(view, transform, { after, upTo, log: 'l', replay: false })
          let version = after
          const settle = (to: number): void => {
            for (; version < to; version++) {
              const truth = truthOf(entries, version, projections)
              expect(shownOf(destination.values(), truth.poisoned)).toEqual(shownOf(truth.rows.values(), truth.poisoned))
            }
          }
          for (const row of rows) {
            const { event } = row
            if (event === undefined) throw new Error('no event')
            settle(event.version)
            ids.push(event.id)
            const previous = truthOf(entries, event.version - 1, projections).rows.get(keyText(row.key))?.text ?? null
            expect(textOf(event.before)).toBe(previous)
            if (poisoned.has(row)) continue
            expect(event.op).toBe(row.value === null ? 'delete' : previous === null ? 'create' : 'update')
            expect(event.origin).toMatchObject({ seq: event.version, actor: 'alice', at: event.version })
            write(destination, row)
          }
          settle(upTo)
          after = upTo
        }
        expect(new Set(ids).size, 'no two changes have the same id').toBe(ids.length)
        const again = await deriveActions(view, transform, { after: 0, upTo: entries.length, log: 'l', replay: true })
        expect(again.rows.map(({ event }) => event?.id)).toEqual(ids)
        expect(again.rows.every(({ event }) => event?.replay)).toBe(true)
      }),
      { numRuns: 250 },
    )
  })

  it('names events so that any header can carry them', async () => {
    const view = viewOf([entryOf(1, 'Ünder/Ω\u0000', [{ collection: 'pets', id: 'ü/\n', value: { name: 'Rex', tags: ['ö'] } }])])
    const idsOf = async (projections: (typeof PROJECTIONS)[number]) =>
      (await deriveActions(view, compileTransform(CLINIC, projections), { after: 0, upTo: 1, log: 'l', replay: false })).rows.map(
        ({ event }) => event?.id,
      )
    expect(await idsOf([])).toEqual(['l/1/%C3%9Cnder%2F%CE%A9%00/1/0/1'])
    expect(await idsOf(WITHOUT_JOINS[2] ?? [])).toEqual(['l/1/%C3%9Cnder%2F%CE%A9%00/1/0:moodyTags:%C3%B6/1'])
  })
})

describe('a refresh', () => {
  const junk = fc.array(
    fc.record({ target: fc.nat(5), document: fc.constantFrom('a', 'c'), id: fc.constantFrom('1', '1/x', '1-1/x', '2', 'x', '/') }),
    {
      maxLength: 8,
    },
  )

  it('leaves T as of its version and nothing else, whatever lay there, page by page', async () => {
    const limits = fc.record({ items: fc.integer({ min: 1, max: 6 }), bytes: fc.constantFrom(30, 10_000) })
    await fc.assert(
      fc.asyncProperty(histories, anyProjections, junk, limits, async (entries, projections, found, limit) => {
        const view = viewOf(entries)
        const transform = compileTransform(CLINIC, projections)
        const targets = Object.keys(transform.targets)
        const destination: Destination = new Map()
        for (const { target, document, id } of found) {
          const key = { collection: targets[target % targets.length] ?? '', document: document as DocumentId, id }
          write(destination, { key, value: { junk: true } })
        }
        const keys = async (count: number, from?: Key): Promise<readonly Key[]> =>
          [...destination.values()]
            .map(({ key }) => key)
            .filter((key) => from === undefined || compareKeys(key, from) > 0)
            .sort(compareKeys)
            .slice(0, count)
        const version = entries.length
        const poisoned = new Set<string>()
        let behind: Key | null = null
        for (let pages = 0; ; pages++) {
          expect(pages, 'it ends').toBeLessThan(200)
          const page = await deriveRefresh(view, transform, { version, behind, limits: limit, keys })
          for (const row of page.rows) write(destination, row)
          for (const { key } of page.poisoned) poisoned.add(keyText(key))
          if (page.refreshed === undefined) break
          // As it comes back from the destination.
          const next = JSON.parse(JSON.stringify(page.refreshed)) as Key
          if (behind !== null) expect(compareKeys(next, behind), 'it moves on').toBeGreaterThan(0)
          behind = next
        }
        const truth = truthOf(entries, version, projections)
        expect(poisoned).toEqual(truth.poisoned)
        expect(shownOf(destination.values(), truth.poisoned)).toEqual(shownOf(truth.rows.values(), truth.poisoned))
      }),
      { numRuns: 250 },
    )
  })

  it('reads T by pages for a proof', async () => {
    await fc.assert(
      fc.asyncProperty(histories, anyProjections, async (entries, projections) => {
        const transform = compileTransform(CLINIC, projections)
        const rows: { key: Key; text: string }[] = []
        for await (const page of pagesOfT(viewOf(entries), transform, entries.length, 3)) {
          for (const { source, rows: own } of page) {
            for (const { key, value } of own) {
              expect(transform.sourceOf(key)).toEqual(source)
              rows.push({ key, text: canonicalJson(value) })
            }
          }
        }
        expect(shownOf(rows, new Set())).toEqual(shownOf(truthOf(entries, entries.length, projections).rows.values(), new Set()))
      }),
      { numRuns: 50 },
    )
  })
})
