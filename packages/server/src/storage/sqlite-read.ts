/**
 * Reading the log in SQLite, synchronously, for threads of their own: the reader's, compaction's, the projector's. Sees what is committed.
 */
import type { ChainHash, DocumentId, IncarnationId, Position, Seq } from '@rejoin/shared'
import { fromHex, toHex } from '@rejoin/shared'
import { chainStart } from '../log/chain.ts'
import type { DocumentHead, Entry, FindWhat, Found, LogReader, ReadFrom, SnapshotHead } from '../log/log.ts'
import { LogError } from '../log/log.ts'
import { rowChecksum } from './checksum.ts'
import type { EntryRow } from './pack.ts'
import { SLICE_BYTES } from './sqlite-fold.ts'
import type { Connection } from './sqlite-file.ts'
import { metaOf, openToRead } from './sqlite-file.ts'
import type { Walk } from './sqlite-links.ts'
import { WALK, createLinks } from './sqlite-links.ts'
import type { DocumentRow, RawAcked, RawDocument, RawEntry, RawSnapshot } from './sqlite-rows.ts'
import { DOCUMENT_COLUMNS, ENTRY_COLUMNS, documentOf, entryOf, verifyAcked, verifySnapshot } from './sqlite-rows.ts'

/** Entries that one read gives at most, whatever their size: what the wire's frame holds. */
const MAX_ENTRIES = 10_000
/** Bytes of an update when nothing better is known. */
const TYPICAL_BYTES = 100

/** `LogReader` of the port without its promises. Statements never stay open between calls: that would hold up checkpoints. */
export interface SqliteReader {
  readonly id: string
  head(document: DocumentId): DocumentHead | undefined
  find(document: DocumentId, what: FindWhat): Found
  read(from: ReadFrom, maxBytes: number): readonly EntryRow[] | 'trimmed'
  snapshot(document: DocumentId, seq: Seq, offset: number, length: number): Uint8Array<ArrayBuffer> | undefined
  close(): void
}

/** Opens the log in `directory` for reading. A process that owns the folder must have opened it for writing. */
export function openSqliteReader(directory: string): SqliteReader {
  const db = openToRead(directory)
  const sql = statements(db)
  const links = createLinks(db)
  const epoch = Number(metaOf(db, 'epoch'))

  function find(id: DocumentId): DocumentRow | undefined {
    const raw = sql.document.get(id)
    return raw === undefined ? undefined : documentOf(raw)
  }

  function snapshotHead(document: DocumentRow): SnapshotHead {
    if (document.snapshotSeq === 0) return { seq: 0 as Seq, hash: chainStart(document.lineage), bytes: 0, admission: new Uint8Array(0) }
    const raw = sql.snapshot.get(document.key)
    if (raw?.seq !== document.snapshotSeq)
      throw new LogError('corrupt', `document ${document.id} has lost its snapshot`, { document: document.id })
    verifySnapshot(document, raw)
    return { seq: raw.seq as Seq, hash: toHex(raw.hash) as ChainHash, bytes: raw.bytes, admission: new Uint8Array(raw.admission) }
  }

  function headOf(id: DocumentId): DocumentHead | undefined {
    const document = find(id)
    if (document === undefined) return undefined
    const { partition, lineage, seq, hash, oldest, tailBytes, tailEntries } = document
    const snapshot = snapshotHead(document)
    return {
      document: id,
      partition,
      lineage,
      epoch,
      seq: seq as Seq,
      hash: toHex(hash) as ChainHash,
      snapshot,
      oldest: oldest as Seq,
      tailBytes,
      tailEntries,
    }
  }

  function hashAt(document: DocumentRow, seq: Seq): ChainHash | undefined {
    if (seq === 0) return chainStart(document.lineage)
    if (seq === document.seq) return toHex(document.hash) as ChainHash
    if (seq === document.snapshotSeq) return snapshotHead(document).hash
    if (seq < document.oldest || seq > document.seq) return undefined
    const raw = sql.entry.get(links.locate(document, seq))
    return raw === undefined ? undefined : (toHex(entryOf(raw).hash) as ChainHash)
  }

  function findOf(id: DocumentId, { incarnation, seq }: FindWhat): Found {
    const document = find(id)
    if (document === undefined) return {}
    const bytes = incarnation === undefined ? undefined : fromHex(incarnation)
    const acked = bytes === undefined ? undefined : sql.acked.get(document.key, bytes)
    if (bytes !== undefined && acked !== undefined) verifyAcked(document, bytes, acked)
    return {
      acked: acked === undefined ? undefined : { n: acked.n, seq: acked.seq as Seq },
      hash: seq === undefined ? undefined : hashAt(document, seq),
    }
  }

  function read(from: ReadFrom, maxBytes: number): readonly EntryRow[] | 'trimmed' {
    if ('partition' in from) {
      if (from.after < Number(metaOf(db, 'trimmed'))) return 'trimmed'
      return take(sql.partition.iterate(from.after, MAX_ENTRIES), maxBytes)
    }
    const document = find(from.document)
    if (document === undefined) return []
    if (from.after < document.oldest - 1) return 'trimmed'
    if (from.after >= document.seq) return []
    const end = Math.min(document.seq, from.after + likelyEntries(document, maxBytes))
    const entries = take(sql.entries.iterate({ from: links.locate(document, end), document: document.key, after: from.after }), maxBytes)
    if (entries[0]?.seq !== from.after + 1)
      throw new LogError('corrupt', `entry ${from.after + 1} of document ${from.document} is missing`, { document: from.document })
    return entries
  }

  function snapshot(id: DocumentId, seq: Seq, offset: number, length: number): Uint8Array<ArrayBuffer> | undefined {
    const document = find(id)
    if (document === undefined || seq === 0 || document.snapshotSeq !== seq) return undefined
    const { bytes } = snapshotHead(document)
    const part = new Uint8Array(Math.max(0, Math.min(length, bytes - offset)))
    const last = Math.ceil((offset + part.length) / SLICE_BYTES) - 1
    for (let slice = Math.floor(offset / SLICE_BYTES); slice <= last; slice++) {
      const raw = sql.slice.get(document.key, seq, slice)
      if (raw === undefined || rowChecksum(document.key, seq, slice, raw.bytes) !== raw.checksum) {
        throw new LogError('corrupt', `slice ${slice} of the snapshot of document ${id} at ${seq} fails its checksum`, { document: id })
      }
      const start = slice * SLICE_BYTES
      const wanted = raw.bytes.subarray(Math.max(0, offset - start), offset + part.length - start)
      part.set(wanted, Math.max(0, start - offset))
    }
    return part
  }

  // One read transaction for each call, so that a commit between two statements cannot be seen in half.
  const isolated = <Args extends unknown[], T>(run: (...args: Args) => T): ((...args: Args) => T) => {
    const transaction = db.transaction(run)
    return (...args) => transaction.deferred(...args)
  }
  return {
    id: String(metaOf(db, 'id')),
    head: isolated(headOf),
    find: isolated(findOf),
    read: isolated(read),
    snapshot: isolated(snapshot),
    close: () => {
      db.close()
    },
  }
}

