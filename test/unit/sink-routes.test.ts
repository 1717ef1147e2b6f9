/**
 * `/v1/sinks` over HTTP where commands take long: whoever waits hears that something is there, and how it ended.
 */
import { expect, it } from 'vitest'
import { SyncError } from '@rejoin/shared'
import { createApp } from '#server/http/app.js'
import { createMetrics } from '#server/http/metrics.js'
import { OPEN_GRANT } from '#server/relay/grant.js'
import { createVirtualClock } from '../support/virtual-clock.ts'

it('answers at once what is quick, and what is slow after signs of life, as JSON all the same', async () => {
  const clock = createVirtualClock()
  const authorize = () => Promise.resolve(OPEN_GRANT)
  const ends: ((error?: SyncError) => void)[] = []
  const app = createApp({
    authorize,
    origin: { type: 'any' },
    metrics: createMetrics([]),
    control: {
      authorize,
      sinks: {
        list: () => Promise.resolve([]),
        command: (sink, command) =>
          command === 'pause'
            ? Promise.resolve({ name: sink })
            : new Promise((resolve, reject) => ends.push((error) => (error === undefined ? resolve({ equal: true }) : reject(error)))),
      },
      receipts: { authorize, clock, rungs: { wait: () => () => undefined }, head: () => Promise.resolve(undefined) },
    },
    unready: () => undefined,
    failed: () => undefined,
  })
  const ask = (command: string): Promise<Response> =>
    Promise.resolve(app.request(`http://relay.test/v1/sinks/w/${command}`, { method: 'POST' }))
  expect(await (await ask('pause')).json()).toEqual({ name: 'w' })
  const slow = [ask('verify'), ask('verify'), ask('verify')]
  await clock.advance(10_000)
  ends[0]?.(new SyncError('timeout', 'it took too long'))
  expect((await slow[0])?.status).toBe(408)
  await clock.advance(10_000)
  const [, good, bad] = await Promise.all(slow)
  await clock.advance(50_000)
  ends[1]?.()
  ends[2]?.(new SyncError('overloaded', 'the worker ended'))
  const text = (await good?.text()) ?? ''
  expect([good?.status, text.startsWith('   '), JSON.parse(text)]).toEqual([200, true, { equal: true }])
  expect(await bad?.json()).toMatchObject({ error: { code: 'overloaded', message: 'the worker ended' } })
})
