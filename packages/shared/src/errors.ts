/**
 * The one table of what can go wrong, for frames, WebSocket closes, HTTP answers and rejected promises (PROTOCOL.md §7), and the one error class.
 */

/** What a client does by itself: send again after backoff, keep the outbox until the grant changes, or give up and say so. */
export type Retry = 'again' | 'hold' | 'never'

/** What the table says of a code. */
export interface ErrorRow {
  /** Number on the wire. */
  readonly number: number
  readonly retry: Retry
  /** WebSocket close code. */
  readonly close: number
  /** HTTP status. */
  readonly http: number
  /** What the reader of the message can do. */
  readonly hint: string
}

/** A code of the table. */
export type ErrorCode =
  | 'ok'
  | 'bad_frame'
  | 'unsupported_revision'
  | 'frame_too_large'
  | 'timeout'
  | 'unauthorized'
  | 'expired'
  | 'forbidden'
  | 'bad_document'
  | 'gap'
  | 'too_large'
  | 'bad_bytes'
  | 'bad_key'
  | 'limit'
  | 'foreign_client'
  | 'too_many'
  | 'overloaded'
  | 'storage_full'
  | 'storage_failed'
  | 'draining'
  | 'internal'
  | 'replaced'
  | 'not_found'
  | 'not_loaded'
  | 'store_in_use'
  | 'store_failed'
  | 'closed'
  | 'aborted'
  | 'bad_option'

/** Code → wire number, retry, close code, HTTP status, hint. PROTOCOL.md §7 is the same table; a test compares them. */
export const ERRORS: Readonly<Record<ErrorCode, ErrorRow>> = {
  ok: { number: 0, retry: 'again', close: 1000, http: 200, hint: 'nothing to do' },
  bad_frame: {
    number: 1,
    retry: 'again',
    close: 4400,
    http: 400,
    hint: 'check that both ends speak this protocol, and what stands between them',
  },
  unsupported_revision: { number: 2, retry: 'never', close: 4406, http: 426, hint: 'upgrade the older of client and relay' },
  frame_too_large: { number: 3, retry: 'again', close: 4413, http: 413, hint: 'send smaller messages; large updates go in parts' },
  timeout: { number: 4, retry: 'again', close: 4408, http: 408, hint: 'check the network; the client tries again by itself' },
  unauthorized: { number: 5, retry: 'hold', close: 4401, http: 401, hint: 'give the client a token that this relay accepts' },
  expired: { number: 6, retry: 'hold', close: 4401, http: 401, hint: 'let the token callback return a fresh token' },
  forbidden: { number: 7, retry: 'hold', close: 4403, http: 403, hint: 'ask for a grant on this document' },
  bad_document: { number: 8, retry: 'never', close: 4404, http: 400, hint: 'use 1 to 256 bytes of UTF-8 without control characters' },
  gap: { number: 9, retry: 'again', close: 4409, http: 409, hint: 'send the edits before these first; the client does so by itself' },
  too_large: { number: 10, retry: 'never', close: 4413, http: 413, hint: 'split the edit, or raise the limit on the relay' },
  bad_bytes: {
    number: 11,
    retry: 'never',
    close: 4400,
    http: 400,
    hint: 'export the edit from the quarantine; its bytes are not a complete Yjs update',
  },
  bad_key: { number: 12, retry: 'never', close: 4400, http: 400, hint: 'rename the key; `__proto__` and keys above 256 bytes are refused' },
  limit: { number: 13, retry: 'never', close: 4429, http: 429, hint: 'make the edit simpler: fewer structs or less nesting' },
  foreign_client: { number: 14, retry: 'never', close: 4403, http: 403, hint: 'do not share a Yjs client id between users or devices' },
  too_many: {
    number: 15,
    retry: 'again',
    close: 4429,
    http: 429,
    hint: 'open fewer documents or connections, or raise the limit on the relay',
  },
  overloaded: { number: 16, retry: 'again', close: 4503, http: 503, hint: 'wait; the client tries again by itself' },
  storage_full: {
    number: 17,
    retry: 'again',
    close: 4507,
    http: 507,
    hint: 'free space on the disk of the relay; it recovers without a restart',
  },
  storage_failed: {
    number: 18,
    retry: 'again',
    close: 4500,
    http: 500,
    hint: 'look at the log of the relay and its disk, then start it again',
  },
  draining: { number: 19, retry: 'again', close: 4503, http: 503, hint: 'wait; the relay is being restarted' },
  internal: { number: 20, retry: 'again', close: 4500, http: 500, hint: 'look at the log of the relay' },
  replaced: {
    number: 21,
    retry: 'never',
    close: 4410,
    http: 410,
    hint: 'the document was deleted or reset; export what this replica still holds',
  },
  not_found: { number: 22, retry: 'never', close: 4404, http: 404, hint: 'check the address' },
  not_loaded: { number: 23, retry: 'never', close: 4500, http: 500, hint: 'await replica.whenLoaded() before the first edit' },
  store_in_use: { number: 24, retry: 'never', close: 4500, http: 500, hint: 'give each process a store of its own' },
  store_failed: { number: 25, retry: 'never', close: 4500, http: 500, hint: 'check the quota and permissions of the store' },
  closed: { number: 26, retry: 'never', close: 4500, http: 500, hint: 'open it again' },
  aborted: { number: 27, retry: 'never', close: 4500, http: 500, hint: 'the AbortSignal given to this call fired' },
  bad_option: { number: 28, retry: 'never', close: 4500, http: 500, hint: 'correct the option' },
}

const byNumber = new Map<number, ErrorCode>(Object.entries(ERRORS).map(([code, row]) => [row.number, code as ErrorCode]))

/** The code with this wire number; a number of a later revision reads as `internal`, which is tried again. */
export function errorCode(number: number): ErrorCode {
  return byNumber.get(number) ?? 'internal'
}

/** The only error class of Rejoin. */
export class SyncError extends Error {
  override readonly name = 'SyncError'
  /** Code of the table. */
  readonly code: ErrorCode
  /** What happened, where, in words. */
  readonly reason: string
  /** Whether the same call may succeed later without a change. */
  readonly retryable: boolean
  /** What to do about it. */
  readonly hint: string

  constructor(code: ErrorCode, reason: string, options?: { cause?: unknown }) {
    super(`${reason} (${code}: ${ERRORS[code].hint})`, options)
    this.code = code
    this.reason = reason
    this.retryable = ERRORS[code].retry !== 'never'
    this.hint = ERRORS[code].hint
  }
}

/** Normalises anything thrown, once, at an edge. */
export function toSyncError(thrown: unknown, code: ErrorCode = 'internal'): SyncError {
  if (thrown instanceof SyncError) return thrown
  const reason = thrown instanceof Error ? thrown.message : String(thrown)
  return new SyncError(code, reason, { cause: thrown })
}

/** The error of an aborted signal. */
export function abortError(signal: AbortSignal): SyncError {
  return new SyncError('aborted', 'the wait was aborted', { cause: signal.reason })
}
