/**
 * Documents that took too long (beside the path): remembered for a while, so that one that cannot be put together in time costs the others its time once, not at each request.
 */
import type { Clock } from '@rejoin/shared'

/** How long one document may keep a thread busy that others wait for, in ms. */
export const PATIENCE_MS = 10_000
/** How long one that took longer is not tried again, in ms. */
const AVOIDED_MS = 600_000
const MAX_REMEMBERED = 1_000

/** What took too long, by name. */
export interface SlowList {
  add(name: string): void
  /** Whether it took too long not long ago. */
  has(name: string): boolean
}

/** An empty one. The oldest is forgotten when it is full. */
export function createSlowList(clock: Clock): SlowList {
  const since = new Map<string, number>()
  return {
    add: (name) => {
      since.delete(name)
      since.set(name, clock.now())
      for (const oldest of since.keys()) {
        if (since.size <= MAX_REMEMBERED) break
        since.delete(oldest)
      }
    },
    has: (name) => {
      const at = since.get(name)
      if (at === undefined) return false
      // A clock that was set back must not lock a document out.
      if (Math.abs(clock.now() - at) < AVOIDED_MS) return true
      since.delete(name)
      return false
    },
  }
}
