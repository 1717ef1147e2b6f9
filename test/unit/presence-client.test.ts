/**
 * Who is here, as a client sees it and shows itself: what goes with the connection, what comes back, and what is not sent.
 */
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { REDIAL, World } from '../support/client.ts'
import type { ScriptedRelay } from '../support/scripted-relay.ts'
import { uncaught } from '../support/uncaught.ts'
import type { VirtualClock } from '../support/virtual-clock.ts'

let world: World
let relay: ScriptedRelay
let clock: VirtualClock

beforeEach(() => {
  world = new World()
  ;({ relay, clock } = world)
})
afterEach(() => world.end())

describe('presence', () => {
  it('is shown to others, goes with the connection, and is announced again after it', async () => {
    const [a, b] = [await world.opened(world.connect()), await world.opened(world.connect())]
    a.presence.awareness.setLocalStateField('name', 'Ada')
    b.presence.awareness.setLocalStateField('name', 'Ben')
    await clock.advance(100)
    const seen = (): unknown[] => [...b.presence.awareness.getStates().values()].map((state) => state['name'] as string).sort()
    expect(seen()).toEqual(['Ada', 'Ben'])
    relay.drop()
    await world.settle()
    expect(seen()).toEqual(['Ben'])
    await clock.advance(1000)
    expect(seen()).toEqual(['Ada', 'Ben'])
  })

  it('is seen again by whoever alone was away, though nobody announced anything anew', async () => {
    const a = await world.opened(world.connect())
    a.presence.awareness.setLocalStateField('name', 'Ada')
    await clock.advance(100)
    const b = await world.opened(world.connect())
    const seen = (): unknown[] => [...b.presence.awareness.getStates().values()].map((state) => state['name'] as unknown).filter(Boolean)
    expect(seen()).toEqual(['Ada'])
    ;[...relay.sockets].at(-1)?.socket.close(1006, '')
    await world.settle()
    expect(seen()).toEqual([])
    await clock.advance(REDIAL)
    expect(seen()).toEqual(['Ada'])
  })

  it('is announced by nobody who did not ask for it', async () => {
    const [a, b] = [await world.opened(world.connect()), await world.opened(world.connect())]
    a.presence.awareness.setLocalStateField('name', 'Ada')
    await clock.advance(1000)
    expect(relay.heard.filter((frame) => frame.type === 'presence')).toHaveLength(2)
    expect(b.presence.awareness.getStates().size).toBe(2)
  })

  it('is sent at most every 50 ms, and not when it is too large', async () => {
    const replica = await world.opened(world.connect())
    const { awareness } = replica.presence
    await clock.advance(100)
    const count = (): number => relay.heard.filter((frame) => frame.type === 'presence').length
    const before = count()
    for (let x = 0; x < 30; x++) awareness.setLocalState({ x })
    await clock.advance(49)
    expect(count() - before).toBe(1)
    await clock.advance(100)
    expect(count() - before).toBe(2)
    awareness.setLocalState({ x: 'x'.repeat(5000) })
    await clock.advance(100)
    expect(count() - before).toBe(2)
    expect(replica.presence.problem?.code).toBe('limit')
    // A hint that speaks of edits would send its reader to the wrong place.
    expect(replica.presence.problem?.hint).toMatch(/smaller or simpler/u)
  })

  it('of an application whose listener throws keeps nobody from coming back', async () => {
    const [a, b] = [await world.opened(world.connect()), await world.opened(world.connect())]
    a.presence.awareness.setLocalStateField('name', 'Ada')
    await clock.advance(100)
    const faulty = (): void => {
      throw new Error('a listener of the application')
    }
    const faults = await uncaught(async () => {
      b.presence.awareness.on('change', faulty)
      relay.drop()
      await world.settle()
      await clock.advance(1000)
      b.presence.awareness.off('change', faulty)
    })
    expect(faults.length).toBeGreaterThan(0)
    expect(b.status.get().connection).toEqual({ name: 'connected' })
    expect([...b.presence.awareness.getStates().values()].map((state) => state['name'] as unknown)).toContain('Ada')
  })
})
