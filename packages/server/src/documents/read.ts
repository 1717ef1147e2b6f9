/**
 * Whole documents out of the log, for HTTP (beside the path): as one update from whoever keeps states, as records by a worker that exists while somebody asks.
 */
import { Worker } from 'node:worker_threads'
import type { Clock, DocumentId, Schema, Seq } from '@rejoin/shared'
import { SyncError } from '@rejoin/shared'
import type { DocumentReader } from '../http/app.ts'
import { LogError } from '../log/log.ts'
import { PATIENCE_MS, createSlowList } from '../slow.ts'
import type { Answer, Ask } from './worker.ts'

/** A document as one update, as of `seq`. */
interface State {
  readonly seq: Seq
  readonly update: Uint8Array
}

export interface DocumentReaderOptions {
  /** As `Compactor.state`: durable entries only, and not on this thread. The bytes are the reader's. */
  readonly state: (document: DocumentId) => Promise<State | undefined>
  readonly schema: Schema | undefined
  readonly clock: Clock
  /** Requests that may wait for the worker; beyond that they are refused as `overloaded`. @default 64 */
  readonly maxWaiting?: number | undefined
  /** What one document may take, in ms; one that takes longer is given up, the worker with it, and refused as `overloaded` for a while. @default 10,000 */
  readonly patience?: number | undefined
}

/** The worker ends when nobody asked for so long, in ms. */
const IDLE_MS = 30_000

const nothing = (): void => {}

/** Reads documents. `close` ends the worker; requests under way reject as `draining`. */
export function createDocumentReader({
  state,
  schema,
  clock,
  maxWaiting = 64,
  patience = PATIENCE_MS,
}: DocumentReaderOptions): DocumentReader & { close(): Promise<void> } {
  const bench = createBench(clock, patience)
  const slow = createSlowList(clock)
  let waiting = 0
  let closed = false
  let line: Promise<unknown> = Promise.resolve()

  async function read(document: DocumentId): Promise<State | undefined> {
    if (closed) throw goingDown()
    try {
      const whole = await state(document)
      return whole?.seq === 0 ? undefined : whole
    } catch (error) {
      if (error instanceof LogError && error.failure === 'overloaded') throw tooLong()
      if (error instanceof LogError && error.failure === 'failed') throw goingDown()
      throw error
    }
  }

  async function records(document: DocumentId, of: Schema): Promise<{ readonly seq: Seq; readonly json: string } | undefined> {
    // Asked again: it may have waited behind itself.
    if (slow.has(document)) throw tooLong()
    const whole = await read(document)
    if (whole === undefined) return undefined
    const answer = await bench.work({ update: whole.update, schema: of }, () => slow.add(document))
    if (answer.type === 'failed') throw new SyncError('internal', answer.reason)
    return { seq: whole.seq, json: answer.json }
  }

  /** One after the other: a document in memory at a time, and one in the worker. */
  function inLine<T>(run: () => Promise<T>): Promise<T> {
    if (waiting >= maxWaiting) return Promise.reject(new SyncError('overloaded', `${waiting} documents are being read already`))
    waiting++
    const turn = line.then(run).finally(() => waiting--)
    line = turn.catch(() => undefined)
    return turn
  }

  return {
    state: (document) => inLine(() => read(document)),
    collections: schema && ((document) => (slow.has(document) ? Promise.reject(tooLong()) : inLine(() => records(document, schema)))),
    close: () => {
      closed = true
      return bench.close()
    },
  }
}

function tooLong(): SyncError {
  return new SyncError('overloaded', 'the document could not be put together in time')
}

function goingDown(): SyncError {
  return new SyncError('draining', 'the relay is going down')
}

/** The worker, started when there is work, and its one piece of work. */
function createBench(clock: Clock, patience: number): { work(ask: Ask, overrun: () => void): Promise<Answer>; close(): Promise<void> } {
  let worker: Worker | undefined
  let closed = false
  let finish: ((result: Answer | SyncError) => void) | undefined
  let cancelIdle = nothing

  const end = async (because: SyncError): Promise<void> => {
    const ending = worker
    worker = undefined
    finish?.(because)
    cancelIdle()
    await ending?.terminate()
  }
  const start = (): Worker => {
    const started = new Worker(new URL('./worker.js', import.meta.url))
    started.unref()
    const died = (error: unknown): void => {
      if (worker !== started) return
      worker = undefined
      finish?.(new SyncError('internal', 'the worker that reads documents died', { cause: error }))
    }
    started
      .on('message', (answer: Answer) => finish?.(answer))
      .on('error', died)
      .on('exit', died)
    return started
  }
  return {
    work(ask, overrun) {
      if (closed) return Promise.reject(goingDown())
      cancelIdle()
      const at = (worker ??= start())
      return new Promise((resolve, reject) => {
        const cancel = clock.after(patience, () => {
          overrun()
          void end(tooLong())
        })
        finish = (result) => {
          finish = undefined
          cancel()
          cancelIdle = clock.after(IDLE_MS, () => void end(new SyncError('internal', 'idle')))
          if (result instanceof SyncError) reject(result)
          else resolve(result)
        }
        at.postMessage(ask, [ask.update.buffer as ArrayBuffer])
      })
    },
    close: () => {
      closed = true
      return end(goingDown())
    },
  }
}
