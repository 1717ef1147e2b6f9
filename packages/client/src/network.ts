/**
 * The port between what a device does by itself and what talks to the relay (steps 2 and 3 of the path): so that a browser can show and keep documents before it has loaded the code for the wire.
 */
import type { DocumentId, IncarnationId, Random, RandomBytes, Readable, SyncError } from '@rejoin/shared'
import type * as Y from 'yjs'
import type { Outbox } from './outbox.ts'
import type { ConnectionStatus } from './status.ts'
import type { SteadyClock } from './steady.ts'
import type { Commit, Loaded, OutboxRow } from './stores/store.ts'

/** One relay, for all documents of a client. */
export interface Network {
  readonly status: Readable<ConnectionStatus>
  start(): void
  close(): void
  /** A document's place on the wire; it takes part from `begin` on. */
  join(host: LineHost): Line
}

/** What every network is told. */
export interface NetworkOptions {
  readonly url: string
  readonly token: string | (() => string | Promise<string>) | undefined
  readonly clock: SteadyClock
  readonly random: Random
  readonly randomBytes: RandomBytes
}

/** One document on the wire, as its replica sees it. */
export interface Line {
  /** The replica is loaded: take part. `cursor`: of what was loaded. */
  begin(cursor: Loaded['cursor']): void
  /** There will be no more. */
  end(): void
  /** Rows were added to the outbox, or may go again. */
  want(): void
  /** Shows the awareness update to others, if the document is open on a socket. */
  announce(awareness: Uint8Array): void
  /** Whether edits wait for a grant and not for the network. */
  readonly isHeld: boolean
  /** Whether the document was deleted or reset: it will not be exchanged any more. */
  readonly isReplaced: boolean
}

/** Tells where acknowledged edits are. */
export interface Whereabouts {
  /** Resolves when an acknowledged edit is in the sink of the rung `sink:<name>`, and everything before it. */
  reach(rung: string, incarnation: IncarnationId, n: number, signal: AbortSignal | undefined): Promise<void>
  /** Names the entry that an acknowledged edit became; undefined until it is known, and for edit 0, which changed nothing. */
  receipt(incarnation: IncarnationId, n: number): string | undefined
}

/** What a line needs of the replica. */
export interface LineHost {
  readonly document: DocumentId
  readonly ydoc: Y.Doc
  readonly outbox: Outbox
  /** Whether the outbox, from its first edit on, is all that the replica holds. */
  readonly isNew: boolean
  /** Into the device's store, in order. */
  commit(commit: Commit): void
  /** Edits up to n are durable on the relay. */
  acked(incarnation: IncarnationId, n: number): void
  refused(row: OutboxRow): void
  presence(awareness: Uint8Array): void
  /** The document is open on a socket, or no longer. */
  present(online: boolean): void
  caughtUp(): void
  /** The document will not be exchanged any more. */
  replaced(error: SyncError): void
  /** State fragments arrive; undefined when they are over. Bytes. */
  progress(progress: { readonly received: number; readonly total: number } | undefined): void
  /** There is somebody to ask where edits are. */
  met(whereabouts: Whereabouts): void
  /** Something that status shows may have changed. */
  changed(): void
}
