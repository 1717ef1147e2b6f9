/**
 * Waiting in tests: for a condition, never for a time.
 */
import { setTimeout as pause } from 'node:timers/promises'

/**
 * Resolves with the first value of `condition` that is neither false nor undefined; rejects after `timeout` ms (default 10 s) with `what` and the last error,
 * also when a look never ends.
 */
export async function until<T>(
  condition: () => T | Promise<T>,
  what = 'the condition',
  timeout = 10_000,
): Promise<Exclude<T, false | undefined>> {
  const deadline = performance.now() + timeout
  let last: unknown
  for (;;) {
    try {
      const value = await within(condition(), what, deadline - performance.now())
      if (value !== false && value !== undefined) return value as Exclude<T, false | undefined>
      last = undefined
    } catch (error) {
      last = error
    }
    if (performance.now() > deadline) throw new Error(`waited ${timeout} ms for ${what}`, { cause: last })
    await pause(5)
  }
}

/** What `promise` gives; rejects with `what` when it has given nothing after `timeout` ms (default 10 s). For what has no limit of its own, such as a browser's answer. */
export async function within<T>(promise: T | Promise<T>, what: string, timeout = 10_000): Promise<T> {
  const over = new AbortController()
  const late = pause(Math.max(0, timeout), undefined, { signal: over.signal }).then(() => {
    throw new Error(`no answer within ${Math.round(timeout)} ms: ${what}`)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    over.abort()
    late.catch(() => undefined)
  }
}
