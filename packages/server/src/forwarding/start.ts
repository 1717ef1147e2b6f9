/**
 * The relay's handle on the worker that projects and forwards (steps 7 and 8 of the path): starts it, tells it when the log grew, starts it again when it dies.
 */
import { Worker } from 'node:worker_threads'
import type { Clock, DocumentId, Random, Schema } from '@rejoin/shared'
import { SyncError, backoff, systemClock } from '@rejoin/shared'
import type { SinkSpec } from '../sinks/sink.ts'
import { PATIENCE_MS } from '../slow.ts'
import type { SlowDocument } from '../view/turns.ts'
import { withSlow } from '../view/turns.ts'
import { createCalls } from './calls.ts'
import type { ChangesPage, ChangesRequest } from './changes.ts'
import type { SinkAnswer, SinkCommand } from './commands.ts'
import { PATIENCE } from './commands.ts'
import type { FunctionRunner } from './functions.ts'
import { createFunctionRunner } from './functions.ts'
import type { SlowSelect } from './guard.ts'
import { SELECT_MS, SELECT_NAME_BYTES, callText, functionOf, withSlowSelect } from './guard.ts'
import type { Ask, Tell, WorkerSetup, WorkerStatus } from './messages.ts'
import { plainSpec } from './plain.ts'
import type { RungDesk } from './rungs.ts'
import { createRungDesk } from './rungs.ts'
import type { Overrun } from './turn.ts'
import { createTurnMemory, watchTurns } from './turn.ts'

export interface ForwardingOptions {
  /** Folder of the log's files; the log has been opened there. */
  readonly logDirectory: string
  /** The view's file; made when it is missing. */
  readonly viewPath: string
  readonly schema: Schema
  readonly sinks: Readonly<Record<string, SinkSpec>>
  /** File whose default export has the functions of these sinks; otherwise they run on this thread. */
  readonly config?: string | undefined
  /** How long versions of the view are kept, in ms. @default 7 days */
  readonly historyMs?: number | undefined
  /** Told when the worker dies (it is started again) and once it runs. Must not throw. */
  readonly onWorker?: ((event: WorkerEvent) => void) | undefined
  /** How long one document may keep view and sinks from all others, in ms, before the worker is ended and goes on without it. @default 10,000 */
  readonly patience?: number | undefined
  readonly clock?: Clock | undefined
  readonly random?: Random | undefined
  /** The worker's module. @default the one beside this */
  readonly worker?: URL | undefined
}

/** What happens to the worker. `retryIn` in ms. */
export type WorkerEvent =
  | { readonly type: 'running' }
  /** A document took too long: the worker is ended and started again without it. */
  | ({ readonly type: 'slow' } & SlowDocument)
  /** A function of the application took too long, such as select at a record: likewise. `what` says which. */
  | { readonly type: 'slow-select'; readonly what: string }
  | { readonly type: 'died'; readonly error: string; readonly restarts: number; readonly retryIn: number }
  /** It runs, but not as was asked. */
  | { readonly type: 'warning'; readonly message: string }

/** The worker as a whole: `worker` says whether there is one, `detail` is its own word, absent while there is none. */
export interface ForwardingStatus {
  readonly worker: 'starting' | 'running' | 'restarting' | 'closed'
  readonly restarts: number
  /** Why it died last. */
  readonly error?: string | undefined
  readonly detail?: WorkerStatus | undefined
}

/** A running worker. */
export interface Forwarding {
  /** The log has grown. Cheap: while the worker has not looked yet, further pokes cost an atomic exchange. */
  poke(): void
  status(): Promise<ForwardingStatus>
  /** Asks something of one sink. Rejects with `SyncError`: `not_found`, `timeout`, `aborted`, `overloaded` while there is no worker, or what the sink says. */
  command<Command extends SinkCommand>(sink: string, command: Command, signal?: AbortSignal): Promise<SinkAnswer<Command>>
  /** A page of the feed of changes. Rejects likewise. */
  changes(request: ChangesRequest, signal?: AbortSignal): Promise<ChangesPage>
  /** Waits for an entry to reach a sink; the answer comes once, later. Returns what ends the wait. */
  wait(...what: Parameters<RungDesk['wait']>): () => void
  /** Ends after the batch under way, at most `CLOSE_MS` later; what is not projected or forwarded is when the worker runs again. */
  close(): Promise<void>
}

/** How long a worker may take to finish a batch when it is closed, in ms. */
const CLOSE_MS = 3_000
/** A worker that ran for so long, in ms, is not in a series of deaths. */
const STEADY_MS = 60_000
const DAY_MS = 86_400_000
/** How long the worker may take to say how it is, and to read a page, in ms: a batch may be under way. */
const STATUS_MS = 30_000
const PAGE_MS = 30_000

