/**
 * Every frame of the wire: who sends it, when, and what answers it. PROTOCOL.md §3 is the law; codec.ts turns these into bytes.
 */
import type { ErrorCode } from './errors.ts'
import type { ChainHash, Cursor, IncarnationId, Lineage, Seq } from './ids.ts'

/** The wire revisions this code speaks. */
export const REVISION: { readonly min: number; readonly max: number } = { min: 1, max: 1 }

/** Frame name → type number on the wire. */
export const FRAME_TYPES = {
  hello: 1,
  auth: 2,
  open: 3,
  close: 4,
  push: 5,
  presence: 6,
  ping: 7,
  pong: 8,
  await: 9,
  welcome: 32,
  opened: 33,
  refused: 34,
  state: 35,
  entries: 36,
  ack: 37,
  nack: 38,
  grant: 39,
  authenticate: 40,
  authenticated: 41,
  closed: 42,
  goaway: 43,
  reached: 44,
} as const

/** What a principal may do with a document. On the wire: 0, 1, 2. */
export type Access = 'none' | 'read' | 'write'
/** How the relay continues a document: from the cursor, from its whole state, or not at all (another lineage). On the wire: 0, 1, 2. */
export type OpenMode = 'resumed' | 'full' | 'replaced'
/** An ordinary edit, or all that a relay which lost or never had something may lack. On the wire: 0, 1. */
export type PushKind = 'edit' | 'state'

