/**
 * The Redis sink, held to the contract of sinks on a real server.
 */
import { afterAll, beforeAll } from 'vitest'
import { openSink, redis } from '#server/sinks/redis.js'
import { createMemoryNotes } from '#server/storage/notes-memory.js'
import { addressOf } from '#server/sinks/message.js'
import { redisCommands, redisRows } from '../support/redis.ts'
import type { RedisServer } from '../support/servers/redis.ts'
import { describeRedis, startRedis } from '../support/servers/redis.ts'
import { describePowers } from './sink-powers.contract.ts'
import type { SinkUnderTest } from './sink.contract.ts'
import { contextOf, describeSink } from './sink.contract.ts'

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
  }
})
