/**
 * The hash chain of a document's log (PROTOCOL.md §2): what makes a cursor a proof. Only the relay's log computes it.
 */
import { hash } from 'node:crypto'
import type { ChainHash, DocumentId, IncarnationId, Lineage } from '@rejoin/shared'
import { fromHex, toHex } from '@rejoin/shared'

/** Bytes of a chain hash, an incarnation and a lineage. */
export const HASH_BYTES = 16
/** Bytes before the update in what is hashed: previous hash, incarnation, lo, hi. */
export const LINK_HEAD_BYTES: number = HASH_BYTES + 16 + 8 + 8

/**
 * The lineage of a document's first life: its id gives it, so that a relay which lost its log, or was put back to before the document was made, knows the replicas of the document again and takes from them what it
 * lacks. Only delete and reset draw another.
 */
export function firstLineage(document: DocumentId): Lineage {
  return toHex(digest(Buffer.from(`rejoin ${document}`))) as Lineage
}

/** hash(0) of a lineage. */
export function chainStart(lineage: Lineage): ChainHash {
  return toHex(digest(fromHex(lineage))) as ChainHash
}

/** hash(s) from hash(s − 1) and the entry s. */
export function chainNext(
  previous: ChainHash,
  entry: { readonly incarnation: IncarnationId; readonly lo: number; readonly hi: number; readonly update: Uint8Array },
): ChainHash {
  const link = new Uint8Array(LINK_HEAD_BYTES + entry.update.length)
  link.set(fromHex(previous), 0)
  link.set(fromHex(entry.incarnation), HASH_BYTES)
  const view = new DataView(link.buffer)
  setUint64(view, 32, entry.lo)
  setUint64(view, 40, entry.hi)
  link.set(entry.update, LINK_HEAD_BYTES)
  return toHex(digest(link)) as ChainHash
}

/** The first 16 bytes of the SHA-256 of `bytes`. For an entry: previous hash ‖ incarnation ‖ lo ‖ hi ‖ update, laid out in one piece. */
export function digest(bytes: Uint8Array): Uint8Array {
  return hash('sha256', bytes, 'buffer').subarray(0, HASH_BYTES)
}

/** Writes a whole number below 2^53 as u64be. Two 32-bit halves: a BigInt costs an allocation. */
export function setUint64(view: DataView, offset: number, value: number): void {
  view.setUint32(offset, Math.floor(value / 0x1_0000_0000))
  view.setUint32(offset + 4, value >>> 0)
}
