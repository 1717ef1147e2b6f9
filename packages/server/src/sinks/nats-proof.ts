/**
 * Reading a NATS bucket back: its keys in order, and what lies under each.
 */
import { canonicalJson } from '@rejoin/shared'
import { BUCKETS, bucketOf, hashText } from './digest.ts'
import type { Found, Link } from './nats-link.ts'
import { KEY_HEADER, STAMP_HEADER, keyOf } from './nats-names.ts'
import type { FoundRow, Key, SinkPlace, SinkProof } from './sink.ts'
import { compareKeys } from './sink.ts'

/** What lies in the bucket. */
export interface Listing {
  keys(limit: number, from?: Key): Promise<readonly Key[]>
  /** Every key that is not deleted, with its message. */
  rows(): AsyncIterable<{ readonly key: Key; readonly found: Found }>
}

export function createListing(
  { stream, root }: { readonly stream: string; readonly root: string },
  targets: readonly string[],
  open: () => Promise<Link>,
): Listing {
  const list = async function* (headersOnly: boolean): AsyncGenerator<{ readonly key: Key; readonly found: Found }> {
    for await (const found of (await open()).all(stream, `${root}.>`, headersOnly)) {
      const key = 'KV-Operation' in found.headers ? undefined : keyOf(root, found.subject, found.headers[KEY_HEADER], targets)
      if (key !== undefined) yield { key, found }
    }
  }
  let sorted: readonly Key[] | undefined
  return {
    keys: async (limit, from) => {
      // A bucket lists its keys as they were written: they are put in order once, for all pages behind the first.
      if (from === undefined || sorted === undefined) {
        const keys: Key[] = []
        for await (const { key } of list(true)) keys.push(key)
        sorted = keys.sort(compareKeys)
      }
      const begin = from === undefined ? 0 : behind(sorted, from)
      const page = sorted.slice(begin, begin + limit)
      if (page.length < limit) sorted = undefined
      return page
    },
    rows: () => list(false),
  }
}

/** How many keys are not behind `from`. */
function behind(keys: readonly Key[], from: Key): number {
  let [low, high] = [0, keys.length]
  while (low < high) {
    const middle = (low + high) >> 1
    const key = keys[middle]
    if (key !== undefined && compareKeys(key, from) <= 0) low = middle + 1
    else high = middle
  }
  return low
}

const PAGE = 1000

export function proofOf(listing: Listing, place: () => Promise<SinkPlace | undefined>): SinkProof {
  const hash = ({ collection, document, id }: Key, value: unknown): bigint => hashText(canonicalJson([collection, document, id, value]))
  const rowOf = ({ key, found }: { readonly key: Key; readonly found: Found }): FoundRow => ({
    key,
    hash: hash(key, valueRead(found.data)),
    // What a hand puts there has no stamp.
    stamp: Number(found.headers[STAMP_HEADER]) || 0,
  })
  return {
    hash,
    survey: async ({ strangers, breathe }) => {
      const buckets = new BigUint64Array(BUCKETS)
      let rows = 0
      for await (const each of listing.rows()) {
        const row = rowOf(each)
        if (row.stamp === 0 && !strangers) continue
        const bucket = bucketOf(row.key)
        buckets[bucket] = (buckets[bucket] ?? 0n) + row.hash
        rows += 1
        if (rows % PAGE === 0) await breathe?.()
      }
      return { place: await place(), rows, buckets }
    },
    rows: async function* (wanted, breathe) {
      const buckets = new Set(wanted)
      let page: FoundRow[] = []
      for await (const each of listing.rows()) {
        if (!buckets.has(bucketOf(each.key))) continue
        page.push(rowOf(each))
        if (page.length < PAGE) continue
        yield page
        page = []
        await breathe?.()
      }
      if (page.length > 0) yield page
    },
  }
}

function valueRead(data: Uint8Array): unknown {
  const text = new TextDecoder().decode(data)
  try {
    return JSON.parse(text)
  } catch {
    return `not JSON: ${text}`
  }
}
