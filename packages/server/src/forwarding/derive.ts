/**
 * What a sink has to write for a stretch of versions (between steps 7 and 8 of the path): the difference of T as of two versions, or every change in between in order. Pure, given the view and T.
 */
import type { RecordValue } from '@rejoin/shared'
import type { SourceAt, SourceRows, Transform } from '../projection/transform.ts'
import { bucketOf } from '../sinks/digest.ts'
import type { SinkEvent, SinkRow } from '../sinks/sink.ts'
import type { CutLimits, Key, RecordDifference, VersionEntry, View } from '../view/view.ts'
import { compareKeys, keyText } from '../view/view.ts'

/** A key for which T has no row because select failed. */
export interface PoisonedKey {
  /** In the target, with the record's own id, whatever its parts. */
  readonly key: Key
  readonly reason: string
  /** What T gave as of the cursor, where the row still lies: null for none. Undefined during a refresh. */
  readonly before: RecordValue | null | undefined
}

/** What to write to bring a destination from one version to another. */
export interface DerivedState {
  /** Deletes before others, each key once. `before` is null where select failed as of the cursor. */
  readonly rows: readonly SinkRow[]
  /** Their rows stay as they are, but for parts, which are deleted. */
  readonly poisoned: readonly PoisonedKey[]
  /** Keys, as in `poisoned`, of those that failed as of the cursor and do not any more. */
  readonly cured: readonly Key[]
}

/** A stretch of versions and the records that it affects. */
export interface Cut {
  readonly to: number
  readonly sources: readonly Key[]
  /** What changed in it, when that is at hand. */
  readonly differences?: readonly RecordDifference[] | undefined
}

/**
 * The end of the next cut, with no more than `limits` between, records that depend on changed ones counted too. When one version alone has more, later ones come with it as long as they add no more
 * than a batch: ten edits of a record that thousands depend on are then one rewrite of them, not ten. `to` is `after` when there is nothing new.
 */
export function chooseCut(view: View, transform: Transform, after: number, limits: CutLimits): Cut {
  // With the bytes of all the others: the last try, with one item, has to come out there.
  const least = view.cut(after, { items: 1, bytes: limits.bytes })
  if (least <= after) return { to: after, sources: [] }
  const tried: Tried[] = []
  for (let items = limits.items; ;) {
    const to = view.cut(after, { items, bytes: limits.bytes })
    const { dirty, ...cut } = cutTo(view, transform, { after, to, limits })
    if (cut.sources.length <= limits.items) return cut
    if (to === least) return extend(view, transform, cut, { after, limits, tried })
    tried.push({ to, sources: cut.sources.length })
    // Fewer changes than these, so that it ends.
    items = Math.max(1, Math.min(dirty.length - 1, Math.ceil((dirty.length * limits.items) / cut.sources.length)))
  }
}

interface Tried {
  readonly to: number
  /** How many. */
  readonly sources: number
}

interface Stretch {
  readonly after: number
  readonly limits: CutLimits
}

function cutTo(
  view: View,
  transform: Transform,
  { after, to, limits }: Stretch & { readonly to: number },
): Cut & { readonly dirty: readonly Key[] } {
  const differences = view.differences(after, to, limits.items)
  const dirty = differences?.map(({ key }) => key) ?? view.dirty(after, to)
  return { to, dirty, differences, sources: transform.affected(view, dirty, to) }
}

/** As far beyond `first` as adds no more sources than a batch, by steps that double and then halve: what is affected only grows with the end. `tried`: ends beyond it, the last first. */
function extend(
  view: View,
  transform: Transform,
  first: Cut,
  { after, limits, tried }: Stretch & { readonly tried: readonly Tried[] },
): Cut {
  const most = first.sources.length + limits.items
  const top = view.cut(after, limits)
  let beyond = tried.findLast(({ sources }) => sources > most)?.to ?? Number.POSITIVE_INFINITY
  const known = tried.find(({ sources }) => sources <= most)
  let best = known === undefined ? first : cutTo(view, transform, { after, limits, to: known.to })
  let doubles = true
  for (let step = 1; step >= 1; step = doubles ? step * 2 : Math.floor(step / 2)) {
    const to = Math.min(view.cut(best.to, { items: step, bytes: limits.bytes }), top)
    const cut = to > best.to && to < beyond ? cutTo(view, transform, { after, limits, to }) : undefined
    if (cut !== undefined && cut.sources.length <= most) best = cut
    else [beyond, doubles] = [Math.min(beyond, to), false]
  }
  return best
}

/**
 * From T as of `from` to T as of `to`. Rows that did not change are left out unless a commit up to `attempted`, above `from`, may have happened without its cursor. Where a record is several
 * parts, `attempted` is the end of every such commit: one that failed is tried again to the same version before another.
 */
