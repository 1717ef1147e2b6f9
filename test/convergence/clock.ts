/**
 * Virtual time for a world in one process: timers run in order, and between two timers every promise that can settle has settled.
 */
import type { Clock } from '@rejoin/shared'

/** A clock that moves only when told to. */
export interface VirtualClock extends Clock {
  /** Runs what falls due within the next `ms` and moves the time there. */
  run(ms: number): Promise<void>
  /** The clock of one process: when that has ended, nothing of it runs any more. */
  process(): ProcessClock
}

/** See `VirtualClock.process`. */
export interface ProcessClock extends Clock {
  end(): void
}

interface Timer {
  readonly at: number
  readonly order: number
  readonly run: () => void
  readonly owner: { readonly ended: boolean } | undefined
  cancelled: boolean
}

/** Begins at a fixed day, so that a world is the same on every machine and date. */
export function createVirtualClock(start: number = Date.UTC(2026, 0, 1)): VirtualClock {
  let now = start
  let order = 0
  const heap: Timer[] = []
  const after = (ms: number, run: () => void, owner?: { readonly ended: boolean }): (() => void) => {
    const timer: Timer = { at: now + Math.max(0, ms), order: order++, run, owner, cancelled: false }
    push(heap, timer)
    return () => {
      timer.cancelled = true
    }
  }
  return {
    now: () => now,
    after,
    process: () => {
      const owner = { ended: false }
      return {
        now: () => now,
        after: (ms, run) => after(ms, run, owner),
        end: () => {
          owner.ended = true
        },
      }
    },
    run: async (ms) => {
      const until = now + ms
      await settled()
      for (;;) {
        const next = heap[0]
        if (next === undefined || next.at > until) break
        pop(heap)
        if (next.cancelled || next.owner?.ended === true) continue
        now = next.at
        next.run()
        await settled()
      }
      now = until
    },
  }
}

/** Every microtask that is ready, and those they make ready, run before an immediate. */
export function settled(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve)
  })
}

const before = (a: Timer, b: Timer): boolean => a.at < b.at || (a.at === b.at && a.order < b.order)

function push(heap: Timer[], timer: Timer): void {
  let at = heap.push(timer) - 1
  while (at > 0) {
    const parent = (at - 1) >> 1
    const above = heap[parent] as Timer
    if (before(above, timer)) break
    heap[at] = above
    at = parent
  }
  heap[at] = timer
}

function pop(heap: Timer[]): void {
  const last = heap.pop()
  if (last === undefined || heap.length === 0) return
  let at = 0
  for (;;) {
    let child = at * 2 + 1
    if (child >= heap.length) break
    if (child + 1 < heap.length && before(heap[child + 1] as Timer, heap[child] as Timer)) child++
    if (before(last, heap[child] as Timer)) break
    heap[at] = heap[child] as Timer
    at = child
  }
  heap[at] = last
}
