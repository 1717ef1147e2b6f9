/**
 * The port of the view (step 7 of the path): the records derived from the log, kept as versions. The projector writes it, sinks read it as of a version.
 *
 * Its methods answer at once: a view lives in the worker that projects and forwards, never on the relay's thread.
 */
import type { ChainHash, DocumentId, Lineage, Position, RecordValue, Seq } from '@rejoin/shared'
import type { SlowDocument } from './turns.ts'

/** Names one record. Keys are ordered by collection, document, id, each by code point, which is the order of its UTF-8 bytes. */
export interface Key {
  readonly collection: string
  readonly document: DocumentId
  readonly id: string
}

/** The new state of one record: null when it is gone. */
export interface RecordChange {
  readonly collection: string
  readonly id: string
  readonly value: RecordValue | null
}

/** What one entry of the log did to the records: one version. */
export interface ProjectedEntry {
  /** Above every version before it. */
  readonly version: number
  readonly partition: number
  readonly position: Position
  readonly epoch: number
  readonly seq: Seq
  readonly document: DocumentId
  readonly actor: string
  readonly at: number
  /** Each record at most once. Only records that differ from the version before. */
  readonly changes: readonly RecordChange[]
  /**
   * Whether the view as of this version is the projection of a prefix of every partition. False while a document had to be read ahead of the position
   * (its entries were already folded into a snapshot): no reader is ever given such a version as its cut.
   */
  readonly settled: boolean
}

/** A version as readers see it: which records changed, without their values. */
export interface VersionEntry extends Omit<ProjectedEntry, 'changes'> {
  /** In the order in which the entry changed them, which is the same for ever. */
  readonly keys: readonly Key[]
}

/** What became of one record between two versions, as canonical JSON; null: it did not exist. */
export interface RecordDifference {
  readonly key: Key
  readonly before: string | null
  readonly after: string | null
}

/** A version with what it did to each record, in the same order as its keys. */
export interface VersionChanges extends VersionEntry {
  readonly changes: readonly RecordDifference[]
}

/** Records of `collection` refer to others by `field`. */
export interface RefField {
  readonly collection: string
  readonly field: string
}

/** How far a partition has been projected. */
export interface Place {
  readonly partition: number
  readonly position: Position
  /** The chain hash of the entry at `position`, by which a log that was replaced by an older copy is noticed; undefined at 0 and where it is not known. */
  readonly hash: ChainHash | undefined
  /** Versions are settled from this position on. */
  readonly ahead: Position
}

/** How far one document has been projected. */
export interface DocumentState {
  readonly document: DocumentId
  readonly partition: number
  readonly lineage: Lineage
  readonly seq: Seq
  /** Why its records are not up to date: its bytes or its projection threw. It is tried again when it changes. */
  readonly parked: string | undefined
}

/** A record, or a field of it, that breaks the schema. It is listed until it is mended and never reaches a sink. */
export interface Misfit extends Key {
  /** Undefined: the record as a whole. */
  readonly field: string | undefined
  readonly message: string
}

/** What the projector makes durable at once. */
export interface ViewCommit {
  readonly entries: readonly ProjectedEntry[]
  readonly documents: readonly DocumentState[]
  readonly places: readonly Place[]
  /** For each of these keys: all that does not fit in it now, perhaps nothing. */
  readonly misfits: readonly { readonly key: Key; readonly found: readonly Misfit[] }[]
  /** These documents are no more: forgotten, with their misfits. Their records go by `entries`, as ever. */
  readonly gone?: readonly DocumentId[] | undefined
  /** What the view is the projection of, once every document has been taken stock of; null: of nothing yet, readers must wait. */
  readonly source?: Source | null | undefined
  /** The highest version, of this commit or before, is settled, whatever its entry said. */
  readonly settled?: boolean | undefined
}

/** What a view is the projection of: entries of this log, read with this schema. */
export interface Source {
  readonly log: string
  /** Canonical JSON of the schema. */
  readonly schema: string
}

/** How much may have changed between two cuts: records, and bytes of their canonical JSON. */
export interface CutLimits {
  readonly items: number
  readonly bytes: number
}

