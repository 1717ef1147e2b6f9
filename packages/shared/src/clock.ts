/**
 * Time as an argument: the shipped code never reads a clock of its own, so that the same code runs under a virtual one.
 */

/** The platform's clock, or a virtual one in tests. */
export interface Clock {
  /** Milliseconds since 1970. May jump, in both directions. */
  now(): number
  /** Calls `run` once, `ms` from now at the earliest, or after 24 days where that is sooner; returns the cancellation, which may be called at any time. */
  after(ms: number, run: () => void): () => void
}

/** The platform's clock, for work in the background: its timers keep no process alive. */
export const systemClock: Clock = clockOf((timer) => timer.unref?.())

/** The platform's clock, for a program of its own: its timers keep the process alive, as a client that waits to dial again must. */
export const residentClock: Clock = clockOf(() => undefined)

/** What a platform's timer can count, in ms; with more it would fire at once. */
const LONGEST = 2 ** 31 - 1

function clockOf(begin: (timer: { unref?: () => void }) => void): Clock {
  return {
    now: () => Date.now(),
    after: (ms, run) => {
      const timer = setTimeout(run, Math.min(ms, LONGEST))
      if (typeof timer === 'object') begin(timer)
      return () => {
        clearTimeout(timer)
      }
    },
  }
}

/** Uniform in [0, 1): `Math.random`, or a seeded stand-in in tests. */
export type Random = () => number
