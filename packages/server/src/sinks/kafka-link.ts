/**
 * The way to a Kafka cluster (step 8 of the path): topics looked at and made, a transactional producer, and a reader that decides by itself which transactions count.
 */
import { SyncError } from '@rejoin/shared'
import type * as Kafka from '@platformatic/kafka'

/** Where the cluster is, and who we are there. Plain data. */
export interface KafkaAddress {
  readonly brokers: readonly string[]
  readonly tls: boolean
  readonly sasl:
    | { readonly mechanism: 'PLAIN' | 'SCRAM-SHA-256' | 'SCRAM-SHA-512'; readonly username: string; readonly password: string }
    | undefined
  /** Of requests and of a transaction, in ms. */
  readonly timeout: number
}

/** One message to send; null: the key's tombstone. */
export interface Outgoing {
  readonly topic: string
  readonly partition: number
  readonly key: Buffer
  readonly value: Buffer | null
}

/** One message that lies there. */
export interface Stored {
  readonly key: Buffer
  readonly value: Buffer | null
}

/** What there is of a topic. */
export interface TopicState {
  /** Another one when it was deleted and made again. */
  readonly id: string
  readonly partitions: number
}

/** A transaction's beginning takes the fence of its id: whoever had it before can write no more. */
export interface Writer {
  /** All of it becomes visible together, or nothing. After an error the writer is of no use. */
  write(messages: readonly Outgoing[]): Promise<void>
  close(): Promise<void>
}

export interface Link {
  /** Topics that exist. */
  topics(names: readonly string[]): Promise<ReadonlyMap<string, TopicState>>
  configs(topic: string): Promise<Readonly<Record<string, string>>>
  create(topic: string, partitions: number, configs: Readonly<Record<string, string>>): Promise<void>
  remove(topics: readonly string[]): Promise<void>
  /** Takes the fence of this id. */
  writer(transactionalId: string): Promise<Writer>
  /** Every message of committed transactions, in order per partition, up to what is there now, from an offset on. */
  read(topic: string, each: (message: Stored) => void, from?: bigint): Promise<void>
  /** Where the first partition of a topic ends, and up to where all transactions are decided. */
  ends(topic: string): Promise<{ readonly end: bigint; readonly decided: bigint }>
  close(): Promise<void>
}

/** Of one request to produce; a batch must stay below what a topic takes. */
const SEND_BYTES = 256 << 10
const SEND_MESSAGES = 1_000
const FETCH_BYTES = 4 << 20
/** Fetches in a row that bring nothing. */
const EMPTY_FETCHES = 50
const RETRIES = 8
const RETRY_MS = 100

export async function connect(address: KafkaAddress, clientId: string): Promise<Link> {
  const kafka = await driver()
  const base = {
    clientId: clientId.replaceAll(/[^\w.-]/gu, '_'),
    bootstrapBrokers: [...address.brokers],
    retries: RETRIES,
    retryDelay: RETRY_MS,
    connectTimeout: 10_000,
    autocreateTopics: false,
    ...(address.tls ? { tls: {} } : {}),
    ...(address.sasl === undefined ? {} : { sasl: { ...address.sasl } }),
  }
  const masked = async <T>(work: Promise<T>): Promise<T> => {
    try {
      return await work
    } catch (error) {
      throw plain(error, address)
    }
  }
  const admin = new kafka.Admin(base)
  const consumer = new kafka.Consumer({ ...base, groupId: base.clientId, autocommit: false })
  const topics = async (names: readonly string[]): Promise<ReadonlyMap<string, TopicState>> => {
    const there = new Set(await masked(admin.listTopics()))
    const found = new Map<string, TopicState>()
    for (const name of names) {
      const state = there.has(name) ? await masked(stateOf(admin, name)) : undefined
      if (state !== undefined) found.set(name, { id: state.id, partitions: state.partitionsCount })
    }
    return found
  }
  return {
    topics,
    configs: async (topic) => {
      const resources = [{ resourceType: kafka.ConfigResourceTypes.TOPIC, resourceName: topic }]
      const [found] = await masked(admin.describeConfigs({ resources }))
      return Object.fromEntries((found?.configs ?? []).map(({ name, value }) => [name, value ?? '']))
    },
    create: async (topic, partitions, configs) => {
      await masked(
        admin.createTopics({
          topics: [topic],
          partitions,
          replicas: -1,
          configs: Object.entries(configs).map(([name, value]) => ({ name, value })),
        }),
      )
    },
    remove: async (names) => {
      await masked(admin.deleteTopics({ topics: [...names] }))
    },
    writer: (transactionalId) =>
      masked(openWriter(kafka, { ...base, timeout: address.timeout, transactionalId, idempotent: true, acks: -1 }, masked)),
    read: (topic, each, from = 0n) => masked(readAll(consumer, topic, each, from)),
    ends: async (topic) => {
      const at = async (isolationLevel: number): Promise<bigint> =>
        (await masked(consumer.listOffsets({ topics: [topic], timestamp: -1n, isolationLevel }))).get(topic)?.[0] ?? 0n
      const [decided, end] = [await at(1), await at(0)]
      return { end, decided }
    },
    close: async () => {
      await Promise.allSettled([admin.close(), ended(consumer)])
    },
  }
}

