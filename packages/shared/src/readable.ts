/**
 * A value that changes and can be watched: how status, grants and presence are shown to applications.
 */
import { shielded } from './shielded.ts'

/** A watched value. `get` and `subscribe` are bound; a snapshot stays the same object until it changes. */
export interface Readable<T> {
  /** The value now. */
  readonly get: () => T
  /** Calls `listener` with each later value; returns the end of it. A listener that throws does not keep the others from being called. */
  readonly subscribe: (listener: (value: T) => void) => () => void
  /** The value now, then each later value; a slow reader sees the latest, not every one in between. */
  [Symbol.asyncIterator](): AsyncIterator<T>
}

/** A `Readable` and the one way to change it. Setting an identical value (`Object.is`) tells nobody. */
export function createReadable<T>(initial: T): { readonly readable: Readable<T>; readonly set: (value: T) => void } {
  let value = initial
  const listeners = new Set<{ readonly call: (value: T) => void }>()
  const subscribe = (call: (value: T) => void): (() => void) => {
    // An object of its own, so that one function subscribed twice is called twice and ended twice.
    const listener = { call }
    listeners.add(listener)
    return () => {
      listeners.delete(listener)
    }
  }
  const set = (next: T): void => {
    if (Object.is(value, next)) return
    value = next
    for (const listener of Array.from(listeners)) {
      // An earlier listener may have set a newer value, told it, or ended this one.
      if (!Object.is(value, next)) return
      if (listeners.has(listener)) shielded(() => listener.call(next))
    }
  }
  const get = (): T => value
  return { readable: { get, subscribe, [Symbol.asyncIterator]: () => iterate(get, subscribe) }, set }
}

function iterate<T>(get: () => T, subscribe: Readable<T>['subscribe']): AsyncIterator<T> {
  let fresh = true
  let ended = false
  const waiting: ((result: IteratorResult<T>) => void)[] = []
  const unsubscribe = subscribe((value) => {
    const resolvers = waiting.splice(0)
    fresh = resolvers.length === 0
    for (const resolve of resolvers) resolve({ done: false, value })
  })
  return {
    next: () => {
      if (ended) return Promise.resolve({ done: true, value: undefined })
      if (!fresh) return new Promise((resolve) => waiting.push(resolve))
      fresh = false
      return Promise.resolve({ done: false, value: get() })
    },
    return: () => {
      ended = true
      unsubscribe()
      for (const resolve of waiting.splice(0)) resolve({ done: true, value: undefined })
      return Promise.resolve({ done: true, value: undefined })
    },
  }
}
