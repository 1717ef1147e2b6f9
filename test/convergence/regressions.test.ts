/**
 * What worlds have found, each as a small world of its own: a seed tells another story as soon as the world learns something new, these do not.
 */
import type { DocumentId } from '@rejoin/shared'
import { describe, expect, it } from 'vitest'
import { createChance } from './chance.ts'
import { createVirtualClock } from './clock.ts'
import type { Surroundings } from './device.ts'
import { Device } from './device.ts'
import { createNetwork } from './network.ts'
import { newLedger } from './oracle.ts'
import { RelaySite } from './relay.ts'

const HOUR_MS = 3_600_000
const NOTE = 'note' as DocumentId

function createStage(seed = 7) {
  const clock = createVirtualClock()
  const chance = createChance(seed)
  const network = createNetwork(clock, chance.fork())
  network.calm = true
  const trace = (): void => {}
  const relay = new RelaySite({ clock, chance: chance.fork(), network, trace }, { limits: {}, tokens: undefined, seek: 2 })
  const surroundings: Surroundings = { clock, network, watch: relay.watch, history: relay.history, ledger: newLedger(), trace }
  const device = new Device('d0', surroundings, chance.fork())
  device.online = true
  const pending = (): number[] => [...device.tabs].map(({ client }) => client.status.get().pending.relay)
  return { clock, relay, device, pending }
}

describe('what worlds have found', () => {
  it('a clock that is set back while a client waits does not keep it from dialling', async () => {
    const { clock, relay, device, pending } = createStage()
    relay.crash()
    const tab = device.open()
    tab.replica(NOTE)
    await clock.run(5000)
    tab.edit(NOTE)
    tab.clock.jump(-10 * HOUR_MS)
    relay.start()
    await clock.run(120_000)
    expect(tab.client.status.get().connection.name).toBe('connected')
    expect(pending()).toEqual([0])
  })

  it('a clock that is set back while a push waits for its time does not keep it from going', async () => {
    const { clock, relay, device, pending } = createStage()
    const tab = device.open()
    tab.replica(NOTE)
    await clock.run(5000)
    relay.fill(3000)
    tab.edit(NOTE)
    await clock.run(1000)
    tab.clock.jump(-10 * HOUR_MS)
    await clock.run(60_000)
    expect(pending()).toEqual([0])
  })

  it('a push whose time came while its tab was frozen goes when the tab thaws, whatever else is heard first', async () => {
    const { clock, relay, device, pending } = createStage()
    const [tab, other] = [device.open(), new Device('d1', device.surroundings, createChance(8)).open()]
    tab.replica(NOTE)
    other.replica(NOTE)
    await clock.run(5000)
    relay.fill(1500)
    tab.edit(NOTE)
    await clock.run(1000)
    // The relay has said when to come back; in its sleep that time passes, and another's edit waits to be read before any timer runs.
    tab.freeze(20_000)
    await clock.run(2000)
    other.edit(NOTE)
    await clock.run(30_000)
    expect(pending()).toEqual([0])
  })

  it('a socket that is lost takes along what was not sent: the next begins with a hello', async () => {
    const { clock, relay, device } = createStage()
    const tab = device.open()
    tab.replica(NOTE)
    await clock.run(5000)
    // What is to be sent and the end of the socket come in one go, as for a tab that thaws.
    for (let i = 0; i < 20; i++) {
      tab.access.freeze()
      await clock.run(26_000)
      tab.access.cut(false)
      await clock.run(1000)
      tab.access.thaw()
      await clock.run(20_000)
    }
    expect([...relay.watch.sights.keys()].filter((what) => what.startsWith('goaway'))).toEqual([])
  })

  it('edits of a tab that died between its commit and its notice are found within a minute, in a closed document too', async () => {
    for (const isOpen of [true, false]) {
      // Its transaction is on the disk with even odds: of eight such tabs some are unlucky.
      for (let seed = 1; seed <= 8; seed++) {
        const { clock, device, pending } = createStage(seed)
        const survivor = device.open()
        if (isOpen) survivor.replica(NOTE)
        const tab = device.open()
        tab.replica(NOTE)
        await clock.run(5000)
        tab.edit(NOTE)
        await clock.run(1)
        tab.kill(true)
        await clock.run(90_000)
        expect(device.disk.read(NOTE).outbox).toEqual([])
        expect(pending()).toEqual([0])
      }
    }
  })

  it('what another tab made before its ground was here is not taken for an edit of this tab, nor are the entries that complete it', async () => {
    const { clock, device } = createStage()
    const [first, second, stranger] = [device.open(), device.open(), new Device('d1', device.surroundings, createChance(8)).open()]
    for (const tab of [first, second, stranger]) tab.replica(NOTE)
    await clock.run(5000)
    for (let i = 0; i < 5; i++) {
      // The first tab reads nothing for a while: of what the second builds on the stranger's edit it is told before it has that edit.
      first.access.freeze()
      stranger.edit(NOTE)
      await clock.run(1000)
      second.edit(NOTE)
      await clock.run(1000)
      first.access.thaw()
      await clock.run(5000)
    }
    const made = first.replica(NOTE).edit(() => undefined).id
    expect(made).toMatch(/\/0$/u)
    first.edit(NOTE)
    await clock.run(5000)
    expect([...first.incarnations].map((incarnation) => device.surroundings.history.ackedOf(NOTE, incarnation))).toEqual([1])
  })
})
