/**
 * Digests of a destination (step 8 of the path): every key falls into one of `BUCKETS`, a bucket's digest is the sum of its rows' hashes modulo 2^64, so that a change costs a difference and a mistake is found by halving.
 * Hashes come from md5 because every database has it; nobody is kept from forging rows of their own database by a better one.
 */
import { hash as digest } from 'node:crypto'
import type { Key } from '../view/view.ts'

export const BUCKETS = 1024

/** Text between the parts of a key, in the bucket's hash. */
export const KEY_SEPARATOR = '\u001f'

/** The first ten bits of md5(collection ␟ document ␟ id). */
export function bucketOf({ collection, document, id }: Key): number {
  return Number.parseInt(digest('md5', [collection, document, id].join(KEY_SEPARATOR), 'hex').slice(0, 3), 16) >> 2
}

/** The first 64 bits of the text's md5. */
export function hashText(text: string): bigint {
  return BigInt(`0x${digest('md5', text, 'hex').slice(0, 16)}`)
}
