/**
 * The Kafka sink on a real broker: held to the contract of sinks, and what its messages are to consumers of another make.
 */
import { randomUUID } from 'node:crypto'
import { Producer } from '@platformatic/kafka'
import type { RecordValue } from '@rejoin/shared'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { kafka, openSink } from '#server/sinks/kafka.js'
import type { KafkaOptions } from '#server/sinks/kafka.js'
import { partitionOf } from '#server/sinks/kafka-messages.js'
import type { Sink } from '#server/sinks/sink.js'
import { compareKeys } from '#server/view/view.js'
import { EXEMPT, open as openConformance, rowsIn } from './kafka.ts'
import { describeConformance } from '../support/conformance.ts'
import { ended, folded, messages, send, withAdmin } from '../support/kafka-topics.ts'
import type { KafkaServer } from '../support/servers/kafka.ts'
import { describeKafka, startKafka } from '../support/servers/kafka.ts'
import { describePowers } from '../contracts/sink-powers.contract.ts'
import type { OpenOptions, SinkUnderTest } from '../contracts/sink.contract.ts'
import { EMPTY, SCHEMA, at, contextOf, describeSink, key, pet } from '../contracts/sink.contract.ts'

describe('kafka()', () => {
  it('refuses what cannot be meant', () => {
    for (const given of [
      {},
      { brokers: [] },
      { brokers: 'localhost' },
      { brokers: 'kafka://me:secret@b:9092' },
      { brokers: 'b:9092', topic: 'a/b' },
      { brokers: 'b:9092', envelope: 'avro' },
      { brokers: 'b:9092', timeout: 10 },
      { brokers: 'b:9092', sasl: { mechanism: 'PLAIN', username: 'a' } },
      { brokers: 'b:9092', acks: 1 },
    ]) {
      expect(() => kafka(given as unknown as KafkaOptions), JSON.stringify(given)).toThrow(/bad_option/u)
      expect(() => kafka(given as unknown as KafkaOptions)).not.toThrow(/secret/u)
    }
  })

  it('chooses the partition that a Java producer would', () => {
    // From Kafka's own UtilsTest.
    const known: Record<string, number> = {
      21: -973932308,
      foobar: -790332482,
      'a-little-bit-long-string': -985981536,
      'a-little-bit-longer-string': -1486304829,
      lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8: -58897971,
      abc: 479470107,
    }
    for (const [text, hash] of Object.entries(known)) expect(partitionOf(Buffer.from(text), 2 ** 31), text).toBe(hash & 0x7fffffff)
  })
})

