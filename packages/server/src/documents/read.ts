/**
 * Whole documents out of the log, for HTTP (beside the path): bytes are read here, and put together in a worker that exists while somebody asks.
 */
import { Worker } from 'node:worker_threads'
import type { Clock, DocumentId, Schema, Seq } from '@rejoin/shared'
import { SyncError } from '@rejoin/shared'
import type { DocumentReader } from '../http/app.ts'
import type { LogReader } from '../log/log.ts'
import { PATIENCE_MS, createSlowList } from '../slow.ts'
import { createLogSource } from '../view/source.ts'
import type { Answer, Ask } from './worker.ts'

export interface DocumentReaderOptions {
  readonly log: LogReader
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

/** Reads documents of `log`. `close` ends the worker; requests under way reject as `draining`. */
export function createDocumentReader({
  log,
  schema,
  clock,
  maxWaiting = 64,
  patience = PATIENCE_MS,
}: DocumentReaderOptions): DocumentReader & { close(): Promise<void> } {
  // Only whole documents are read: what a source lists besides is never asked.
  const source = createLogSource(log, { id: '', ends: async () => new Map(), documents: async () => [] })
  const bench = createBench(clock, patience)
  const slow = createSlowList(clock)
  let waiting = 0
  let line: Promise<unknown> = Promise.resolve()

  async function build(document: DocumentId, as: Ask['as']): Promise<{ readonly seq: Seq; readonly answer: Answer } | undefined> {
    const head = await log.head(document)
    if (head === undefined || head.seq === 0) return undefined
    // Asked again: it may have waited behind itself.
    if (slow.has(document)) throw tooLong()
    const { seq, updates } = await source.load(document, head.seq)
    return { seq, answer: await bench.work({ updates, as }, () => slow.add(document)) }
  }

  /** One after the other: a document in memory at a time, and one in the worker. */
  function inLine<T>(document: DocumentId, run: () => Promise<T>): Promise<T> {
    if (slow.has(document)) return Promise.reject(tooLong())
    if (waiting >= maxWaiting) return Promise.reject(new SyncError('overloaded', `${waiting} documents are being read already`))
    waiting++
    const turn = line.then(run).finally(() => waiting--)
    line = turn.catch(() => undefined)
    return turn
  }

  return {
    state: (document) =>
      inLine(document, async () => {
        const built = await build(document, { type: 'update' })
        return built && { seq: built.seq, update: ofType(built.answer, 'update').update }
      }),
    collections:
      schema &&
      ((document) =>
        inLine(document, async () => {
          const built = await build(document, { type: 'json', schema })
          return built && { seq: built.seq, json: ofType(built.answer, 'json').json }
        })),
    close: () => bench.close(),
  }
}

function tooLong(): SyncError {
  return new SyncError('overloaded', 'the document could not be put together in time')
}

function ofType<T extends Answer['type']>(answer: Answer, type: T): Extract<Answer, { type: T }> {
  if (answer.type === type) return answer as Extract<Answer, { type: T }>
  throw new SyncError('internal', answer.type === 'failed' ? answer.reason : 'the worker answered something else')
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
      if (closed) return Promise.reject(new SyncError('draining', 'the relay is going down'))
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
        // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a worker of Node, not a window
        at.postMessage(ask)
      })
    },
    close: () => {
      closed = true
      return end(new SyncError('draining', 'the relay is going down'))
    },
  }
}
