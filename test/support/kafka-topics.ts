/**
 * Kafka topics as a consumer of another make would read them: folded by key, with the library's own read-committed stream.
 */
import { setTimeout as pause } from 'node:timers/promises'
import { Admin, Consumer, Producer } from '@platformatic/kafka'

export interface TopicMessage {
  readonly key: string
  readonly value: string | null
  readonly partition: number
  readonly offset: bigint
}

let groups = 0

function options(brokers: string): { clientId: string; bootstrapBrokers: string[]; retries: number; autocreateTopics: boolean } {
  return { clientId: 'test', bootstrapBrokers: [brokers], retries: 5, autocreateTopics: false }
}

/** Cuts a client's connections, whatever it is doing. */
export function ended(client: { close(force: boolean, done: () => void): void }): Promise<void> {
  return new Promise((resolve) => {
    client.close(true, resolve)
  })
}

/** Does something with an admin client. */
export async function withAdmin<T>(brokers: string, work: (admin: Admin) => Promise<T>): Promise<T> {
  const admin = new Admin(options(brokers))
  try {
    return await work(admin)
  } finally {
    await admin.close()
  }
}

/** How often, 50 ms apart, it is looked whether every transaction is decided. */
const MARKER_LOOKS = 30

/** Every committed message of a topic, up to its end; none when there is no such topic. */
export async function messages(brokers: string, topic: string): Promise<readonly TopicMessage[]> {
  const exists = await withAdmin(brokers, async (admin) => (await admin.listTopics()).includes(topic))
  if (!exists) return []
  const consumer = new Consumer({ ...options(brokers), groupId: `test-${process.pid}-${++groups}`, isolationLevel: 1, autocommit: false })
  try {
    const found: TopicMessage[] = []
    const endsAt = async (isolationLevel: number): Promise<readonly bigint[]> =>
      (await consumer.listOffsets({ topics: [topic], timestamp: -1n, isolationLevel })).get(topic) ?? []
    let ends = await endsAt(1)
    // A commit is answered before its markers are in every partition. An open transaction stays so: then what is decided has to do.
    for (let look = 0; look < MARKER_LOOKS && String(ends) !== String(await endsAt(0)); look++) {
      await pause(50)
      ends = await endsAt(1)
    }
    const starts = (await consumer.listOffsets({ topics: [topic], timestamp: -2n })).get(topic) ?? []
    const metadata = await consumer.metadata({ topics: [topic] })
    const there = metadata.topics.get(topic)
    for (const [partition, end] of ends.entries()) {
      for (let offset = starts[partition] ?? 0n; offset < end;) {
        const { responses } = await consumer.fetch({
          node: there?.partitions[partition]?.leader ?? 0,
          isolationLevel: 1,
          maxWaitTime: 100,
          minBytes: 1,
          maxBytes: 10 << 20,
          topics: [
            {
              topicId: there?.id ?? '',
              partitions: [{ partition, currentLeaderEpoch: -1, fetchOffset: offset, lastFetchedEpoch: -1, partitionMaxBytes: 10 << 20 }],
            },
          ],
        })
        const batches = responses[0]?.partitions[0]?.records ?? []
        if (batches.length === 0) break
        for (const batch of batches) {
          offset = batch.firstOffset + BigInt(batch.lastOffsetDelta) + 1n
          if ((batch.attributes & 0x20) !== 0) continue
          for (const { key, value, offsetDelta } of batch.records)
            found.push({
              key: String(key),
              value: value === null ? null : value.toString('utf8'),
              partition,
              offset: batch.firstOffset + BigInt(offsetDelta),
            })
        }
      }
    }
    return found
  } finally {
    await ended(consumer)
  }
}

/** Writes messages by hand, into the first partition. */
export async function send(
  brokers: string,
  topic: string,
  all: readonly { readonly key: string; readonly value: string | null }[],
): Promise<void> {
  if (all.length === 0) return
  const producer = new Producer(options(brokers))
  try {
    await producer.send({
      messages: all.map(({ key, value }) => ({
        topic,
        partition: 0,
        key: Buffer.from(key),
        ...(value === null ? {} : { value: Buffer.from(value) }),
      })),
    })
  } finally {
    await producer.close()
  }
}

/** The last value of every key that is not deleted. */
export async function folded(brokers: string, topic: string): Promise<ReadonlyMap<string, unknown>> {
  const rows = new Map<string, unknown>()
  for (const { key, value } of await messages(brokers, topic)) {
    if (value === null) rows.delete(key)
    else rows.set(key, JSON.parse(value))
  }
  return rows
}
