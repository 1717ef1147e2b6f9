/**
 * `@rejoin/shared`: the public words that both ends and the application share.
 */

// Identifiers
export {
  MAX_DOCUMENT_ID_BYTES,
  cryptoRandom,
  documentIdProblem,
  fromHex,
  isHex16,
  newIncarnationId,
  newLineage,
  parseDocumentId,
  toHex,
} from './ids.ts'
export type { ChainHash, Cursor, DocumentId, IncarnationId, Lineage, Position, RandomBytes, Seq } from './ids.ts'

// Errors: one class, one table
export { ERRORS, SyncError, abortError, errorCode, toSyncError } from './errors.ts'
export type { ErrorCode, ErrorRow, Retry } from './errors.ts'

// Limits
export { DEFAULT_LIMITS } from './limits.ts'
export type { Limits } from './limits.ts'

// What a principal may do
export type { Access } from './frames.ts'

// Time and chance, as arguments
export { residentClock, systemClock } from './clock.ts'
export type { Clock, Random } from './clock.ts'
export { backoff } from './backoff.ts'
export type { BackoffOptions } from './backoff.ts'

// Values that change
export { createReadable } from './readable.ts'
export type { Readable } from './readable.ts'
export { shielded } from './shielded.ts'

// What an application declares of its records
export { boolean, collection, date, defineSchema, json, number, richText, schemaProblem, string, text } from './schema.ts'
export type { CollectionSchema, Collections, Field, FieldKind, Fields, JsonValue, RecordOf, Schema, ValueOf } from './schema.ts'

// Records
export { canonicalDate, readDocument, readRecord, toPlain } from './record.ts'
export type { ReadRecord, RecordValue, Violation } from './record.ts'
export { canonicalJson } from './canonical.ts'