/** What the cluster says of a topic; undefined for one that is not there, or not any more. */
async function stateOf(client: Pick<Kafka.Admin, 'metadata'>, topic: string): Promise<Kafka.ClusterTopicMetadata | undefined> {
  try {
    return (await client.metadata({ topics: [topic], forceUpdate: true, autocreateTopics: false })).topics.get(topic)
  } catch (error) {
    // The driver has a word of its own for it, and no code.
    if (meaningOf(error) === 'gone' || wordsOf(error).some((words) => words.startsWith('Unknown topic'))) return undefined
    throw error
  }
}

/** Cuts its connections, whatever it is doing. */
function ended(client: { close(force: boolean, done: () => void): void }): Promise<void> {
  return new Promise((resolve) => {
    client.close(true, resolve)
  })
}

type ProducerOptions = ConstructorParameters<typeof Kafka.Producer>[0]
type Masked = <T>(work: Promise<T>) => Promise<T>

async function openWriter(kafka: typeof Kafka, options: ProducerOptions, masked: Masked): Promise<Writer> {
  const producer = new kafka.Producer(options)
  // Without these the second producer of an id is told that transactions run at the same time, then that it is fenced, for ever.
  const begin = (): ReturnType<typeof producer.beginTransaction> => producer.beginTransaction({ producerId: -1n, producerEpoch: -1 })
  const close = (): Promise<void> => ended(producer)
  try {
    // Nothing is open at the cluster until the first message: this takes the fence only.
    let transaction: Awaited<ReturnType<typeof begin>> | undefined = await begin()
    return {
      write: async (messages) => {
        const current = transaction ?? (await masked(begin()))
        transaction = undefined
        for (const part of partsOf(messages)) {
          await masked(
            current.send({
              messages: part.map(({ topic, partition, key, value }) => ({ topic, partition, key, ...(value === null ? {} : { value }) })),
            }),
          )
        }
        await masked(current.commit())
      },
      close,
    }
  } catch (error) {
    await close()
    throw error
  }
}

function* partsOf(messages: readonly Outgoing[]): Generator<readonly Outgoing[]> {
  let part: Outgoing[] = []
  let bytes = 0
  for (const message of messages) {
    const size = message.key.length + (message.value?.length ?? 0)
    if (part.length > 0 && (part.length === SEND_MESSAGES || bytes + size > SEND_BYTES)) {
      yield part
      part = []
      bytes = 0
    }
    part.push(message)
    bytes += size
  }
  if (part.length > 0) yield part
}

/** Bits of a batch's attributes. */
const TRANSACTIONAL = 0x10
const CONTROL = 0x20
/** Type of a control record that ends a transaction for good. */
const COMMIT = 1

/** How long the broker may wait for something to give, in ms, and how often that is waited for the marker of a transaction: 2 s, as somebody else's transaction may hang. */
const FETCH_WAIT_MS = 100
const MARKER_WAITS = 20

async function readAll(consumer: Kafka.Consumer, topic: string, each: (message: Stored) => void, from: bigint): Promise<void> {
  const found = await stateOf(consumer, topic)
  if (found === undefined) return
  // Up to the last message, decided or not: a transaction of somebody else that hangs must not hide ours behind it.
  const ends = await consumer.listOffsets({ topics: [topic], timestamp: -1n, isolationLevel: 0 })
  const starts = await consumer.listOffsets({ topics: [topic], timestamp: -2n, isolationLevel: 0 })
  for (let partition = 0; partition < found.partitionsCount; partition++) {
    const end = ends.get(topic)?.[partition] ?? 0n
    const start = starts.get(topic)?.[partition] ?? 0n
    let offset = start > from ? start : from
    /** What was sent in transactions that are not decided yet, by producer. */
    const open = new Map<bigint, Stored[]>()
    // A commit is answered before its markers are in every partition: a little later they are.
    const isUndecided = (): boolean => [...open.values()].some(({ length }) => length > 0)
    for (let [empty, waits] = [0, 0]; offset < end || (isUndecided() && waits < MARKER_WAITS);) {
      if (offset >= end) waits++
      const { responses } = await consumer.fetch({
        node: found.partitions[partition]?.leader ?? 0,
        isolationLevel: 0,
        minBytes: 1,
        maxBytes: FETCH_BYTES,
        maxWaitTime: FETCH_WAIT_MS,
        topics: [
          {
            topicId: found.id,
            partitions: [{ partition, currentLeaderEpoch: -1, fetchOffset: offset, lastFetchedEpoch: -1, partitionMaxBytes: FETCH_BYTES }],
          },
        ],
      })
      const batches = responses[0]?.partitions[0]?.records ?? []
      const before = offset
      for (const batch of batches) {
        take(batch, offset, open, each)
        const next = batch.firstOffset + BigInt(batch.lastOffsetDelta) + 1n
        if (next > offset) offset = next
      }
      empty = offset > before ? 0 : empty + 1
      if (empty > EMPTY_FETCHES && offset < end)
        throw new SyncError('overloaded', `${topic}/${partition} gives nothing at ${offset}, and should until ${end}`)
    }
  }
}

