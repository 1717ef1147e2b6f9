/**
 * The Redis sink, held to the contract of sinks on a real server.
 */
import { collection, defineSchema, json } from '@rejoin/shared'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { openSink, redis } from '#server/sinks/redis.js'
import { createMemoryNotes } from '#server/storage/notes-memory.js'
import { addressOf } from '#server/sinks/message.js'
import { petKey } from '../support/deliveries.ts'
import { redisCommands, redisRows } from '../support/redis.ts'
import type { RedisServer } from '../support/servers/redis.ts'
import { describeRedis, startRedis } from '../support/servers/redis.ts'
import { describePowers } from './sink-powers.contract.ts'
import type { SinkUnderTest } from './sink.contract.ts'
import { at, contextOf, describeSink } from './sink.contract.ts'

describeRedis('the Redis sink', () => {
  let server: RedisServer
  beforeAll(async () => {
    server = await startRedis()
  })
  afterAll(async () => {
    await server.stop()
  })

  for (const as of ['hash', 'json'] as const) {
    const make = (): SinkUnderTest => {
      const url = server.database()
      const notes = createMemoryNotes()
      return {
        open: (schema, options) => openSink(redis({ url, as }).options, { ...contextOf('live', schema, options), notes }),
        rows: (schema) => redisRows(url, schema, as, 'live'),
        wipe: async () => void (await redisCommands(url, ['FLUSHDB'])),
        dispose: () => {},
        tamper: async (key, field, value) => {
          const name = `${key.collection}:${addressOf(key, 1024)}`
          if (value === undefined) return void (await redisCommands(url, ['DEL', name]))
          if (as === 'hash') return void (await redisCommands(url, ['HSET', name, field, value]))
          const [text] = await redisCommands<string>(url, ['GET', name])
          await redisCommands(url, ['SET', name, JSON.stringify({ ...(JSON.parse(text ?? '') as object), [field]: value })])
        },
      }
    }
    describeSink(`in Redis as ${as}`, make)
    describePowers(`in Redis as ${as}`, make)

    it(`parks, as ${as}, a row with a field of the stamp's name, and what the record becomes next is written`, async () => {
      const under = make()
      // A schema has no such fields; what a projection without `fields` gives may have.
      const schema = defineSchema({ pets: collection({ name: json() }) })
      const sink = await under.open(schema)
      const { place } = await sink.begin()
      const [mine, theirs] = [{ name: 'Rex' }, { name: 'Max', rejoin_version: 1e15 }]
      const rows = ['1', '2'].map((id) => ({ key: petKey(id), value: id === '1' ? mine : theirs }))
      expect(await sink.commit({ rows, from: place, to: at(1) })).toMatchObject({
        type: 'committed',
        parked: [{ key: petKey('2'), reason: expect.stringContaining("rejoin_version is Rejoin's own") }],
      })
      const namesNow = async () => (await under.rows(schema)).map(({ key, value }) => [key.id, value['name']])
      expect(await namesNow()).toEqual([['1', 'Rex']])
      expect(await sink.commit({ rows: [{ key: petKey('2'), value: { name: 'Tom' } }], from: at(1), to: at(2) })).toMatchObject({
        parked: [],
      })
      expect(await namesNow()).toEqual([
        ['1', 'Rex'],
        ['2', 'Tom'],
      ])
      await sink.close()
    })
  }
})