export async function deriveState(
  view: View,
  transform: Transform,
  cut: Partial<Cut> & {
    readonly from: number
    readonly to: number
    readonly attempted?: number | undefined
  },
): Promise<DerivedState> {
  const { from, to } = cut
  const attempted = cut.attempted ?? from
  const sources = cut.sources ?? transform.affected(view, view.dirty(from, to), to)
  const asked = recordsOf(view, sources, { ...cut, from, to })
  // What an attempt may have left there is what T gave then; an attempt beyond `to` is seen to by the next cut.
  if (attempted > from && attempted < to) for (const source of sources) asked.push({ source, version: attempted })
  const made = await transform.rows(view, asked)
  const deletes: SinkRow[] = []
  const sets: SinkRow[] = []
  const poisoned: PoisonedKey[] = []
  const cured: Key[] = []
  for (const i of sources.keys()) {
    const [old, now, ambiguous] = [made[i], made[sources.length + i], made[2 * sources.length + i]]
    if (old === undefined || now === undefined) continue
    if (attempted <= from && isSimple(old, now)) {
      const row = changeOf(old, now)
      if (row !== undefined) (row.value === null ? deletes : sets).push(row)
      continue
    }
    for (const row of differences(transform, { old, now, ambiguous }, attempted > from)) (row.value === null ? deletes : sets).push(row)
    for (const { key, reason } of now.poison) poisoned.push({ key, reason, before: valuesOf(old)(key) })
    for (const { key } of old.poison) if (!isPoisoned(now, key)) cured.push(key)
  }
  for (const row of sets) deletes.push(row)
  return { rows: deletes, poisoned, cured }
}

/** All sources as of `from`, then all as of `to`, with their records as far as it is cheaper to read them at once. */
function recordsOf(
  view: View,
  sources: readonly Key[],
  { from, to, differences }: Partial<Cut> & { readonly from: number; readonly to: number },
): SourceAt[] {
  const changed = differences ?? view.differences(from, to, 4 * sources.length)
  const before: SourceAt[] = []
  const after: SourceAt[] = []
  // Both are in the order of keys.
  let next = 0
  for (const source of sources) {
    if (changed === undefined) {
      before.push({ source, version: from })
      after.push({ source, version: to })
      continue
    }
    while (next < changed.length && compareKeys(changed[next]?.key ?? source, source) < 0) next++
    const found = changed[next]
    const isChanged = found !== undefined && isKey(found.key, source)
    const record = isChanged ? parsed(found.after) : view.get(source, to)
    after.push({ source, version: to, record })
    // T may do with each what it likes.
    before.push({ source, version: from, record: isChanged ? parsed(found.before) : record && { ...record } })
  }
  for (const each of after) before.push(each)
  return before
}

function parsed(text: string | null): RecordValue | null {
  return text === null ? null : (JSON.parse(text) as RecordValue)
}

/** By far the most are: at most one row, then and now, of the same key. */
function isSimple(old: SourceRows, now: SourceRows): boolean {
  if (old.rows.length > 1 || now.rows.length > 1 || old.poison.length > 0 || now.poison.length > 0) return false
  const [before, after] = [old.rows[0], now.rows[0]]
  return before === undefined || after === undefined || isKey(before.key, after.key)
}

function changeOf({ rows: [before] }: SourceRows, { rows: [after] }: SourceRows): SinkRow | undefined {
  const key = (after ?? before)?.key
  const [old, value] = [before?.value ?? null, after?.value ?? null]
  return key === undefined || isSame(old, value) ? undefined : { key, value, before: old }
}

/** Rows of one source by which a destination may have to change. `unsure`: it may have more or less than `old`. */
function* differences(
  transform: Transform,
  { old, now, ambiguous }: { readonly old: SourceRows; readonly now: SourceRows; readonly ambiguous: SourceRows | undefined },
  unsure: boolean,
): Generator<SinkRow> {
  const keys = new Map([...old.rows, ...now.rows, ...(ambiguous?.rows ?? [])].map(({ key }) => [keyText(key), key]))
  // Nothing then and nothing now, and still a row may lie there: of an attempt in between, or from before select failed.
  if (unsure || old.poison.length > 0) for (const key of ownKeys(transform, now.source)) keys.set(keyText(key), key)
  const [then, there] = [valuesOf(old), valuesOf(now)]
  for (const key of keys.values()) {
    if (isPoisoned(now, key)) continue
    const [before, value] = [then(key), there(key)]
    if (unsure || isPoisoned(old, key) || !isSame(before, value)) yield { key, value, before }
  }
}

/** Keys that the record has in targets where it is one row. */
function* ownKeys({ sources }: Transform, { collection, document, id }: Key): Generator<Key> {
  for (const [target, source] of sources) if (source.collection === collection && !source.parts) yield { collection: target, document, id }
}

/**
 * Every change of the versions in (after, upTo], in order, each with what was there before. A change that T does not show is none. `poisoned` are changes that select
 * failed on: their events stand among the rows with the value that was there before, for the order; the forwarder may not send them.
 */
