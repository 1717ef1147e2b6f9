/**
 * A clock that stands still until a test moves it.
 */
import type { Clock } from '@rejoin/shared'

export interface VirtualClock extends Clock {
  /** Lets `ms` pass: runs what is due, in its order, and lets promises settle after each. */
  advance(ms: number): Promise<void>
  /** How many timers wait. */
  readonly waiting: number
}

/** Starts at 1,000,000 ms. */
export function createVirtualClock(): VirtualClock {
  let now = 1_000_000
  let serial = 0
  const timers = new Map<number, { readonly at: number; readonly run: () => void }>()
  const next = (until: number): [number, { at: number; run: () => void }] | undefined =>
    [...timers].filter(([, { at }]) => at <= until).sort(([a, x], [b, y]) => x.at - y.at || a - b)[0]
  return {
    now: () => now,
    after: (ms, run) => {
      const id = ++serial
      timers.set(id, { at: now + ms, run })
      return () => void timers.delete(id)
    },
    advance: async (ms) => {
      const until = now + ms
      await settle()
      for (let due = next(until); due !== undefined; due = next(until)) {
        timers.delete(due[0])
        now = due[1].at
        due[1].run()
        await settle()
      }
      now = until
    },
    get waiting() {
      return timers.size
    },
  }
}

/** Lets every promise that can settle do so: the macrotask behind them. */
function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}
