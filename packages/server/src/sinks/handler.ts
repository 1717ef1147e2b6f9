/**
 * The application's own code as a destination (step 8 of the path): a function that is given changes, with the cursor, the retries and the dead letters of any other sink.
 */
import { SyncError, systemClock } from '@rejoin/shared'
import type { Clock } from '@rejoin/shared'
import type { Delivery, Refusal } from './delivery.ts'
import { deliverySink } from './delivery.ts'
import type { Message } from './message.ts'
import { messageOf } from './message.ts'
import type { OpenSink, SinkContext, SinkPlace, SinkRow, SinkSpec, SinkTraits } from './sink.ts'
import type { ForwardOptions } from './spec.ts'
import { sinkSpec } from './spec.ts'

export type { Message } from './message.ts'

const TRAITS: SinkTraits = { transactional: false, strategies: ['state', 'actions'], readable: false }
const NAMES = ['timeout', 'attempts']

/** How long a call may take, and how often it may throw. Checked by `handler()`. */
export interface HandlerOptions extends ForwardOptions {
  /** How long one call may take, in seconds: then its signal fires, and the sink fails until the call has ended. @default 30 */
  readonly timeout?: number | undefined
  /** After so many calls in a row that threw, changes come one at a time, and the one at which it throws as often again counts as refused. @default never */
  readonly attempts?: number | undefined
}

/**
 * Resolves when the changes are dealt with for good, with those that never can be: they become dead letters. When it throws, all of them come again, so it must not matter that a change comes twice.
 * Never called again before it has ended, except in other lanes.
 */
export type Handle = (
  changes: readonly Message[],
  context: { readonly signal: AbortSignal },
) => Promise<readonly RefusedChange[] | undefined | void>

/** A change that will never be taken, by its id. */
export interface RefusedChange {
  readonly id: string
  readonly reason: string
}

/** Code of your own: `sinks: { mail: handler({ from: 'now', strategy: 'actions' }, async (changes, { signal }) => { … }) }`. At most 500 changes a call unless said. Throws `SyncError('bad_option')`. */
export function handler(options: HandlerOptions, handle: Handle): SinkSpec {
  if (typeof handle !== 'function') refuse('the second argument is a function')
  const own = { timeout: options.timeout, attempts: options.attempts }
  parse(own)
  const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined))
  return sinkSpec(
    'handler',
    import.meta.url,
    TRAITS,
    { batch: { items: 500 }, ...given },
    {
      options: own,
      names: NAMES,
      // Where the function runs, so that only plain data crosses to the worker.
      functions: {
        handle: async (changes: readonly Message[], context: { readonly signal: AbortSignal }) => plain(await handle(changes, context)),
      },
    },
  )
}

/** Opens the sink, in the worker. */
export const openSink: OpenSink = async (options, context) => deliverySink(createHandler(options, context), context)

/** Changes remembered as dealt with while a commit is not through. */
const MAX_REMEMBERED = 100_000