/** Client, first frame on a socket. Answered by `welcome` or `goaway`. An absent token is ''. */
export interface HelloFrame {
  readonly type: 'hello'
  readonly revisionMin: number
  readonly revisionMax: number
  readonly agent: string
  readonly token: string
}
/** Client, any time: a fresh token. Answered by `authenticated`, or `goaway`. */
export interface AuthFrame {
  readonly type: 'auth'
  readonly token: string
}
/** Client: open a document. Answered by `opened` or `refused` with the same ref. */
export interface OpenFrame {
  readonly type: 'open'
  readonly ref: number
  readonly document: string
  readonly cursor?: Cursor | undefined
  readonly resume?: { readonly snapshotSeq: Seq; readonly offset: number } | undefined
}
/** Client: no longer interested in a document. No answer. */
export interface CloseFrame {
  readonly type: 'close'
  readonly handle: number
}
/** Client: edits lo..hi of one incarnation as one update, or a part of it. Answered by `ack` or `nack`. */
export interface PushFrame {
  readonly type: 'push'
  readonly handle: number
  readonly incarnation: IncarnationId
  readonly lo: number
  readonly hi: number
  readonly kind: PushKind
  /** Only with kind `state`: acked of each incarnation becomes at least n. */
  readonly covers: readonly { readonly incarnation: IncarnationId; readonly n: number }[]
  /** Length of the whole update in bytes. */
  readonly total: number
  /** Where `update` begins in the whole. */
  readonly offset: number
  readonly update: Uint8Array
}
/** Both: a y-protocols awareness update. No answer. */
export interface PresenceFrame {
  readonly type: 'presence'
  readonly handle: number
  readonly awareness: Uint8Array
}
/** Both: are you there? Answered by `pong`. */
export interface PingFrame {
  readonly type: 'ping'
  readonly nonce: number
}
/** Both: the answer to `ping`. */
export interface PongFrame {
  readonly type: 'pong'
  readonly nonce: number
}
/** Client: tell me when everything up to entry `seq` of the document is in this sink. Answered once, by `reached` with the same ref. */
export interface AwaitFrame {
  readonly type: 'await'
  readonly ref: number
  readonly handle: number
  readonly seq: Seq
  readonly sink: string
}
/** Relay: answers a good `hello`. `heartbeat` in ms, `window` in bytes. */
export interface WelcomeFrame {
  readonly type: 'welcome'
  readonly revision: number
  readonly heartbeat: number
  readonly window: number
  readonly relay: string
  readonly principal: string
}
/** Relay: answers a good `open`. */
export interface OpenedFrame {
  readonly type: 'opened'
  readonly ref: number
  readonly handle: number
  readonly lineage: Lineage
  readonly epoch: number
  readonly head: Seq
  readonly grant: Access
  readonly mode: OpenMode
}
/** Relay: answers an `open` that cannot be. `retryAfter` in ms. */
export interface RefusedFrame {
  readonly type: 'refused'
  readonly ref: number
  readonly code: ErrorCode
  readonly retryAfter: number
  readonly message: string
}
/** Relay, mode full: a fragment of its state as of `seq`. */
export interface StateFrame {
  readonly type: 'state'
  readonly handle: number
  readonly lineage: Lineage
  readonly epoch: number
  readonly seq: Seq
  readonly hash: ChainHash
  readonly total: number
  readonly offset: number
  readonly update: Uint8Array
}
/** Relay: consecutive entries from `first`; `hash` is the chain hash at the last. */
export interface EntriesFrame {
  readonly type: 'entries'
  readonly handle: number
  readonly first: Seq
  readonly hash: ChainHash
  readonly updates: readonly Uint8Array[]
}
/** Relay: edits of the incarnation up to n are durable. With `hash` it stands in the place of the entry `seq`. */
export interface AckFrame {
  readonly type: 'ack'
  readonly handle: number
  readonly incarnation: IncarnationId
  readonly n: number
  readonly seq: Seq
  readonly hash?: ChainHash | undefined
}
/** Relay: the push that began at edit n was not taken. `expected` is acked + 1. `retryAfter` in ms. */
export interface NackFrame {
  readonly type: 'nack'
  readonly handle: number
  readonly incarnation: IncarnationId
  readonly n: number
  readonly expected: number
  readonly code: ErrorCode
  readonly retryAfter: number
  readonly message: string
}
/** Relay: the grant on an open document changed. */
export interface GrantFrame {
  readonly type: 'grant'
  readonly handle: number
  readonly grant: Access
  readonly code: ErrorCode
  readonly message: string
}
/** Relay: a new token, please, within `deadline` ms. */
export interface AuthenticateFrame {
  readonly type: 'authenticate'
  readonly code: ErrorCode
  readonly deadline: number
  readonly message: string
}
/** Relay: the new token is good. */
export interface AuthenticatedFrame {
  readonly type: 'authenticated'
  readonly principal: string
}
/** Relay: this document is over on this socket. `retryAfter` in ms. */
export interface ClosedFrame {
  readonly type: 'closed'
  readonly handle: number
  readonly code: ErrorCode
  readonly retryAfter: number
  readonly message: string
}
/** Relay, before it closes the socket. `retryAfter` in ms; 0: use your own backoff. */
export interface GoawayFrame {
  readonly type: 'goaway'
  readonly code: ErrorCode
  readonly retryAfter: number
  readonly message: string
}

/** Relay: it is there, or `code` says why it will not be told of. */
export interface ReachedFrame {
  readonly type: 'reached'
  readonly ref: number
  readonly code: ErrorCode
  readonly message: string
}

/** What a client sends. */
export type ClientFrame = HelloFrame | AuthFrame | OpenFrame | CloseFrame | PushFrame | PresenceFrame | PingFrame | PongFrame | AwaitFrame
/** What a relay sends. */
export type RelayFrame =
  | WelcomeFrame
  | OpenedFrame
  | RefusedFrame
  | StateFrame
  | EntriesFrame
  | AckFrame
  | NackFrame
  | GrantFrame
  | AuthenticateFrame
  | AuthenticatedFrame
  | ClosedFrame
  | GoawayFrame
  | ReachedFrame
  | PresenceFrame
  | PingFrame
  | PongFrame
/** Any frame. */
export type Frame = ClientFrame | RelayFrame
