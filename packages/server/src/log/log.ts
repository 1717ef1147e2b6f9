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
  /** Yjs state vector and delete set at `seq`, encoded as admission keeps them; empty when seq is 0. */
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

/** Why the log could not. `full`: the disk is full, nothing was written, try later. `failed`: a durability barrier failed, nothing more may be acknowledged: exit. */
export type LogFailure = 'full' | 'failed'

/** Thrown (as a rejection) by the port. */
export class LogError extends Error {
  override readonly name = 'LogError'
  readonly failure: LogFailure
  constructor(failure: LogFailure, message: string, options?: { cause?: unknown }) {
    super(message, options)
    this.failure = failure
  }
}

/**
 * The log. One process holds it. The relay calls `open`, `find`, `append`, `read`, `snapshot`; compaction calls `fold`; a reader in a worker opens the same files read-only (../storage).
 */
export interface Log {
  /** Random id of this log, 32 hexadecimal digits: another log has another. */
  readonly id: string
  /** The document's head; creates its row (partition, lineage) when it is new. */
  open(document: DocumentId): Promise<DocumentHead>
  /** acked(document, incarnation), with the seq that the ack named; and the chain hash at `seq` when that entry or snapshot is still there. */
  find(document: DocumentId, what: { readonly incarnation?: IncarnationId; readonly seq?: Seq }): Promise<{ readonly acked?: { readonly n: number; readonly seq: Seq }; readonly hash?: ChainHash }>
  /**
   * Appends all of the batch in one transaction and resolves after its fsync, in the order given. Rejects with `LogError` and then nothing of it was written.
   * May be called again before the first has resolved: what waits becomes the next transaction.
   */
  append(batch: readonly Append[]): Promise<readonly Appended[]>
  /** Entries of one document after `after`, or of a partition after a position, in order, at least one if there is one, up to `maxBytes`. 'trimmed': what follows `after` is no longer retained. */
  read(from: ReadFrom, maxBytes: number): Promise<readonly Entry[] | 'trimmed'>
  /** Bytes [offset, offset + length) of the snapshot with that seq; undefined when another has taken its place. */
  snapshot(document: DocumentId, seq: Seq, offset: number, length: number): Promise<Uint8Array | undefined>
  /** Puts a checked snapshot in place and drops folded entries older than `retainedSince` (ms since 1970), in slices. */
  fold(snapshot: Snapshot, retainedSince: number): Promise<void>
  /** Waits for what is under way, checkpoints, closes. */
  close(): Promise<void>
}

export type ReadFrom =
  | { readonly document: DocumentId; readonly after: Seq }
  | { readonly partition: number; readonly after: Position }
