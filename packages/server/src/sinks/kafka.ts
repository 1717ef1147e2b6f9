/**
 * Topics in Kafka (step 8 of the path): messages and progress in one transaction, which only the forwarder that began last can make.
 */
import { SyncError, canonicalJson } from '@rejoin/shared'
import type { KafkaAddress, Link, TopicState, Writer } from './kafka-link.ts'
import { connect, meaningOf } from './kafka-link.ts'
import type { Envelope, Topic } from './kafka-messages.ts'
import { messagesOf, sizeOf } from './kafka-messages.ts'
import type { Progress } from './kafka-progress.ts'
import { PROGRESS_CONFIGS, parkedMessage, progressMessage, readNotebook } from './kafka-progress.ts'
import { createProof, readKeys } from './kafka-read.ts'
import type { Settings } from './kafka-settings.ts'
import { parse, topicsOf } from './kafka-settings.ts'
import type { Key, OpenSink, Parked, Sink, SinkCommit, SinkContext, SinkOutcome, SinkSpec, SinkTraits } from './sink.ts'
import { compareKeys, isSamePlace, keyText } from './sink.ts'
import type { ForwardOptions } from './spec.ts'
import { sinkSpec } from './spec.ts'

const TRAITS: SinkTraits = { transactional: true, strategies: ['state', 'actions'], readable: true }
const NAMES = ['brokers', 'topic', 'envelope', 'schemas', 'partitions', 'progressTopic', 'tls', 'sasl', 'timeout']

/** Where the brokers are, and what stands in which topic. Checked by `kafka()`, before anything connects; topics that are missing are made. */
export interface KafkaOptions extends ForwardOptions {
  /** `host:port` of some of the brokers. */
  readonly brokers: string | readonly string[]
  /** `{collection}` stands for the target's name. @default '{collection}' */
  readonly topic?: string | undefined
  /** 'plain': our own JSON. 'debezium': what Debezium's consumers read. @default 'plain' */
  readonly envelope?: 'plain' | 'debezium' | undefined
  /** debezium: each message carries its schemas. @default true */
  readonly schemas?: boolean | undefined
  /** Of a topic that is made. @default 1 */
  readonly partitions?: number | undefined
  /** A compacted topic where sinks keep their place. @default 'rejoin-progress' */
  readonly progressTopic?: string | undefined
  /** Connections are TLS; the brokers' certificates are checked against the authorities that Node trusts. @default false */
  readonly tls?: boolean | undefined
  /** Who we are: `{ mechanism, username, password }`, mechanism 'PLAIN' (sends the password as it is: with `tls`), 'SCRAM-SHA-256' or 'SCRAM-SHA-512'. @default none */
  readonly sasl?: KafkaAddress['sasl']
  /** Of a request and of a transaction, in seconds, at least 60. @default 60 */
  readonly timeout?: number | undefined
}

/** Topics to publish to: `sinks: { stream: kafka({ brokers: 'localhost:9092', topic: 'clinic.{collection}' }) }`. Throws `SyncError('bad_option')`. */
export function kafka(options: KafkaOptions): SinkSpec {
  const own: Record<string, unknown> = Object.fromEntries(NAMES.map((name) => [name, options[name as keyof KafkaOptions]]))
  parse(own)
  return sinkSpec('kafka', import.meta.url, TRAITS, { ...options }, { options: own, names: NAMES })
}

/** Opens the sink, in the worker. It connects when it begins. */
export const openSink: OpenSink = async (options, context) => createSink(parse(options), context)

/** While it is ours. */
interface Open {
  readonly link: Link
  readonly writer: Writer
  progress: Progress
  readonly parked: Map<string, Parked>
  readonly topics: ReadonlyMap<string, TopicState>
  /** Topic → bytes that one message may have. */
  readonly limits: ReadonlyMap<string, number>
  /** Of a refresh: what lay there when it began. */
  keys: readonly Key[] | undefined
  /** Up to here the progress topic was looked at: there is no other's fence. */
  seen: bigint
  /** The producer was given up; what the next commit is told. */
  ended: 'fenced' | 'lost' | 'failed' | undefined
}

