/**
 * The application's own code as a sink: what it is given, what its answers mean, and that it never runs twice at once.
 */
import { describe, expect, it } from 'vitest'
import { handler } from '@rejoin/server/sinks/handler'
import type { Handle, HandlerOptions, Message } from '@rejoin/server/sinks/handler'
import type { Delivery } from '#server/sinks/delivery.js'
import { createHandler } from '#server/sinks/handler.js'
import type { SinkContext } from '#server/sinks/sink.js'
import { NEVER, at, change, pet } from '../support/deliveries.ts'
import { createVirtualClock } from '../support/virtual-clock.ts'

const clock = createVirtualClock()

function sink(handle: Handle, options: HandlerOptions = {}): Delivery {
  const spec = handler(options, handle)
  return createHandler(structuredClone(spec.options), { functions: (spec.functions ?? {}) as SinkContext['functions'] }, clock)
}

describe('a handler', () => {
  it('is given what happened, in order, as plain data', async () => {
    const seen: Message[] = []
    const delivery = sink(async (changes) => void seen.push(...structuredClone(changes)), { strategy: 'actions' })
    const rows = [change('rex', 3, null, { name: 'A' }), change('mia', 4, { name: 'M' }, null, true)]
    expect(await delivery.deliver(rows, { to: at(9) }, NEVER)).toEqual([])
    expect(seen).toMatchObject([
      { type: 'record.created', version: 3, record: 'rex', before: null, value: { name: 'A' }, event: { replay: false } },
      { type: 'record.deleted', version: 4, record: 'mia', before: { name: 'M' }, value: null, event: { replay: true } },
    ])
    expect(seen[0]?.id).toBe(rows[0]?.event?.id)
  })

  it('returns what it will never take; the rest is done', async () => {
    const delivery = sink(async (changes) => changes.filter(({ record }) => record === 'b').map(({ id }) => ({ id, reason: 'no bees' })))
    const rows = [pet('a', {}), pet('b', {})]
    expect(await delivery.deliver(rows, { to: at(1) }, NEVER)).toEqual([{ row: rows[1], reason: 'no bees' }])
  })

  it('is given the same changes again when it throws', async () => {
    const calls: string[][] = []
    const delivery = sink(async (changes) => {
      calls.push(changes.map(({ id }) => id))
      if (calls.length === 1) throw new Error('the mail server is down')
    })
    await expect(delivery.deliver([pet('a', {})], { to: at(1) }, NEVER)).rejects.toThrow('the mail server is down')
    expect(await delivery.deliver([pet('a', {})], { to: at(1) }, NEVER)).toEqual([])
    expect(calls[1]).toEqual(calls[0])
  })

  it('is given changes one at a time after it threw too often, and what it still throws at is refused', async () => {
    const calls: string[] = []
    const delivery = sink(
      async (changes) => {
        calls.push(changes.map(({ record }) => record).join(''))
        if (changes.some(({ record }) => record === 'b')) throw new Error('bees')
      },
      { attempts: 2 },
    )
    const rows = ['a', 'b', 'c'].map((id) => pet(id, {}))
    for (let i = 0; i < 3; i++) await expect(delivery.deliver(rows, { to: at(1) }, NEVER)).rejects.toThrow('bees')
    expect(await delivery.deliver(rows, { to: at(1) }, NEVER)).toEqual([{ row: rows[1], reason: 'bees' }])
    expect(calls).toEqual(['abc', 'abc', 'a', 'b', 'b', 'c'])
  })

  it('hears by its signal that its time is over, and is not called again before it has ended', async () => {
    const ends: (() => void)[] = []
    const signals: AbortSignal[] = []
    const delivery = sink((_, { signal }) => {
      signals.push(signal)
      return new Promise((resolve) => ends.push(() => resolve(undefined)))
    })
    const first = delivery.deliver([pet('a', {})], { to: at(1) }, NEVER)
    const firstEnd = expect(first).rejects.toThrow('did not end within 30000 ms')
    await clock.advance(30_000)
    await firstEnd
    expect(signals[0]?.aborted).toBe(true)
    const second = expect(delivery.deliver([pet('a', {})], { to: at(1) }, NEVER)).rejects.toThrow('has not ended')
    await clock.advance(30_000)
    await second
    expect(signals).toHaveLength(1)
    ends[0]?.()
    const third = delivery.deliver([pet('a', {})], { to: at(1) }, NEVER)
    await clock.advance(0)
    ends[1]?.()
    expect(await third).toEqual([])
  })

  it('may run in several lanes at once', async () => {
    const ends: (() => void)[] = []
    const delivery = sink(() => new Promise((resolve) => ends.push(() => resolve(undefined))), { lanes: 2 })
    const both = Promise.all(['a', 'b'].map((id) => delivery.deliver([pet(id, {})], { to: at(1) }, NEVER)))
    await clock.advance(0)
    expect(ends).toHaveLength(2)
    for (const end of ends) end()
    expect(await both).toEqual([[], []])
  })

  it('ends with the signal of the forwarder', async () => {
    const given = new AbortController()
    const delivery = sink(
      (_, { signal }) => new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(new Error('stopped')))),
    )
    const call = delivery.deliver([pet('a', {})], { to: at(1) }, given.signal)
    await clock.advance(0)
    given.abort()
    await expect(call).rejects.toThrow(/given up|stopped/u)
  })

  it.each([[[{ id: 1 }]], ['done'], [[{ id: 'of nobody', reason: 'x' }]]])(
    'is told when it returns what means nothing: %j',
    async (result) => {
      const delivery = sink((async () => result) as unknown as Handle)
      await expect(delivery.deliver([pet('a', {})], { to: at(1) }, NEVER)).rejects.toMatchObject({ code: 'bad_option' })
    },
  )

  it('is refused without a function, or with options that mean nothing', () => {
    expect(() => handler({}, undefined as unknown as Handle)).toThrow('the second argument is a function')
    expect(() => handler({ timeout: 0 }, async () => undefined)).toThrow('timeout')
  })
})
