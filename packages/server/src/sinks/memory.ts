/**
 * A destination that is a value in memory (step 8 of the path), for tests and the conformance kit: it outlives its sinks, as a database would, and fails where a test wants it to.
 */
import type { RecordValue } from '@rejoin/shared'
import { SyncError, canonicalJson } from '@rejoin/shared'
import { BUCKETS, bucketOf, hashText } from './digest.ts'
import type { FoundRow, Key, Parked, Sink, SinkCommit, SinkContext, SinkOutcome, SinkPlace, SinkProof, SinkRow } from './sink.ts'
import { compareKeys, keyText } from './sink.ts'

/** One key of it. */
export interface MemoryRow {
  readonly key: Key
  /** null: deleted; the stamp is kept, so that what is older does not bring it back. */
  readonly value: RecordValue | null
  /** 0: put there by somebody else. */
  readonly stamp: number
}

/** What a test may look at and change. */
export interface MemoryDestination {
  /** By `keyText` of the key. */
  rows: Map<string, MemoryRow>
  fence: number
  place: SinkPlace | undefined
  stamp: number
  log: string | undefined
  collections: string
  parked: Map<string, Parked>
  /** May throw, or answer why a row is refused. */
  hook: (at: 'begin' | 'before commit' | 'after commit' | 'keys' | Key, value?: RecordValue | null) => string | void
}

/** An empty one. */
export function createMemoryDestination(): MemoryDestination {
  return { rows: new Map(), fence: 0, place: undefined, stamp: 0, log: undefined, collections: '', parked: new Map(), hook: () => {} }
}

/** What lies in the destination now: `keyText` of the key → value. */
export function rowsOf(destination: MemoryDestination): Map<string, RecordValue> {
  return new Map([...destination.rows].flatMap(([text, { value }]) => (value === null ? [] : [[text, value]])))
}

/** Opens a sink on it. */
export function openMemorySink(destination: MemoryDestination, { log, adopt, collections, name }: SinkContext): Sink {
  const declared = canonicalJson(collections)
  let fence = -1
  return {
    begin: async () => {
      destination.hook('begin')
      if (destination.log !== undefined && destination.log !== log) {
        if (!adopt)
          throw new SyncError('bad_option', `sink ${name}: the destination mirrors the log ${destination.log}, but this is the log ${log}`)
        destination.place = undefined
      }
      if (destination.collections !== declared) destination.place = undefined
      destination.log = log
      destination.collections = declared
      fence = ++destination.fence
      return { place: destination.place, stamp: destination.stamp, parked: [...destination.parked.values()] }
    },
    commit: async (commit) => {
      destination.hook('before commit')
      if (destination.fence !== fence) return { type: destination.fence > fence ? 'fenced' : 'lost' }
      if (placeText(destination.place) !== placeText(commit.from)) return { type: 'lost' }
      const outcome = write(destination, commit)
      destination.hook('after commit')
      return outcome
    },
    keys: async (limit, from) => {
      destination.hook('keys')
      const keys = [...destination.rows.values()].filter(({ value }) => value !== null).map(({ key }) => key)
      return keys
        .sort(compareKeys)
        .filter((key) => from === undefined || compareKeys(key, from) > 0)
        .slice(0, limit)
    },
    proof: proofOf(destination, new Set(Object.keys(collections))),
    plan: async () => (destination.log === undefined ? Object.keys(collections).map((target) => `make ${target}`) : []),
    drop: async () => {
      const { hook } = destination
      Object.assign(destination, createMemoryDestination(), { hook })
    },
    close: async () => {},
  }
}

function write(destination: MemoryDestination, { rows, to, force, whole }: SinkCommit): SinkOutcome {
  const parked: Parked[] = []
  const stuck = new Set<string>()
  const written: SinkRow[] = []
  for (const row of rows) {
    const text = keyText(row.key)
    if (stuck.has(text)) continue
    const reason = destination.hook(row.key, row.value)
    if (typeof reason !== 'string') {
      written.push(row)
      continue
    }
    stuck.add(text)
    parked.push({ key: row.key, reason, ...(row.event === undefined ? {} : { event: row.event.id }) })
  }
  if (whole === true && parked.length > 0) return { type: 'refused', parked }
  for (const { key } of rows) destination.parked.delete(keyText(key))
  for (const each of parked) destination.parked.set(keyText(each.key), each)
  for (const { key, value, event } of written) {
    const stamp = event?.version ?? to.version
    const text = keyText(key)
    if (force === true || (destination.rows.get(text)?.stamp ?? 0) <= stamp) destination.rows.set(text, { key, value, stamp })
  }
  destination.place = to
  destination.stamp = Math.max(destination.stamp, to.version)
  return { type: 'committed', parked }
}

function proofOf(destination: MemoryDestination, targets: ReadonlySet<string>): SinkProof {
  const hash = ({ collection, document, id }: Key, value: RecordValue): bigint => hashText(canonicalJson([collection, document, id, value]))
  const found = (): FoundRow[] =>
    [...destination.rows.values()].flatMap(({ key, value, stamp }) =>
      value === null || !targets.has(key.collection) ? [] : [{ key, hash: hash(key, value), stamp }],
    )
  return {
    hash,
    survey: async ({ strangers }) => {
      const buckets = new BigUint64Array(BUCKETS)
      const rows = found().filter(({ stamp }) => strangers || stamp !== 0)
      for (const row of rows) buckets[bucketOf(row.key)] = (buckets[bucketOf(row.key)] ?? 0n) + row.hash
      return { place: destination.place, rows: rows.length, buckets }
    },
    rows: async function* (buckets) {
      yield found().filter(({ key }) => buckets.includes(bucketOf(key)))
    },
  }
}

function placeText(place: SinkPlace | undefined): string {
  return place === undefined ? 'nowhere' : canonicalJson({ ...place, mark: place.mark ?? '', whole: place.refreshed === undefined })
}
