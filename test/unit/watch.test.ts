/**
 * What whoever runs a relay is told of view and sinks: each trouble once when it begins, once when it is another, once when it is over.
 */
import { expect, it } from 'vitest'
import type { WorkerStatus } from '#server/forwarding/messages.js'
import type { ForwardingStatus } from '#server/forwarding/start.js'
import { watchForwarding } from '#server/forwarding/watch.js'
import { createVirtualClock } from '../support/virtual-clock.ts'

const none = { total: 0, first: [] }
const view: WorkerStatus['view'] = { state: 'current', version: 7, positions: {}, parked: none, misfits: none }
const mirror: WorkerStatus['sinks'][string] = {
  name: 'mirror',
  kind: 'sqlite',
  state: 'current',
  strategy: 'state',
  consistency: 'latest',
  targets: ['pets'],
  cursor: 7,
  lag: { entries: 0, seconds: 0, bytes: 0 },
  rate: 0,
  commits: 1,
  rows: 7,
  parked: none,
  letters: 0,
  proof: null,
}

it('tells each trouble of a sink and of the view when it begins, changes and ends, and nothing in between', async () => {
  const clock = createVirtualClock()
  const told: string[] = []
  let detail: WorkerStatus | undefined
  const watch = watchForwarding({
    forwarding: { status: () => Promise.resolve<ForwardingStatus>({ worker: 'running', restarts: 0, detail }) },
    clock,
    wrong: (what, why) => told.push(`${what}: ${why}`),
    righted: (what) => told.push(`${what} is well`),
    every: 1000,
  })
  const becomes = async (status: WorkerStatus | undefined): Promise<readonly string[]> => {
    detail = status
    await clock.advance(3000)
    return told.splice(0)
  }
  expect(await becomes(undefined)).toEqual([])
  expect(await becomes({ view, sinks: { mirror } })).toEqual([])
  expect(watch.last?.view.version).toBe(7)
  expect(await becomes({ view, sinks: { mirror: { ...mirror, state: 'failing', error: 'the file is locked' } } })).toEqual([
    'sink mirror: the file is locked',
  ])
  expect(await becomes({ view, sinks: { mirror: { ...mirror, state: 'fenced' } } })).toEqual([
    'sink mirror: another forwarder has taken over; when this one is to go on: rejoin sinks resume',
  ])
  expect(await becomes({ view: { ...view, parked: { total: 2, first: [] } }, sinks: { mirror } })).toEqual([
    'the view: 2 documents are parked',
    'sink mirror is well',
  ])
  expect(await becomes({ view, sinks: { mirror } })).toEqual(['the view is well'])
  watch.stop()
  expect(await becomes({ view, sinks: { mirror: { ...mirror, state: 'failing' } } })).toEqual([])
})
