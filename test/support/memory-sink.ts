/**
 * A sink whose destination is a value in memory: it survives the sink, as a database would, and can fail where a test wants it to.
 */
import type { Collections, RecordValue } from '@rejoin/shared'
import { SyncError, canonicalJson } from '@rejoin/shared'
import type { Key, Parked, Sink, SinkContext, SinkOutcome, SinkPlace } from '#server/sinks/sink.js'
import { compareKeys, keyText } from '#server/view/view.js'

export interface MemoryDestination {
  /** Rows, deleted ones (null) included, each with its stamp. */
  rows: Map<string, { readonly key: Key; readonly value: RecordValue | null; readonly stamp: number }>
  fence: number
  place: SinkPlace | undefined
  stamp: number
  log: string | undefined
  collections: string
  parked: Map<string, Parked>
  /** May throw, or answer why a row is refused. */
  hook: (at: 'begin' | 'before commit' | 'after commit' | 'keys' | Key) => string | void
}

export function createMemoryDestination(): MemoryDestination {
  return { rows: new Map(), fence: 0, place: undefined, stamp: 0, log: undefined, collections: '', parked: new Map(), hook: () => {} }
}

/** What lies in the destination now: key → value. */
export function rowsOf(destination: MemoryDestination): Map<string, RecordValue> {
  return new Map([...destination.rows].flatMap(([text, { value }]) => (value === null ? [] : [[text, value]])))
}

export function openMemorySink(destination: MemoryDestination, { log, collections }: SinkContext): Sink {
  const declared = canonicalJson(collections satisfies Collections)
  let fence = -1
  return {
    begin: async () => {
      destination.hook('begin')
      if (destination.log !== undefined && destination.log !== log)
        throw new SyncError('bad_option', `the destination mirrors the log ${destination.log}`)
      if (destination.collections !== declared) destination.place = undefined
      destination.log = log
      destination.collections = declared
      fence = ++destination.fence
      return { place: destination.place, stamp: destination.stamp, parked: [...destination.parked.values()] }
    },
    commit: async ({ rows, from, to }): Promise<SinkOutcome> => {
      destination.hook('before commit')
      if (destination.fence !== fence) return { type: destination.fence > fence ? 'fenced' : 'lost' }
      if (placeText(destination.place) !== placeText(from)) return { type: 'lost' }
      const parked: Parked[] = []
      for (const { key, value } of rows) {
        const text = keyText(key)
        const reason = destination.hook(key)
        destination.parked.delete(text)
        if (typeof reason === 'string') {
          parked.push({ key, reason })
          destination.parked.set(text, { key, reason })
        } else if ((destination.rows.get(text)?.stamp ?? 0) <= to.version) destination.rows.set(text, { key, value, stamp: to.version })
      }
      destination.place = to
      destination.stamp = to.version
      destination.hook('after commit')
      return { type: 'committed', parked }
    },
    keys: async (limit, from) => {
      destination.hook('keys')
      const keys = [...destination.rows.values()]
        .filter(({ value }) => value !== null)
        .map(({ key }) => key)
        .sort(compareKeys)
      return keys.filter((key) => from === undefined || compareKeys(key, from) > 0).slice(0, limit)
    },
    close: async () => {},
  }
}

function placeText(place: SinkPlace | undefined): string {
  return place === undefined ? 'nowhere' : canonicalJson({ ...place, whole: place.refreshed === undefined })
}
