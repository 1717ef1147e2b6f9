/**
 * Web Locks for Node 20, which has none: exclusive locks in the order asked for, inside this process.
 */
import type { Locks } from '#client/stores/indexeddb-platform.js'

export function createLocks(): Locks {
  const held = new Map<string, (() => void)[]>()
  return {
    request: async (name, { signal, ifAvailable }, granted) => {
      signal?.throwIfAborted()
      const waiting = held.get(name)
      if (waiting !== undefined && ifAvailable === true) return granted(null)
      if (waiting === undefined) held.set(name, [])
      else
        await new Promise<void>((resolve, reject) => {
          waiting.push(resolve)
          signal?.addEventListener('abort', () => {
            const at = waiting.indexOf(resolve)
            if (at < 0) return
            waiting.splice(at, 1)
            reject(signal.reason as Error)
          })
        })
      try {
        return await granted({ name })
      } finally {
        const next = held.get(name)?.shift()
        if (next === undefined) held.delete(name)
        else next()
      }
    },
  }
}
