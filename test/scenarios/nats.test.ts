/**
 * NATS on a real server: answers that are lost, servers that die, forwarders that do not know they are dead, messages that come once.
 */
import { nats } from '@rejoin/server/sinks/nats'
import { collection, defineSchema, number, string } from '@rejoin/shared'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import type { Delivery } from '#server/sinks/delivery.js'
import type { Message } from '#server/sinks/message.js'
import { createNats } from '#server/sinks/nats.js'
import type { SinkRow } from '#server/sinks/sink.js'
import { LOG, NEVER, at, change, pet } from '../support/deliveries.ts'
import { natsMessages, natsPut, natsWipe } from '../support/nats.ts'
import type { NatsServer } from '../support/servers/nats.ts'
import { describeNats, startNats } from '../support/servers/nats.ts'

const schema = defineSchema({ pets: collection({ name: string(), age: number() }) })
interface Told {
  readonly strategy?: 'state' | 'actions'
  readonly consistency?: 'key' | 'every'
  readonly log?: string
  readonly adopt?: boolean
}

describeNats('a NATS server', () => {
  let server: NatsServer
  let serial = 0
  let name = ''
  const open: Delivery[] = []

  beforeAll(async () => {
    server = await startNats()
  })
  afterAll(async () => {
    await server.stop()
  })
  beforeEach(() => {
    name = `S${serial++}`
  })
  afterEach(async () => {
    for (const each of open.splice(0)) await each.close()
  })

  const make = (
    options: Readonly<Record<string, unknown>> = {},
    { strategy = 'state', consistency = 'key', log = LOG, adopt = false }: Told = {},
  ): Delivery => {
    const where = options['as'] === 'kv' ? { bucket: name } : { stream: name }
    const context = { name: `sink ${name}`, log, adopt, collections: schema.collections, forward: { strategy, consistency } } as const
    const delivery = createNats({ servers: server.url, ...where, ...options }, context)
    open.push(delivery)
    return delivery
  }
  const begun = async (options?: Readonly<Record<string, unknown>>, told?: Told): Promise<Delivery> => {
    const delivery = make(options, told)
    await delivery.begin()
    return delivery
  }
  const send = (delivery: Delivery, version: number, ...rows: SinkRow[]) => delivery.deliver(rows, { to: at(version) }, NEVER)
  const texts = async (): Promise<Message[]> => (await natsMessages(server.url, name)).map(({ text }) => JSON.parse(text) as Message)
  const bucket = async (): Promise<Record<string, unknown>> =>
    Object.fromEntries(
      (await natsMessages(server.url, `KV_${name}`))
        .filter(({ subject }) => !subject.includes('rejoin-cursor'))
        .map(({ subject, headers, text }) => [
          subject.slice(`$KV.${name}.`.length),
          headers['KV-Operation'] ?? (JSON.parse(text) as unknown),
        ]),
    )
  const actions: Told = { strategy: 'actions' }

  describe('with a stream', () => {
    it('gets a message for each event, in order per key, on a subject of its own', async () => {
      const delivery = await begun({ subject: 'clinic.events' }, { ...actions, consistency: 'every' })
      const events = [change('rex', 3, null, { name: 'A' }), change('m.i a*', 4, null, {}), change('rex', 5, { name: 'A' }, null)]
      for (const event of events) expect(await send(delivery, 5, event)).toEqual([])
      const stored = await natsMessages(server.url, name)
      expect(stored.map(({ subject }) => subject)).toEqual([
        'clinic.events.pets.clinic/rex',
        'clinic.events.pets.clinic/m=2Ei=20a=2A',
        'clinic.events.pets.clinic/rex',
      ])
      expect(await texts()).toMatchObject([
        { type: 'record.created', version: 3, value: { name: 'A' } },
        { type: 'record.created', version: 4, record: 'm.i a*' },
        { type: 'record.deleted', version: 5, before: { name: 'A' } },
      ])
      expect(decodeURIComponent(stored[0]?.headers['Nats-Msg-Id'] ?? '')).toBe(events[0]?.event?.id)
    })

    it('holds each event once, however often it comes and from whomever; a replay comes again', async () => {
      const first = change('rex', 3, null, { name: 'A' })
      const second = change('rex', 4, { name: 'A' }, { name: 'B' })
      for (let i = 0; i < 2; i++) {
        const delivery = await begun({}, actions)
        await send(delivery, 4, first)
        await send(delivery, 4, second)
      }
      expect((await texts()).map(({ version }) => version)).toEqual([3, 4])
      const again = await begun({}, actions)
      for (let i = 0; i < 2; i++) await send(again, 9, change('rex', 3, null, { name: 'A' }, true))
      expect((await texts()).map(({ version, event }) => [version, event?.replay])).toEqual([
        [3, false],
        [4, false],
        [3, true],
      ])
    })

    it('refuses a forwarder that was followed by another', async () => {
      const zombie = await begun({}, actions)
      await send(zombie, 3, change('rex', 3, null, {}))
      const next = await begun({}, actions)
      expect(await send(zombie, 4, change('mia', 4, null, {}))).toBe('fenced')
      await zombie.moved?.(at(9))
      await next.moved?.(at(3))
      expect(await make({}, actions).begin()).toMatchObject({ place: at(3), stamp: 3 })
      expect(await texts()).toHaveLength(1)
    })

    it('goes on where it was after the server was killed in the middle, and after one that did not answer in time', async () => {
      const delivery = await begun({ timeout: 0.3 }, actions)
      await send(delivery, 3, change('rex', 3, null, { name: 'A' }))
      await delivery.moved?.(at(3))
      await send(delivery, 4, change('rex', 4, { name: 'A' }, { name: 'B' }))
      await server.kill()
      await expect(send(delivery, 5, change('rex', 5, null, {}))).rejects.toMatchObject({ code: 'timeout' })
      await expect(make({}, actions).begin()).rejects.toMatchObject({ code: 'timeout' })
      await server.restart()
      const again = make({ timeout: 0.3 }, actions)
      expect(await again.begin()).toMatchObject({ place: at(3), stamp: 4 })
      await server.freeze()
      await expect(send(again, 6, change('rex', 4, { name: 'A' }, { name: 'B' }))).rejects.toMatchObject({ code: 'timeout' })
      await server.thaw()
      const last = await begun({}, actions)
      await send(last, 6, change('rex', 4, { name: 'A' }, { name: 'B' }))
      await send(last, 6, change('rex', 6, { name: 'B' }, { name: 'A' }))
      expect((await texts()).map(({ version }) => version)).toEqual([3, 4, 6])
    })

    it('is written anew when it was deleted, but events are not', async () => {
      const delivery = await begun()
      await send(delivery, 3, pet('rex', {}))
      await delivery.moved?.(at(3))
      await natsWipe(server.url, name)
      expect(await send(delivery, 4, pet('rex', {}))).toBe('lost')
      expect(await make().begin()).toMatchObject({ place: undefined, stamp: 4, isNew: true })
      await send(await begun(), 4, pet('rex', {}))
      const other = await begun({}, actions)
      await other.moved?.(at(5))
      await natsWipe(server.url, name)
      expect(await make({}, actions).begin()).toMatchObject({ place: at(5), isNew: false })
    })

    it('is refused to another log unless it is adopted', async () => {
      await begun()
      await expect(begun({}, { log: 'c'.repeat(32) })).rejects.toThrow('another log')
      expect(await make({}, { log: 'c'.repeat(32), adopt: true }).begin()).toMatchObject({ place: undefined })
    })

    it('refuses a row above its limit for good, and takes the others', async () => {
      const delivery = await begun()
      const rows = [pet('big', { name: 'x'.repeat(2 << 20) }), pet('rex', {})]
      expect(await send(delivery, 1, ...rows)).toMatchObject([
        { row: { key: { id: 'big' } }, reason: expect.stringContaining('limit') as string },
      ])
      expect(await texts()).toHaveLength(1)
    })
  })

  describe('with a bucket', () => {
    const kv = { as: 'kv' }

    it('reads as one would think: the record under its address, and nothing where it was deleted', async () => {
      const delivery = await begun(kv)
      await send(delivery, 1, pet('rex', { name: 'Rex', age: 3 }), pet('mia', { name: 'Mia', age: null }))
      await send(delivery, 2, pet('mia', null))
      expect(await bucket()).toEqual({ 'pets.clinic/rex': { name: 'Rex', age: 3 }, 'pets.clinic/mia': 'DEL' })
    })

    it('keeps the later of two updates that come in reverse: Jill and Jack; and a deleted row stays deleted', async () => {
      const delivery = await begun(kv)
      await send(delivery, 2, pet('rex', { name: 'Jack' }), pet('mia', null))
      await send(await begun(kv), 1, pet('rex', { name: 'Jill' }), pet('mia', { name: 'Mia' }))
      expect(await bucket()).toEqual({ 'pets.clinic/rex': { name: 'Jack' }, 'pets.clinic/mia': 'DEL' })
    })

    it('is right after an answer that never came, and a change back', async () => {
      const delivery = await begun({ ...kv, timeout: 0.3 })
      await send(delivery, 1, pet('rex', { name: 'A' }))
      await delivery.moved?.(at(1))
      await server.freeze()
      await expect(send(delivery, 2, pet('rex', { name: 'B' }))).rejects.toMatchObject({ code: 'timeout' })
      await server.thaw()
      const again = make(kv)
      expect(await again.begin()).toMatchObject({ place: at(1) })
      await send(again, 3, pet('rex', { name: 'A' }))
      expect(await bucket()).toEqual({ 'pets.clinic/rex': { name: 'A' } })
    })

    it('is mended where a hand changed it while the sink ran', async () => {
      const delivery = await begun(kv)
      await send(delivery, 1, pet('rex', { name: 'A' }))
      await natsPut(server.url, `$KV.${name}.pets.clinic/rex`, '{"name":"by hand"}')
      await send(delivery, 2, pet('rex', { name: 'B' }))
      expect(await bucket()).toEqual({ 'pets.clinic/rex': { name: 'B' } })
    })
  })

  it('takes who it is from the address', async () => {
    const closed = await startNats({ args: ['--user', 'me', '--pass', 'p@ss'] })
    try {
      const context = { name: 'x', log: LOG, adopt: false, collections: {}, forward: { strategy: 'state', consistency: 'key' } } as const
      const allowed = createNats({ servers: closed.url.replace('//', '//me:p%40ss@'), stream: 'X' }, context)
      const stranger = createNats({ servers: closed.url, stream: 'X' }, context)
      open.push(allowed, stranger)
      expect(await allowed.begin()).toMatchObject({ isNew: true })
      await expect(stranger.begin()).rejects.toThrow(/authorization/iu)
    } finally {
      await closed.stop()
    }
  })

  it('refuses options that contradict one another, without repeating an address', async () => {
    expect(() => nats({ servers: undefined, stream: 'X' })).toThrow('servers')
    expect(() => nats({ servers: 'x', stream: 'a.b' })).toThrow('letters')
    expect(() => nats({ servers: 'x', as: 'kv', bucket: 'b', stream: 'X' })).toThrow('write bucket')
    expect(() => nats({ servers: 'x', stream: 'X', verifyEvery: 60 })).toThrow('cannot be read back')
    const wrong = createNats(
      { servers: 'nats://me:hunter2@127.0.0.1:1', stream: 'X' },
      { name: 'x', log: LOG, adopt: false, collections: {}, forward: { strategy: 'state', consistency: 'key' } },
    )
    const refusal = await wrong.begin().then(() => '', String)
    expect(refusal).toContain('cannot connect')
    expect(refusal).not.toContain('hunter2')
  })
})
