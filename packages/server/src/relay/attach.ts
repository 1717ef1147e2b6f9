/**
 * How a peer of any kind takes part in a document of the relay (between steps 3 and 6): it pushes edits as an author and reads the log as a reader.
 * Native sockets, y-websocket sockets and HTTP all come through here, and through nothing else.
 */
import type { Access, ChainHash, DocumentId, ErrorCode, IncarnationId, Lineage, Seq } from '@rejoin/shared'
import type { PushKind } from '@rejoin/shared/wire'
import type { SnapshotHead } from '../log/log.ts'

/** Edits lo..hi of one incarnation as one Yjs update (v1). The document keeps the object until the author has been told, and the bytes must not change meanwhile. */
export interface Push {
  readonly author: Author
  readonly incarnation: IncarnationId
  readonly lo: number
  readonly hi: number
  readonly kind: PushKind
  readonly covers: readonly { readonly incarnation: IncarnationId; readonly n: number }[]
  readonly update: Uint8Array
}

/** A push that was not taken. `expected` is acked + 1. */
export interface Nack {
  readonly expected: number
  readonly code: ErrorCode
  /** Milliseconds; 0 when the author's own backoff will do. */
  readonly retryAfter: number
  readonly message: string
}

/** Who pushes: one socket's part in one document. Is told of each push exactly once (`acked`, `nacked` or `passed`), in the order of its pushes. */
export interface Author {
  readonly principal: string
  /** Read in the synchronous step that puts an update into a batch: it must be true then, not when the push arrived. */
  readonly access: Access
  /** Whether extending a Yjs client id that another principal wrote under is refused (`foreign_client`). */
  readonly strict: boolean
  /**
   * Incarnation → the edit expected next, of those that were nacked; kept by the document. Until a push from that edit on arrives, pushes of the
   * incarnation are passed over without an answer. Undefined: every push is answered.
   */
  readonly gates: Map<IncarnationId, number> | undefined
  /** Durable. `hash` is given when the push became the entry `seq`; without it the push added nothing, or is acknowledged again. */
  acked(push: Push, seq: Seq, hash: ChainHash | undefined): void
  nacked(push: Push, nack: Nack): void
  /** Passed over behind a nack. */
  passed(push: Push): void
}

/** One entry as a reader is given it; an `Entry` of the log is one. The bytes may be looked at, not kept. */
export interface Given {
  readonly seq: Seq
  readonly hash: ChainHash
  readonly update: Uint8Array
}

/** One entry that a batch has just made durable. */
export interface Committed extends Given {
  readonly push: Push
}

/** What one batch added to one document: at least one entry, consecutive. One object for all readers, so what is derived from it may be kept beside it in a WeakMap. */
export interface Tick {
  readonly first: Seq
  readonly last: Seq
  readonly entries: readonly Committed[]
  /** The tick as messages of native `entries` and `state` frames, encoded at the first call and shared. */
  messages(): readonly Uint8Array[]
}

/** Who reads a document: one socket. */
export interface Reader {
  /** Bytes handed to its socket and not yet sent. */
  readonly buffered: number
  /** The entries that follow what it has, as they become durable. Told before the authors of the tick are. */
  tick(tick: Tick): void
  /** The entries that follow what it has, from the log: at least one. */
  entries(entries: readonly Given[]): void
  /** What follows is no longer retained. Reading stands still until `Subscription.resume(after)`. */
  trimmed(): void
  /** The document can no longer be served: it was replaced, or its log is damaged. Nothing follows. */
  ended(code: ErrorCode, message: string): void
}

/** A reader's place in a document. It is given every entry behind `seq` once, in order: from the log until it has caught up, then live; when it has too much unsent, again from the log. */
export interface Subscription {
  /** The last entry that was given. */
  readonly seq: Seq
  /** Its socket has sent what it held: reading goes on. */
  drained(): void
  /** Gives nothing more until `resume`. With `after`, its place is there from now on. */
  suspend(after?: Seq): void
  /** Goes on behind `after` (default: behind `seq`). */
  resume(after?: Seq): void
  /** Gives nothing more, ever. */
  close(): void
}

/** A document that is open on the relay. Whoever got it from `RelayCore.hold` calls `release` once. */
export interface RelayDocument {
  readonly id: DocumentId
  /** The handle of the wire: unlike that of any other document open now. */
  readonly number: number
  readonly lineage: Lineage
  readonly epoch: number
  /** The durable head. */
  readonly seq: Seq
  readonly hash: ChainHash
  /** State vector as Yjs encodes it, with what was admitted and is not durable yet. */
  stateVector(): Uint8Array
  /** Takes a push; its author is told what came of it, perhaps before this returns. */
  push(push: Push): void
  /** Reads behind `after`, which is at most the head. */
  subscribe(reader: Reader, after: Seq): Subscription
  /** The newest snapshot known: a first sync begins there. */
  readonly snapshot: SnapshotHead
  /** Bytes [offset, offset + length) of `snapshot`; undefined when another has taken its place, which `snapshot` then names. */
  fragment(seq: Seq, offset: number, length: number): Promise<Uint8Array | undefined>
  /** Learns of a snapshot that has taken the place of `snapshot`. */
  refresh(): Promise<void>
  /** Says whether this chain has `hash` at `seq` and still holds what follows. */
  proves(seq: Seq, hash: ChainHash): Promise<boolean>
  release(): void
}