/** Starts the worker. It is started again for as long as `close` was not called. */
export function startForwarding(options: ForwardingOptions): Forwarding {
  const { sinks, onWorker, clock = systemClock, random = Math.random, patience = PATIENCE_MS } = options
  const module = options.worker ?? new URL('./worker.js', import.meta.url)
  const poked = new Int32Array(new SharedArrayBuffer(4))
  const calls = createCalls(clock)
  let worker: Worker | undefined
  let state: ForwardingStatus['worker'] = 'starting'
  let restarts = 0
  let series = 0
  let lastError: string | undefined
  let slow: readonly SlowDocument[] = []
  let slowSelects: readonly SlowSelect[] = []
  let cancelRestart = (): void => {}

  const send = (ask: Ask): void => worker?.postMessage(ask)
  const rungs = createRungDesk(send)
  const hear = (from: Worker, functions: FunctionRunner, message: Tell): void => {
    switch (message.type) {
      case 'ready':
        state = 'running'
        // The view remembers them now.
        slow = []
        rungs.ready()
        onWorker?.({ type: 'running' })
        return
      case 'reply':
        calls.answer(message.id, message.outcome)
        return
      case 'call':
        // The worker that asked may be gone by then, and the next one counts anew.
        void functions
          .run(message.id, message.call)
          .then((outcome) => from.postMessage({ type: 'called', id: message.id, outcome } satisfies Ask))
        return
      case 'abort':
        functions.abort(message.id)
        return
      case 'reached':
        rungs.hear(message)
        return
      case 'warning':
        onWorker?.(message)
        return
      case 'closed':
    }
  }
  const start = (): void => {
    const setup = setupOf(options, { poked, slow, slowSelects })
    // The worker's own standard streams are not the relay's: what it has to say it says by messages.
    const started = new Worker(module, { workerData: setup, name: 'rejoin-forwarding' })
    const since = clock.now()
    let cause = 'it ended by itself'
    let overran = false
    const end = (because: string, event: WorkerEvent): void => {
      overran = true
      cause = because
      onWorker?.(event)
      void started.terminate()
    }
    const unwatch = watchTurns(setup.turn, {
      clock,
      patience,
      overrun: ({ name, bytes, at }) => {
        const called = functionOf(name)
        if (called !== undefined) return endSelect(called, at, patience)
        const document = { document: name as DocumentId, bytes, at }
        slow = withSlow(slow, document)
        end(`the document ${JSON.stringify(name)} took longer than ${patience} ms`, { type: 'slow', ...document })
      },
    })
    const endSelect = (name: string, at: number, ms: number): void => {
      slowSelects = withSlowSelect(slowSelects, name, at)
      end(`${callText(name)} took longer than ${ms} ms`, { type: 'slow-select', what: callText(name) })
    }
    const selects = { clock, patience: SELECT_MS, overrun: ({ name, at }: Overrun) => endSelect(name, at, SELECT_MS) }
    // Without a file the functions are on this thread: there is nobody to watch.
    const unwatchSelects = options.config === undefined ? undefined : watchTurns(setup.selectTurn, selects)
    const functions = createFunctionRunner(sinks, {
      now: () => performance.now(),
      breathe: () => new Promise((resolve) => setImmediate(resolve)),
    })
    worker = started
    started.on('message', (message: Tell) => hear(started, functions, message))
    started.on('error', (error) => {
      cause = textOf(error)
    })
    started.on('exit', () => {
      unwatch()
      unwatchSelects?.()
      functions.end()
      worker = undefined
      Atomics.store(poked, 0, 0)
      calls.failAll(new SyncError('overloaded', 'the worker that keeps view and sinks ended; it is started again'))
      if (state === 'closed') return
      if (overran) series = 0
      else series = clock.now() - since > STEADY_MS ? 0 : series + 1
      restarts++
      lastError = cause
      state = 'restarting'
      const retryIn = backoff(series, random, { first: 100, cap: 30_000 })
      onWorker?.({ type: 'died', error: cause, restarts, retryIn })
      cancelRestart = clock.after(retryIn, start)
    })
  }
  start()

  const ask = (make: (id: number) => Ask, what: string, ms: number, signal?: AbortSignal): Promise<unknown> => {
    if (state !== 'running') return Promise.reject(new SyncError('overloaded', `the worker that keeps view and sinks is ${state}`))
    return calls.ask((id) => send(make(id)), { ms, what, signal, giveUp: (id) => send({ type: 'cancel', id }) })
  }
  return {
    poke: () => {
      if (worker !== undefined && Atomics.exchange(poked, 0, 1) === 0) send({ type: 'poke' })
    },
    wait: (what, answer) => rungs.wait(what, answer),
    status: async () => {
      const detail = await ask((id) => ({ type: 'status', id }), 'the status', STATUS_MS).catch(() => undefined)
      return { worker: state, restarts, error: lastError, detail: detail as WorkerStatus | undefined }
    },
    command: (sink, command, signal) =>
      ask((id) => ({ type: 'command', id, sink, command }), `${command.type} of sink ${sink}`, PATIENCE[command.type], signal) as Promise<
        SinkAnswer<typeof command>
      >,
    changes: (request, signal) =>
      ask((id) => ({ type: 'changes', id, request }), 'a page of changes', request.wait + PAGE_MS, signal) as Promise<ChangesPage>,
    close: async () => {
      state = 'closed'
      cancelRestart()
      rungs.close()
      const closing = worker
      if (closing === undefined) return
      const ended = new Promise<void>((resolve) => closing.once('exit', () => resolve()))
      send({ type: 'close' })
      const cancel = clock.after(CLOSE_MS, () => void closing.terminate())
      await ended
      cancel()
    },
  }
}

function setupOf(
  { logDirectory, viewPath, schema, sinks, config, historyMs = 7 * DAY_MS }: ForwardingOptions,
  rest: Pick<WorkerSetup, 'poked' | 'slow' | 'slowSelects'>,
): WorkerSetup {
  const plain = Object.fromEntries(Object.entries(sinks).map(([name, spec]) => [name, plainSpec(spec)]))
  const memories = { turn: createTurnMemory(), selectTurn: createTurnMemory(SELECT_NAME_BYTES) }
  return { logDirectory, viewPath, schema, sinks: plain, config, historyMs, ...memories, ...rest }
}

/** Errors of classes that cannot cross threads, such as SQLite's, arrive as plain objects with no more than their code. */
function textOf(error: unknown): string {
  if (error instanceof Error) return error.message
  if (typeof error !== 'object' || error === null) return String(error)
  const { message, code } = error as { readonly message?: unknown; readonly code?: unknown }
  return [message, code].filter((part) => typeof part === 'string').join(' ') || JSON.stringify(error)
}
