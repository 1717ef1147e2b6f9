/**
 * Checksums of the log's rows (under step 5 of the path): bytes that a disk gives back changed are noticed and never served.
 */
import { crc32 } from 'node:zlib'

/** What an entry's checksum covers. `link` is incarnation ‖ lo:u64be ‖ hi:u64be, 32 bytes. */
export interface CheckedEntry {
  readonly position: number
  readonly document: number
  readonly seq: number
  readonly epoch: number
  readonly at: number
  readonly hash: Uint8Array
  readonly link: Uint8Array
  readonly actor: string
  readonly update: Uint8Array
}

/** The numbers of an entry as its checksum covers them, before everything else: position, document, seq, epoch, at. */
export const NUMBERS_BYTES: number = 5 * 8
const ENTRY_HEAD_BYTES = NUMBERS_BYTES + 16 + 32
const scratch = new Uint8Array(ENTRY_HEAD_BYTES)
const numbers = new DataView(scratch.buffer)

/** CRC-32 over every field of an entry. */
export function entryChecksum({ position, document, seq, epoch, at, hash, link, actor, update }: CheckedEntry): number {
  numbers.setFloat64(0, position)
  numbers.setFloat64(8, document)
  numbers.setFloat64(16, seq)
  numbers.setFloat64(24, epoch)
  numbers.setFloat64(32, at)
  scratch.set(hash, 40)
  scratch.set(link, 56)
  return crcOf(update, crc32(scratch, actorChecksum(actor)))
}

/** The checksum of an entry laid out in one piece: room for its numbers, which are written here ‖ hash ‖ link ‖ update. */
export function sealEntry(
  entry: Buffer,
  { position, document, seq, epoch, at, actor }: Omit<CheckedEntry, 'hash' | 'link' | 'update'>,
): number {
  entry.writeDoubleBE(position, 0)
  entry.writeDoubleBE(document, 8)
  entry.writeDoubleBE(seq, 16)
  entry.writeDoubleBE(epoch, 24)
  entry.writeDoubleBE(at, 32)
  return crc32(entry, actorChecksum(actor))
}

const row = Buffer.alloc(4_096)
/** Text of more characters than this, and more bytes, are not copied. */
const COPIED = 300

/** CRC-32 over the fields of a smaller row, given in the order of its columns. Text and bytes are framed by their length. */
export function rowChecksum(...fields: readonly (number | string | Uint8Array)[]): number {
  let sum = 0
  let at = 0
  for (const field of fields) {
    at = row.writeDoubleLE(typeof field === 'number' ? field : field.length, at)
    if (typeof field === 'number') continue
    if (field.length > COPIED) {
      // One call into zlib costs more than copying a row's small fields together.
      sum = crcOf(field, crc32(row.subarray(0, at), sum))
      at = 0
    } else if (typeof field === 'string') {
      at += row.write(field, at)
    } else {
      row.set(field, at)
      at += field.length
    }
  }
  return at === 0 ? sum : crc32(row.subarray(0, at), sum)
}

/** zlib begins anew when it is given no bytes at a null pointer, as SQLite's empty blobs have. */
function crcOf(bytes: Uint8Array | string, sum: number): number {
  return bytes.length === 0 ? sum : crc32(bytes, sum)
}

let lastActor = ''
let lastActorSum = 0

/** Entries of one actor come in runs. */
function actorChecksum(actor: string): number {
  if (actor !== lastActor) {
    lastActor = actor
    lastActorSum = crcOf(actor, 0)
  }
  return lastActorSum
}