/** How many entries of a document `maxBytes` hold, judged by those behind the snapshot; a reader asks again for more. */
function likelyEntries({ tailBytes, tailEntries }: DocumentRow, maxBytes: number): number {
  const each = tailEntries === 0 ? TYPICAL_BYTES : tailBytes / tailEntries
  return Math.min(MAX_ENTRIES, Math.ceil((maxBytes / Math.max(each, 1)) * 1.25) + 1)
}

/** Rows up to `maxBytes`, verified. A corrupt one ends them; as the first it is thrown. */
function take(rows: Iterable<RawEntry>, maxBytes: number): EntryRow[] {
  const entries: EntryRow[] = []
  let bytes = 0
  for (const raw of rows) {
    try {
      const entry = entryOf(raw)
      bytes += entry.update.length
      if (entries.length > 0 && bytes > maxBytes) break
      entries.push(entry)
    } catch (error) {
      if (entries.length === 0) throw error
      break
    }
  }
  return entries
}

function statements(db: Connection) {
  const joined = `SELECT ${ENTRY_COLUMNS} FROM entries e JOIN documents d ON d.key = e.document`
  return {
    document: db.prepare<[string], RawDocument>(`SELECT ${DOCUMENT_COLUMNS} FROM documents WHERE id = ?`),
    snapshot: db.prepare<[number], RawSnapshot>('SELECT seq, hash, bytes, admission, checksum FROM snapshots WHERE document = ?'),
    slice: db.prepare<[number, number, number], { bytes: Buffer; checksum: number }>(
      'SELECT bytes, checksum FROM slices WHERE document = ? AND seq = ? AND slice = ?',
    ),
    acked: db.prepare<[number, Uint8Array], RawAcked>('SELECT n, seq, checksum FROM acked WHERE document = ? AND incarnation = ?'),
    entry: db.prepare<[number], RawEntry>(`${joined} WHERE position = ?`).raw(),
    // The walk is put in order before the entries are fetched, so that reading can stop at any of them. LIMIT keeps SQLite from leaving that order out.
    entries: db
      .prepare<[Walk], RawEntry>(
        `${WALK} SELECT ${ENTRY_COLUMNS} FROM (SELECT position FROM walk ORDER BY position LIMIT -1) CROSS JOIN entries e USING (position) JOIN documents d ON d.key = e.document`,
      )
      .raw(),
    partition: db.prepare<[number, number], RawEntry>(`${joined} WHERE position > ? ORDER BY position LIMIT ?`).raw(),
  }
}

/** The reader as the port has it, for code that also runs over other logs. */
export function createLogReader(reader: SqliteReader): LogReader {
  return {
    head: async (document) => reader.head(document),
    find: async (document, what) => reader.find(document, what),
    read: async (from, maxBytes) => {
      const rows = reader.read(from, maxBytes)
      return rows === 'trimmed' ? rows : rows.map(entryFrom)
    },
    snapshot: async (document, seq, offset, length) => reader.snapshot(document, seq, offset, length),
  }
}

function entryFrom({ position, seq, epoch, at, lo, hi, document, lineage, actor, hash, incarnation, update }: EntryRow): Entry {
  return {
    document,
    partition: 0,
    position: position as Position,
    epoch,
    lineage,
    seq: seq as Seq,
    hash: hash.toString('hex') as ChainHash,
    incarnation: incarnation.toString('hex') as IncarnationId,
    lo,
    hi,
    actor,
    at,
    update,
  }
}
