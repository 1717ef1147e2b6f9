/**
 * The Kafka sink under the conformance kit.
 */
import type { RecordValue, Schema } from '@rejoin/shared'
import { CONFORMANCE_SCHEMA } from '@rejoin/server/testing'
import type { Conformance, Destination, StoredRow } from '@rejoin/server/testing'
import { kafka, openSink } from '@rejoin/server/sinks/kafka'
import type { OpenSubject } from '../support/conformance.ts'
import { folded, messages, send, withAdmin } from '../support/kafka-topics.ts'
import type { TopicMessage } from '../support/kafka-topics.ts'
import { startKafka } from '../support/servers/kafka.ts'
import { until } from '../support/until.ts'

/** Cases that do not apply, and why. */
export const EXEMPT: Readonly<Record<string, string>> = {
  'any order': 'a topic holds what came last',
  'partial bulk failure': 'a topic takes any text',
  'poison row': 'a topic takes any text',
  'unique index in the way': 'a topic has no unique fields',
  'two rows swap unique values': 'a topic has no unique fields',
}

/** Starts a Kafka of its own, or uses the one at `url`, in topics of its own. */
export const open: OpenSubject = async (given) => {
  const server = given === undefined ? await startKafka() : undefined
  const brokers = given ?? server?.url ?? ''
  const restart =
    server === undefined
      ? undefined
      : async (): Promise<void> => {
          await server.kill()
          await server.restart()
        }
  const under: Conformance = {
    name: 'kafka',
    traits: { transactional: true, strategies: ['state', 'actions'], readable: true },
    powers: { fence: true, guard: 'a topic holds what came last, and only the last forwarder can write', identity: true, cursor: true },
    mechanism: 'messages and place in one transaction of an id that the last forwarder holds; the place is read back when it begins',
    destination: async () => destinationIn(brokers, restart),
  }
  const close = async (): Promise<void> => {
    await server?.kill()
    await server?.stop()
  }
  return { under, server: `Kafka ${given === undefined ? '4.1.1' : ''}`.trim(), close }
}

/** Rows of the schema's topics, as a reader of the whole has them. */
export async function rowsIn(brokers: string, prefix: string, schema: Schema): Promise<readonly StoredRow[]> {
  const all: StoredRow[] = []
  for (const [collection, { fields }] of Object.entries(schema.collections)) {
    for (const said of (await folded(brokers, `${prefix}.${collection}`)).values()) {
      const { document, record, value } = said as { document: StoredRow['key']['document']; record: string; value: RecordValue | null }
      if (value === null) continue
      all.push({
        key: { collection, document, id: record },
        value: Object.fromEntries(Object.keys(fields).map((field) => [field, value[field] ?? null])),
      })
    }
  }
  return all
}

let made = 0

function destinationIn(brokers: string, restart: (() => Promise<void>) | undefined): Destination {
  const prefix = `rejoin-conformance-${process.pid}-${++made}`
  const topics = async (): Promise<readonly string[]> =>
    withAdmin(brokers, async (admin) => (await admin.listTopics()).filter((topic) => topic.startsWith(`${prefix}.`)))
  const remove = async (names: readonly string[]): Promise<void> => {
    // A forwarder that runs meanwhile may have made some anew.
    if (names.length > 0) await withAdmin(brokers, (admin) => admin.deleteTopics({ topics: [...names] })).catch(() => undefined)
  }
  return {
    open: (context) => openSink(kafka({ brokers, topic: `${prefix}.{collection}`, progressTopic: `${prefix}.progress` }).options, context),
    rows: () => rowsIn(brokers, prefix, CONFORMANCE_SCHEMA),
    wipe: async () => remove(await topics()),
    drop: (target) => remove([`${prefix}.${target}`]),
    backup: async () => {
      const copies: (readonly [string, readonly TopicMessage[]])[] = []
      for (const topic of await topics()) copies.push([topic, await messages(brokers, topic)])
      return async () => {
        for (const [topic, copy] of copies) {
          const configs = [{ name: 'cleanup.policy', value: 'compact' }]
          await until(async () => {
            await remove([topic])
            return withAdmin(brokers, (admin) => admin.createTopics({ topics: [topic], partitions: 1, replicas: 1, configs })).then(
              () => true,
              () => false,
            )
          }, `${topic} to be put back`)
          await send(brokers, topic, copy)
        }
      }
    },
    ...(restart === undefined ? {} : { restart }),
    tamper: async ({ collection, document, id }, field, value) => {
      const topic = `${prefix}.${collection}`
      const key = `${encodeURIComponent(document)}/${encodeURIComponent(id)}`
      const said = (await folded(brokers, topic)).get(key) as { value: RecordValue }
      await send(brokers, topic, [{ key, value: JSON.stringify({ ...said, value: { ...said.value, [field]: value } }) }])
    },
    absent: {
      poison: 'a topic takes any text',
      unique: 'a topic has no unique fields',
      ...(restart === undefined ? { restart: 'the server is not ours' } : {}),
    },
    close: async () => remove(await topics()),
  }
}
