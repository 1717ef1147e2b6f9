/**
 * The one table of what can go wrong, for frames, WebSocket closes, HTTP answers and rejected promises (PROTOCOL.md §7), and the one error class.
 */
import { HINTS } from '#hints'

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
  /** What the reader of the message can do. Empty in a browser's production bundle, which is spared the texts. */
  readonly hint: string
}

/** Texts for some or all of the codes. */
export type Hints = Readonly<Partial<Record<ErrorCode, string>>>

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
  | 'sink_parked'
  | 'sink_paused'
  | 'cut_off'

/** In the order of their wire numbers, from 0: what a client does by itself, WebSocket close code, HTTP status. PROTOCOL.md §7 is the same table; a test compares them. */
const ROWS: Readonly<Record<ErrorCode, readonly [retry: Retry, close: number, http: number]>> = {
  ok: ['again', 1000, 200],
  bad_frame: ['again', 4400, 400],
  unsupported_revision: ['never', 4406, 426],
  frame_too_large: ['again', 4413, 413],
  timeout: ['again', 4408, 408],
  unauthorized: ['hold', 4401, 401],
  expired: ['hold', 4401, 401],
  forbidden: ['hold', 4403, 403],
  bad_document: ['never', 4404, 400],
  gap: ['again', 4409, 409],
  too_large: ['never', 4413, 413],
  bad_bytes: ['never', 4400, 400],
  bad_key: ['never', 4400, 400],
  limit: ['never', 4429, 429],
  foreign_client: ['never', 4403, 403],
  too_many: ['again', 4429, 429],
  overloaded: ['again', 4503, 503],
  storage_full: ['again', 4507, 507],
  storage_failed: ['again', 4500, 500],
  draining: ['again', 4503, 503],
  internal: ['again', 4500, 500],
  replaced: ['never', 4410, 410],
  not_found: ['never', 4404, 404],
  not_loaded: ['never', 4500, 500],
  store_in_use: ['never', 4500, 500],
  store_failed: ['never', 4500, 500],
  closed: ['never', 4500, 500],
  aborted: ['never', 4500, 500],
  bad_option: ['never', 4500, 400],
  sink_parked: ['never', 4500, 409],
  sink_paused: ['again', 4500, 409],
  cut_off: ['never', 4410, 410],
}

const CODES = Object.keys(ROWS) as readonly ErrorCode[]

/** Code → wire number, retry, close code, HTTP status, hint. */
export const ERRORS: Readonly<Record<ErrorCode, ErrorRow>> = Object.fromEntries(
  CODES.map((code, number) => {
    const [retry, close, http] = ROWS[code]
    return [code, { number, retry, close, http, hint: HINTS[code] ?? '' }]
  }),
) as Record<ErrorCode, ErrorRow>

/** The code with this wire number; a number of a later revision reads as `internal`, which is tried again. */
export function errorCode(number: number): ErrorCode {
  return CODES[number] ?? 'internal'
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
  /** What to do about it: the table's. */
  readonly hint: string

  constructor(code: ErrorCode, reason: string, options?: { cause?: unknown }) {
    const { hint, retry } = ERRORS[code]
    super(`${reason} (${hint === '' ? code : `${code}: ${hint}`})`, options)
    this.code = code
    this.reason = reason
    this.retryable = retry !== 'never'
    this.hint = hint
  }
}

/** Normalises anything thrown, once, at an edge. */
export function toSyncError(thrown: unknown, code: ErrorCode = 'internal'): SyncError {
  if (thrown instanceof SyncError) return thrown
  // What crossed from another thread or realm is no instance of this one's Error, but has its message.
  const hasMessage = typeof thrown === 'object' && thrown !== null && 'message' in thrown
  return new SyncError(code, String(hasMessage ? thrown.message : thrown), { cause: thrown })
}

/** The error of an aborted signal. */
export function abortError(signal: AbortSignal): SyncError {
  return new SyncError('aborted', 'the wait was aborted', { cause: signal.reason })
}
