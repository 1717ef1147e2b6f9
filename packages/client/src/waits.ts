/**
 * Who waits for what: promises are made when somebody asks, never before (steps 2 and 5 of the path, as applications see them).
 */
import { SyncError, abortError } from '@rejoin/shared'
import type { IncarnationId } from '@rejoin/shared'

/** How far an edit is to have come: committed in the device's store, fsynced in the relay's log, or written to one of the relay's sinks. */
export type Rung = 'local' | 'relay' | `sink:${string}`

/** What `wait` takes. */
export interface WaitOptions {
  /** The rung to wait for. @default 'relay' */
  readonly to?: Rung | undefined
  /** Ends the wait: it rejects with `aborted`. */
  readonly signal?: AbortSignal | undefined
}

/** The rung to wait for. Throws `bad_option` for what is none: a misspelt rung must not pass for a reached one. */
export function rungOf({ to = 'relay' }: WaitOptions = {}): Rung {
  if (to !== 'relay' && to !== 'local' && !to.startsWith('sink:')) throw new SyncError('bad_option', `to: "${to}" is no rung`)
  return to
}

interface Waiter {
  readonly n: number
  readonly resolve: () => void
  readonly reject: (error: SyncError) => void
}

/** Runs `begin` as a promise that a signal can end. `begin` returns what undoes it. */
export function abortable<T>(
  signal: AbortSignal | undefined,
  begin: (resolve: (value: T) => void, reject: (error: SyncError) => void) => () => void,
): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    if (signal?.aborted === true) {
      reject(abortError(signal))
      return
    }
    const done = (): void => {
      signal?.removeEventListener('abort', abort)
    }
    const abort = (): void => {
      done()
      undo()
      if (signal !== undefined) reject(abortError(signal))
    }
    signal?.addEventListener('abort', abort)
    const undo = begin(
      (value) => {
        done()
        resolve(value)
      },
      (error) => {
        done()
        reject(error)
      },
    )
  })
}

/** Those who wait for edits of one rung. */
export class Waits {
  readonly #lanes = new Map<IncarnationId, Waiter[]>()

  /** Resolves when edit n of the incarnation is there. The caller has looked whether it is already. */
  wait(incarnation: IncarnationId, n: number, signal: AbortSignal | undefined): Promise<void> {
    return abortable<void>(signal, (resolve, reject) => {
      const waiter: Waiter = { n, resolve, reject }
      const lane = this.#lanes.get(incarnation) ?? []
      this.#lanes.set(incarnation, lane)
      // Almost always the last: edits are numbered upwards.
      let at = lane.length
      while (at > 0 && (lane[at - 1]?.n ?? 0) > n) at -= 1
      lane.splice(at, 0, waiter)
      return () => {
        lane.splice(lane.indexOf(waiter), 1)
      }
    })
  }

  /** Edits up to `n` are there. */
  reached(incarnation: IncarnationId, n: number): void {
    const lane = this.#lanes.get(incarnation)
    if (lane === undefined) return
    const end = lane.findIndex((waiter) => waiter.n > n)
    for (const waiter of lane.splice(0, end < 0 ? lane.length : end)) waiter.resolve()
  }

  /** Edits from `from` on will not get there as things stand. */
  failed(incarnation: IncarnationId, from: number, error: SyncError): void {
    const lane = this.#lanes.get(incarnation)
    if (lane === undefined) return
    const start = lane.findIndex((waiter) => waiter.n >= from)
    if (start < 0) return
    for (const waiter of lane.splice(start)) waiter.reject(error)
  }

  /** Nothing more will get there. */
  end(error: SyncError): void {
    for (const incarnation of this.#lanes.keys()) this.failed(incarnation, 0, error)
    this.#lanes.clear()
  }
}

/** Something that happens once, or fails once, or begins anew. */
export class Gate {
  #state: 'shut' | 'open' | SyncError = 'shut'
  readonly #waiters = new Set<{ readonly resolve: () => void; readonly reject: (error: SyncError) => void }>()

  get isOpen(): boolean {
    return this.#state === 'open'
  }

  get error(): SyncError | undefined {
    return typeof this.#state === 'string' ? undefined : this.#state
  }

  wait(signal: AbortSignal | undefined): Promise<void> {
    return abortable<void>(signal, (resolve, reject) => {
      const waiter = { resolve, reject }
      if (this.#state === 'open') resolve()
      else if (this.#state !== 'shut') reject(this.#state)
      else this.#waiters.add(waiter)
      return () => {
        this.#waiters.delete(waiter)
      }
    })
  }

  open(): void {
    this.#settle('open')
  }

  /** Everybody who waits, and who will wait, is told; unless it is open already. */
  fail(error: SyncError): void {
    if (this.#state !== 'open') this.#settle(error)
  }

  shut(): void {
    if (this.#state === 'open') this.#state = 'shut'
  }

  #settle(state: 'open' | SyncError): void {
    this.#state = state
    const waiters = [...this.#waiters]
    this.#waiters.clear()
    for (const waiter of waiters) {
      if (state === 'open') waiter.resolve()
      else waiter.reject(state)
    }
  }
}
