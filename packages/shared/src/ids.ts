/**
 * The identifiers both ends use, branded so that one cannot be passed for another. They are made and parsed here only.
 */
import { SyncError } from './errors.ts'

declare const brand: unique symbol
type Brand<T, Name extends string> = T & { readonly [brand]: Name }

/** Names a document: 1 to 256 bytes of UTF-8, no control characters, not `.` or `..`. */
export type DocumentId = Brand<string, 'DocumentId'>
/** One open Y.Doc in one tab or process: 32 lower-case hexadecimal digits (16 random bytes). Never resumed. */
export type IncarnationId = Brand<string, 'IncarnationId'>
/** One life of a document, changed by delete and reset: 32 lower-case hexadecimal digits. */
export type Lineage = Brand<string, 'Lineage'>
/** The chain hash at a seq: 32 lower-case hexadecimal digits (16 bytes of SHA-256). Computed by the relay only. */
export type ChainHash = Brand<string, 'ChainHash'>
/** An entry's gap-free place in its document's log, from 1; 0 is the empty log. */
export type Seq = Brand<number, 'Seq'>
/** An entry's gap-free place in its partition, from 1. */
export type Position = Brand<number, 'Position'>

/** How far a reader of one document's log has come, and the proof of it. */
export interface Cursor {
  readonly lineage: Lineage
  readonly epoch: number
  readonly seq: Seq
  readonly hash: ChainHash
}

/** The longest document id, in bytes of UTF-8. */
export const MAX_DOCUMENT_ID_BYTES = 256

const utf8 = new TextEncoder()
// oxlint-disable-next-line no-control-regex -- control characters are what it looks for
const CONTROL = /[\u0000-\u001f\u007f-\u009f]/u
const HEX_16 = /^[0-9a-f]{32}$/u

/** Why `value` is not a document id, or undefined when it is one. */
export function documentIdProblem(value: unknown): string | undefined {
  if (typeof value !== 'string') return `a document id is a string, not ${value === null ? 'null' : typeof value}`
  if (value === '') return 'a document id is not empty'
  if (value === '.' || value === '..') return `a document id is not "${value}": it stands in URLs`
  if (!value.isWellFormed()) return 'a document id is well-formed Unicode; this one has a lone surrogate'
  if (CONTROL.test(value)) return 'a document id has no control characters'
  const bytes = utf8.encode(value).length
  if (bytes > MAX_DOCUMENT_ID_BYTES) return `a document id is at most ${MAX_DOCUMENT_ID_BYTES} bytes, this one is ${bytes}`
  return undefined
}

/** Parses a document id. Throws `SyncError('bad_document')` that says what is wrong. */
export function parseDocumentId(value: unknown): DocumentId {
  const problem = documentIdProblem(value)
  if (problem !== undefined) throw new SyncError('bad_document', problem)
  return value as DocumentId
}

/** Whether `value` is 32 lower-case hexadecimal digits: an incarnation, a lineage or a hash. */
export function isHex16(value: unknown): value is string {
  return typeof value === 'string' && HEX_16.test(value)
}

/** Lower-case hexadecimal digits of `bytes`. */
export function toHex(bytes: Uint8Array): string {
  let text = ''
  for (const byte of bytes) text += HEX[byte]
  return text
}

/** The bytes of an even number of hexadecimal digits. The caller has checked them (`isHex16`). */
export function fromHex(text: string): Uint8Array {
  const bytes = new Uint8Array(text.length >> 1)
  for (let i = 0; i < bytes.length; i++) bytes[i] = Number.parseInt(text.slice(i * 2, i * 2 + 2), 16)
  return bytes
}

const HEX: readonly string[] = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0'))

/** Fills an array with random bytes: `crypto.getRandomValues`, or a seeded stand-in in tests. */
export type RandomBytes = (length: number) => Uint8Array

/** The platform's cryptographic randomness. */
export const cryptoRandom: RandomBytes = (length) => crypto.getRandomValues(new Uint8Array(length))

/** A fresh incarnation id. */
export function newIncarnationId(random: RandomBytes = cryptoRandom): IncarnationId {
  return toHex(random(16)) as IncarnationId
}

/** A fresh lineage, for a document that was deleted or reset. Its first life has the lineage that its id gives: a relay that lost its log, or was put back to before the document, knows its replicas again. */
export function newLineage(random: RandomBytes = cryptoRandom): Lineage {
  return toHex(random(16)) as Lineage
}
