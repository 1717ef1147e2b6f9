/**
 * The relay's handle on the worker that projects and forwards (steps 7 and 8 of the path): starts it, tells it when the log grew, starts it again when it dies.
 */
import { Worker } from 'node:worker_threads'
import type { Clock, Random, Schema } from '@rejoin/shared'
import { backoff, systemClock } from '@rejoin/shared'
import type { SinkSpec } from '../sinks/sink.ts'
import { PATIENCE_MS } from '../slow.ts'
import type { SlowDocument } from '../view/turns.ts'
import { withSlow } from '../view/turns.ts'
import type { Ask, Tell, WorkerSetup, WorkerStatus } from './messages.ts'
import { createTurnMemory, watchTurns } from './turn.ts'

export interface ForwardingOptions {
  /** Folder of the log's files; the log has been opened there. */
  readonly logDirectory: string
  /** The view's file; made when it is missing. */
  readonly viewPath: string
  readonly schema: Schema
  readonly sinks: Readonly<Record<string, SinkSpec>>
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
  | { readonly type: 'died'; readonly error: string; readonly restarts: number; readonly retryIn: number }

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
  /** Ends after the batch under way, at most `CLOSE_MS` later; what is not projected or forwarded is when the worker runs again. */
  close(): Promise<void>
}

/** How long a worker may take to finish a batch when it is closed, in ms. */
const CLOSE_MS = 3_000
/** A worker that ran for so long, in ms, is not in a series of deaths. */
const STEADY_MS = 60_000

/** Starts the worker. It is started again for as long as `close` was not called. */
export function startForwarding(options: ForwardingOptions): Forwarding {
  const { logDirectory, viewPath, schema, sinks, onWorker, clock = systemClock, random = Math.random, patience = PATIENCE_MS } = options
  const module = options.worker ?? new URL('./worker.js', import.meta.url)
  const poked = new Int32Array(new SharedArrayBuffer(4))
  const asked = new Map<number, (status: WorkerStatus | undefined) => void>()
  let worker: Worker | undefined
  let state: ForwardingStatus['worker'] = 'starting'
  let restarts = 0
  let series = 0
  let asks = 0
  let lastError: string | undefined
  let slow: readonly SlowDocument[] = []
  let cancelRestart = (): void => {}

  const send = (ask: Ask): void => worker?.postMessage(ask)
  const answerAll = (): void => {
    for (const answer of asked.values()) answer(undefined)
    asked.clear()
  }
  const hear = (message: Tell): void => {
    if (message.type === 'ready') {
      state = 'running'
      // The view remembers them now.
      slow = []
      onWorker?.({ type: 'running' })
    } else if (message.type === 'status') {
      asked.get(message.id)?.(message.status)
      asked.delete(message.id)
    }
  }
  const start = (): void => {
    const setup: WorkerSetup = { logDirectory, viewPath, schema, sinks, poked, turn: createTurnMemory(), slow }
    // The worker's own standard streams are not the relay's: what it has to say it says by messages.
    const started = new Worker(module, { workerData: setup, name: 'rejoin-forwarding' })
    const since = clock.now()
    let cause = 'it ended by itself'
    let overran = false
    const unwatch = watchTurns(setup.turn, {
      clock,
      patience,
      overrun: (document) => {
        overran = true
        cause = `the document ${JSON.stringify(document.document)} took longer than ${patience} ms`
        slow = withSlow(slow, document)
        onWorker?.({ type: 'slow', ...document })
        void started.terminate()
      },
    })
    worker = started
    started.on('message', hear)
    started.on('error', (error) => {
      cause = error instanceof Error ? error.message : String(error)
    })
    started.on('exit', () => {
      unwatch()
      worker = undefined
      Atomics.store(poked, 0, 0)
      answerAll()
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

  return {
    poke: () => {
      if (worker !== undefined && Atomics.exchange(poked, 0, 1) === 0) send({ type: 'poke' })
    },
    status: async () => {
      const detail = await new Promise<WorkerStatus | undefined>((resolve) => {
        if (state !== 'running') return resolve(undefined)
        asks++
        asked.set(asks, resolve)
        send({ type: 'status', id: asks })
      })
      return { worker: state, restarts, error: lastError, detail }
    },
    close: async () => {
      state = 'closed'
      cancelRestart()
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
