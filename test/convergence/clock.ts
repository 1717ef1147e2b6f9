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
  /** Nothing of it runs until `thaw`, which then runs what has fallen due: a tab in the background, a laptop that sleeps. */
  freeze(): void
  thaw(): void
  readonly frozen: boolean
  /** Somebody sets the clock: `now` jumps, timers do not. */
  jump(ms: number): void
}

interface Timer {
  readonly at: number
  readonly order: number
  readonly run: () => void
  readonly owner: Owner | undefined
  cancelled: boolean
}

interface Owner {
  ended: boolean
  /** What fell due while it was frozen. */
  late: Timer[] | undefined
}

/** Begins at a fixed day, so that a world is the same on every machine and date. */
export function createVirtualClock(start: number = Date.UTC(2026, 0, 1)): VirtualClock {
  let now = start
  let order = 0
  const heap: Timer[] = []
  const after = (ms: number, run: () => void, owner?: Owner): (() => void) => {
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
      const owner: Owner = { ended: false, late: undefined }
      let skew = 0
      return {
        now: () => now + skew,
        after: (ms, run) => after(ms, run, owner),
        end: () => {
          owner.ended = true
        },
        get frozen() {
          return owner.late !== undefined
        },
        freeze: () => {
          owner.late ??= []
        },
        thaw: () => {
          const { late = [] } = owner
          owner.late = undefined
          for (const timer of late) {
            after(
              0,
              () => {
                if (!timer.cancelled) timer.run()
              },
              owner,
            )
          }
        },
        jump: (ms) => {
          skew += ms
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
        if (next.owner?.late !== undefined) {
          next.owner.late.push(next)
          continue
        }
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
