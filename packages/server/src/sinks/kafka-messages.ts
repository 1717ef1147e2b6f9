/**
 * Rows as messages of a topic and back (step 8 of the path): our own JSON, or the envelope that Debezium's consumers read, with its schemas; and the partition that a Java producer would choose.
 */
import type { FieldKind, Fields, JsonValue, RecordValue } from '@rejoin/shared'
import { canonicalJson } from '@rejoin/shared'
import type { Outgoing } from './kafka-link.ts'
import { addressOf, messageOf } from './message.ts'
import type { Key, SinkPlace, SinkRow } from './sink.ts'

/** How messages look. */
export interface Envelope {
  readonly type: 'plain' | 'debezium'
  /** debezium: each message carries the schemas of its key and value, as the JsonConverter of Kafka Connect reads and writes them. */
  readonly schemas: boolean
  /** Whether a deleted key gets a tombstone behind the message about it, by which a compacted topic forgets it. */
  readonly tombstones: boolean
  readonly sink: string
}

/** One target's topic. */
export interface Topic {
  /** The target's name. */
  readonly name: string
  readonly topic: string
  /** Undefined: not declared. */
  readonly fields: Fields | undefined
}

/** Of a key. */
const MAX_KEY = 1_024
/** Besides key and value. */
const OVERHEAD = 200

type Json = { readonly [field: string]: JsonValue }

/** The messages of one row. */
export function messagesOf(envelope: Envelope, topic: Topic, partitions: number, row: SinkRow, to: SinkPlace): readonly Outgoing[] {
  const key = Buffer.from(keyText(envelope, topic, row.key))
  const value = Buffer.from(JSON.stringify(envelope.type === 'plain' ? messageOf(row, to) : changeOf(envelope, topic, row, to)))
  const message = { topic: topic.topic, partition: partitionOf(key, partitions), key, value }
  return row.value === null && envelope.tombstones ? [message, { ...message, value: null }] : [message]
}

/** Bytes that the largest of them takes in the topic. */
export function sizeOf(messages: readonly Outgoing[]): number {
  return Math.max(...messages.map(({ key, value }) => key.length + (value?.length ?? 0))) + OVERHEAD
}

/** What somebody else put there under a key that is none of ours has the document ''. */
function keyText(envelope: Envelope, topic: Topic, key: Key): string {
  if (key.document === ('' as Key['document'])) return key.id
  return envelope.type === 'plain' ? addressOf(key, MAX_KEY) : JSON.stringify(keyOf(envelope, topic, key))
}

/** The key of a message that Rejoin did not write. */
export function strangerOf(envelope: Envelope, topic: Topic, text: string): Key {
  const collection = topic.name
  try {
    const [document, id] =
      envelope.type === 'plain'
        ? text.split('/').map(decodeURIComponent)
        : [payloadOf(JSON.parse(text))['document'], payloadOf(JSON.parse(text))['id']]
    const key = { collection, document: document as Key['document'], id: id as string }
    if (typeof document === 'string' && typeof id === 'string' && document !== '' && keyText(envelope, topic, key) === text) return key
  } catch {
    // No key of ours.
  }
  return { collection, document: '' as Key['document'], id: text }
}

function keyOf({ schemas }: Envelope, { topic }: Topic, { document, id }: Key): Json {
  const payload = { document, id }
  return schemas ? { schema: keySchema(topic), payload } : payload
}

function changeOf({ schemas, sink }: Envelope, topic: Topic, { key, value, before, event }: SinkRow, { view, version }: SinkPlace): Json {
  const old = event === undefined ? before : event.before
  const struct = (record: RecordValue | null | undefined): Json | null =>
    record === null || record === undefined ? null : { document: key.document, id: key.id, ...structOf(topic, record) }
  const at = event?.origin.at ?? null
  const payload = {
    before: struct(old),
    after: struct(value),
    source: {
      version: '1',
      connector: 'rejoin',
      name: sink,
      ts_ms: at ?? 0,
      // During a refresh nothing is known of what was there before.
      snapshot: event === undefined && before === undefined ? 'true' : 'false',
      db: key.document,
      table: topic.name,
      view,
      row_version: event?.version ?? version,
    },
    op: opOf(value, old, event !== undefined),
    ts_ms: at,
  }
  return schemas ? { schema: changeSchema(topic), payload } : payload
}

function opOf(value: RecordValue | null, old: RecordValue | null | undefined, isEvent: boolean): 'c' | 'u' | 'd' | 'r' {
  if (value === null) return 'd'
  if (old === undefined && !isEvent) return 'r'
  return old === null || old === undefined ? 'c' : 'u'
}

