/**
 * Functions of the application (step 8 of the path): run on the thread that has them, in short slices so that the relay on that thread goes on, and called from the worker as if they were there.
 */
import { SyncError } from '@rejoin/shared'
import type { CallSelect } from '../projection/transform.ts'
import type { Selected } from '../projection/select.ts'
import { runSelect } from '../projection/select.ts'
import type { SinkContext, SinkSpec } from '../sinks/sink.ts'
import type { Outcome } from './calls.ts'
import { failure, outcomeOf } from './calls.ts'
import type { FunctionCall } from './messages.ts'

/** How long select functions may keep the relay's thread at a time, in ms. A single call that takes longer does. */
const SLICE_MS = 5
/** Records in one message. */
const PAGE = 500
/** How long a page may take, and how long a function by name, in ms: adapters have limits of their own, this one is for what hangs for ever. */
const SELECT_CALL_MS = 60_000
const FUNCTION_MS = 3_600_000

/** What one worker calls, on the thread that has it. */
export interface FunctionRunner {
  run(id: number, call: FunctionCall): Promise<Outcome>
  /** The signal that the call was given is aborted. */
  abort(id: number): void
  /** The worker has gone: whoever takes its place asks again, so that what still runs is in the way. */
  end(): void
}

/** Runs the functions of these sinks. Selects of all sinks take turns. `breathe` resolves after what waits on this thread had its turn. */
export function createFunctionRunner(
  sinks: Readonly<Record<string, SinkSpec>>,
  { now, breathe }: { readonly now: () => number; readonly breathe: () => Promise<void> },
): FunctionRunner {
  const aborts = new Map<number, AbortController>()
  let line: Promise<unknown> = Promise.resolve()

  const select = async ({ sink, projection, inputs }: FunctionCall & { readonly type: 'select' }): Promise<readonly Selected[]> => {
    const found = sinks[sink]?.forward.projections[projection]
    if (found === undefined) throw new SyncError('not_found', `sink ${sink} has no projection ${projection}`)
    const selected: Selected[] = []
    let began = now()
    for (const input of inputs) {
      if (now() - began >= SLICE_MS) {
        await breathe()
        began = now()
      }
      selected.push(...runSelect(found, [input]))
    }
    return selected
  }
  const named = (id: number, { sink, name, args, signals }: FunctionCall & { readonly type: 'function' }): unknown => {
    const found = sinks[sink]?.functions?.[name] as ((...args: readonly unknown[]) => unknown) | undefined
    if (found === undefined) throw new SyncError('not_found', `sink ${sink} has no function ${name}`)
    const controller = new AbortController()
    aborts.set(id, controller)
    return found(...withSignals(args, signals, controller.signal))
  }

  return {
    run: async (id, call) => {
      try {
        if (call.type === 'function') return cloneable(await outcomeOf(() => named(id, call)))
        const turn = line.then(() => select(call))
        line = turn.catch(() => undefined)
        return await outcomeOf(() => turn)
      } finally {
        aborts.delete(id)
      }
    },
    abort: (id) => aborts.get(id)?.abort(),
    end: () => {
      for (const controller of aborts.values()) controller.abort()
    },
  }
}

/** What a sink calls in the worker, when another thread has it. `ask` has it run there. */
export function remoteFunctions(
  sink: string,
  names: readonly string[],
  ask: (call: FunctionCall, options: { readonly ms: number; readonly signal?: AbortSignal | undefined }) => Promise<unknown>,
): { readonly select: CallSelect; readonly functions: SinkContext['functions'] } {
  return {
    select: async (projection, inputs) => {
      const selected: Selected[] = []
      for (let from = 0; from < inputs.length; from += PAGE) {
        const call: FunctionCall = { type: 'select', sink, projection, inputs: inputs.slice(from, from + PAGE) }
        selected.push(...((await ask(call, { ms: SELECT_CALL_MS })) as readonly Selected[]))
      }
      return selected
    },
    functions: Object.fromEntries(
      names.map((name) => [
        name,
        (...given: readonly unknown[]) => {
          const { args, signals, signal } = withoutSignals(given)
          return ask({ type: 'function', sink, name, args, signals }, { ms: FUNCTION_MS, signal })
        },
      ]),
    ),
  }
}

/** The functions of a sink that this thread has itself. */
export function localFunctions({ functions = {} }: Pick<SinkSpec, 'functions'>): SinkContext['functions'] {
  return Object.fromEntries(
    Object.entries(functions).map(([name, run]) => [
      name,
      async (...args: readonly unknown[]) => (run as (...args: readonly unknown[]) => unknown)(...args),
    ]),
  )
}

type Signals = (FunctionCall & { readonly type: 'function' })['signals']

/** Signals do not cross: where they stood, and the one that there was. */
function withoutSignals(given: readonly unknown[]): {
  readonly args: readonly unknown[]
  readonly signals: Signals
  readonly signal: AbortSignal | undefined
} {
  const signals: (readonly [number, string | null])[] = []
  let signal: AbortSignal | undefined
  const args = given.map((arg, index) => {
    if (arg instanceof AbortSignal) {
      signal ??= arg
      signals.push([index, null])
      return undefined
    }
    if (typeof arg !== 'object' || arg === null || Array.isArray(arg)) return arg
    const found = Object.entries(arg).filter(([, value]) => value instanceof AbortSignal)
    if (found.length === 0) return arg
    for (const [property, value] of found) {
      signal ??= value as AbortSignal
      signals.push([index, property])
    }
    return Object.fromEntries(Object.entries(arg).filter(([, value]) => !(value instanceof AbortSignal)))
  })
  return { args, signals, signal }
}

function withSignals(args: readonly unknown[], signals: Signals, signal: AbortSignal): readonly unknown[] {
  const restored = [...args]
  for (const [index, property] of signals)
    restored[index] = property === null ? signal : { ...(restored[index] as object), [property]: signal }
  return restored
}

/** What a function returned may be nothing that crosses, and an answer has to. */
function cloneable(outcome: Outcome): Outcome {
  if (!outcome.ok) return outcome
  try {
    return { ok: true, value: structuredClone(outcome.value) }
  } catch (thrown) {
    return failure(
      new SyncError(
        'bad_option',
        `a function returned what is no plain data: ${thrown instanceof Error ? thrown.message : String(thrown)}`,
      ),
    )
  }
}