function createSink(settings: Settings, context: SinkContext): Sink {
  const { name, forward } = context
  const { progressTopic } = settings
  const state = forward.strategy === 'state'
  const topics = topicsOf(settings, context)
  const envelope: Envelope = {
    type: settings.type,
    schemas: settings.schemas,
    tombstones: state || settings.type === 'debezium',
    sink: name,
  }
  const all = [progressTopic, ...topics.map(({ topic }) => topic)]
  const dial = (): Promise<Link> => connect(settings.address, `rejoin-${name}`)
  let open: Open | undefined

  const close = async (): Promise<void> => {
    const closing = open
    open = undefined
    await closing?.writer.close()
    await closing?.link.close()
  }
  const beside = async <T>(work: (link: Link) => Promise<T>): Promise<T> => {
    const link = await dial()
    try {
      return await work(link)
    } finally {
      await link.close()
    }
  }
  const progressIn = async (link: Link): Promise<Progress | undefined> =>
    (await link.topics([progressTopic])).size === 0 ? undefined : (await readNotebook(link, progressTopic, name)).progress
  return {
    begin: async () => {
      await close()
      const link = await dial()
      try {
        open = await begin(link, settings, { context, topics, progressIn })
      } catch (error) {
        await link.close()
        throw error
      }
      const { progress, parked } = open
      return { place: progress.place, stamp: progress.stamp, parked: [...parked.values()] }
    },
    commit: async (commit) => {
      if (open === undefined) throw new SyncError('closed', `sink ${name}: the connection is not open`)
      const current = open
      if (current.ended === 'failed') throw new SyncError('closed', `sink ${name}: its producer was given up after an error`)
      if (current.ended !== undefined) return { type: current.ended }
      if (!isSamePlace(current.progress.place, commit.from)) return { type: 'lost' }
      const there = await current.link.topics(all)
      if (all.some((topic) => there.get(topic)?.id !== current.topics.get(topic)?.id)) return { type: 'lost' }
      if (commit.rows.length === 0 && isSamePlace(commit.from, commit.to)) return check(current, progressTopic, name)
      try {
        return await write(current, commit, { name, envelope, topics, progressTopic })
      } catch (error) {
        // Whatever happened to the transaction, the next one to begin ends it; this producer is of no more use.
        await current.writer.close()
        current.ended = 'failed'
        const meaning = meaningOf(error)
        if (meaning === 'other') throw error
        const now = meaning === 'gone' ? undefined : await progressIn(current.link)
        // Without another's fence it was the cluster that ended the transaction, because it took too long.
        if (now !== undefined && now.fence <= current.progress.fence) throw error
        current.ended = now === undefined ? 'lost' : 'fenced'
        return { type: current.ended }
      }
    },
    keys: async (limit, from) => {
      if (open === undefined) throw new SyncError('closed', `sink ${name}: the connection is not open`)
      open.keys ??= await readKeys(open.link, envelope, topics)
      const found = from === undefined ? open.keys : open.keys.filter((key) => compareKeys(key, from) > 0)
      return found.slice(0, limit)
    },
    proof: createProof(dial, envelope, topics, progressIn),
    plan: () => beside((link) => plan(link, settings, topics, state)),
    drop: async () => {
      await close()
      await beside(async (link) => {
        const there = await link.topics(all)
        const gone = topics.map(({ topic }) => topic).filter((topic) => there.has(topic))
        if (gone.length > 0) await link.remove(gone)
        if (!there.has(progressTopic)) return
        const { parked } = await readNotebook(link, progressTopic, name)
        const writer = await link.writer(transactionalId(settings, name))
        try {
          await writer.write([
            progressMessage(progressTopic, name, null),
            ...parked.map(({ key }) => parkedMessage(progressTopic, name, key, null)),
          ])
        } finally {
          await writer.close()
        }
      })
    },
    close,
  }
}

function transactionalId({ progressTopic }: Settings, name: string): string {
  return `${progressTopic}/${name}`
}

interface Parts {
  readonly context: SinkContext
  readonly topics: readonly Topic[]
  readonly progressIn: (link: Link) => Promise<Progress | undefined>
}

async function begin(link: Link, settings: Settings, { context, topics, progressIn }: Parts): Promise<Open> {
  const { name, log, adopt, collections, forward } = context
  const { progressTopic, type, schemas } = settings
  const before = await progressIn(link)
  if (before !== undefined && before.log !== log && !adopt)
    throw new SyncError(
      'bad_option',
      `sink ${name}: by ${progressTopic} that cluster mirrors the log ${before.log} under this sink's name, but this is the log ${log}; name the sink otherwise, or run rejoin sinks adopt ${name}`,
    )
  const found = await prepare(link, settings, topics, forward.strategy === 'state')
  const writer = await link.writer(transactionalId(settings, name))
  try {
    // Now that nobody else can write it, it is what it will be.
    const { progress: now, parked } = await readNotebook(link, progressTopic, name)
    const declared = canonicalJson({
      collections,
      type,
      schemas,
      revisions: Object.fromEntries(forward.projections.map(({ to, revision }) => [to, revision])),
    })
    const ids = Object.fromEntries(topics.map(({ topic }) => [topic, found.topics.get(topic)?.id ?? '']))
    const stands =
      now?.log === log &&
      (forward.strategy === 'actions' || (now.declared === declared && canonicalJson(now.topics) === canonicalJson(ids)))
    const progress: Progress = {
      log,
      fence: (now?.fence ?? 0) + 1,
      place: stands ? now.place : undefined,
      stamp: now?.stamp ?? 0,
      declared,
      topics: ids,
    }
    await writer.write([progressMessage(progressTopic, name, progress)])
    return {
      link,
      writer,
      progress,
      parked: new Map(parked.map((each) => [keyText(each.key), each])),
      ...found,
      keys: undefined,
      seen: 0n,
      ended: undefined,
    }
  } catch (error) {
    await writer.close()
    throw error
  }
}

