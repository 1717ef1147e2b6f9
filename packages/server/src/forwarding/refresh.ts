/**
 * What a sink has to write to hold T as of one version and nothing else, a page at a time (between steps 7 and 8 of the path). Pure, given the view, T and the destination's keys.
 *
 * Target by target, in the order of their names. Where a record is one row, view and destination are read side by side. Parts do not lie in the order of their records
 * (`a-1/x` comes before `a/x`), so a target of parts is swept twice: what is there and should not be goes first, then what should be there is written.
 */
import type { DocumentId, RecordValue } from '@rejoin/shared'
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
    const wanted = recordsOf(view, transform, target, version, limits.items, from)
    const there = pageOf(await keys(limits.items, from), target, limits.items)
    const found = new Map(wanted.records.map((each) => [keyText(each.key), each]))
    const lying = new Set(there.keys.map(keyText))
    // A full page says nothing about what lies behind it.
    const bound = [wanted.last ?? [], there.last ?? []].flat().sort(compareKeys)[0]
    for (const key of there.keys) if (!found.has(keyText(key))) found.set(keyText(key), { key, record: null })
    const page = [...found.values()]
      .filter(({ key }) => bound === undefined || compareKeys(key, bound) <= 0)
      .sort((a, b) => compareKeys(a.key, b.key))
    const made = await rowsOf(view, transform, target, version, page)
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
    const named = new Map(sources.map((key) => [keyText(key), { key }]))
    const made = await rowsOf(view, transform, target, version, [...named.values()])
    const wanted = new Set(made.flatMap(({ rows }) => rows.map(({ key }) => keyText(key))))
    const rows = there.keys.filter((key) => !wanted.has(keyText(key))).map((key) => ({ key, value: null }))
    return { rows, poisoned: [], refreshed: there.last }
  },

  /** Rows of every record. */
  write: async (view, transform, target, { version, limits, from }) => {
    const place = writing(target)
    const { records, last } = recordsOf(view, transform, target, version, limits.items, from)
    const made = await rowsOf(view, transform, target, version, records)
    return collect(
      made.map((one) => ({ ...one, key: { ...one.key, collection: place } })),
      limits,
      last && { ...last, collection: place },
    )
  },
}

/** A record by its document and id; without `record` it is still to be read. */
interface Named {
  readonly key: Key
  readonly record?: RecordValue | null
}

/** A page of the records that a target is made from, named by keys in the target; `last` when more may follow. */
function recordsOf(
  view: View,
  transform: Transform,
  target: string,
  version: number,
  limit: number,
  from: Key,
): { readonly records: readonly Named[]; readonly last: Key | undefined } {
  const collection = collectionOf(transform, target)
  const page = view.page(version, limit, { ...from, collection })
  const own = page.filter(({ key }) => key.collection === collection)
  const records = own.map(({ key, text }) => ({ key: { ...key, collection: target }, record: JSON.parse(text) as RecordValue }))
  return { records, last: page.length === limit && own.length === page.length ? records.at(-1)?.key : undefined }
}

/** What one record gives for one target. */
interface Made {
  /** The record's document and id, in the target. */
  readonly key: Key
  readonly rows: readonly SinkRow[]
  readonly poison: SourceRows['poison']
}

async function rowsOf(
  view: View,
  transform: Transform,
  target: string,
  version: number,
  named: readonly Named[],
): Promise<readonly Made[]> {
  const collection = collectionOf(transform, target)
  const made = await transform.rows(
    view,
    named.map(({ key: { document, id }, record }) => ({ source: { collection, document, id }, version, record })),
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
    const page = view.page(version, limit, from)
    if (page.length === 0) return
    from = page.at(-1)?.key
    const own = page.filter(({ key }) => froms.has(key.collection))
    yield await transform.rows(
      view,
      own.map(({ key, text }) => ({ source: key, version, record: JSON.parse(text) as RecordValue })),
    )
  }
}
