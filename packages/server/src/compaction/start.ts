/**
 * Compaction in threads of its own (beside step 5 of the path): one folds, one answers with state, so that a large fold keeps nobody waiting.
 */
import type { Clock } from '@rejoin/shared'
import type { CompactionWork, DocumentState, Folded } from '../log/compactor.ts'
import { LogError } from '../log/log.ts'
import type { Thread } from '../storage/thread.ts'
import { createThread } from '../storage/thread.ts'
import type { WorkReply, WorkRequest } from './worker.ts'

/** Options of `startCompactionWork`. */
export interface CompactionThreadOptions {
  /** The log's folder, which a writer has opened. */
  readonly directory: string
  readonly clock: Clock
  /** What one job may take before its thread is ended, in ms. @default 120,000 */
  readonly timeout?: number | undefined
  /** Heap of each thread, in MiB. @default 1,024 */
  readonly heap?: number | undefined
}

const TIMEOUT = 120_000
const HEAP = 1_024

/** The work in threads, which are started when they are first needed and again when they die. */
export function startCompactionWork({ directory, clock, timeout = TIMEOUT, heap = HEAP }: CompactionThreadOptions): CompactionWork {
  const threads = new Map<WorkRequest['type'], Thread<WorkRequest, WorkReply>>()
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

  async function ask(request: WorkRequest): Promise<WorkReply> {
    if (closed) throw new LogError('failed', 'the log is closed')
    const thread = threadFor(request.type)
    const cancel = clock.after(timeout, () => {
      if (threads.get(request.type) === thread) threads.delete(request.type)
      void thread.end(new LogError('overloaded', `compaction took longer than ${timeout} ms`))
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
