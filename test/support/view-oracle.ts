/**
 * What a view is, in a few lines: the commits, and nothing forgotten. And everything that a reader may ask, held against it.
 */
import type { DocumentId, RecordValue } from '@rejoin/shared'
import { expect } from 'vitest'
import type { Key, ProjectedEntry, ViewStore } from '#server/view/view.js'
import { compareKeys, keyText } from '#server/view/view.js'

/** All that was ever committed, and the marks that were seen. */
export interface Oracle {
  readonly entries: ProjectedEntry[]
  readonly marks: Map<number, string>
}
const valueAt = ({ entries }: Oracle, { collection, document, id }: Key, version: number): RecordValue | null =>
  entries
    .filter((each) => each.version <= version && each.document === document)
    .flatMap(({ changes }) => changes)
    .findLast((each) => each.collection === collection && each.id === id)?.value ?? null
const textAt = (oracle: Oracle, key: Key, version: number): string | null => {
  const value = valueAt(oracle, key, version)
  return value === null ? null : JSON.stringify(value)
}
const keysOf = (entries: readonly ProjectedEntry[]): Key[] => {
  const keys = new Map<string, Key>()
  for (const { document, changes } of entries)
    for (const { collection, id } of changes) keys.set(keyText({ collection, document, id }), { collection, document, id })
  return [...keys.values()].sort(compareKeys)
}

/** What a reader may ask of versions and references between `oldest` and `head`, against the list. */
function compareHistory(view: ViewStore, oracle: Oracle, version: number): void {
  const { entries, marks } = oracle
  const head = view.head() ?? 0
  const oldest = view.oldest()
  const behind = entries.filter((each) => each.version > version && each.version <= head)
  const told = behind.map(({ changes, ...each }) => ({
    ...each,
    keys: changes.map(({ collection, id }) => ({ collection, document: each.document, id })),
  }))
  expect(view.entries(version, head, 100)).toEqual(told)
  expect(view.entries(version, head + 9, 2)).toEqual(told.slice(0, 2))
  const bytes = behind
    .flatMap(({ changes }) => changes)
    .reduce((sum, { value }) => sum + (value === null ? 0 : JSON.stringify(value).length), 0)
  expect(view.lag(version)).toEqual({ entries: behind.length, bytes, at: behind.find(({ at }) => at > 0)?.at })
  expect(view.mark(version), 'a mark stays what it was').toBe(marks.get(version) ?? view.mark(version))
  marks.set(version, view.mark(version))
  for (const { document, seq, version: own } of entries) {
    const found = view.versionOf(document, seq) ?? -1
    if (own > oldest) expect(found).toBe(own)
    else expect(found, 'trimmed: somewhere behind it').toBeGreaterThanOrEqual(own)
  }
  for (const time of [0, 2, 9]) {
    const found = view.versionAt(time)
    if (found === undefined) expect(entries.some((each) => each.version <= oldest && each.at > time)).toBe(true)
    else {
      expect(entries.filter((each) => each.version > oldest && each.version <= found && each.at > time)).toEqual([])
      const next = entries.find((each) => each.version > found)
      expect(found >= head || (next?.at ?? 0) > time, `${found} is the last before one later than ${time}`).toBe(true)
    }
  }
  const all = keysOf(entries)
  for (const id of ['1', 'a\u0000b', '"\\', '3']) {
    for (const document of [undefined, 'a' as DocumentId]) {
      const referring = all.filter(
        (each) =>
          each.collection === 'pets' &&
          (document === undefined || each.document === document) &&
          valueAt(oracle, each, version)?.['ref'] === id,
      )
      expect(view.dependents({ collection: 'pets', field: 'ref' }, id, document, version)).toEqual(referring)
    }
  }
}

/** Everything a reader may ask between `oldest` and `head`, against the list. */
export function compareView(view: ViewStore, oracle: Oracle): void {
  const { entries } = oracle
  const last = entries.at(-1)?.version ?? 0
  const head = view.head() ?? 0
  const oldest = view.oldest()
  expect(view.standing().version).toBe(last)
  expect(head).toBe(Math.max(oldest, entries.findLast(({ settled }) => settled)?.version ?? 0))
  const all = keysOf(entries)
  for (const version of new Set([oldest, head, Math.floor((oldest + head) / 2)])) {
    const live = all.filter((each) => valueAt(oracle, each, version) !== null)
    expect(view.keys(version, 100)).toEqual(live)
    const texts = live.map((each) => ({ key: each, text: textAt(oracle, each, version) }))
    expect(view.page(version, 100)).toEqual(texts)
    expect(view.page(version, 2, live[0])).toEqual(texts.slice(1, 3))
    for (const each of all) expect(view.get(each, version)).toEqual(valueAt(oracle, each, version))
    expect(view.dirty(version, head)).toEqual(keysOf(entries.filter((each) => each.version > version && each.version <= head)))
    const differences = view
      .dirty(version, head)
      .map((each) => ({ key: each, before: textAt(oracle, each, version), after: textAt(oracle, each, head) }))
    expect(view.differences(version, head, 1_000)).toEqual(differences)
    if (differences.length > 1) expect(view.differences(version, head, 1)).toBeUndefined()
    const cut = view.cut(version, { items: 3, bytes: 30 })
    expect(cut === version || entries.some((each) => each.version === cut && each.settled), `the cut ${cut} is settled`).toBe(true)
    expect(cut > version, 'a cut moves on exactly where it can').toBe(head > version)
    compareHistory(view, oracle, version)
  }
  for (const document of ['a', 'b'] as DocumentId[]) {
    const now = all.filter((each) => each.document === document && valueAt(oracle, each, last) !== null)
    expect([...view.records(document)].map(({ collection, id }) => ({ collection, document, id })).sort(compareKeys)).toEqual(now)
  }
}
