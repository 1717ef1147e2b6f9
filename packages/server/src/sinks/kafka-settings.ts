/**
 * What an application writes of a Kafka sink, checked (step 8 of the path), and the topics that come of it.
 */
import { SyncError } from '@rejoin/shared'
import type { KafkaAddress } from './kafka-link.ts'
import type { Envelope, Topic } from './kafka-messages.ts'
import type { SinkContext } from './sink.ts'

/** The options, with every default filled in. */
export interface Settings {
  readonly address: KafkaAddress
  readonly pattern: string
  readonly progressTopic: string
  readonly partitions: number
  readonly type: Envelope['type']
  readonly schemas: boolean
}

/** The topic of each target. Throws `SyncError('bad_option')` when they do not fit. */
export function topicsOf({ pattern, type, schemas }: Settings, { name: sink, collections, untyped }: SinkContext): readonly Topic[] {
  const names = Object.keys(collections)
  if (names.length > 1 && !pattern.includes('{collection}'))
    throw new SyncError(
      'bad_option',
      `sink ${sink}: topic is '${pattern}' and there are ${names.length} targets, ${names.join(', ')}; write topic: '${pattern}.{collection}', or give it one projection`,
    )
  const [bare] = untyped
  if (type === 'debezium' && schemas && bare !== undefined)
    throw new SyncError(
      'bad_option',
      `sink ${sink}: schemas need types, and ${bare} declares none; give its projection \`fields\`, or write schemas: false`,
    )
  return names.map((name) => ({
    name,
    topic: pattern.replaceAll('{collection}', name),
    fields: untyped.includes(name) ? undefined : collections[name]?.fields,
  }))
}

const MAX_PARTITIONS = 10_000
const MIN_TIMEOUT = 60
const MECHANISMS = ['PLAIN', 'SCRAM-SHA-256', 'SCRAM-SHA-512'] as const

/** Throws `SyncError('bad_option')`. */
export function parse(options: Readonly<Record<string, unknown>>): Settings {
  const {
    topic = '{collection}',
    envelope = 'plain',
    schemas = true,
    partitions = 1,
    progressTopic = 'rejoin-progress',
    timeout = MIN_TIMEOUT,
  } = options
  if (envelope !== 'plain' && envelope !== 'debezium') refuse("envelope is 'plain' or 'debezium'")
  if (typeof schemas !== 'boolean') refuse('schemas is true or false')
  if (!isTopic(topic)) refuse("topic is a name of letters, digits, '.', '_' and '-', such as 'clinic.{collection}'")
  if (!isTopic(progressTopic) || progressTopic.includes('{')) refuse('progressTopic is the name of a topic')
  if (typeof partitions !== 'number' || !Number.isInteger(partitions) || partitions < 1 || partitions > MAX_PARTITIONS)
    refuse(`partitions is a whole number from 1 to ${MAX_PARTITIONS}`)
  if (typeof timeout !== 'number' || !(timeout >= MIN_TIMEOUT && timeout <= 900))
    refuse(`timeout is a number of seconds from ${MIN_TIMEOUT} to 900, the most that brokers let a transaction take`)
  return { address: addressOf(options, timeout), pattern: topic, progressTopic, partitions, type: envelope, schemas }
}

function addressOf({ brokers, tls = false, sasl }: Readonly<Record<string, unknown>>, timeout: number): KafkaAddress {
  const list: unknown = typeof brokers === 'string' ? brokers.split(',').map((each) => each.trim()) : brokers
  const isList = (value: unknown): value is readonly string[] =>
    Array.isArray(value) && value.length > 0 && value.every((each) => typeof each === 'string' && /^[^\s:/@]+:\d+$/u.test(each))
  if (!isList(list)) refuse("brokers is a list of 'host:port'")
  if (typeof tls !== 'boolean') refuse('tls is true or false')
  return { brokers: list, tls, sasl: saslOf(sasl), timeout: timeout * 1000 }
}

function saslOf(sasl: unknown): KafkaAddress['sasl'] {
  if (sasl === undefined) return undefined
  const { mechanism, username, password } = (typeof sasl === 'object' && sasl !== null ? sasl : {}) as Readonly<Record<string, unknown>>
  const known = MECHANISMS.find((each) => each === mechanism)
  if (known === undefined || typeof username !== 'string' || typeof password !== 'string' || password === '')
    refuse(`sasl is { mechanism, username, password }, mechanism ${MECHANISMS.join(', ')}`)
  return { mechanism: known, username, password }
}

function isTopic(value: unknown): value is string {
  return typeof value === 'string' && /^[\w.-]{1,249}$/u.test(value.replaceAll('{collection}', 'c'))
}

function refuse(problem: string): never {
  throw new SyncError('bad_option', `kafka(): ${problem}`)
}
