/**
 * Snapshots and retention in SQLite (beside step 5 of the path), cut into short transactions between which appends go on. Runs in the writer's thread.
 */
import type { DocumentId } from '@rejoin/shared'
import type { Snapshot } from '../log/log.ts'
import { LogError } from '../log/log.ts'
import { rowChecksum } from './checksum.ts'
import type { Documents, WrittenDocument } from './sqlite-documents.ts'
import type { Connection } from './sqlite-file.ts'
import type { Links, Walk } from './sqlite-links.ts'
import { WALK } from './sqlite-links.ts'
import type { RawEntry } from './sqlite-rows.ts'
import { ENTRY_COLUMNS, entryOf } from './sqlite-rows.ts'

/** Bytes of a snapshot in one row: as many as a state fragment of the wire has. */
export const SLICE_BYTES: number = 256 * 1024
/** What one transaction does at most: slices it inserts, slices it deletes, entries it deletes. */
const INSERT_SLICES = 4
const DELETE_SLICES = 16
const TRIM_ENTRIES = 200
/** Free pages that stay in the file for reuse (none on a full disk), and pages that one step gives back. */
const FREE_PAGES = 2_048
const VACUUM_PAGES = 256

/** Work in slices: each `next` is one short transaction. */
export type Sliced<T> = Generator<undefined, T>

/** The port's `fold` and `trim`, sliced. */
export interface Folding {
  fold(snapshot: Snapshot): Sliced<void>
  trim(before: number, keepAfter: number): Sliced<number>
}

/** What folding works with. */
export interface FoldingOptions {
  readonly db: Connection
  readonly documents: Documents
  readonly links: Links
  /** Whether the disk is full, and every page counts. */
  readonly isFull: () => boolean
}

/** Folding on `db`. */
export function createFolding({ db, documents, links, isFull }: FoldingOptions): Folding {
  const sql = statements(db)

  function* fold(snapshot: Snapshot): Sliced<void> {
    const { seq, update } = snapshot
    const { key, snapshotSeq } = requireDocument(documents, snapshot)
    if (seq <= snapshotSeq) return
    yield* dropSlices(key, snapshotSeq)
    let from = 0
    for (; (from + INSERT_SLICES) * SLICE_BYTES < update.length; from += INSERT_SLICES) {
      documents.transaction(() => insertSlices(key, snapshot, from))
      yield
    }
    // A small snapshot takes one transaction in all: each has its own fsync, which appends wait behind.
    const dropped = documents.transaction(() => {
      insertSlices(key, snapshot, from)
      putInPlace(snapshot)
      return sql.deleteSlices.run(key, seq, DELETE_SLICES).changes
    })
    yield
    if (dropped === DELETE_SLICES) yield* dropSlices(key, seq)
  }

  /** Some slices of a snapshot that is not in place yet. */
  function insertSlices(key: number, { seq, update }: Snapshot, from: number): void {
    for (let slice = from; slice < from + INSERT_SLICES && slice * SLICE_BYTES < update.length; slice++) {
      const bytes = update.subarray(slice * SLICE_BYTES, (slice + 1) * SLICE_BYTES)
      sql.insertSlice.run(key, seq, slice, rowChecksum(key, seq, slice, bytes), bytes)
    }
  }

  function putInPlace(snapshot: Snapshot): void {
    const { seq, update, admission } = snapshot
    const document = requireDocument(documents, snapshot)
    const { key } = document
    if (seq < document.oldest) throw new LogError('conflict', `there is no entry ${seq} to fold`, { document: document.id })
    const entry = sql.entryAt.get(links.locate(document, seq))
    if (entry === undefined) throw new LogError('corrupt', `entry ${seq} of document ${document.id} is missing`, { document: document.id })
    const { hash } = entryOf(entry)
    sql.saveSnapshot.run(key, seq, hash, update.length, admission, rowChecksum(key, seq, hash, update.length, admission))
    document.snapshotSeq = seq
    document.tailEntries = document.seq - seq
    document.tailBytes = document.seq === seq ? 0 : (sql.bytes.get({ from: document.last, document: key, after: seq }) ?? 0)
    documents.saveDocument(document)
  }

  /** Drops slices that are not of the snapshot `keep`: its predecessor's, or what a crash left of one that was never put in place. */
  function* dropSlices(key: number, keep: number): Sliced<void> {
    while (documents.transaction(() => sql.deleteSlices.run(key, keep, DELETE_SLICES).changes) > 0) yield
  }

  function* trim(before: number, keepAfter: number): Sliced<number> {
    let dropped = 0
    for (const id of sql.toTrim.all()) {
      for (let count = TRIM_ENTRIES; count === TRIM_ENTRIES; dropped += count) {
        count = trimSlice(id as DocumentId, before, keepAfter)
        yield
      }
    }
    while (Number(db.pragma('freelist_count', { simple: true })) > (isFull() ? 0 : FREE_PAGES)) {
      db.pragma(`incremental_vacuum(${VACUUM_PAGES})`)
      yield
    }
    return dropped
  }

  /** Drops the oldest entries of a document up to the first that stays. Looks before it writes: most documents have nothing to drop. */
  function trimSlice(id: DocumentId, before: number, keepAfter: number): number {
    const document = documents.find(id)
    if (document === undefined) return 0
    const { oldest, snapshotSeq } = document
    if (oldest > snapshotSeq || !isOldestDue(document, before, keepAfter)) return 0
    const slice = sql.ages.all({
      from: links.locate(document, Math.min(snapshotSeq, oldest + TRIM_ENTRIES - 1)),
      document: document.key,
      after: oldest - 1,
    })
    const kept = slice.findIndex(({ at, position }) => at >= before || position > keepAfter)
    const gone = kept < 0 ? slice : slice.slice(0, kept)
    documents.transaction(() => {
      for (const { position } of gone) sql.deleteEntry.run(position)
      sql.raiseTrimmed.run(gone.at(-1)?.position ?? 0)
      document.oldest += gone.length
      documents.saveDocument(document)
    })
    return gone.length
  }

  /** Most documents have nothing to drop. */
  function isOldestDue(document: WrittenDocument, before: number, keepAfter: number): boolean {
    const position = links.locate(document, document.oldest)
    return position <= keepAfter && (sql.at.get(position) ?? before) < before
  }

  return { fold, trim }
}

