/**
 * Redis on a real server: answers that are lost, servers that die, forwarders that do not know they are dead, streams without twins, caches that are emptied.
 */
import { redis } from '@rejoin/server/sinks/redis'
import type { Collections } from '@rejoin/shared'
import { collection, defineSchema, number, string } from '@rejoin/shared'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import type { Delivery } from '#server/sinks/delivery.js'
import { createRedis } from '#server/sinks/redis.js'
import { LOG, NEVER, at, change, pet } from '../support/deliveries.ts'
import { redisCommands, redisRows } from '../support/redis.ts'
import type { RedisServer } from '../support/servers/redis.ts'
import { describeRedis, startRedis } from '../support/servers/redis.ts'

const schema = defineSchema({ pets: collection({ name: string(), age: number() }) })

describeRedis('a Redis', () => {
  let server: RedisServer
  let url: string
  const open: Delivery[] = []

  beforeAll(async () => {
    server = await startRedis({ settings: { appendonly: 'yes', appendfsync: 'no' } })
  })
  afterAll(async () => {
    await server.stop()
  })
  beforeEach(() => {
    url = server.database()
  })
  afterEach(async () => {
    for (const each of open.splice(0)) await each.close()
  })

  const make = (options: Readonly<Record<string, unknown>> = {}, collections: Collections = schema.collections): Delivery => {
    const delivery = createRedis(
      { url, ...options },
      { name: 'live', log: LOG, adopt: false, collections, forward: { strategy: options['as'] === 'stream' ? 'actions' : 'state' } },
    )
    open.push(delivery)
    return delivery
  }
  const begun = async (options?: Readonly<Record<string, unknown>>): Promise<Delivery> => {
    const delivery = make(options)
    await delivery.begin()
    return delivery
  }
  const names = async (): Promise<unknown[]> =>
    (await redisRows(url, schema, 'hash', 'live')).map(({ key, value }) => [key.id, value['name']])
  const send = (delivery: Delivery, version: number, ...rows: ReturnType<typeof pet>[]) =>
    delivery.deliver(rows, { to: at(version) }, NEVER)

  describe('with rows', () => {
    it('reads as one would think: a hash per record, its address in the name', async () => {
      const delivery = await begun({ prefix: 'app:' })
      await send(delivery, 7, pet('rex', { name: 'Rex', age: 3 }, 'clinic/1'), pet('mia', { name: 'Mia', age: null }))
      const [rex, mia] = await redisCommands(url, ['HGETALL', 'app:pets:clinic%2F1/rex'], ['HGETALL', 'app:pets:clinic/mia'])
      expect(rex).toEqual(['rejoin_version', '7', 'age', '3', 'name', 'Rex'])
      expect(mia).toEqual(['rejoin_version', '7', 'name', 'Mia'])
    })

    it('keeps the later of two updates that come in reverse: Jill and Jack; and a deleted row stays deleted', async () => {
      const delivery = await begun()
      await send(delivery, 2, pet('rex', { name: 'Jack' }), pet('mia', null))
      expect(await send(delivery, 1, pet('rex', { name: 'Jill' }), pet('mia', { name: 'Mia' }))).toEqual([])
      expect(await names()).toEqual([['rex', 'Jack']])
    })

    it('refuses a forwarder that was followed by another, and moves no cursor for it', async () => {
      const zombie = await begun()
      await send(zombie, 1, pet('rex', { name: 'A' }))
      const next = await begun()
      expect(await send(zombie, 9, pet('rex', { name: 'Z' }))).toBe('fenced')
      await zombie.moved?.(at(9))
      await send(next, 2, pet('rex', { name: 'B' }))
      await next.moved?.(at(2))
      expect(await names()).toEqual([['rex', 'B']])
      expect(await make().begin()).toMatchObject({ place: at(2), stamp: 2, isNew: false })
    })

    it('is right after an answer that never came, and a change back', async () => {
      const delivery = await begun({ timeout: 0.2 })
      await send(delivery, 1, pet('rex', { name: 'A' }))
      await delivery.moved?.(at(1))
      await server.freeze()
      await expect(send(delivery, 2, pet('rex', { name: 'B' }))).rejects.toMatchObject({ code: 'timeout' })
      await server.thaw()
      // It happened or it will: the stamp says that it may.
      const again = make()
      const standing = await again.begin()
      expect(standing).toMatchObject({ place: at(1), isNew: false })
      await send(again, 3, pet('rex', { name: 'A' }))
      expect(await names()).toEqual([['rex', 'A']])
      // The one that was given up does not come back.
      await expect(send(delivery, 2, pet('rex', { name: 'B' }))).rejects.toThrow()
    })

    it('goes on after the server was killed in the middle', async () => {
      const delivery = await begun()
      await send(delivery, 1, pet('rex', { name: 'A' }))
      await delivery.moved?.(at(1))
      await send(delivery, 2, pet('rex', { name: 'B' }))
      await server.kill()
      await expect(send(delivery, 2, pet('mia', { name: 'M' }))).rejects.toMatchObject({ code: 'timeout' })
      await expect(make().begin()).rejects.toThrow('127.0.0.1')
      await server.restart()
      const again = make()
      expect(await again.begin()).toMatchObject({ place: at(1), stamp: 2, isNew: false })
      await send(again, 3, pet('rex', { name: 'B' }), pet('mia', { name: 'M' }))
      expect(await names()).toEqual([
        ['mia', 'M'],
        ['rex', 'B'],
      ])
    })

    it('notices that it was emptied, and that it was put back to an older state', async () => {
      const delivery = await begun()
      await send(delivery, 1, pet('rex', { name: 'A' }))
      await delivery.moved?.(at(1))
      const [dump] = await redisCommands<string[]>(url, ['HGETALL', 'rejoin:live:cursor'])
      await send(delivery, 2, pet('rex', { name: 'B' }))
      await delivery.moved?.(at(2))
      await redisCommands(url, ['FLUSHDB'])
      expect(await send(delivery, 3, pet('rex', { name: 'C' }))).toBe('lost')
      await redisCommands(url, ['HSET', 'rejoin:live:cursor', ...(dump ?? [])])
      expect(await make().begin()).toMatchObject({ place: at(1), stamp: 1, isNew: false })
    })

    it('writes many rows in parts, and wide ones', async () => {
      const delivery = await begun()
      const wide = Object.fromEntries(Array.from({ length: 5000 }, (_, i) => [`f${i}`, i]))
      const rows = Array.from({ length: 1000 }, (_, i) => pet(`${i}`, { name: `n${i}` }))
      await send(delivery, 1, ...rows, pet('wide', wide))
      const [count, sum] = await redisCommands(url, ['HGET', 'pets:clinic/wide', 'f4999'], ['ZCARD', 'rejoin:live:keys:pets'])
      expect([count, sum]).toEqual(['4999', 1001])
    })

    it('lets rows go with a time to live, and claims no proof then', async () => {
      const delivery = await begun({ ttl: 100 })
      await send(delivery, 1, pet('rex', { name: 'A' }))
      const [ttl] = await redisCommands<number>(url, ['TTL', 'pets:clinic/rex'])
      expect(ttl).toBeGreaterThan(90)
      expect(delivery.proof).toBeUndefined()
      expect(() => redis({ url, ttl: 100, verifyEvery: 60 })).toThrow('cannot be read back')
    })

    it('is read back whatever a hand made of a row', async () => {
      const delivery = await begun({ as: 'json' })
      await send(delivery, 1, pet('a', { name: 'A' }), pet('b', { name: 'B' }))
      await redisCommands(url, ['DEL', 'pets:clinic/a'], ['LPUSH', 'pets:clinic/a', 'x'], ['SET', 'pets:clinic/b', 'no json'])
      const found = await delivery.proof?.survey({ strangers: true })
      expect(found?.rows).toBe(2)
      // A repair puts them right.
      await delivery.deliver([pet('a', { name: 'A' }), pet('b', { name: 'B' })], { to: at(1), force: true }, NEVER)
      expect((await redisRows(url, schema, 'json', 'live')).map(({ value }) => value)).toEqual([{ name: 'A' }, { name: 'B' }])
    })
  })

  describe('with streams', () => {
    const entries = async (): Promise<string[]> => {
      const [list = []] = await redisCommands<[string, string[]][]>(url, ['XRANGE', 'pets', '-', '+'])
      return list.map(([, fields]) => fields[1] ?? '')
    }

    it('adds each event once, also when the answer was lost and everything comes again', async () => {
      const delivery = await begun({ as: 'stream' })
      const events = [change('rex', 3, null, { name: 'A' }), change('rex', 4, { name: 'A' }, null)]
      await send(delivery, 4, ...events)
      const again = make({ as: 'stream' })
      expect(await again.begin()).toMatchObject({ place: undefined, stamp: 4, isNew: false })
      await send(again, 5, ...events, change('mia', 5, null, {}))
      await again.moved?.(at(5))
      expect(await entries()).toEqual([...events.map(({ event }) => event?.id), `${LOG}/1/clinic/5/0/1`])
      expect(await redisCommands(url, ['ZCARD', 'rejoin:live:recent'])).toEqual([0])
      // A replay is meant to come again, with the same id.
      await send(again, 5, change('rex', 3, null, { name: 'A' }, true))
      expect((await entries()).at(-1)).toBe(events[0]?.event?.id)
      expect(await send(delivery, 6, change('x', 6, null, {}))).toBe('fenced')
    })

    it('holds whole messages, and about as many as it should', async () => {
      const delivery = await begun({ as: 'stream', maxLength: 100 })
      for (let i = 0; i < 4; i++) await send(delivery, i + 1, ...Array.from({ length: 250 }, (_, n) => pet(`${n}`, { name: `${n}` })))
      const [length, list] = await redisCommands<number & [string, string[]][]>(
        url,
        ['XLEN', 'pets'],
        ['XREVRANGE', 'pets', '+', '-', 'COUNT', '1'],
      )
      expect(length).toBeLessThan(400)
      expect(JSON.parse(list?.[0]?.[1]?.[5] ?? '')).toMatchObject({
        type: 'record.state',
        version: 4,
        record: '249',
        value: { name: '249' },
      })
    })
  })

  it('deletes the keys of a cache that a change concerns, and only those', async () => {
    await redisCommands(url, ['MSET', 'cache:pets:clinic:rex', 'x', 'list:clinic', 'x', 'cache:pets:clinic:mia', 'x'])
    const delivery = await begun({ as: 'invalidate', keys: ['cache:{collection}:{document}:{id}', 'list:{document}'] })
    await send(delivery, 1, pet('rex', { name: 'A' }))
    expect(await redisCommands(url, ['KEYS', '*'])).toEqual([['cache:pets:clinic:mia']])
    expect(redis({ url, as: 'invalidate', keys: 'c:{id}', after: 'warehouse' }).forward.after).toBe('warehouse')
  })

  it('refuses options that contradict one another, and names that it needs itself', async () => {
    expect(() => redis({ url: undefined })).toThrow('redis://')
    expect(() => redis({ url: 'http://me:hunter2@x' })).not.toThrow(/hunter2/u)
    expect(() => redis({ url, as: 'invalidate' })).toThrow('belong together')
    expect(() => redis({ url, as: 'stream', ttl: 3 })).toThrow('ttl')
    expect(() => make({}, { rejoin: collection({ name: string() }) })).toThrow('target named rejoin')
    await expect(
      createRedis(
        { url: url.replace('redis://', 'redis://me:hunter2@') },
        { name: 'x', log: LOG, adopt: false, collections: {}, forward: { strategy: 'state' } },
      ).begin(),
    ).rejects.not.toThrow(/hunter2/u)
  })
})
