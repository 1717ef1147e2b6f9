/**
 * The port of the log (step 5 of the path): what the relay, compaction and every reader may rely on. Adapters live in ../storage.
 */
import type { ChainHash, DocumentId, IncarnationId, Lineage, Position, Seq } from '@rejoin/shared'

/** What the relay asks to be made durable: one admitted edit. It has assigned the seq; the log checks that it is the next. */
export interface Append {
  readonly document: DocumentId
  /** The next seq of the document, or the head's seq for an edit that added nothing (`update` is then undefined: only acked moves). */
  readonly seq: Seq
  readonly incarnation: IncarnationId
  readonly lo: number
  readonly hi: number
  /** acked of each of these becomes at least n, in the same transaction. */
  readonly covers: readonly { readonly incarnation: IncarnationId; readonly n: number }[]
  /** The principal that pushed it. */
  readonly actor: string
  /** When the relay admitted it, ms since 1970. */
  readonly at: number
  readonly update: Uint8Array | undefined
}

/** What came of one `Append`, durable. */
export interface Appended {
  /** Undefined when nothing was added. */
  readonly position: Position | undefined
  /** Chain hash at the entry, or at the head. */
  readonly hash: ChainHash
}

/** One accepted edit, read back. Its checksum was verified. */
export interface Entry {
  readonly document: DocumentId
  readonly partition: number
  readonly position: Position
  readonly epoch: number
  readonly lineage: Lineage
  readonly seq: Seq
  readonly hash: ChainHash
  readonly incarnation: IncarnationId
  readonly lo: number
  readonly hi: number
  readonly actor: string
  readonly at: number
  readonly update: Uint8Array
}

/** A document as its log has it. A document nobody wrote to has seq 0 and is created by `open` of the port (lineage fixed). */
export interface DocumentHead {
  readonly document: DocumentId
  readonly partition: number
  readonly lineage: Lineage
  readonly epoch: number
  readonly seq: Seq
  readonly hash: ChainHash
  /** The snapshot that entries continue from: seq 0 with no bytes when there is none. */
  readonly snapshot: SnapshotHead
  /** Entries with seq > oldest − 1 are retained: the smallest cursor that can resume is oldest − 1. `oldest` = head + 1 when none are. */
  readonly oldest: Seq
  /** Bytes of the entries behind the snapshot; with snapshot.bytes the size of the document. */
  readonly tailBytes: number
  readonly tailEntries: number
}

export interface SnapshotHead {
  readonly seq: Seq
  readonly hash: ChainHash
  /** Length of the update in bytes; 0 when seq is 0. */
  readonly bytes: number
  /** What a document holds at `seq`, for admission: varUint length of the Yjs state vector, the state vector, the Yjs delete set (both in v1). Empty when seq is 0. */
  readonly admission: Uint8Array
}

/** A new snapshot, checked equal to the entries it folds. */
export interface Snapshot {
  readonly document: DocumentId
  readonly lineage: Lineage
  readonly seq: Seq
  readonly update: Uint8Array
  readonly admission: Uint8Array
}

/**
 * Why the log could not. In every case nothing of the call was written.
 * - `full`: the disk is full; try later.
 * - `overloaded`: too many bytes already wait to be written; try later.
 * - `conflict`: not what comes next (a seq, an incarnation's edits, a lineage), as when an earlier batch was refused: open the document again.
 * - `corrupt`: bytes on the disk fail their checksum; they are not served. Only `document` is affected, at `position` where that is known.
 * - `failed`: a durability barrier failed or the storage worker died. Nothing more may be acknowledged: exit.
 */
export type LogFailure = 'full' | 'overloaded' | 'conflict' | 'corrupt' | 'failed'

/** Thrown (as a rejection) by the port. */
export class LogError extends Error {
  override readonly name = 'LogError'
  readonly failure: LogFailure
  /** The document it is about, where it is about one. */
  readonly document: DocumentId | undefined
  /** The entry it is about: a reader of the partition may park the document and go on behind it. */
  readonly position: Position | undefined
  constructor(
    failure: LogFailure,
    message: string,
    options?: { cause?: unknown; document?: DocumentId | undefined; position?: Position | undefined },
  ) {
    super(message, options)
    this.failure = failure
    this.document = options?.document
    this.position = options?.position
  }
}

/** Where a reader goes on. */
export type ReadFrom = { readonly document: DocumentId; readonly after: Seq } | { readonly partition: number; readonly after: Position }

/** What of a document is asked for. */
export interface FindWhat {
  readonly incarnation?: IncarnationId | undefined
  readonly seq?: Seq | undefined
}

/** acked(document, incarnation) with the seq that its ack named; the chain hash at the asked seq, when that entry or snapshot is still there. */
export interface Found {
  readonly acked?: { readonly n: number; readonly seq: Seq } | undefined
  readonly hash?: ChainHash | undefined
}

/** Reading: what is durable, never what is under way. Never waits behind a commit. Any of these may reject with `corrupt`. */
export interface LogReader {
  /** The document's head; undefined when nobody has opened it yet. */
  head(document: DocumentId): Promise<DocumentHead | undefined>
  find(document: DocumentId, what: FindWhat): Promise<Found>
  /** Entries of one document after a seq, or of a partition after a position, in order, at least one if there is one, up to `maxBytes` of updates. 'trimmed': some of what follows `after` is no longer retained. */
  read(from: ReadFrom, maxBytes: number): Promise<readonly Entry[] | 'trimmed'>
  /** Bytes [offset, offset + length) of the snapshot with that seq, fewer at its end; undefined when another has taken its place. */
  snapshot(document: DocumentId, seq: Seq, offset: number, length: number): Promise<Uint8Array | undefined>
}

/** The log. One process holds it. The relay reads, opens and appends; the compactor folds and trims. */
export interface Log extends LogReader {
  /** Random id of this log, 32 hexadecimal digits: another log has another. */
  readonly id: string
  /** Resolves once with the `failed` error, after which every call rejects with it: the embedding process exits. Pending for ever otherwise. */
  readonly failed: Promise<LogError>
  /** The document's head; creates it (partition, lineage), durably, when it is new. */
  open(document: DocumentId): Promise<DocumentHead>
  /**
   * Appends all of the batch in one transaction and resolves after its fsync, in the order given. Rejects with `LogError` and then nothing of it was written.
   * May be called again before the first has resolved: what waits becomes the next transaction. Each append must be the next of its document (seq = head + 1)
   * and of its incarnation (lo ≤ acked + 1, hi > acked); otherwise the batch is a `conflict`. Documents must have been opened.
   */
  append(batch: readonly Append[]): Promise<readonly Appended[]>
  /** Puts a checked snapshot in the place of the one before. Entries stay until trimmed. One that is not newer changes nothing. */
  fold(snapshot: Snapshot): Promise<void>
  /** Drops, in slices, folded entries admitted before `before` (ms since 1970) that are not behind position `keepAfter`. Resolves with how many went. */
  trim(before: number, keepAfter?: Position): Promise<number>
  /** Waits for what is under way, checkpoints, closes. */
  close(): Promise<void>
}
