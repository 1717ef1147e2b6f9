/**
 * What the writer's thread remembers of documents between transactions, and the transaction itself: a failed one forgets everything.
 */
import type { DocumentId, IncarnationId } from '@rejoin/shared'
import { fromHex } from '@rejoin/shared'
import { chainStart, firstLineage } from '../log/chain.ts'
import { rowChecksum } from './checksum.ts'
import type { Connection } from './sqlite-file.ts'
import { metaOf } from './sqlite-file.ts'
import type { Links } from './sqlite-links.ts'
import type { DocumentRow, RawAcked, RawDocument } from './sqlite-rows.ts'
import { DOCUMENT_COLUMNS, documentChecksum, documentOf, verifyAcked } from './sqlite-rows.ts'

/** Documents, and acked incarnations of one, that are remembered. */
const MAX_DOCUMENTS = 10_000
const MAX_ACKED = 1_000

/** A document: as committed, or as the transaction under way has it. */
export interface WrittenDocument extends DocumentRow {
  seq: number
  hash: Uint8Array
  last: number
  /** What the next entry links to (`Links.path`). */
  readonly path: number[]
  oldest: number
  snapshotSeq: number
  tailBytes: number
  tailEntries: number
  /** What the call under check would make of seq. */
  nextSeq: number
}

/** acked(document, incarnation), likewise. */
export interface WrittenAcked {
  readonly document: WrittenDocument
  readonly incarnation: Uint8Array
  n: number
  seq: number
  /** What the call under check would make of n. */
  nextN: number
}

/** The writer's documents. */
export class Documents {
  readonly epoch: number
  /** The last position that was given out. */
  position: number
  readonly #db: Connection
  readonly #sql: ReturnType<typeof statements>
  readonly #links: Links
  readonly #known = new Map<DocumentId, { readonly document: WrittenDocument; readonly acked: Map<IncarnationId, WrittenAcked> }>()

  constructor(db: Connection, links: Links) {
    this.#db = db
    this.#links = links
    this.#sql = statements(db)
    this.epoch = Number(metaOf(db, 'epoch'))
    this.position = this.#lastPosition()
  }

  /** Runs `run` in one transaction that is durable when this returns. When it throws, nothing was written. */
  transaction<T>(run: () => T): T {
    this.#sql.begin.run()
    try {
      const result = run()
      this.#sql.commit.run()
      return result
    } catch (error) {
      this.#rollback(error)
      throw error
    }
  }

  #rollback(cause: unknown): void {
    this.#known.clear()
    try {
      if (this.#db.inTransaction) this.#sql.rollback.run()
      this.position = this.#lastPosition()
    } catch (error) {
      // oxlint-disable-next-line preserve-caught-error -- both are in it; the first is the cause
      throw new AggregateError([cause, error], 'a transaction failed and could not be rolled back', { cause })
    }
  }

  find(id: DocumentId): WrittenDocument | undefined {
    return this.#find(id)?.document
  }

  #find(id: DocumentId): { readonly document: WrittenDocument; readonly acked: Map<IncarnationId, WrittenAcked> } | undefined {
    const known = this.#known.get(id)
    if (known !== undefined) return known
    const row = this.#sql.document.get(id)
    if (row === undefined) return undefined
    const document = documentOf(row)
    const found = {
      document: { ...document, path: this.#links.path(document), nextSeq: row.seq },
      acked: new Map<IncarnationId, WrittenAcked>(),
    }
    this.#known.set(id, found)
    return found
  }

  acked(document: WrittenDocument, id: IncarnationId): WrittenAcked {
    const all = this.#find(document.id)?.acked
    const known = all?.get(id)
    if (known !== undefined) return known
    const incarnation = fromHex(id)
    const row = this.#sql.acked.get(document.key, incarnation)
    if (row !== undefined) verifyAcked(document, incarnation, row)
    const acked = { document, incarnation, n: row?.n ?? 0, seq: row?.seq ?? 0, nextN: row?.n ?? 0 }
    all?.set(id, acked)
    return acked
  }

  /** Makes the document's row, unless there is one. */
  create(id: DocumentId): void {
    const key = (this.#sql.lastKey.get() ?? 0) + 1
    const lineage = firstLineage(id)
    const row = {
      key,
      id,
      partition: 0,
      lineage,
      seq: 0,
      hash: fromHex(chainStart(lineage)),
      last: 0,
      snapshotSeq: 0,
      oldest: 1,
      tailBytes: 0,
      tailEntries: 0,
    }
    this.#sql.create.run(key, id, 0, fromHex(lineage), 0, row.hash, 0, 0, 1, 0, 0, documentChecksum(row))
  }

  saveDocument(document: WrittenDocument): void {
    const { key, seq, hash, last, snapshotSeq, oldest, tailBytes, tailEntries } = document
    this.#sql.saveDocument.run(seq, hash, last, snapshotSeq, oldest, tailBytes, tailEntries, documentChecksum(document), key)
  }

  saveAcked({ document: { key }, incarnation, n, seq }: WrittenAcked): void {
    this.#sql.saveAcked.run(key, incarnation, n, seq, rowChecksum(key, incarnation, n, seq))
  }

  /** Keeps memory bounded, between transactions; what goes is read again. */
  forget(): void {
    if (this.#known.size > MAX_DOCUMENTS) this.#known.clear()
    for (const { acked } of this.#known.values()) if (acked.size > MAX_ACKED) acked.clear()
  }

  /** Trimming may have dropped the entry of the last position. */
  #lastPosition(): number {
    return Math.max(this.#sql.lastPosition.get() ?? 0, Number(metaOf(this.#db, 'trimmed')))
  }
}

function statements(db: Connection) {
  return {
    begin: db.prepare('BEGIN IMMEDIATE'),
    commit: db.prepare('COMMIT'),
    rollback: db.prepare('ROLLBACK'),
    document: db.prepare<[string], RawDocument>(`SELECT ${DOCUMENT_COLUMNS} FROM documents WHERE id = ?`),
    acked: db.prepare<[number, Uint8Array], RawAcked>('SELECT n, seq, checksum FROM acked WHERE document = ? AND incarnation = ?'),
    lastKey: db.prepare<[], number>('SELECT max(key) FROM documents').pluck(),
    lastPosition: db.prepare<[], number>('SELECT max(position) FROM entries').pluck(),
    create: db.prepare('INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING'),
    saveDocument: db.prepare(
      'UPDATE documents SET seq = ?, hash = ?, last = ?, snapshot_seq = ?, oldest = ?, tail_bytes = ?, tail_entries = ?, checksum = ? WHERE key = ?',
    ),
    saveAcked: db.prepare('INSERT OR REPLACE INTO acked VALUES (?, ?, ?, ?, ?)'),
  }
}
