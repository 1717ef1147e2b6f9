/**
 * Time that is never set back (beside step 3 of the path): what waits for a moment would otherwise wait for hours when the device's clock is corrected.
 */
import type { Clock } from '@rejoin/shared'

/** A clock whose `now` only rises. It may jump forward, as when a device has slept. */
export interface SteadyClock extends Clock {
  /** What the device's own clock says, or will say, at the moment `at` of this clock. Ms since 1970. */
  wall(at: number): number
}

/** `clock`, steadied. A step back is found at the next look: until then nothing passes, so what waits over it waits at most once more. */
export function createSteadyClock(clock: Clock): SteadyClock {
  let last = -Infinity
  let ahead = 0
  return {
    now: () => {
      const now = clock.now()
      ahead = Math.max(ahead, last - now)
      last = now + ahead
      return last
    },
    after: (ms, run) => clock.after(ms, run),
    wall: (at) => at - ahead,
  }
}
