/**
 * The port of the view (step 7 of the path): the records derived from the log, kept as versions. The projector writes it, sinks read it as of a version.
 */
import type { DocumentId, Position, Seq } from '@rejoin/shared'

/** A record's fields in canonical form: plain JSON, keys sorted. */
export type RecordValue = { readonly [field: string]: unknown }

/** before/after of one record in one version. */
export interface Change {
  readonly version: number
  readonly collection: string
  readonly document: DocumentId
  readonly id: string
  readonly before: RecordValue | null
  readonly after: RecordValue | null
}

/** What the projector commits for one entry, in log order. */
export interface ProjectedEntry {
  readonly version: number
  readonly partition: number
  readonly position: Position
  readonly epoch: number
  readonly seq: Seq
  readonly document: DocumentId
  readonly actor: string
  readonly at: number
  readonly changes: readonly { readonly collection: string; readonly id: string; readonly value: RecordValue | null }[]
}

/** The view, multi-versioned and append-only. One process writes it; a reader names the version it reads at. */
export interface View {
  /** The highest version, and the position it stands at in each partition. */
  head(): { readonly version: number; readonly positions: ReadonlyMap<number, Position> }
  /** Appends projected entries and moves the positions, in one durable transaction. */
  commit(entries: readonly ProjectedEntry[]): void
  /** Keys that changed in (after, upTo], each once, ordered; at most `limit`, continuing behind `from`. */
  dirty(after: number, upTo: number, limit: number, from?: Key): readonly Key[]
  /** The record as of `version`: null when it did not exist. */
  get(key: Key, version: number): RecordValue | null
  /** Every key that existed as of `version`, ordered, at most `limit`, continuing behind `from`. */
  keys(version: number, limit: number, from?: Key): readonly Key[]
  /** Drops what no reader at or above `version` can see, in slices; returns how many rows went. */
  trim(version: number, maxRows: number): number
  close(): void
}

/** Names one record. */
export interface Key {
  readonly collection: string
  readonly document: DocumentId
  readonly id: string
}
