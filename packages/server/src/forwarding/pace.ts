/**
 * Giving way (beside the path): long work on the thread that forwards, in slices of a few ms, with as much rest between as was asked for.
 */
import type { Clock } from '@rejoin/shared'

/** How fast long work goes. */
export interface Pace {
  /** To be awaited every few ms of work. Throws what the check throws. */
  breathe(): Promise<void>
  /** Waits. */
  rest(ms: number): Promise<void>
}

/** Work since the last rest, in ms, before there is another. */
const SLICE = 8

/** `share`: of the time, at most, that work may take; 1: it only lets others have their turn between slices. */
export function createPace(clock: Clock, { share, check }: { readonly share: number; readonly check: () => void }): Pace {
  let since = clock.now()
  const rest = (ms: number): Promise<void> => new Promise((resolve) => void clock.after(ms, resolve))
  return {
    breathe: async () => {
      check()
      const worked = Math.max(0, clock.now() - since)
      if (worked < SLICE) return
      await rest(worked * (1 / share - 1))
      check()
      since = clock.now()
    },
    rest: async (ms) => {
      await rest(ms)
      check()
      since = clock.now()
    },
  }
}
