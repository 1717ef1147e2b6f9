/**
 * What a sink has to write to hold T as of one version and nothing else, a page at a time (between steps 7 and 8 of the path). Pure, given the view, T and the destination's keys.
 *
 * Target by target, in the order of their names. Where a record is one row, view and destination are read side by side. Parts do not lie in the order of their records
 * (`a-1/x` comes before `a/x`), so a target of parts is swept twice: what is there and should not be goes first, then what should be there is written.
 */
import type { DocumentId } from '@rejoin/shared'
import type { SourceRows, Transform } from '../projection/transform.ts'
import type { SinkRow } from '../sinks/sink.ts'
import type { CutLimits, Key, View } from '../view/view.ts'
import { compareKeys, compareText, keyText } from '../view/view.ts'
import type { PoisonedKey } from './derive.ts'

/** A page of a refresh. */
export interface RefreshPage {
  /** Deletes before others, each key once; `before` is not known. */
  readonly rows: readonly SinkRow[]
  readonly poisoned: readonly PoisonedKey[]
  /** Where the next page begins; undefined: this was the last. */
  readonly refreshed: Key | undefined
}

export interface RefreshOptions {
  readonly version: number
  /** Where the page before ended, null at the beginning. */
  readonly behind: Key | null
  readonly limits: CutLimits
  /** Keys that lie in the destination, in order, at most `limit`, behind `from`. */
  readonly keys: (limit: number, from?: Key) => Promise<readonly Key[]>
}

/** The next page of a refresh. */
export async function deriveRefresh(view: View, transform: Transform, options: RefreshOptions): Promise<RefreshPage> {
  const steps = stepsOf(transform)
  const { behind } = options
  const index = behind === null ? 0 : steps.findIndex(({ place }) => compareText(place, behind.collection) >= 0)
  const step = steps[index]
  if (step === undefined) return { rows: [], poisoned: [], refreshed: undefined }
  const from = behind?.collection === step.place ? behind : startOf(step.place)
  const page = await PAGES[step.type](view, transform, step.target, { ...options, from })
  const next = steps[index + 1]
  return page.refreshed !== undefined || next === undefined ? page : { ...page, refreshed: startOf(next.place) }
}

/** One way over one target. */
interface Step {
  readonly type: 'sweep' | 'write' | 'both'
  /** As collection of the places in it. */
  readonly place: string
  readonly target: string
}

function stepsOf({ sources }: Transform): readonly Step[] {
  const steps = [...sources].flatMap(([target, { parts }]): readonly Step[] => {
    if (!parts) return [{ type: 'both', place: target, target }]
    return [
      { type: 'sweep', place: target, target },
      { type: 'write', place: writing(target), target },
    ]
  })
  return steps.sort((a, b) => compareText(a.place, b.place))
}

/** What stands as collection in the places of the second sweep: no name of a schema has '/', so it comes behind all of this target and before all others. */
function writing(target: string): string {
  return `${target}/`
}

type PageOf = (view: View, transform: Transform, target: string, options: RefreshOptions & { readonly from: Key }) => Promise<RefreshPage>

