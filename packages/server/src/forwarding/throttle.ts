/**
 * How fast a sink goes and how fast it may (step 8 of the path): counts rows and commits, and waits when there is a cap.
 */
import type { Clock } from '@rejoin/shared'
import type { CutLimits } from '../view/view.ts'

/** The throttle of one sink. */
export interface Throttle {
  /** After a commit of so many rows. */
  count(rows: number): void
  /** Waits when the cap asks for it, a second at most; true: it waited, ask again. */
  wait(): Promise<boolean>
  /** What one commit may hold, no more than a second's rows. */
  limits(limits: CutLimits): CutLimits
  /** `rate`: rows a second over the last ten. */
  figures(): { readonly commits: number; readonly rows: number; readonly rate: number }
  /** Nothing waits any more. */
  end(): void
}

/** Seconds that the shown rate is taken over. */
const WINDOW = 10

/** `rate`: rows a second at most. */
export function createThrottle(clock: Clock, rate: number): Throttle {
  let commits = 0
  let rows = 0
  let next = 0
  let wake: (() => void) | undefined
  let isEnded = false
  const seconds: { readonly second: number; rows: number }[] = []
  return {
    count: (count) => {
      commits++
      rows += count
      const now = clock.now()
      next = Math.max(next, now) + (count / rate) * 1000
      const second = Math.floor(now / 1000)
      const latest = seconds.at(-1)
      if (latest?.second === second) latest.rows += count
      else seconds.push({ second, rows: count })
      if (seconds.length > WINDOW) seconds.shift()
    },
    wait: async () => {
      // A clock that was set back must not hold the sink.
      const ms = Math.min(1000, next - clock.now())
      if (isEnded || rate === Number.POSITIVE_INFINITY || ms <= 0) return false
      await new Promise<void>((resolve) => {
        const cancel = clock.after(ms, resolve)
        wake = () => {
          cancel()
          resolve()
        }
      })
      wake = undefined
      if (next - clock.now() > 60_000) next = clock.now()
      return true
    },
    limits: ({ items, bytes }) => ({ items: Math.max(1, Math.min(items, Math.floor(rate))), bytes }),
    figures: () => {
      const now = Math.floor(clock.now() / 1000)
      const recent = seconds.filter(({ second }) => second > now - WINDOW && second <= now)
      return { commits, rows, rate: recent.reduce((sum, each) => sum + each.rows, 0) / WINDOW }
    },
    end: () => {
      isEnded = true
      wake?.()
    },
  }
}