export async function deriveActions(
  view: View,
  transform: Transform,
  stretch: { readonly after: number; readonly upTo: number; readonly log: string; readonly replay: boolean },
): Promise<{ readonly rows: readonly SinkRow[]; readonly poisoned: ReadonlyMap<SinkRow, string> }> {
  const { after, upTo, log, replay } = stretch
  const changes: { readonly entry: VersionEntry; readonly index: number; readonly source: Key }[] = []
  const asked: SourceAt[] = []
  for (let at = after; ;) {
    const entries = view.changes(at, upTo, PAGE)
    for (const entry of entries) {
      for (const [index, { key: source, before, after: now }] of entry.changes.entries()) {
        if (!transform.collections.has(source.collection)) continue
        changes.push({ entry, index, source })
        asked.push({ source, version: entry.version - 1, record: parsed(before) }, { source, version: entry.version, record: parsed(now) })
      }
    }
    at = entries.at(-1)?.version ?? upTo
    if (entries.length < PAGE) break
  }
  const made = await transform.rows(view, asked)
  const rows: SinkRow[] = []
  const poisoned = new Map<SinkRow, string>()
  for (const [i, { entry, index, source }] of changes.entries()) {
    const [old, now] = [made[2 * i], made[2 * i + 1]]
    if (old === undefined || now === undefined) continue
    const event = (key: Key, before: RecordValue | null, value: RecordValue | null): SinkRow => ({
      key,
      value,
      event: {
        id: eventId(transform, { log, entry, index, source, key }),
        op: value === null ? 'delete' : before === null ? 'create' : 'update',
        before,
        version: entry.version,
        origin: originOf(entry),
        replay,
      },
    })
    for (const { key, reason } of now.poison) {
      const before = valuesOf(old)(key)
      const row = event(key, before, before)
      rows.push(row)
      poisoned.set(row, reason)
    }
    // Nothing before and nothing after is a delete all the same: select failed before, and what lies there is older than that.
    for (const { key, value, before } of differences(transform, { old, now, ambiguous: undefined }, false))
      rows.push(event(key, before ?? null, value))
  }
  return { rows, poisoned }
}

/** Versions read at a time. */
const PAGE = 1_000

/**
 * `<log>/<epoch>/<document>/<seq>/<index>/<revision>`, the same after any replay. The index tells the changed records of an entry apart, and with projections the target and the part.
 * Printable ASCII, so that it fits a header anywhere.
 */
function eventId(
  { sources, source: functions }: Transform,
  {
    log,
    entry,
    index,
    source,
    key,
  }: { readonly log: string; readonly entry: VersionEntry; readonly index: number; readonly source: Key; readonly key: Key },
): string {
  const from = sources.get(key.collection)
  const part = from?.parts === true ? `:${encoded(key.id.slice(source.id.length + 1))}` : ''
  const target = functions === '' ? '' : `:${key.collection}${part}`
  return [log, entry.epoch, encoded(entry.document), entry.seq, `${index}${target}`, from?.revision ?? 1].join('/')
}

/** Documents are named without lone surrogates, and what T gives is well formed. */
function encoded(text: string): string {
  return encodeURIComponent(text)
}

function originOf({ partition, position, epoch, seq, document, actor, at }: VersionEntry): SinkEvent['origin'] {
  return { partition, position, epoch, seq, document, actor, at }
}

/** Changes of the digest: bucket → sum of the hashes that come minus those that go, modulo 2^64; and how many rows more there are. Undefined when a row does not say what was there before. */
export function digestDelta(
  { rows, poisoned }: Pick<DerivedState, 'rows' | 'poisoned'>,
  hash: (key: Key, value: RecordValue) => bigint,
): { readonly buckets: ReadonlyMap<number, bigint>; readonly rows: number } | undefined {
  const buckets = new Map<number, bigint>()
  let count = 0
  const gone = poisoned.map(({ key, before }) => ({ key, before, value: null }))
  for (const { key, before, value } of [...rows, ...gone]) {
    if (before === undefined) return undefined
    const change = (value === null ? 0n : hash(key, value)) - (before === null ? 0n : hash(key, before))
    count += Number(value !== null) - Number(before !== null)
    if (change === 0n) continue
    const bucket = bucketOf(key)
    buckets.set(bucket, BigInt.asUintN(64, (buckets.get(bucket) ?? 0n) + change))
  }
  return { buckets, rows: count }
}

/** Looks the rows of one source up: most have one, some have thousands of parts. */
function valuesOf({ rows }: SourceRows): (key: Key) => RecordValue | null {
  if (rows.length < 8) return (key) => rows.find((row) => isKey(row.key, key))?.value ?? null
  const values = new Map(rows.map(({ key, value }) => [keyText(key), value]))
  return (key) => values.get(keyText(key)) ?? null
}

function isPoisoned({ poison }: SourceRows, key: Key): boolean {
  return poison.some((each) => isKey(each.key, key))
}

function isKey(a: Key, b: Key): boolean {
  return a.id === b.id && a.collection === b.collection && a.document === b.document
}

/** Both are canonical: equal rows have the same names in the same order. */
function isSame(a: RecordValue | null, b: RecordValue | null): boolean {
  if (a === b) return true
  if (a === null || b === null) return false
  const names = Object.keys(a)
  if (names.length !== Object.keys(b).length) return false
  return names.every((name) => {
    const [x, y] = [a[name], b[name]]
    if (x === y) return true
    return typeof x === 'object' && typeof y === 'object' && JSON.stringify(x) === JSON.stringify(y)
  })
}
