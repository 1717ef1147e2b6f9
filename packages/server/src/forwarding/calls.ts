/**
 * Questions between threads (steps 7 and 8 of the path): each is numbered, bounded in time, and answered once, with a value or an error of the one table.
 */
import type { Clock, ErrorCode } from '@rejoin/shared'
import { SyncError, abortError, toSyncError } from '@rejoin/shared'

/** An error as it crosses. */
export interface PlainError {
  readonly code: ErrorCode
  readonly reason: string
}

/** How a question was answered. */
export type Outcome = { readonly ok: true; readonly value: unknown } | { readonly ok: false; readonly error: PlainError }

/** The questions of one side that wait for an answer. */
export interface Calls {
  /** Sends it under a new number. Rejects with the other side's error, `timeout` after `ms`, `aborted`; `give up` is told the number in both cases. */
  ask(send: (id: number) => void, options: CallOptions): Promise<unknown>
  answer(id: number, outcome: Outcome): void
  /** Nobody is there to answer any more. */
  failAll(error: SyncError): void
}

export interface CallOptions {
  readonly ms: number
  /** What is asked, for the error. */
  readonly what: string
  readonly signal?: AbortSignal | undefined
  readonly giveUp?: ((id: number) => void) | undefined
}

/** Beyond so many at once, questions are refused as `overloaded`. */
const MAX_WAITING = 1_000

/** None waits. */
export function createCalls(clock: Clock): Calls {
  const waiting = new Map<number, (outcome: Outcome | SyncError) => void>()
  let last = 0
  return {
    ask: (send, { ms, what, signal, giveUp }) => {
      if (signal?.aborted === true) return Promise.reject(abortError(signal))
      if (waiting.size >= MAX_WAITING) return Promise.reject(new SyncError('overloaded', `${waiting.size} questions wait already`))
      const id = ++last
      return new Promise((resolve, reject) => {
        const drop = (error: SyncError): void => {
          waiting.get(id)?.(error)
          giveUp?.(id)
        }
        const cancel = clock.after(ms, () => drop(new SyncError('timeout', `${what} took longer than ${ms} ms`)))
        const aborted = (): void => {
          if (signal !== undefined) drop(abortError(signal))
        }
        signal?.addEventListener('abort', aborted, { once: true })
        waiting.set(id, (outcome) => {
          waiting.delete(id)
          cancel()
          signal?.removeEventListener('abort', aborted)
          if (outcome instanceof SyncError) reject(outcome)
          else if (outcome.ok) resolve(outcome.value)
          else reject(new SyncError(outcome.error.code, outcome.error.reason))
        })
        try {
          send(id)
        } catch (thrown) {
          waiting.get(id)?.(toSyncError(thrown))
        }
      })
    },
    answer: (id, outcome) => waiting.get(id)?.(outcome),
    failAll: (error) => {
      for (const settle of [...waiting.values()]) settle(error)
    },
  }
}

/** What running something came to. Never rejects. */
export async function outcomeOf(run: () => unknown): Promise<Outcome> {
  try {
    return { ok: true, value: await run() }
  } catch (thrown) {
    return failure(thrown)
  }
}

/** An error as it crosses. */
export function failure(thrown: unknown): Outcome & { readonly ok: false } {
  const { code, reason } = toSyncError(thrown)
  return { ok: false, error: { code, reason } }
}
