/**
 * The one loop behind everything that reads a log or a view after a cursor (steps 7 and 8 of the path): read, step, write, advance.
 */
import type { BackoffOptions, Clock, Random } from '@rejoin/shared'
import { backoff } from '@rejoin/shared'

/** How much one batch may hold. The first item is taken whatever its size, so that nothing blocks the loop for ever. */
export interface BatchLimits {
  readonly items: number
  readonly bytes: number
}

/** What follows a cursor, and the cursor behind it. */
export interface Batch<Cursor, Input> {
  readonly input: Input
  readonly next: Cursor
}

/** 'lost': the destination is not where we left it, begin again. 'stop': somebody else has taken over, never write again. */
export type Written = 'written' | 'lost' | 'stop'

/** The stages of one loop. They are called one at a time, in the order of this list. */
export interface PumpStages<Cursor, Input, Output> {
  /** Where the destination stands. Called first, and again after every failure and every 'lost': nothing remembered is trusted. */
  begin(): Cursor | Promise<Cursor>
  /** What follows the cursor, or undefined when nothing does. */
  read(after: Cursor, limits: BatchLimits): Batch<Cursor, Input> | undefined | Promise<Batch<Cursor, Input> | undefined>
  /** What to write of it. No effects outside itself: after a failure it sees the same input again. */
  step(input: Input): Output
  /** Writes it and moves the destination's cursor from `from` to `to`, both or neither. */
  write(output: Output, from: Cursor, to: Cursor): Written | Promise<Written>
  /** Nothing has come for `idle` ms: whether the destination is still ours and where we left it. */
  check?(cursor: Cursor): Written | Promise<Written>
}

/** Where the loop is. 'stopped' is final. */
export type PumpState =
  | { readonly name: 'running' }
  | { readonly name: 'idle' }
  | { readonly name: 'waiting'; readonly error: unknown; readonly attempt: number; readonly retryAt: number }
  | { readonly name: 'stopped'; readonly reason: 'asked' | 'taken-over' }

export interface PumpOptions<Cursor, Input, Output> {
  readonly stages: PumpStages<Cursor, Input, Output>
  readonly clock: Clock
  readonly random: Random
  /** @default { items: 1_000, bytes: 4 MiB } */
  readonly limits?: BatchLimits | undefined
  /** Waiting after failures. @default { first: 100, cap: 30_000 } ms */
  readonly backoff?: BackoffOptions | undefined
  /** How long it sleeps without a hint before it looks by itself, in ms. @default 5_000 */
  readonly idle?: number | undefined
  /** Told of every change of state. Must not throw. */
  readonly onState?: ((state: PumpState) => void) | undefined
}

/** A running loop. */
export interface Pump {
  readonly state: PumpState
  /** A hint that there is something to read. Cheap, may be called at any time, never shortens a wait after a failure. */
  poke(): void
  /** Ends the loop after the stage under way; resolves when it has ended. */
  stop(): Promise<void>
}

/** After so much without a pause others get their turn. */
const UNBROKEN_BATCHES = 64
const UNBROKEN_MS = 8

/** Starts the loop. It ends by `stop` or when `write` answers 'stop'; a failure only makes it wait and begin again. */
export function startPump<Cursor, Input, Output>(options: PumpOptions<Cursor, Input, Output>): Pump {
  const { stages, clock, random, limits = { items: 1_000, bytes: 4 << 20 }, idle = 5_000 } = options
  const waits = { first: 100, cap: 30_000, ...options.backoff }
  const sleeper = createSleeper(clock)
  let state: PumpState = { name: 'running' }
  let stopping = false
  let cursor: { readonly at: Cursor } | undefined
  let attempt = 0
  let unbroken = 0
  let rested = clock.now()

  const become = (next: PumpState): void => {
    if (next.name === state.name && next.name !== 'waiting') return
    state = next
    options.onState?.(next)
  }

  /** One turn: true when the loop is over. */
  const turn = async (): Promise<boolean> => {
    cursor ??= { at: await stages.begin() }
    const batch = await stages.read(cursor.at, limits)
    let written: Written = 'written'
    if (batch !== undefined) {
      become({ name: 'running' })
      written = await stages.write(stages.step(batch.input), cursor.at, batch.next)
    } else {
      become({ name: 'idle' })
      if (!(await sleeper.sleep(idle)) && !stopping) written = (await stages.check?.(cursor.at)) ?? 'written'
    }
    if (written === 'stop') return true
    // A destination that is lost at every turn would spin: it waits as after a failure, but it is not an error.
    if (written === 'lost') {
      cursor = undefined
      if (attempt++ > 0) await sleeper.rest(backoff(attempt, random, waits))
      return false
    }
    if (batch !== undefined) cursor = { at: batch.next }
    attempt = 0
    // Synchronous stages would starve the thread of its messages; but a platform's shortest timer is a millisecond, which is longer than a small batch.
    if (batch !== undefined && (++unbroken >= UNBROKEN_BATCHES || clock.now() - rested >= UNBROKEN_MS)) {
      await sleeper.rest(0)
      unbroken = 0
      rested = clock.now()
    }
    return false
  }

  const run = async (): Promise<void> => {
    while (!stopping) {
      try {
        if (await turn()) {
          become({ name: 'stopped', reason: 'taken-over' })
          return
        }
      } catch (error) {
        cursor = undefined
        const delay = backoff(attempt, random, waits)
        attempt++
        become({ name: 'waiting', error, attempt, retryAt: clock.now() + delay })
        await sleeper.rest(delay)
      }
    }
    become({ name: 'stopped', reason: 'asked' })
  }

  const ended = run()
  return {
    get state() {
      return state
    },
    poke: () => sleeper.poke(),
    stop: () => {
      stopping = true
      sleeper.end()
      return ended
    },
  }
}

interface Sleeper {
  /** Resolves after `ms`, or at a poke (true), also one that came before; or at the end. */
  sleep(ms: number): Promise<boolean>
  /** Resolves after `ms` whatever is poked, or at the end. */
  rest(ms: number): Promise<void>
  poke(): void
  end(): void
}

function createSleeper(clock: Clock): Sleeper {
  let poked = false
  let ended = false
  let wake: ((poke: boolean) => void) | undefined
  let deaf = false
  const pause = (ms: number): Promise<boolean> =>
    new Promise((resolve) => {
      const cancel = clock.after(ms, () => wake?.(false))
      wake = (poke) => {
        cancel()
        wake = undefined
        resolve(poke)
      }
    })
  return {
    sleep: async (ms) => {
      if (!poked && !ended) await pause(ms)
      const was = poked
      poked = false
      return was
    },
    rest: async (ms) => {
      if (ended) return
      deaf = true
      await pause(ms)
      deaf = false
    },
    poke: () => {
      poked = true
      if (!deaf) wake?.(true)
    },
    end: () => {
      ended = true
      wake?.(false)
    },
  }
}
