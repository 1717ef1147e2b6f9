/**
 * How long to wait before trying again. Pure: exponential with full jitter, so that a thousand clients of a restarted relay do not return in step.
 */
import type { Random } from './clock.ts'

/** All in ms. */
export interface BackoffOptions {
  /** Upper bound of the first delay. @default 500 */
  readonly first?: number | undefined
  /** Upper bound of every delay. @default 30_000 */
  readonly cap?: number | undefined
  /** What the server asked for (`retryAfter`): the delay is no shorter, whatever the cap. @default 0 */
  readonly atLeast?: number | undefined
}

/**
 * Delay in ms before attempt `attempt` (0 is the first retry): uniform in [0, min(cap, first · 2^attempt)), added to what the server asked for.
 * Full jitter: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
 */
export function backoff(attempt: number, random: Random, options: BackoffOptions = {}): number {
  const { first = 500, cap = 30_000, atLeast = 0 } = options
  // 2^30 · first is beyond any cap; the exponent is bounded so that a client that never gives up never reaches Infinity.
  const ceiling = Math.min(cap, first * 2 ** Math.min(Math.max(attempt, 0), 30))
  return Math.ceil(atLeast) + Math.floor(random() * ceiling)
}