function requireDocument(documents: Documents, { document: id, lineage, seq }: Snapshot) {
  const document = documents.find(id)
  if (document !== undefined && document.lineage === lineage && seq <= document.seq) return document
  throw new LogError('conflict', 'the snapshot is of another history', { document: id })
}

function statements(db: Connection) {
  return {
    insertSlice: db.prepare('INSERT INTO slices VALUES (?, ?, ?, ?, ?)'),
    deleteSlices: db.prepare('DELETE FROM slices WHERE rowid IN (SELECT rowid FROM slices WHERE document = ? AND seq <> ? LIMIT ?)'),
    saveSnapshot: db.prepare('INSERT OR REPLACE INTO snapshots VALUES (?, ?, ?, ?, ?, ?)'),
    entryAt: db
      .prepare<[number], RawEntry>(`SELECT ${ENTRY_COLUMNS} FROM entries e JOIN documents d ON d.key = e.document WHERE position = ?`)
      .raw(),
    bytes: db.prepare<[Walk], number>(`${WALK} SELECT sum(length("update")) FROM walk JOIN entries USING (position)`).pluck(),
    toTrim: db.prepare<[], string>('SELECT id FROM documents WHERE oldest <= snapshot_seq').pluck(),
    at: db.prepare<[number], number>('SELECT at FROM entries WHERE position = ?').pluck(),
    ages: db.prepare<[Walk], { position: number; at: number }>(
      `${WALK} SELECT position, at FROM walk JOIN entries USING (position) ORDER BY position`,
    ),
    raiseTrimmed: db.prepare("UPDATE meta SET value = max(value, ?) WHERE name = 'trimmed'"),
    deleteEntry: db.prepare('DELETE FROM entries WHERE position = ?'),
  }
}
