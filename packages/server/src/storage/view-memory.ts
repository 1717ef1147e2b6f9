/**
 * A view in memory (step 7 of the path): the model that the SQLite view is held against, and what tests run on. It forgets everything when it is closed.
 */
import type { DocumentId, RecordValue } from '@rejoin/shared'
import { nextMark } from '../view/mark.ts'
import type { SlowDocument } from '../view/turns.ts'
import type {
  CutLimits,
  DocumentState,
  Key,
  Place,
  ProjectedEntry,
  RecordChange,
  Source,
  VersionEntry,
  ViewStore,
  Misfit,
} from '../view/view.ts'
import { compareKeys, compareText, keyText } from '../view/view.ts'

interface Version extends Omit<ProjectedEntry, 'settled' | 'changes'> {
  settled: boolean
  readonly keys: readonly Key[]
  readonly bytes: number
  readonly mark: string
}

/** A view in memory. `id` is 32 hexadecimal digits that no other view has. */
export function createMemoryView(id: string): ViewStore {
  const versions: Version[] = []
  /** Per record, its values by rising version; null: gone. Values are kept as text, so that nobody can change one afterwards. */
  const records = new Map<string, { readonly key: Key; values: { readonly version: number; readonly text: string | null }[] }>()
  const documents = new Map<DocumentId, DocumentState>()
  const places = new Map<number, Place>()
  const misfits = new Map<string, readonly Misfit[]>()
  let source: Source | undefined
  let floor = 0
  let oldest = 0
  let slow: readonly SlowDocument[] = []

  const last = (): number => Math.max(floor, versions.at(-1)?.version ?? 0)
  const head = (): number | undefined => {
    if (source === undefined) return undefined
    const top = versions.at(-1)
    if (top === undefined || top.settled) return last()
    return Math.max(oldest, versions.findLast(({ settled }) => settled)?.version ?? 0)
  }
  const refuseOld = (entries: readonly ProjectedEntry[]): void => {
    let version = last()
    for (const entry of entries) {
      if (entry.version <= version) throw new Error(`version ${entry.version} was given before`)
      version = entry.version
    }
  }
  const write = ({ changes, ...entry }: ProjectedEntry): void => {
    let bytes = 0
    const keys = changes.map(({ collection, id: record }) => ({ collection, document: entry.document, id: record }))
    const texts = changes.map(({ value }) => (value === null ? null : JSON.stringify(value)))
    for (const [i, key] of keys.entries()) {
      const text = texts[i] ?? null
      bytes += text?.length ?? 0
      const known = records.get(keyText(key)) ?? { key, values: [] }
      known.values.push({ version: entry.version, text })
      records.set(keyText(key), known)
    }
    versions.push({ ...entry, keys, bytes, mark: nextMark(versions.at(-1)?.mark ?? '', { ...entry, changes }, texts) })
  }
  const forget = (document: DocumentId): void => {
    documents.delete(document)
    for (const [text, [first]] of misfits) if (first?.document === document) misfits.delete(text)
  }
  const at = (key: Key, version: number): string | null =>
    records.get(keyText(key))?.values.findLast((value) => value.version <= version)?.text ?? null
  const sorted = (keys: Iterable<Key>): readonly Key[] => [...keys].sort(compareKeys)
  const dirty = (after: number, upTo: number): readonly Key[] => {
    const found = new Map<string, Key>()
    for (const { version, keys } of versions) if (version > after && version <= upTo) for (const key of keys) found.set(keyText(key), key)
    return sorted(found.values())
  }
  const keys = (version: number, limit: number, from?: Key): readonly Key[] => {
    const live = [...records.values()]
      .map(({ key }) => key)
      .filter((key) => at(key, version) !== null && (from === undefined || compareKeys(key, from) > 0))
    return sorted(live).slice(0, limit)
  }
  const entries = (after: number, upTo: number, limit: number): readonly VersionEntry[] =>
    versions
      .filter(({ version }) => version > after && version <= Math.min(upTo, head() ?? 0))
      .slice(0, limit)
      .map(({ version, partition, position, epoch, seq, document, actor, at, settled, keys }) => {
        return { version, partition, position, epoch, seq, document, actor, at, settled, keys }
      })

  return {
    id,
    head,
    oldest: () => oldest,
    cut: (after: number, limits: CutLimits) => {
      let [found, items, bytes] = [after, 0, 0]
      for (const version of versions) {
        if (version.version <= after) continue
        items += version.keys.length
        bytes += version.bytes
        if (found > after && (items > limits.items || bytes > limits.bytes)) return found
        if (version.settled) found = version.version
      }
      if (source === undefined) return after
      return versions.at(-1)?.settled === false ? found : Math.max(after, last())
    },
    dirty,
    differences: (after, upTo, limit) => {
      const changes = versions.filter(({ version }) => version > after && version <= upTo).reduce((sum, { keys }) => sum + keys.length, 0)
      if (changes > limit) return undefined
      return dirty(after, upTo).map((key) => ({ key, before: at(key, after), after: at(key, upTo) }))
    },
    get: (key, version) => parse(at(key, version)),
    keys,
    page: (version, limit, from) => keys(version, limit, from).map((key) => ({ key, text: at(key, version) ?? '' })),
    mark: (version) => versions.findLast((each) => each.version <= version)?.mark ?? '',
    entries,
    changes: (after, upTo, limit) =>
      entries(after, upTo, limit).map((entry) => ({
        ...entry,
        changes: entry.keys.map((key) => ({ key, before: at(key, entry.version - 1), after: at(key, entry.version) })),
      })),
    lag: (version) => {
      const behind = versions.filter((each) => each.version > version && each.version <= (head() ?? 0))
      return {
        entries: behind.length,
        bytes: behind.reduce((sum, { bytes }) => sum + bytes, 0),
        at: behind.slice(0, 1000).find(({ at }) => at > 0)?.at,
      }
    },
    versionOf: (document, seq) => {
      const state = documents.get(document)
      if (state === undefined || state.parked !== undefined || state.seq < seq) return undefined
      const own = versions.filter((entry) => entry.document === document)
      // Without an entry of its own it was read with the whole document, at the document's last version or without any difference to it.
      return own.findLast((entry) => entry.seq === seq)?.version ?? Math.max(oldest, own.at(-1)?.version ?? 0)
    },
    versionAt: (time) => {
      const later = versions.findIndex(({ at }) => at > time)
      if (later === -1) return head()
      return (versions[later]?.version ?? 0) <= oldest ? undefined : Math.max(oldest, versions[later - 1]?.version ?? 0)
    },
    dependents: ({ collection, field }, target, document, version) => {
      const found = [...records.values()].filter(
        ({ key }) =>
          key.collection === collection &&
          (document === undefined || key.document === document) &&
          parse(at(key, version))?.[field] === target,
      )
      return sorted(found.map(({ key }) => key))
    },
    prepareRefs: () => {},
    standing: () => ({ source, version: last(), places: [...places.values()] }),
    commit: (commit) => {
      refuseOld(commit.entries)
      for (const entry of commit.entries) write(entry)
      for (const document of commit.documents) documents.set(document.document, document)
      for (const document of commit.gone ?? []) forget(document)
      for (const place of commit.places) places.set(place.partition, place)
      for (const { key, found } of commit.misfits) {
        if (found.length === 0) misfits.delete(keyText(key))
        else misfits.set(keyText(key), found)
      }
      if (commit.source !== undefined) source = commit.source ?? undefined
      const top = versions.at(-1)
      if (commit.settled === true && top !== undefined) top.settled = true
    },
    raise: (version) => {
      floor = Math.max(floor, version)
    },
    document: (document) => documents.get(document),
    documents: (limit, from) => {
      const all = [...documents.values()].sort((a, b) => compareText(a.document, b.document))
      return all.filter(({ document }) => from === undefined || compareText(document, from) > 0).slice(0, limit)
    },
    records: (document) => {
      const live: RecordChange[] = []
      for (const { key, values } of records.values()) {
        const value = parse(values.at(-1)?.text ?? null)
        if (key.document === document && value !== null) live.push({ collection: key.collection, id: key.id, value })
      }
      return live
    },
    misfits: (limit) => {
      const all = [...misfits.values()].flat().sort(compareKeys)
      return { total: all.length, first: all.slice(0, limit) }
    },
    parked: (limit) => {
      const all = [...documents.values()].filter(({ parked }) => parked !== undefined).sort((a, b) => compareText(a.document, b.document))
      return { total: all.length, first: all.slice(0, limit) }
    },
    slow: () => slow,
    setSlow: (next) => {
      slow = next
    },
    trim: (version) => {
      oldest = Math.max(oldest, Math.min(version, head() ?? 0))
      let rows = 0
      for (const [text, record] of records) {
        const kept = record.values.filter((_, index) => (record.values[index + 1]?.version ?? Infinity) > oldest)
        if (kept[0]?.text === null && kept[0].version <= oldest) kept.shift()
        rows += record.values.length - kept.length
        record.values = kept
        if (kept.length === 0) records.delete(text)
      }
      // The one that stands at `oldest` is kept: it tells the mark there, and the last one up to where versions were given.
      while ((versions[1]?.version ?? Infinity) <= oldest) versions.shift()
      return rows
    },
    close: () => {},
  }
}

function parse(text: string | null): RecordValue | null {
  return text === null ? null : (JSON.parse(text) as RecordValue)
}
