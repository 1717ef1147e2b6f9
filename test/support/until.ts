/**
 * Waiting in tests: for a condition, never for a time.
 */
import { setTimeout as pause } from 'node:timers/promises'

/** Resolves with the first value of `condition` that is neither false nor undefined; rejects after `timeout` ms (default 10 s) with `what` and the last error. */
export async function until<T>(
  condition: () => T | Promise<T>,
  what = 'the condition',
  timeout = 10_000,
): Promise<Exclude<T, false | undefined>> {
  const deadline = performance.now() + timeout
  let last: unknown
  for (;;) {
    try {
      const value = await condition()
      if (value !== false && value !== undefined) return value as Exclude<T, false | undefined>
      last = undefined
    } catch (error) {
      last = error
    }
    if (performance.now() > deadline) throw new Error(`waited ${timeout} ms for ${what}`, { cause: last })
    await pause(5)
  }
}
