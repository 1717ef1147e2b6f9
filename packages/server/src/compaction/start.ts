/**
 * Compaction in threads of its own (beside step 5 of the path): one folds, one answers with state, so that a large fold keeps nobody waiting.
 */
import type { Clock } from '@rejoin/shared'
import type { CompactionWork, DocumentState, Folded } from '../log/compactor.ts'
import { LogError } from '../log/log.ts'
import { PATIENCE_MS, createSlowList } from '../slow.ts'
import type { Thread } from '../storage/thread.ts'
import { createThread } from '../storage/thread.ts'
import type { WorkReply, WorkRequest } from './worker.ts'

/** Options of `startCompactionWork`. */
export interface CompactionThreadOptions {
  /** The log's folder, which a writer has opened. */
  readonly directory: string
  readonly clock: Clock
  /** What one document may take before the thread is ended and goes on with the others, in ms; it is then refused for a while. @default 10,000 */
  readonly timeout?: number | undefined
  /** Heap of each thread, in MiB. @default 1,024 */
  readonly heap?: number | undefined
}

/** Questions that wait for one thread. */
const MAX_WAITING = 10_000
const HEAP = 1_024

/** The work in threads, which are started when they are first needed and again when they die. */
export function startCompactionWork({ directory, clock, timeout = PATIENCE_MS, heap = HEAP }: CompactionThreadOptions): CompactionWork {
  const threads = new Map<WorkRequest['type'], Thread<WorkRequest, WorkReply>>()
  const lines = new Map<WorkRequest['type'], { waiting: number; last: Promise<unknown> }>()
  const slow = createSlowList(clock)
  let closed = false

  function threadFor(type: WorkRequest['type']): Thread<WorkRequest, WorkReply> {
    const running = threads.get(type)
    if (running !== undefined) return running
    const thread = createThread<WorkRequest, WorkReply>({
      module: new URL('./worker.js', import.meta.url),
      data: { directory },
      heap,
      // One document's work may kill it: that is the error of what it was asked, and the next question starts another.
      gone: (cause) => {
        if (threads.get(type) === thread) threads.delete(type)
        return new LogError('overloaded', `the compaction thread ended: ${cause.message}`)
      },
    })
    threads.set(type, thread)
    return thread
  }

  /** One document at a time: the one whose time is over is the one to blame, and those that wait behind it do not end with its thread. */
  function ask(request: WorkRequest): Promise<WorkReply> {
    const line = lines.get(request.type) ?? { waiting: 0, last: Promise.resolve() }
    lines.set(request.type, line)
    if (line.waiting >= MAX_WAITING)
      return Promise.reject(new LogError('overloaded', `${MAX_WAITING} documents wait for compaction already`))
    if (!closed && isSlow(request)) return refuse(request)
    line.waiting++
    const turn = line.last.then(() => work(request)).finally(() => line.waiting--)
    line.last = turn.catch(() => undefined)
    return turn
  }

  const isSlow = ({ type, document }: WorkRequest): boolean => slow.has(`${type} ${document}`)
  const refuse = ({ document }: WorkRequest): Promise<never> =>
    Promise.reject(new LogError('overloaded', `compaction took longer than ${timeout} ms, it is tried again later`, { document }))

  async function work(request: WorkRequest): Promise<WorkReply> {
    if (closed) throw new LogError('failed', 'the log is closed')
    // Asked again: it may have waited behind itself.
    if (isSlow(request)) return refuse(request)
    const thread = threadFor(request.type)
    const cancel = clock.after(timeout, () => {
      slow.add(`${request.type} ${request.document}`)
      if (threads.get(request.type) === thread) threads.delete(request.type)
      void thread.end(new LogError('overloaded', `compaction took longer than ${timeout} ms`, { document: request.document }))
    })
    try {
      return await thread.ask(request)
    } finally {
      cancel()
    }
  }

  return {
    fold: (document) => ask({ type: 'fold', document }) as Promise<Folded | undefined>,
    state: (document, stateVector) => ask({ type: 'state', document, stateVector }) as Promise<DocumentState | undefined>,
    async close() {
      closed = true
      await Promise.all([...threads.values()].map((thread) => thread.end()))
    },
  }
}
