/**
 * A browser's client while the code for the wire is on its way: what works without it works, and nothing is lost when it comes late or not at first.
 */
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { cryptoRandom } from '@rejoin/shared'
import type { Client } from '#client/client.js'
import { createClientOn } from '#client/client.js'
import { createLateNetwork } from '#client/late-network.js'
import type { Network, NetworkOptions } from '#client/network.js'
import { openNetwork } from '#client/open-network.js'
import type { Replica } from '#client/handle.js'
import { createMemoryDisk } from '#client/stores/memory.js'
import { textOf, type } from '../support/client.ts'
import { ScriptedRelay } from '../support/scripted-relay.ts'
import type { VirtualClock } from '../support/virtual-clock.ts'
import { createVirtualClock } from '../support/virtual-clock.ts'

type Open = (options: NetworkOptions) => Network

let relay: ScriptedRelay
let clock: VirtualClock
/** One for each time that the code was asked for. */
let loads: { readonly resolve: (open: Open) => void; readonly reject: (error: Error) => void }[]
let client: Client

const open: Open = (options) => openNetwork({ ...options, transport: relay.transport, wake: () => () => undefined })

beforeEach(() => {
  relay = new ScriptedRelay()
  clock = createVirtualClock()
  loads = []
  client = createClientOn(
    { url: 'http://relay.test', store: createMemoryDisk().tab() },
    { clock, random: () => 0.5, randomBytes: cryptoRandom, network: (options) => createLateNetwork(options, load) },
  )
})
afterEach(() => client.close())

describe('before the code for the wire is there', () => {
  it('documents load and take edits, which are committed and pending; then they go to the relay', async () => {
    const replica = await loaded()
    const edit = type(replica, 'early')
    await edit.wait({ to: 'local' })
    expect(client.status.get()).toMatchObject({ connection: { name: 'connecting' }, pending: { local: 0, relay: 1 } })
    arrive()
    await edit.wait({ to: 'relay' })
    expect(textOf(relay.document('doc').ydoc)).toBe('early')
    expect(client.status.get()).toMatchObject({ connection: { name: 'connected' }, pending: { local: 0, relay: 0 } })
    expect(replica.status.get().connection).toEqual({ name: 'connected' })
  })

  it('what was closed again stays closed, and what is opened later takes part', async () => {
    const early = await loaded('early')
    early.close()
    await clock.advance(0)
    arrive()
    await clock.advance(0)
    const late = await loaded('late')
    await late.whenSynced()
    expect(relay.heard.flatMap((frame) => (frame.type === 'open' ? [frame.document] : []))).toEqual(['late'])
  })

  it('presence is announced once it is', async () => {
    const replica = await loaded()
    replica.presence.awareness.setLocalState({ name: 'Ada' })
    arrive()
    await replica.whenSynced()
    await clock.advance(0)
    expect(relay.heard.some((frame) => frame.type === 'presence')).toBe(true)
  })

  it('the client can be closed, says what is unsent, and dials no more when the code comes', async () => {
    type(await loaded(), 'kept')
    expect(await client.close()).toEqual({ unsent: 1 })
    expect(client.status.get().connection).toEqual({ name: 'closed' })
    arrive()
    await clock.advance(0)
    expect(relay.heard).toEqual([])
  })
})

describe('code for the wire that does not load', () => {
  it('is asked for again, within five seconds each time, and status says why', async () => {
    const replica = await loaded()
    const edit = type(replica, 'patient')
    for (let time = 0; time < 10; time++) {
      expect(loads).toHaveLength(time + 1)
      loads[time]?.reject(new Error('not found'))
      await clock.advance(0)
      const { connection } = client.status.get()
      expect(connection).toMatchObject({ name: 'offline', reason: 'the code for the network does not load: not found' })
      expect((connection.retryAt ?? Infinity) - clock.now()).toBeLessThanOrEqual(5000)
      await clock.advance(5000)
    }
    arrive()
    await edit.wait({ to: 'relay' })
    expect(textOf(relay.document('doc').ydoc)).toBe('patient')
  })

  it('is not asked for again once the client is closed', async () => {
    loads[0]?.reject(new Error('not found'))
    await clock.advance(0)
    await client.close()
    await clock.advance(60_000)
    expect(loads).toHaveLength(1)
    expect(clock.waiting).toBe(0)
  })
})

function load(): Promise<Open> {
  return new Promise((resolve, reject) => loads.push({ resolve, reject }))
}

function arrive(): void {
  loads.at(-1)?.resolve(open)
}

async function loaded(id = 'doc'): Promise<Replica> {
  const replica = client.open(id)
  await replica.whenLoaded()
  return replica
}