/** Makes topics that are missing, and looks whether those that are there keep what they are given. */
async function prepare(
  link: Link,
  { progressTopic, partitions }: Settings,
  topics: readonly Topic[],
  state: boolean,
): Promise<Pick<Open, 'topics' | 'limits'>> {
  const all = [progressTopic, ...topics.map(({ topic }) => topic)]
  const there = await link.topics(all)
  if (!there.has(progressTopic)) await link.create(progressTopic, 1, PROGRESS_CONFIGS)
  for (const { topic } of topics) if (!there.has(topic)) await link.create(topic, partitions, state ? { 'cleanup.policy': 'compact' } : {})
  const limits = new Map<string, number>()
  for (const topic of all) {
    const configs = await link.configs(topic)
    const policy = configs['cleanup.policy'] ?? ''
    if ((state || topic === progressTopic) && policy !== 'compact')
      throw new SyncError(
        'bad_option',
        `the topic ${topic} has cleanup.policy ${policy}: rows that did not change for long would be dropped from it; alter it to compact${topic === progressTopic ? '' : ", or write strategy 'actions'"}`,
      )
    limits.set(topic, Number(configs['max.message.bytes'] ?? 1_048_588))
  }
  return { topics: await link.topics(all), limits }
}

async function plan(
  link: Link,
  { progressTopic, partitions }: Settings,
  topics: readonly Topic[],
  state: boolean,
): Promise<readonly string[]> {
  const there = await link.topics([progressTopic, ...topics.map(({ topic }) => topic)])
  const missing = topics
    .filter(({ topic }) => !there.has(topic))
    .map(({ topic }) => `create the topic ${topic}, partitions: ${partitions}${state ? ', compacted' : ''}`)
  return there.has(progressTopic) ? missing : [`create the topic ${progressTopic}, partitions: 1, compacted`, ...missing]
}

/** Whether it is still ours, without writing. */
async function check(open: Open, progressTopic: string, name: string): Promise<SinkOutcome> {
  const { end, decided } = await open.link.ends(progressTopic)
  if (end !== open.seen) {
    const { progress } = await readNotebook(open.link, progressTopic, name, open.seen)
    if (progress !== undefined && progress.fence > open.progress.fence) return { type: 'fenced' }
    // A transaction that began before and ends behind would be missed from there on.
    if (decided === end) open.seen = end
  }
  return { type: 'committed', parked: [] }
}

interface Writing {
  readonly name: string
  readonly envelope: Envelope
  readonly topics: readonly Topic[]
  readonly progressTopic: string
}

async function write(
  open: Open,
  { rows, to, whole = false }: SinkCommit,
  { name, envelope, topics, progressTopic }: Writing,
): Promise<SinkOutcome> {
  const byName = new Map(topics.map((topic) => [topic.name, topic]))
  const refused = new Map<string, Parked>()
  const out = []
  for (const row of rows) {
    // What comes behind a refused event of the same key waits with it.
    if (refused.has(keyText(row.key))) continue
    const topic = byName.get(row.key.collection)
    const messages = topic === undefined ? [] : messagesOf(envelope, topic, open.topics.get(topic.topic)?.partitions ?? 1, row, to)
    const limit = topic === undefined ? 0 : (open.limits.get(topic.topic) ?? 0)
    const reason =
      topic === undefined
        ? `there is no topic for ${row.key.collection}`
        : sizeOf(messages) > limit
          ? `its message has more than the ${limit} bytes that ${topic.topic} takes (max.message.bytes)`
          : undefined
    if (reason === undefined) out.push(...messages)
    else refused.set(keyText(row.key), { key: row.key, reason, ...(row.event === undefined ? {} : { event: row.event.id }) })
  }
  const parked = [...refused.values()]
  if (whole && parked.length > 0) return { type: 'refused', parked }
  const freed = rows.filter(({ key }) => open.parked.has(keyText(key)) && !refused.has(keyText(key))).map(({ key }) => key)
  const progress = { ...open.progress, place: to, stamp: Math.max(open.progress.stamp, to.version) }
  await open.writer.write([
    ...out,
    ...parked.map(({ key, reason }) => parkedMessage(progressTopic, name, key, reason)),
    ...freed.map((key) => parkedMessage(progressTopic, name, key, null)),
    progressMessage(progressTopic, name, progress),
  ])
  open.progress = progress
  for (const key of freed) open.parked.delete(keyText(key))
  for (const each of parked) open.parked.set(keyText(each.key), { key: each.key, reason: each.reason })
  if (to.refreshed === undefined) open.keys = undefined
  return { type: 'committed', parked }
}