/** A record's fields as Connect's types; of a target without declared fields as they are. */
export function structOf({ fields }: Pick<Topic, 'fields'>, value: RecordValue): RecordValue {
  if (fields === undefined) return value
  return Object.fromEntries(
    Object.entries(fields).map(([field, { kind }]) => [field, cellOf(kind, Object.hasOwn(value, field) ? (value[field] ?? null) : null)]),
  )
}

/** A value of another kind can only come of a schema that is being replaced, and is written again. */
function cellOf(kind: FieldKind, value: JsonValue): JsonValue {
  if (value === null) return null
  switch (kind) {
    case 'number':
      return typeof value === 'number' ? value : null
    case 'boolean':
      return typeof value === 'boolean' ? value : null
    case 'json':
      return canonicalJson(value)
    default:
      return typeof value === 'string' ? value : null
  }
}

const TYPES: Readonly<Record<FieldKind, Json>> = {
  string: { type: 'string' },
  number: { type: 'double' },
  boolean: { type: 'boolean' },
  date: { type: 'string' },
  json: { type: 'string', name: 'io.debezium.data.Json', version: 1 },
  text: { type: 'string' },
  richText: { type: 'string' },
}

const KEY_FIELDS: readonly Json[] = [
  { type: 'string', optional: false, field: 'document' },
  { type: 'string', optional: false, field: 'id' },
]

function keySchema(topic: string): Json {
  return { type: 'struct', optional: false, name: `${topic}.Key`, fields: KEY_FIELDS }
}

function changeSchema({ topic, fields = {} }: Topic): Json {
  const columns = Object.entries(fields).map(([field, { kind }]) => ({ ...TYPES[kind], optional: true, field }))
  const row = (field: string): Json => ({
    type: 'struct',
    optional: true,
    name: `${topic}.Value`,
    field,
    fields: [...KEY_FIELDS, ...columns],
  })
  const text = (field: string): Json => ({ type: 'string', optional: false, field })
  const whole = (field: string, optional: boolean): Json => ({ type: 'int64', optional, field })
  const source = [
    text('version'),
    text('connector'),
    text('name'),
    whole('ts_ms', false),
    text('snapshot'),
    text('db'),
    text('table'),
    text('view'),
    whole('row_version', false),
  ]
  return {
    type: 'struct',
    optional: false,
    name: `${topic}.Envelope`,
    fields: [
      row('before'),
      row('after'),
      { type: 'struct', optional: false, name: 'io.rejoin.Source', field: 'source', fields: source },
      text('op'),
      whole('ts_ms', true),
    ],
  }
}

/** A row that a message says is there. */
export interface FoundMessage {
  readonly key: Key
  /** null: it is gone. */
  readonly value: RecordValue | null
  readonly stamp: number
}

/** A message read back; undefined: it is none of ours. */
export function readMessage({ type }: Envelope, { name }: Topic, key: Buffer, value: Buffer): FoundMessage | undefined {
  try {
    const said = objectOf(JSON.parse(value.toString('utf8')))
    const isPlain = type === 'plain'
    const place = isPlain ? said : payloadOf(JSON.parse(key.toString('utf8')))
    const { document, [isPlain ? 'record' : 'id']: id } = place
    const { after, source } = payloadOf(said)
    const [row, stamp] = isPlain ? [said['value'], said['version']] : [after, objectOf(source)['row_version']]
    if (typeof document !== 'string' || typeof id !== 'string' || typeof stamp !== 'number' || row === undefined) return undefined
    const own =
      isPlain || row === null
        ? row
        : Object.fromEntries(Object.entries(objectOf(row)).filter(([field]) => field !== 'document' && field !== 'id'))
    return { key: { collection: name, document: document as Key['document'], id }, value: own === null ? null : objectOf(own), stamp }
  } catch {
    return undefined
  }
}

/** With schemas or without. */
function payloadOf(value: unknown): Json {
  const object = objectOf(value)
  return Object.hasOwn(object, 'schema') && Object.hasOwn(object, 'payload') ? objectOf(object['payload']) : object
}

function objectOf(value: unknown): Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Json) : {}
}

/** As Java's clients choose it, so that other producers of the same keys meet us. */
export function partitionOf(key: Buffer, partitions: number): number {
  return (murmur2(key) & 0x7fffffff) % partitions
}

function murmur2(data: Buffer): number {
  const m = 0x5bd1e995
  const whole = data.length & ~3
  let h = 0x9747b28c ^ data.length
  for (let i = 0; i < whole; i += 4) {
    let k = Math.imul(data.readInt32LE(i), m)
    k = Math.imul(k ^ (k >>> 24), m)
    h = Math.imul(h, m) ^ k
  }
  const rest = data.length - whole
  if (rest > 0) h = Math.imul(h ^ data.readUIntLE(whole, rest), m)
  h = Math.imul(h ^ (h >>> 13), m)
  return h ^ (h >>> 15)
}
