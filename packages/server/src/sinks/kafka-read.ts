/**
 * Kafka's topics read back (step 8 of the path): every message up to the last, folded to what a reader of the whole topic has: keys for a refresh, hashes for a proof.
 */
import { canonicalJson } from '@rejoin/shared'
import { BUCKETS, bucketOf, hashText } from './digest.ts'
import type { Link } from './kafka-link.ts'
import type { Envelope, FoundMessage, Topic } from './kafka-messages.ts'
import { readMessage, strangerOf, structOf } from './kafka-messages.ts'
import type { Progress } from './kafka-progress.ts'
import type { Breathe, FoundRow, Key, SinkProof } from './sink.ts'
import { compareKeys } from './sink.ts'

/** How often a survey is made again because the place moved while it was made. */
const TRIES = 3
const PAGE = 2_000

const giveWay: Breathe = () => new Promise((resolve) => setImmediate(resolve))

/** Hash of what a message says of a row. */
function hashOf({ collection, document, id }: Key, value: FoundMessage['value']): bigint {
  return hashText(canonicalJson([collection, document, id, value]))
}

/** What lies in a topic: one row per key of messages. */
async function fold(link: Link, envelope: Envelope, topic: Topic): Promise<readonly FoundRow[]> {
  const rows = new Map<string, FoundRow>()
  if (!(await link.topics([topic.topic])).has(topic.topic)) return []
  await link.read(topic.topic, ({ key, value }) => {
    const text = key.toString('utf8')
    const said = value === null ? undefined : readMessage(envelope, topic, key, value)
    if (value === null || said?.value === null) rows.delete(text)
    else if (said !== undefined) rows.set(text, { key: said.key, hash: hashOf(said.key, said.value), stamp: said.stamp })
    else {
      rows.set(text, { key: strangerOf(envelope, topic, text), hash: hashText(value.toString('latin1')), stamp: 0 })
    }
  })
  return [...rows.values()]
}

/** Every key that Rejoin wrote, in order. */
export async function readKeys(link: Link, envelope: Envelope, topics: readonly Topic[]): Promise<readonly Key[]> {
  const keys: Key[] = []
  for (const topic of topics) for (const { key, stamp } of await fold(link, envelope, topic)) if (stamp > 0) keys.push(key)
  return keys.sort(compareKeys)
}

/** `dial`: a link of its own; `progress`: what the cluster says of the sink. */
export function createProof(
  dial: () => Promise<Link>,
  envelope: Envelope,
  topics: readonly Topic[],
  progress: (link: Link) => Promise<Progress | undefined>,
): SinkProof {
  const byName = new Map(topics.map((topic) => [topic.name, topic]))
  const beside = async <T>(work: (link: Link) => Promise<T>): Promise<T> => {
    const link = await dial()
    try {
      return await work(link)
    } finally {
      await link.close()
    }
  }
  const read = (link: Link): Promise<readonly (readonly FoundRow[])[]> => Promise.all(topics.map((topic) => fold(link, envelope, topic)))
  return {
    hash: (key, value) => {
      const topic = byName.get(key.collection)
      return hashOf(key, topic === undefined || envelope.type === 'plain' ? value : structOf(topic, value))
    },
    survey: ({ strangers, breathe = giveWay }) =>
      beside(async (link) => {
        for (let i = 1; ; i++) {
          const before = (await progress(link))?.place
          const found = await read(link)
          const place = (await progress(link))?.place
          // There is no snapshot over several topics: what was the same before and after is as good as one.
          if (i < TRIES && canonicalJson(before ?? null) !== canonicalJson(place ?? null)) continue
          const buckets = new BigUint64Array(BUCKETS)
          let rows = 0
          for (const { key, hash, stamp } of found.flat()) {
            if (stamp === 0 && !strangers) continue
            if (++rows % PAGE === 0) await breathe()
            buckets[bucketOf(key)] = (buckets[bucketOf(key)] ?? 0n) + hash
          }
          return { place, rows, buckets }
        }
      }),
    rows: async function* (wanted, breathe = giveWay) {
      const buckets = new Set(wanted)
      for (const rows of await beside(read)) {
        yield rows.filter(({ key }) => buckets.has(bucketOf(key)))
        await breathe()
      }
    },
  }
}
