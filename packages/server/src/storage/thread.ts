/**
 * Asking a thread (beside step 5 of the path): what is asked in one turn of the event loop travels as one message, and is answered as one.
 */
import { Worker, parentPort } from 'node:worker_threads'
import type { DocumentId, Position } from '@rejoin/shared'
import { toSyncError } from '@rejoin/shared'
import type { LogFailure } from '../log/log.ts'
import { LogError } from '../log/log.ts'

/** An error in a form that can be posted. */
export interface Refusal {
  /** Undefined: not of the log, `message` says what. */
  readonly failure: LogFailure | undefined
  readonly message: string
  readonly document: DocumentId | undefined
  readonly position: Position | undefined
}

/** An error as it is posted. */
export function refusalOf(error: unknown): Refusal {
  if (error instanceof LogError)
    return { failure: error.failure, message: error.message, document: error.document, position: error.position }
  return { failure: undefined, message: messageOf(error), document: undefined, position: undefined }
}

/** What any thrown thing says. An error of a native module loses its class on the way between threads, not its message. */
function messageOf(error: unknown): string {
  if (typeof error !== 'object' || error === null || !('message' in error)) return String(error)
  const { message, code } = error as { readonly message: unknown; readonly code?: unknown }
  return typeof code === 'string' ? `${String(message)} (${code})` : String(message)
}

/** A posted error as it is thrown: a `LogError`, or `SyncError('internal')`. */
export function errorOf({ failure, message, document, position }: Refusal): Error {
  return failure === undefined ? toSyncError(message) : new LogError(failure, message, { document, position })
}

interface Question<Request> {
  readonly call: number
  readonly request: Request
}

type Answer<Reply> = { readonly call: number; readonly reply: Reply } | { readonly call: number; readonly refusal: Refusal }

/** A thread that answers. */
export interface Thread<Request, Reply> {
  /** Rejects with what the thread threw, or with `gone` when it ends first. */
  ask(request: Request): Promise<Reply>
  /** Ends the thread at once; what it owes is rejected with `cause`. */
  end(cause?: Error): Promise<void>
}

/** Options of `createThread`. */
export interface ThreadOptions {
  /** The module that the thread runs; it calls `serveThread`. */
  readonly module: URL
  readonly data: unknown
  /** Told once when the thread ends without having been asked to, before what it owed is rejected with the error returned here. */
  readonly gone: (cause: Error) => Error
  /** Heap of the thread, in MiB. @default Node's */
  readonly heap?: number | undefined
}

/** Starts a thread. */
export function createThread<Request, Reply>({ module, data, gone, heap }: ThreadOptions): Thread<Request, Reply> {
  const worker = new Worker(module, {
    workerData: data,
    ...(heap === undefined ? {} : { resourceLimits: { maxOldGenerationSizeMb: heap } }),
  })
  const open = new Map<number, { readonly resolve: (reply: Reply) => void; readonly reject: (error: unknown) => void }>()
  let calls = 0
  let outgoing: Question<Request>[] = []
  let over: Error | undefined

  function finish(cause: Error, asked: boolean): void {
    if (over !== undefined) return
    over = cause
    if (!asked) over = gone(cause)
    for (const { reject } of open.values()) reject(over)
    open.clear()
  }

  worker.on('message', (answers: readonly Answer<Reply>[]) => {
    for (const answer of answers) {
      const waiting = open.get(answer.call)
      open.delete(answer.call)
      if ('reply' in answer) waiting?.resolve(answer.reply)
      else waiting?.reject(errorOf(answer.refusal))
    }
  })
  worker.on('error', (error) => {
    finish(new Error(messageOf(error), { cause: error }), false)
  })
  worker.on('exit', (code) => {
    finish(new Error(`the thread ended with code ${code}`), false)
  })

  return {
    ask: (request) =>
      new Promise((resolve, reject) => {
        if (over !== undefined) {
          reject(over)
          return
        }
        const call = ++calls
        open.set(call, { resolve, reject })
        outgoing.push({ call, request })
        if (outgoing.length > 1) return
        queueMicrotask(() => {
          const questions = outgoing
          outgoing = []
          worker.postMessage(questions)
        })
      }),
    end: async (cause = new LogError('failed', 'the log is closed')) => {
      finish(cause, true)
      await worker.terminate()
    },
  }
}

/** What a thread answers: a value, and the buffers in it that are given away. */
export interface Served<Reply> {
  readonly reply: Reply
  readonly transfer?: readonly ArrayBuffer[] | undefined
}

/** The thread's side: answers every question with what `answer` returns or throws, one after another. */
// oxlint-disable-next-line no-unnecessary-type-parameters -- named by the caller, who knows what it is asked
export function serveThread<Request, Reply>(answer: (request: Request) => Served<Reply> | Promise<Served<Reply>>): void {
  const port = parentPort
  if (port === null) throw new Error('serveThread runs in a worker thread')

  async function answerAll(questions: readonly Question<Request>[]): Promise<void> {
    const answers: Answer<Reply>[] = []
    const transfer: ArrayBuffer[] = []
    for (const { call, request } of questions) {
      try {
        const served = await answer(request)
        answers.push({ call, reply: served.reply })
        if (served.transfer !== undefined) transfer.push(...served.transfer)
      } catch (error) {
        answers.push({ call, refusal: refusalOf(error) })
      }
    }
    port?.postMessage(answers, transfer)
  }

  let last = Promise.resolve()
  port.on('message', (questions: readonly Question<Request>[]) => {
    last = last.then(() => answerAll(questions))
  })
}
