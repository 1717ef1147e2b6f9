/**
 * Rows of the log's tables as values, verified: one whose checksum fails throws `LogError('corrupt')` and goes no further.
 */
import type { DocumentId, Lineage, Position } from '@rejoin/shared'
import { HASH_BYTES, INCARNATION_BYTES, LINK_HEAD_BYTES, setUint64 } from '../log/chain.ts'
import { LogError } from '../log/log.ts'
import { entryChecksum, rowChecksum } from './checksum.ts'
import type { EntryRow } from './pack.ts'

/** A row of `documents`. */
export interface DocumentRow {
  readonly key: number
  readonly id: DocumentId
  readonly partition: number
  readonly lineage: Lineage
  readonly seq: number
  readonly hash: Uint8Array
  /** Position of the entry `seq`, which may have been trimmed; 0 when seq is 0. */
  readonly last: number
  readonly snapshotSeq: number
  readonly oldest: number
  readonly tailBytes: number
  readonly tailEntries: number
}

/** Columns of a raw `documents` row, as SELECTed. */
export const DOCUMENT_COLUMNS =
  'key, id, partition, lineage, seq, hash, last, snapshot_seq AS snapshotSeq, oldest, tail_bytes AS tailBytes, tail_entries AS tailEntries, checksum'

/** A `documents` row as SQLite gives it. */
export interface RawDocument {
  readonly key: number
  readonly id: string
  readonly partition: number
  readonly lineage: Buffer
  readonly seq: number
  readonly hash: Buffer
  readonly last: number
  readonly snapshotSeq: number
  readonly oldest: number
  readonly tailBytes: number
  readonly tailEntries: number
  readonly checksum: number
}

/** The row, verified. */
export function documentOf(raw: RawDocument): DocumentRow {
  const { checksum, lineage, id, ...rest } = raw
  const row: DocumentRow = { ...rest, id: id as DocumentId, lineage: lineage.toString('hex') as Lineage }
  if (documentChecksum(row) !== checksum)
    throw new LogError('corrupt', `the row of document ${id} fails its checksum`, { document: row.id })
  return row
}

/** What stands in a `documents` row's checksum. */
export function documentChecksum({
  key,
  id,
  partition,
  lineage,
  seq,
  hash,
  last,
  snapshotSeq,
  oldest,
  tailBytes,
  tailEntries,
}: DocumentRow): number {
  return rowChecksum(key, id, partition, lineage, seq, hash, last, snapshotSeq, oldest, tailBytes, tailEntries)
}

/** A row of `acked` as SQLite gives it. */
export interface RawAcked {
  readonly n: number
  readonly seq: number
  readonly checksum: number
}

/** Throws unless the row's checksum holds. */
export function verifyAcked(document: DocumentRow, incarnation: Uint8Array, { n, seq, checksum }: RawAcked): void {
  if (rowChecksum(document.key, incarnation, n, seq) === checksum) return
  throw new LogError('corrupt', `a row of acknowledged edits of document ${document.id} fails its checksum`, { document: document.id })
}

/** A row of `snapshots` as SQLite gives it. */
export interface RawSnapshot {
  readonly seq: number
  readonly hash: Buffer
  readonly bytes: number
  readonly admission: Buffer
  readonly checksum: number
}

/** Throws unless the row's checksum holds. */
export function verifySnapshot(document: DocumentRow, { seq, hash, bytes, admission, checksum }: RawSnapshot): void {
  if (rowChecksum(document.key, seq, hash, bytes, admission) === checksum) return
  throw new LogError('corrupt', `the snapshot of document ${document.id} at ${seq} fails its checksum`, { document: document.id })
}

/**
 * Columns of a raw entry, as SELECTed from `entries` joined with `documents`. Its bytes come as one value: each would be a buffer of its own, and those cost
 * more than everything else about a row.
 */
export const ENTRY_COLUMNS =
  'position, document, id, lower(hex(lineage)), e.seq, epoch, lo, hi, actor, at, e.checksum, CAST(e.hash || incarnation || "update" AS BLOB)'

/** An entry as SQLite gives it to a statement that is `raw`: an object would have every property named and put in anew for each row. */
export type RawEntry = readonly [
  position: number,
  document: number,
  id: string,
  lineage: string,
  seq: number,
  epoch: number,
  lo: number,
  hi: number,
  actor: string,
  at: number,
  checksum: number,
  bytes: Buffer,
]

const link = new Uint8Array(LINK_HEAD_BYTES - HASH_BYTES)
const linkView = new DataView(link.buffer)

/** The entry, verified. */
export function entryOf(raw: RawEntry): EntryRow {
  const [position, key, id, lineage, seq, epoch, lo, hi, actor, at, checksum, bytes] = raw
  const document = id as DocumentId
  const hash = bytes.subarray(0, HASH_BYTES)
  const incarnation = bytes.subarray(HASH_BYTES, HASH_BYTES + INCARNATION_BYTES)
  const update = bytes.subarray(HASH_BYTES + INCARNATION_BYTES)
  link.set(incarnation)
  setUint64(linkView, INCARNATION_BYTES, lo)
  setUint64(linkView, INCARNATION_BYTES + 8, hi)
  if (entryChecksum({ position, document: key, seq, epoch, at, hash, link, actor, update }) !== checksum) {
    throw new LogError('corrupt', `entry ${seq} of document ${id} fails its checksum`, { document, position: position as Position })
  }
  return { position, seq, epoch, at, lo, hi, document, lineage: lineage as Lineage, actor, hash, incarnation, update }
}
