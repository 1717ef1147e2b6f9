/**
 * Time as an argument: the shipped code never reads a clock of its own, so that the same code runs under a virtual one.
 */

/** The platform's clock, or a virtual one in tests. */
export interface Clock {
  /** Milliseconds since 1970. May jump, in both directions. */
  now(): number
  /** Calls `run` once, `ms` from now at the earliest; returns the cancellation, which may be called at any time. Never keeps a process alive by itself. */
  after(ms: number, run: () => void): () => void
}

/** The platform's clock. */
export const systemClock: Clock = {
  now: () => Date.now(),
  after: (ms, run) => {
    const timer = setTimeout(run, ms)
    if (typeof timer === 'object') (timer as { unref?: () => void }).unref?.()
    return () => {
      clearTimeout(timer)
    }
  },
}

/** Uniform in [0, 1): `Math.random`, or a seeded stand-in in tests. */
export type Random = () => number