/** What readers, sinks first of all, may rely on. Whatever a reader asks for lies between `oldest` and `head`. */
export interface View {
  /** Random; another file has another. A cursor of another view proves nothing here. */
  readonly id: string
  /** The highest settled version; undefined as long as the view has not taken stock of every document: readers wait. */
  head(): number | undefined
  /** The smallest version that a reader can still continue from. */
  oldest(): number
  /** The highest settled version after `after` with no more than `limits` between them; the next settled one when even that has more; `after` when there is none. */
  cut(after: number, limits: CutLimits): number
  /** Keys that changed in (after, upTo], each once, in order. */
  dirty(after: number, upTo: number): readonly Key[]
  /** The same keys with their records as of both versions, read at once; undefined when there were more than `limit` changes. */
  differences(after: number, upTo: number, limit: number): readonly RecordDifference[] | undefined
  /** The record as of `version`: null when it did not exist. */
  get(key: Key, version: number): RecordValue | null
  /** Keys that existed as of `version`, in order, at most `limit`, behind `from`. */
  keys(version: number, limit: number, from?: Key): readonly Key[]
  /** The same keys with their records as canonical JSON. */
  page(version: number, limit: number, from?: Key): readonly { readonly key: Key; readonly text: string }[]
  /** Tells histories apart that gave the same versions: a running hash over everything up to `version`. */
  mark(version: number): string
  /** Versions in (after, upTo], none above the head, in order, at most `limit`. */
  entries(after: number, upTo: number, limit: number): readonly VersionEntry[]
  /** The same with the records before and after each. */
  changes(after: number, upTo: number, limit: number): readonly VersionChanges[]
  /** What lies between `version` and the head: entries, bytes of their records' canonical JSON, and when the first of them that has a time (a stock-taking's have none) was accepted, in ms since 1970; looked for among the first thousand. */
  lag(version: number): { readonly entries: number; readonly bytes: number; readonly at: number | undefined }
  /** A version as of which the document holds its entry `seq`, as low as is known. Undefined: not in the view yet, or the document is parked. */
  versionOf(document: DocumentId, seq: Seq): number | undefined
  /** The highest version before the first entry that is later than `time` (ms since 1970). Undefined: what came before is not kept any more. */
  versionAt(time: number): number | undefined
  /** Records that refer to `id` as of `version`, in order; in `document`, undefined: in any. Milliseconds for a thousand. */
  dependents(ref: RefField, id: string, document: DocumentId | undefined, version: number): readonly Key[]
}

/** The view as its one writer, the projector, sees it. */
export interface ViewStore extends View {
  /** What it is the projection of, undefined when it never took stock; the highest version ever given, settled or not; and the places. */
  standing(): { readonly source: Source | undefined; readonly version: number; readonly places: readonly Place[] }
  /** One durable transaction. Throws when a version is not above the one before. */
  commit(commit: ViewCommit): void
  /** Versions given from now on are above `version`: a destination already carries it as a stamp. */
  raise(version: number): void
  document(document: DocumentId): DocumentState | undefined
  /** Documents in order, at most `limit`, behind `from`. */
  documents(limit: number, from?: DocumentId): readonly DocumentState[]
  /** Every record of a document now, at the highest version, settled or not. */
  records(document: DocumentId): readonly RecordChange[]
  /** At most `limit`, in order of their keys, and how many there are. Parked documents are told by `documents`. */
  misfits(limit: number): { readonly total: number; readonly first: readonly Misfit[] }
  /** How many documents are parked, and the first of them. */
  parked(limit: number): { readonly total: number; readonly first: readonly DocumentState[] }
  /** Documents that took too long, as `setSlow` left them: a restart must not try them all again. */
  slow(): readonly SlowDocument[]
  setSlow(slow: readonly SlowDocument[]): void
  /** Drops what no reader at or above `version` can see, at most about `maxRows`; returns how many rows went. `oldest` moves with it, never beyond `head`; nothing goes before there is a head. */
  trim(version: number, maxRows: number): number
  /** These references and no others will be asked for dependents: indexes are made, and those of others dropped. What was not announced is indexed when it is first asked for. */
  prepareRefs(refs: readonly RefField[]): void
  close(): void
}

/** Order of keys. UTF-16 order and UTF-8 order differ above U+FFFF; databases compare the latter. */
export function compareKeys(a: Key, b: Key): number {
  return compareText(a.collection, b.collection) || compareText(a.document, b.document) || compareText(a.id, b.id)
}

/** Order by code point. */
export function compareText(a: string, b: string): number {
  const length = Math.min(a.length, b.length)
  for (let i = 0; i < length; i++) {
    const x = a.charCodeAt(i)
    const y = b.charCodeAt(i)
    if (x === y) continue
    // A surrogate stands for a code point above every other code unit.
    const high = Number(isSurrogate(x)) - Number(isSurrogate(y))
    return high === 0 ? x - y : high
  }
  return a.length - b.length
}

function isSurrogate(unit: number): boolean {
  return unit >= 0xd800 && unit <= 0xdfff
}

/** One string per key, for maps and sets: no two keys share it. */
export function keyText(key: Key): string {
  return `${key.collection.length} ${key.document.length} ${key.collection}${key.document}${key.id}`
}
