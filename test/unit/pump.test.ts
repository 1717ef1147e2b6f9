/**
 * The one loop: order of its stages, batching, waiting after failures, hints, and its end.
 */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { BatchLimits, PumpState, PumpStages, Written } from '#server/pump.js'
import { startPump } from '#server/pump.js'
import { createVirtualClock } from '../support/virtual-clock.ts'

/** A source of numbers and a destination with its cursor; `fail` may throw in any stage. */
function createWorld(fail: (stage: string) => void = () => {}) {
  const clock = createVirtualClock()
  const source: number[] = []
  const destination = { rows: [] as number[], cursor: 0 }
  const calls: string[] = []
  const states: PumpState[] = []
  let answer: Written = 'written'
  const stages: PumpStages<number, readonly number[], readonly number[]> = {
    begin: () => {
      calls.push('begin')
      fail('begin')
      return destination.cursor
    },
    read: (after, limits) => {
      calls.push('read')
      fail('read')
      const input = take(source.slice(after), limits)
      return input.length === 0 ? undefined : { input, next: after + input.length }
    },
    step: (input) => {
      fail('step')
      return input.map((n) => n * 2)
    },
    write: async (output, from, to) => {
      fail('before write')
      if (answer !== 'written') return answer
      expect(from).toBe(destination.cursor)
      destination.rows.push(...output)
      destination.cursor = to
      fail('after write')
      return 'written'
    },
    check: () => {
      calls.push('check')
      return answer
    },
  }
  const start = (limits?: BatchLimits, random: () => number = () => 1) =>
    startPump({ stages, clock, random, limits, backoff: { first: 100, cap: 1_000 }, idle: 5_000, onState: (state) => states.push(state) })
  return { clock, source, destination, calls, states, start, say: (written: Written) => (answer = written) }
}

function take(items: readonly number[], { items: count, bytes }: BatchLimits): number[] {
  const taken: number[] = []
  let size = 0
  for (const item of items) {
    if (taken.length > 0 && (taken.length === count || size + item > bytes)) break
    taken.push(item)
    size += item
  }
  return taken
}

describe('the pump', () => {
  it('reads what follows the cursor, steps it and writes it, until there is nothing', async () => {
    const { clock, source, destination, start } = createWorld()
    source.push(1, 2, 3)
    const pump = start()
    await clock.advance(1)
    expect(destination).toEqual({ rows: [2, 4, 6], cursor: 3 })
    expect(pump.state).toEqual({ name: 'idle' })
    await pump.stop()
  })

  it('takes no more than its limits at a time, but always something', async () => {
    const { clock, source, destination, calls, start } = createWorld()
    source.push(1, 2, 3, 100, 5)
    const pump = start({ items: 2, bytes: 10 })
    await clock.advance(1)
    expect(destination.rows).toEqual([2, 4, 6, 200, 10])
    // [1, 2] [3] [100] [5], and once for nothing.
    expect(calls.filter((call) => call === 'read')).toHaveLength(5)
    await pump.stop()
  })

  it('wakes at a poke, also at one that came while it was busy', async () => {
    const { clock, source, destination, start } = createWorld()
    const pump = start()
    await clock.advance(1)
    source.push(1)
    pump.poke()
    await clock.advance(0)
    expect(destination.rows).toEqual([2])
    source.push(2)
    pump.poke()
    pump.poke()
    await clock.advance(0)
    expect(destination.rows).toEqual([2, 4])
    await pump.stop()
  })

  it('looks by itself when nobody pokes it, and checks that the destination is still its own', async () => {
    const { clock, source, destination, calls, start } = createWorld()
    const pump = start()
    await clock.advance(1)
    source.push(1)
    await clock.advance(4_990)
    expect(destination.rows).toEqual([])
    await clock.advance(20)
    expect(destination.rows).toEqual([2])
    expect(calls).toContain('check')
    await pump.stop()
  })

  it('waits after a failure with full jitter, longer each time up to the cap, and begins again', async () => {
    let broken = true
    const { clock, source, destination, calls, states, start } = createWorld((stage) => {
      if (broken && stage === 'before write') throw new Error('down')
    })
    source.push(1)
    const pump = start(undefined, () => 0.999)
    await clock.advance(5_000)
    const waits = states.filter((state) => state.name === 'waiting')
    const times = waits.map(({ retryAt }, i) => Math.floor(retryAt - (waits[i - 1]?.retryAt ?? 1_000_000)))
    expect(times.slice(0, 6)).toEqual([99, 199, 399, 799, 999, 999])
    expect(calls.filter((call) => call === 'begin').length).toBe(waits.length)
    broken = false
    await clock.advance(1_000)
    expect(destination.rows).toEqual([2])
    expect(pump.state).toEqual({ name: 'idle' })
    await pump.stop()
  })

  it('is not hurried by pokes while it waits after a failure', async () => {
    const { clock, calls, start } = createWorld(() => {
      throw new Error('down')
    })
    const pump = start(undefined, () => 1)
    for (let i = 0; i < 50; i++) {
      pump.poke()
      await clock.advance(1)
    }
    expect(calls).toEqual(['begin'])
    await pump.stop()
  })

  it('begins again when the destination is lost, without spinning', async () => {
    const { clock, source, calls, start, say } = createWorld()
    source.push(1)
    say('lost')
    const pump = start()
    await clock.advance(1_000)
    const begins = calls.filter((call) => call === 'begin').length
    expect(begins).toBeGreaterThan(1)
    expect(begins).toBeLessThan(10)
    await pump.stop()
  })

  it('stops for good when somebody else has taken over', async () => {
    const { clock, source, destination, start, say } = createWorld()
    const pump = start()
    await clock.advance(1)
    say('stop')
    source.push(1)
    pump.poke()
    await clock.advance(100_000)
    expect(pump.state).toEqual({ name: 'stopped', reason: 'taken-over' })
    expect(destination.rows).toEqual([])
    expect(clock.waiting).toBe(0)
  })

  it('ends when asked, whatever it is doing, and leaves no timer', async () => {
    for (const at of ['idle', 'failing'] as const) {
      const { clock, start } = createWorld(() => {
        if (at === 'failing') throw new Error('down')
      })
      const pump = start()
      await clock.advance(50)
      await pump.stop()
      expect(pump.state).toEqual({ name: 'stopped', reason: 'asked' })
      expect(clock.waiting).toBe(0)
    }
  })

  it('writes everything once and in order, wherever it fails', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.boolean(), { maxLength: 40 }),
        fc.array(fc.nat(9), { minLength: 1, maxLength: 30 }),
        async (failures, numbers) => {
          let calls = 0
          const { clock, source, destination, start } = createWorld(() => {
            if (failures[calls++] === true) throw new Error('down')
          })
          source.push(...numbers)
          const pump = start({ items: 3, bytes: 20 }, () => 0.5)
          await clock.advance(60_000)
          await pump.stop()
          expect(destination.rows).toEqual(numbers.map((n) => n * 2))
        },
      ),
      { numRuns: 50 },
    )
  })
})