/** The delivery. */
export function createHandler(
  options: Readonly<Record<string, unknown>>,
  { functions }: Pick<SinkContext, 'functions'>,
  clock: Clock = systemClock,
): Delivery {
  const { timeout, attempts } = parse(options)
  const handle = functions['handle'] ?? refuse('its function is missing')
  /** Calls that were given up and have not ended: no other begins before they have. */
  const overdue = new Set<Promise<void>>()
  const done = new Set<string>()
  const failures = new Map<string, number>()
  let failedCalls = 0

  /** One call. Rejects when it throws or takes too long. */
  const call = async (messages: readonly Message[], signal: AbortSignal): Promise<readonly RefusedChange[]> => {
    if (overdue.size > 0) await limited(Promise.all(overdue), signal, 'an earlier call of the handler has not ended')
    const time = new AbortController()
    const running = handle(messages, { signal: AbortSignal.any([signal, time.signal]) })
    let hasEnded = false
    const end = (): void => {
      hasEnded = true
      overdue.delete(ended)
    }
    const ended: Promise<void> = running.then(end, end)
    try {
      return plain(await limited(running, signal, 'the handler did not end'))
    } finally {
      if (!hasEnded) overdue.add(ended)
      time.abort()
    }
  }
  const limited = <T>(promise: Promise<T>, signal: AbortSignal, what: string): Promise<T> =>
    new Promise((resolve, reject) => {
      const stop = clock.after(timeout, () => finish(() => reject(new SyncError('timeout', `${what} within ${timeout} ms`))))
      const abort = (): void => finish(() => reject(new SyncError('aborted', 'the handler was given up')))
      const finish = (settle: () => void): void => {
        stop()
        signal.removeEventListener('abort', abort)
        settle()
      }
      signal.addEventListener('abort', abort, { once: true })
      promise.then(
        (value) => finish(() => resolve(value)),
        (error: unknown) =>
          finish(() => reject(error instanceof Error ? error : new SyncError('internal', 'the handler threw what is no error'))),
      )
      if (signal.aborted) abort()
    })
  /** One change alone, after calls with several have thrown too often. */
  const alone = async (message: Message, signal: AbortSignal): Promise<readonly RefusedChange[]> => {
    try {
      return await call([message], signal)
    } catch (error) {
      const failed = (failures.get(message.id) ?? 0) + 1
      if (signal.aborted || failed < attempts) {
        if (failures.size < MAX_REMEMBERED) failures.set(message.id, failed)
        throw error
      }
      failures.delete(message.id)
      return [{ id: message.id, reason: error instanceof Error ? error.message : String(error) }]
    }
  }
  return {
    begin: async () => ({}),
    deliver: async (rows, { to, force }, signal) => {
      const waiting = new Map(rows.map((row): [string, SinkRow] => [messageOf(row, to).id, row]))
      if (force !== true) for (const id of done) waiting.delete(id)
      const refused: Refusal[] = []
      const messages = messagesOf(waiting, to)
      const isAlone = failedCalls >= attempts
      try {
        for (const part of isAlone ? messages.map((message) => [message]) : messages.length === 0 ? [] : [messages]) {
          const [first] = part
          const refusals = isAlone && first !== undefined ? await alone(first, signal) : await call(part, signal)
          refused.push(...refusalsOf(refusals, part, waiting))
          for (const { id } of part) if (done.size < MAX_REMEMBERED && !refusals.some((each) => each.id === id)) done.add(id)
        }
      } catch (error) {
        if (!signal.aborted) failedCalls++
        throw error
      }
      failedCalls = 0
      return refused
    },
    moved: async () => done.clear(),
    close: async () => undefined,
  }
}

function messagesOf(rows: ReadonlyMap<string, SinkRow>, to: SinkPlace): readonly Message[] {
  return [...rows.values()].map((row) => messageOf(row, to))
}

function refusalsOf(refused: readonly RefusedChange[], part: readonly Message[], rows: ReadonlyMap<string, SinkRow>): readonly Refusal[] {
  return refused.map(({ id, reason }) => {
    const row = part.some((message) => message.id === id) ? rows.get(id) : undefined
    return row === undefined ? refuse(`it refused a change that it was not given: ${JSON.stringify(id)}`) : { row, reason }
  })
}

function plain(result: unknown): readonly RefusedChange[] {
  if (result === undefined || result === null) return []
  if (!Array.isArray(result)) refuse('it returns nothing, or an array of refused changes { id, reason }')
  return result.map((each: unknown) => {
    const { id, reason } = (each ?? {}) as Partial<Record<'id' | 'reason', unknown>>
    if (typeof id !== 'string' || typeof reason !== 'string') refuse('it returns nothing, or an array of refused changes { id, reason }')
    return { id, reason }
  })
}

function parse({ timeout = 30, attempts = Number.POSITIVE_INFINITY }: Readonly<Record<string, unknown>>): {
  /** ms. */
  readonly timeout: number
  readonly attempts: number
} {
  if (typeof timeout !== 'number' || !(timeout > 0)) refuse('timeout is a number of seconds above 0')
  if (typeof attempts !== 'number' || !(attempts >= 1)) refuse('attempts is a number from 1')
  return { timeout: timeout * 1000, attempts }
}

function refuse(problem: string): never {
  throw new SyncError('bad_option', `handler(): ${problem}`)
}
