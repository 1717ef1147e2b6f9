/**
 * The hash chain of a document's log (PROTOCOL.md §2): what makes a cursor a proof. Only the relay's log computes it.
 */
import { hash } from 'node:crypto'
import type { ChainHash, DocumentId, IncarnationId, Lineage } from '@rejoin/shared'

/** Bytes of a chain hash and of a lineage; of an incarnation. */
export const HASH_BYTES = 16
export const INCARNATION_BYTES = 16
/** Bytes before the update in what is hashed: previous hash, incarnation, lo, hi. */
export const LINK_HEAD_BYTES: number = HASH_BYTES + INCARNATION_BYTES + 8 + 8

/**
 * The lineage of a document's first life: its id gives it, so that a relay which lost its log, or was put back to before the document was made, knows the replicas of the document again and takes from them what it
 * lacks. Only delete and reset draw another.
 */
export function firstLineage(document: DocumentId): Lineage {
  return digestHex(Buffer.from(`rejoin ${document}`)) as Lineage
}

/** hash(0) of a lineage. */
export function chainStart(lineage: Lineage): ChainHash {
  return digestHex(Buffer.from(lineage, 'hex')) as ChainHash
}

/** hash(s) from hash(s − 1) and the entry s. */
export function chainNext(
  previous: ChainHash,
  entry: { readonly incarnation: IncarnationId; readonly lo: number; readonly hi: number; readonly update: Uint8Array },
): ChainHash {
  const link = Buffer.allocUnsafe(LINK_HEAD_BYTES + entry.update.length)
  link.write(previous, 0, HASH_BYTES, 'hex')
  link.write(entry.incarnation, HASH_BYTES, INCARNATION_BYTES, 'hex')
  const view = new DataView(link.buffer, link.byteOffset)
  setUint64(view, HASH_BYTES + INCARNATION_BYTES, entry.lo)
  setUint64(view, HASH_BYTES + INCARNATION_BYTES + 8, entry.hi)
  link.set(entry.update, LINK_HEAD_BYTES)
  return digestHex(link) as ChainHash
}

/** Hexadecimal digits of the first 16 bytes of the SHA-256 of `bytes`. For an entry: previous hash ‖ incarnation ‖ lo ‖ hi ‖ update, laid out in one piece. */
function digestHex(bytes: Uint8Array): string {
  return hash('sha256', bytes, 'hex').slice(0, 2 * HASH_BYTES)
}

/** Puts the first 16 bytes of the SHA-256 of `bytes` into `to`. By way of a string: a buffer from `hash` costs three times what hashing does. */
export function digestInto(to: Buffer, bytes: Uint8Array): void {
  to.write(hash('sha256', bytes, 'binary'), 0, HASH_BYTES, 'latin1')
}

/** Writes a whole number below 2^53 as u64be. Two 32-bit halves: a BigInt costs an allocation. */
export function setUint64(view: DataView, offset: number, value: number): void {
  view.setUint32(offset, Math.floor(value / 0x1_0000_0000))
  view.setUint32(offset + 4, value >>> 0)
}