function take(batch: Kafka.RecordsBatch, from: bigint, open: Map<bigint, Stored[]>, each: (message: Stored) => void): void {
  const { attributes, producerId, records, firstOffset } = batch
  if ((attributes & CONTROL) !== 0) {
    const isCommit = records.some(({ key }) => key !== null && key.length >= 4 && key.readInt16BE(2) === COMMIT)
    if (isCommit) for (const message of open.get(producerId) ?? []) each(message)
    open.delete(producerId)
    return
  }
  const held = open.get(producerId) ?? []
  if ((attributes & TRANSACTIONAL) !== 0) open.set(producerId, held)
  for (const { key, value, offsetDelta } of records) {
    if (firstOffset + BigInt(offsetDelta) < from) continue
    const message = { key: key ?? Buffer.alloc(0), value: value ?? null }
    if ((attributes & TRANSACTIONAL) === 0) each(message)
    else held.push(message)
  }
}

const FENCED: readonly string[] = [
  'PRODUCER_FENCED',
  'INVALID_PRODUCER_EPOCH',
  'INVALID_TXN_STATE',
  'INVALID_PRODUCER_ID_MAPPING',
  'TRANSACTION_COORDINATOR_FENCED',
]
const GONE: readonly string[] = ['UNKNOWN_TOPIC_OR_PARTITION', 'UNKNOWN_TOPIC_ID', 'INCONSISTENT_TOPIC_ID']

/** What an error says: somebody else may have the fence, a topic is gone, or anything else. */
export function meaningOf(error: unknown): 'fenced' | 'gone' | 'other' {
  const ids = idsOf(error)
  if (ids.some((id) => FENCED.includes(id))) return 'fenced'
  return ids.some((id) => GONE.includes(id)) ? 'gone' : 'other'
}

/** Names of Kafka's errors in an error and all it holds. */
function idsOf(error: unknown, depth = 0): readonly string[] {
  if (typeof error !== 'object' || error === null || depth > 8) return []
  const { apiId, cause, errors } = error as { apiId?: unknown; cause?: unknown; errors?: unknown }
  const inner = [cause, ...(Array.isArray(errors) ? (errors as unknown[]) : [])].flatMap((each) => idsOf(each, depth + 1))
  return typeof apiId === 'string' ? [apiId, ...inner] : inner
}

/** The deepest words, without what the driver hangs on its errors: options hold the password. */
function plain(error: unknown, { sasl, brokers }: KafkaAddress): Error {
  if (error instanceof SyncError) return error
  const words = [...new Set(wordsOf(error))].join('; ')
  const clean = sasl === undefined ? words : words.replaceAll(sasl.password, '•••')
  const told = new Error(`${brokers.join(',')}: ${clean}`)
  const ids = idsOf(error)
  return ids.length === 0 ? told : Object.assign(told, { errors: ids.map((apiId) => ({ apiId })) })
}

function wordsOf(error: unknown, depth = 0): readonly string[] {
  if (typeof error !== 'object' || error === null || depth > 8) return [String(error)]
  const { message, cause, errors } = error as { message?: unknown; cause?: unknown; errors?: unknown }
  const inner = [cause, ...(Array.isArray(errors) ? (errors as unknown[]) : [])]
    .filter((each) => each !== undefined)
    .flatMap((each) => wordsOf(each, depth + 1))
  return inner.length > 0 ? inner : [String(message)]
}

/** Loaded when a sink is opened: whoever has no Kafka need not have the driver. */
async function driver(): Promise<typeof Kafka> {
  try {
    return await import('@platformatic/kafka')
  } catch (cause) {
    throw new SyncError('bad_option', 'kafka(): its driver is not installed; run npm install @platformatic/kafka@1', { cause })
  }
}