describeKafka('the Kafka sink', () => {
  let server: KafkaServer
  beforeAll(async () => {
    server = await startKafka()
  })
  afterAll(async () => {
    await server.kill()
    await server.stop()
  })
  const optionsFor = (prefix: string, given: Partial<KafkaOptions> = {}) =>
    kafka({ brokers: server.url, topic: `${prefix}.{collection}`, progressTopic: `${prefix}.progress`, ...given }).options

  const make = async (): Promise<SinkUnderTest> => {
    const prefix = randomUUID().slice(0, 8)
    return {
      guard: 'a topic holds what came last; its messages name their version',
      refuses: (id) => id.length > 100_000,
      open: (schema, options) => openSink(optionsFor(prefix), contextOf('warehouse', schema, options)),
      rows: async (schema) => [...(await rowsIn(server.url, prefix, schema))].sort((a, b) => compareKeys(a.key, b.key)),
      wipe: () =>
        withAdmin(server.url, async (admin) => {
          const topics = (await admin.listTopics()).filter((topic) => topic.startsWith(prefix))
          await admin.deleteTopics({ topics })
        }),
      dispose: () => {},
      tamper: async ({ collection, document, id }, field, value) => {
        const topic = `${prefix}.${collection}`
        const said = (await folded(server.url, topic)).get(`${document}/${id}`) as { value: RecordValue } | undefined
        const changed = value === undefined ? null : JSON.stringify({ ...said, value: { ...said?.value, [field]: value } })
        await send(server.url, topic, [{ key: `${document}/${id}`, value: changed }])
      },
      intrude: ({ collection, document, id }, name) =>
        send(server.url, `${prefix}.${collection}`, [{ key: `${document}/${id}`, value: name }]),
    }
  }
  describeSink('in Kafka', make)
  describePowers('in Kafka', make)
  // On the same server, since one takes seconds to start; `npm run conformance -- kafka` restarts it too.
  describeConformance('the Kafka sink', () => openConformance(server.url), { ...EXEMPT, 'server restarted': 'not ours' })

  const begun = async (prefix: string, given: Partial<KafkaOptions> = {}, options: OpenOptions = {}): Promise<Sink> => {
    const sink = await openSink(optionsFor(prefix, given), contextOf('warehouse', SCHEMA, options))
    await sink.begin()
    return sink
  }
  const prefixOf = (): string => randomUUID().slice(0, 8)

  it('says of a deleted row that it is gone, then lets compaction forget it, both where a Java producer would put them', async () => {
    const prefix = prefixOf()
    const sink = await begun(prefix, { partitions: 5 })
    await sink.commit({ rows: [pet('1', { name: 'A' }), pet('2', { name: 'B' })], from: undefined, to: at(1) })
    await sink.commit({ rows: [{ ...pet('1', null), before: { name: 'A' } }], from: at(1), to: at(2) })
    const about = (await messages(server.url, `${prefix}.pets`)).filter((each) => each.key === 'clinic/1')
    expect(about.map(({ value }) => (value === null ? null : (JSON.parse(value) as { value: unknown }).value))).toEqual([
      { ...EMPTY, name: 'A' },
      null,
      null,
    ])
    expect(about.map(({ value }) => value === null)).toEqual([false, false, true])
    expect(new Set(about.map(({ partition }) => partition))).toEqual(new Set([partitionOf(Buffer.from('clinic/1'), 5)]))
    await sink.close()
  })

  it("speaks Debezium's envelope with its schemas, before and after", async () => {
    const prefix = prefixOf()
    const sink = await begun(prefix, { envelope: 'debezium' })
    await sink.commit({ rows: [{ ...pet('1', { name: 'A', age: 2, extra: { a: 1 } }), before: null }], from: undefined, to: at(1) })
    await sink.commit({ rows: [{ ...pet('1', null), before: { ...EMPTY, name: 'A' } }], from: at(1), to: at(2) })
    const [made, gone, tombstone] = await messages(server.url, `${prefix}.pets`)
    const keyed = JSON.parse(made?.key ?? '') as { schema: { fields: unknown[] }; payload: unknown }
    expect(keyed).toMatchObject({ schema: { type: 'struct', name: `${prefix}.pets.Key` }, payload: { document: 'clinic', id: '1' } })
    const change = JSON.parse(made?.value ?? '') as { schema: { fields: { field: string; fields?: unknown[] }[] }; payload: unknown }
    expect(change.payload).toMatchObject({
      before: null,
      after: { ...EMPTY, document: 'clinic', id: '1', name: 'A', age: 2, extra: '{"a":1}' },
      op: 'c',
      source: { table: 'pets', row_version: 1 },
    })
    expect(change.schema.fields.map(({ field }) => field)).toEqual(['before', 'after', 'source', 'op', 'ts_ms'])
    expect(change.schema.fields[1]?.fields).toContainEqual({ type: 'double', optional: true, field: 'age' })
    expect(JSON.parse(gone?.value ?? '')).toMatchObject({ payload: { op: 'd', after: null, before: { name: 'A' } } })
    expect(tombstone).toMatchObject({ key: made?.key, value: null })
    // What it wrote can be read back as any other.
    const survey = await sink.proof?.survey({ strangers: true })
    expect(survey).toMatchObject({ place: at(2), rows: 0 })
    await sink.close()
  })

  it('shows nobody a commit that did not end, and goes on from before it', async () => {
    const prefix = prefixOf()
    const sink = await begun(prefix)
    await sink.commit({ rows: [pet('1', { name: 'A' })], from: undefined, to: at(1) })
    await sink.close()
    // Frozen in the middle: what it sent lies in the topics, and its transaction is open.
    const frozen = new Producer({
      clientId: 'frozen',
      bootstrapBrokers: [server.url],
      transactionalId: `${prefix}.progress/warehouse`,
      idempotent: true,
    })
    const transaction = await frozen.beginTransaction({ producerId: -1n, producerEpoch: -1 })
    await transaction.send({
      messages: [{ topic: `${prefix}.pets`, partition: 0, key: Buffer.from('clinic/9'), value: Buffer.from('{}') }],
    })
    await transaction.send({
      messages: [{ topic: `${prefix}.progress`, partition: 0, key: Buffer.from('["warehouse"]'), value: Buffer.from('{}') }],
    })
    const next = await openSink(optionsFor(prefix), contextOf('warehouse', SCHEMA))
    expect(await next.begin()).toMatchObject({ place: at(1), stamp: 1 })
    await expect(transaction.commit()).rejects.toThrow()
    await ended(frozen)
    expect([...(await folded(server.url, `${prefix}.pets`)).keys()]).toEqual(['clinic/1'])
    expect(await next.keys(10)).toEqual([key('1')])
    await next.close()
  })

  it("does not wait for somebody else's open transaction to read its own place", async () => {
    const prefix = prefixOf()
    const sink = await begun(prefix)
    await sink.commit({ rows: [], from: undefined, to: at(1) })
    const other = new Producer({ clientId: 'other', bootstrapBrokers: [server.url], transactionalId: randomUUID(), idempotent: true })
    const transaction = await other.beginTransaction({ producerId: -1n, producerEpoch: -1 })
    await transaction.send({
      messages: [{ topic: `${prefix}.progress`, partition: 0, key: Buffer.from('["x"]'), value: Buffer.from('{}') }],
    })
    await sink.commit({ rows: [], from: at(1), to: at(2) })
    expect(await (await openSink(optionsFor(prefix), contextOf('warehouse', SCHEMA))).begin()).toMatchObject({ place: at(2) })
    await transaction.abort()
    await ended(other)
    await sink.close()
  })

  it('refuses a topic that forgets rows, and parks what a topic does not take', async () => {
    const prefix = prefixOf()
    await withAdmin(server.url, (admin) => admin.createTopics({ topics: [`${prefix}.pets`], partitions: 1, replicas: 1 }))
    await expect(begun(prefix)).rejects.toThrow(/cleanup\.policy delete.*compact/u)
    const other = prefixOf()
    const sink = await begun(other)
    const outcome = await sink.commit({
      rows: [pet('1', { note: 'x'.repeat(2 << 20) }), pet('2', { name: 'B' })],
      from: undefined,
      to: at(1),
    })
    expect(outcome).toMatchObject({
      type: 'committed',
      parked: [{ key: key('1'), reason: expect.stringContaining('max.message.bytes') as string }],
    })
    expect(await sink.begin()).toMatchObject({ place: at(1), parked: [{ key: key('1') }] })
    await sink.commit({ rows: [pet('1', { note: 'x' })], from: at(1), to: at(2) })
    expect(await sink.begin()).toMatchObject({ parked: [] })
    await sink.close()
  })
})
