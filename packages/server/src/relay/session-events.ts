/**
 * What a native session is told and what it asks for (between steps 3 and 4): the events and effects of session.ts.
 */
import type { Access, DocumentId, ErrorCode, Lineage, Seq } from '@rejoin/shared'
import type { OpenFrame, OpenMode, RelayFrame } from '@rejoin/shared/wire'
import type { Grant } from './grant.ts'
import type { WholePush } from './parts.ts'

/** What a session is held to. Sizes in bytes, times in ms. */
export interface SessionRules {
  /** Id of the relay, 32 hexadecimal digits. */
  readonly relay: string
  readonly heartbeat: number
  readonly window: number
  readonly message: number
  readonly helloMessage: number
  readonly helloMs: number
  readonly documents: number
  /** How long before the end of a grant a fresh token is asked for. */
  readonly renewMs: number
}

/** What happened. `now` is ms since 1970. */
export type SessionEvent =
  | { readonly type: 'message'; readonly bytes: Uint8Array; readonly now: number }
  /** The answer to `authorize`. */
  | { readonly type: 'granted'; readonly grant: Grant; readonly now: number }
  | { readonly type: 'denied'; readonly code: ErrorCode; readonly message: string }
  /** The answers to `open`. */
  | {
      readonly type: 'opened'
      readonly ref: number
      readonly handle: number
      readonly document: DocumentId
      readonly lineage: Lineage
      readonly epoch: number
      readonly head: Seq
      readonly mode: OpenMode
    }
  | { readonly type: 'refused'; readonly ref: number; readonly code: ErrorCode; readonly retryAfter: number; readonly message: string }
  /** The answer to `await`. */
  | { readonly type: 'reached'; readonly ref: number; readonly code: ErrorCode; readonly message: string }
  /** Pushes of this many bytes were answered or passed over. */
  | { readonly type: 'answered'; readonly bytes: number }
  /** Too much, or again little enough, waits to be sent. */
  | { readonly type: 'outbound'; readonly full: boolean }
  /** The time asked for by `wake` has come. `buffered` bytes wait to be sent, `sent` bytes have left since the socket opened. */
  | { readonly type: 'time'; readonly now: number; readonly buffered: number; readonly sent: number }
  /** Somebody gave the principal another grant, or none. */
  | { readonly type: 'regranted'; readonly grant: Grant | null; readonly now: number }
  /** The relay ends a document on this socket. */
  | { readonly type: 'ended'; readonly handle: number; readonly code: ErrorCode; readonly retryAfter: number; readonly message: string }
  /** The relay takes this socket no longer. */
  | { readonly type: 'dismissed'; readonly code: ErrorCode; readonly retryAfter: number; readonly message: string }
  /** The socket is gone. */
  | { readonly type: 'lost' }

/** What is to be done, in order. */
export type SessionEffect =
  | { readonly type: 'send'; readonly frame: RelayFrame }
  | { readonly type: 'authorize'; readonly token: string }
  | { readonly type: 'open'; readonly frame: OpenFrame; readonly document: DocumentId }
  /** Begin to read the document, as `opened` said. */
  | { readonly type: 'join'; readonly handle: number; readonly access: Access }
  | { readonly type: 'access'; readonly handle: number; readonly access: Access }
  | { readonly type: 'leave'; readonly handle: number }
  | { readonly type: 'push'; readonly handle: number; readonly push: WholePush }
  | { readonly type: 'presence'; readonly handle: number; readonly awareness: Uint8Array }
  | { readonly type: 'await'; readonly ref: number; readonly handle: number; readonly seq: Seq; readonly sink: string }
  | { readonly type: 'reading'; readonly on: boolean }
  | { readonly type: 'wake'; readonly at: number }
  /** Close the socket with what the code says. Nothing follows. */
  | { readonly type: 'end'; readonly code: ErrorCode; readonly message: string }
