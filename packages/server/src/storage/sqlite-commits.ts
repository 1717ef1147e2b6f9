/**
 * The writer's thread as the main thread sees it (step 5 of the path): one message a turn, answers in the order of the calls, and the end of it all
 * when a durability barrier fails.
 */
import { Worker } from 'node:worker_threads'
import type { ErrorCode } from '@rejoin/shared'
import { SyncError, toSyncError } from '@rejoin/shared'
import type { Append, Appended } from '../log/log.ts'
import { LogError } from '../log/log.ts'
import { packAppends, unpackResults } from './pack.ts'
import type { FromWriter, ToWriter, WriterData } from './sqlite-writer.ts'
import { errorOf } from './thread.ts'

/** What is asked beside appends. */
export type WriterTask = WithoutCall<Extract<ToWriter, { call: number }>>
type WithoutCall<T> = T extends unknown ? Omit<T, 'call'> : never

/** The thread. After `failed` every call rejects with that error. */
export interface Commits {
  readonly id: string
  readonly failed: Promise<LogError>
  append(batch: readonly Append[]): Promise<readonly Appended[]>
  ask(task: WriterTask): Promise<number>
  /** Ends it for a cause outside of it. Returns the error that everybody is given. */
  fail(message: string): LogError
  /** Waits for what is under way, checkpoints, ends. */
  close(): Promise<void>
}

interface Waiting<T> {
  readonly resolve: (value: T) => void
  readonly reject: (error: unknown) => void
}

interface WaitingBatch extends Waiting<readonly Appended[]> {
  readonly batch: readonly Append[]
  readonly bytes: number
}

/** What an append costs beside its update, in bytes. */
const APPEND_BYTES = 200

/** Starts the thread, which opens the log. `pendingBytes`: how much may wait. Throws `SyncError`. */
export async function startCommits(data: WriterData, pendingBytes: number): Promise<Commits> {
  const worker = new Worker(new URL('./sqlite-writer.js', import.meta.url), { workerData: data })
  const { id } = await opened(worker)
  let unsent: WaitingBatch[] = []
  const sent: WaitingBatch[] = []
  const tasks = new Map<number, Waiting<number>>()
  let calls = 0
  let bytes = 0
  let over: LogError | undefined
  let closing: (() => void) | undefined
  let tellFailed: (error: LogError) => void
  const failed = new Promise<LogError>((resolve) => {
    tellFailed = resolve
  })

  function end(error: LogError): void {
    over = error
    for (const waiting of [...sent.splice(0), ...unsent.splice(0), ...tasks.values()]) waiting.reject(error)
    tasks.clear()
  }

  function fail(message: string): LogError {
    if (over !== undefined) return over
    const error = new LogError('failed', message)
    end(error)
    tellFailed(error)
    return error
  }

  function take(count: number): WaitingBatch[] {
    const batches = sent.splice(0, count)
    for (const batch of batches) bytes -= batch.bytes
    return batches
  }

  function send(): void {
    if (unsent.length === 0) return
    const packed = packAppends(unsent.map(({ batch }) => batch))
    sent.push(...unsent)
    unsent = []
    worker.postMessage({ type: 'append', bytes: packed } satisfies ToWriter, [packed.buffer])
  }

  function settle(message: FromWriter): void {
    if (over !== undefined) return
    switch (message.type) {
      case 'appended': {
        const results = unpackResults(message.bytes)
        take(results.length).forEach((waiting, i) => {
          const result = results[i]
          if (result instanceof LogError || result === undefined) waiting.reject(result)
          else waiting.resolve(result)
        })
        return
      }
      case 'refused':
        for (const waiting of take(message.calls)) waiting.reject(errorOf(message.refusal))
        return
      case 'done':
      case 'undone': {
        const waiting = tasks.get(message.call)
        tasks.delete(message.call)
        if (message.type === 'done') waiting?.resolve(message.value)
        else waiting?.reject(errorOf(message.refusal))
        return
      }
      case 'failed':
        fail(message.message)
        return
      case 'closed':
        // At once: the thread's end may be told in this same turn, and must not pass for a failure.
        end(new LogError('failed', 'the log is closed'))
        closing?.()
        return
      case 'ready':
    }
  }

  worker.on('message', settle)
  worker.on('error', (error) => {
    fail(`the writer's thread died: ${String(error)}`)
    closing?.()
  })
  worker.on('exit', () => {
    fail("the writer's thread ended")
    closing?.()
  })

  return {
    id,
    failed,
    append(batch) {
      if (over !== undefined) return Promise.reject(over)
      const cost = batch.reduce((sum, append) => sum + APPEND_BYTES + (append.update?.length ?? 0), 0)
      if (bytes > 0 && bytes + cost > pendingBytes) return Promise.reject(new LogError('overloaded', `${bytes} bytes wait to be written`))
      bytes += cost
      return new Promise((resolve, reject) => {
        const first = unsent.push({ batch, bytes: cost, resolve, reject }) === 1
        // A thread that has nothing to do begins at once; otherwise what else comes in this turn travels along.
        if (first && sent.length === 0) send()
        else if (first) queueMicrotask(send)
      })
    },
    ask(task) {
      if (over !== undefined) return Promise.reject(over)
      const call = ++calls
      return new Promise((resolve, reject) => {
        tasks.set(call, { resolve, reject })
        worker.postMessage({ ...task, call } satisfies ToWriter)
      })
    },
    fail,
    async close() {
      if (over === undefined) {
        send()
        await new Promise<void>((resolve) => {
          closing = resolve
          worker.postMessage({ type: 'close' } satisfies ToWriter)
        })
      }
      await worker.terminate()
    },
  }
}

/** Waits until the thread has opened the log. */
async function opened(worker: Worker): Promise<Extract<FromWriter, { type: 'ready' }>> {
  try {
    return await new Promise((resolve, reject) => {
      worker.once('message', resolve)
      worker.once('error', reject)
    })
  } catch (error) {
    // A thread's error arrives as a plain Error with the fields it had.
    const { code, reason } = error as { code?: ErrorCode; reason?: string }
    throw reason === undefined || code === undefined ? toSyncError(error, 'storage_failed') : new SyncError(code, reason, { cause: error })
  }
}