const PAGES: Readonly<Record<Step['type'], PageOf>> = {
  /** Records and rows side by side. */
  both: async (view, transform, target, { version, limits, keys, from }) => {
    const collection = collectionOf(transform, target)
    const wanted = pageOf(view.keys(version, limits.items, { ...from, collection }), collection, limits.items)
    const there = pageOf(await keys(limits.items, from), target, limits.items)
    const all = [...wanted.keys.map((key) => ({ ...key, collection: target })), ...there.keys]
    // A full page says nothing about what lies behind it.
    const bound = [wanted, there].flatMap(({ last }) => (last === undefined ? [] : { ...last, collection: target })).sort(compareKeys)[0]
    const page = [...new Map(all.map((key) => [keyText(key), key])).values()]
      .filter((key) => bound === undefined || compareKeys(key, bound) <= 0)
      .sort(compareKeys)
    const made = await rowsOf(view, transform, target, version, page)
    const lying = new Set(there.keys.map(keyText))
    const filled = made.map(({ key, rows, poison }) => {
      const isSurplus = rows.length === 0 && poison.length === 0 && lying.has(keyText(key))
      return { key, rows: isSurplus ? [{ key, value: null }] : rows, poison }
    })
    return collect(filled, limits, bound)
  },

  /** Rows of the destination that no record makes. */
  sweep: async (view, transform, target, { version, limits, keys, from }) => {
    const there = pageOf(await keys(limits.items, from), target, limits.items)
    const sources = there.keys.flatMap((key) => transform.sourceOf(key) ?? [])
    const made = await rowsOf(view, transform, target, version, [...new Map(sources.map((key) => [keyText(key), key])).values()])
    const wanted = new Set(made.flatMap(({ rows }) => rows.map(({ key }) => keyText(key))))
    const rows = there.keys.filter((key) => !wanted.has(keyText(key))).map((key) => ({ key, value: null }))
    return { rows, poisoned: [], refreshed: there.last }
  },

  /** Rows of every record. */
  write: async (view, transform, target, { version, limits, from }) => {
    const collection = collectionOf(transform, target)
    const place = writing(target)
    const wanted = pageOf(view.keys(version, limits.items, { ...from, collection }), collection, limits.items)
    const made = await rowsOf(view, transform, target, version, wanted.keys)
    return collect(
      made.map((one) => ({ ...one, key: { ...one.key, collection: place } })),
      limits,
      wanted.last && { ...wanted.last, collection: place },
    )
  },
}

/** What one record gives for one target. */
interface Made {
  /** The record's document and id, in the target. */
  readonly key: Key
  readonly rows: readonly SinkRow[]
  readonly poison: SourceRows['poison']
}

/** `keys` name records by document and id. */
async function rowsOf(view: View, transform: Transform, target: string, version: number, keys: readonly Key[]): Promise<readonly Made[]> {
  const collection = collectionOf(transform, target)
  const made = await transform.rows(
    view,
    keys.map(({ document, id }) => ({ source: { collection, document, id }, version })),
  )
  // Another target may be made from the same records.
  const isHere = ({ key }: { readonly key: Key }): boolean => key.collection === target
  return made.map(({ source, rows, poison }) => ({
    key: { ...source, collection: target },
    rows: rows.filter(isHere),
    poison: poison.filter(isHere),
  }))
}

/** As much as fits, one record at least. Where it stops is where the next page begins. */
function collect(made: readonly Made[], limits: CutLimits, bound: Key | undefined): RefreshPage {
  const rows: SinkRow[] = []
  const poisoned: PoisonedKey[] = []
  let bytes = 0
  let refreshed = bound
  for (const [i, { key, rows: own, poison }] of made.entries()) {
    for (const row of own) {
      rows.push(row)
      bytes += row.value === null ? 0 : JSON.stringify(row.value).length
    }
    for (const each of poison) poisoned.push({ ...each, before: undefined })
    if (i === made.length - 1 || (bytes <= limits.bytes && rows.length < limits.items)) continue
    refreshed = key
    break
  }
  return { rows: [...rows.filter(({ value }) => value === null), ...rows.filter(({ value }) => value !== null)], poisoned, refreshed }
}

/** Of a page over all collections the keys of this one; `last` when more of it may follow. */
function pageOf(
  keys: readonly Key[],
  collection: string,
  limit: number,
): { readonly keys: readonly Key[]; readonly last: Key | undefined } {
  const own = keys.filter((key) => key.collection === collection)
  const last = keys.at(-1)
  return { keys: own, last: keys.length === limit && last?.collection === collection ? last : undefined }
}

function startOf(place: string): Key {
  // Documents are not named ''.
  return { collection: place, document: '' as DocumentId, id: '' }
}

function collectionOf({ sources }: Transform, target: string): string {
  const source = sources.get(target)
  if (source === undefined) throw new Error(`no target ${target}`)
  return source.collection
}

/** Everything that T gives as of a version, by pages of at most `limit` records. */
export async function* pagesOfT(view: View, transform: Transform, version: number, limit: number): AsyncGenerator<readonly SourceRows[]> {
  const froms = new Set([...transform.sources.values()].map(({ collection }) => collection))
  for (let from: Key | undefined; ;) {
    const keys = view.keys(version, limit, from)
    if (keys.length === 0) return
    from = keys.at(-1)
    yield await transform.rows(
      view,
      keys.filter(({ collection }) => froms.has(collection)).map((source) => ({ source, version })),
    )
  }
}
