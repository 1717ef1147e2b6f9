/**
 * Who waits for entries to reach the sinks (between steps 8 and 3 of the path): the port, and the waits of one socket.
 */
import type { DocumentId, ErrorCode, Seq } from '@rejoin/shared'

/** What tells when entries have reached the sinks, the stores that are kept equal to the documents. */
export interface Rungs {
  /** Calls `answer` once, later: everything up to the entry is in the sink (`ok`), or why nobody will say so. Returns what ends the wait without an answer. */
  wait(what: AwaitedEntry, answer: RungAnswer): () => void
}

/** An entry that somebody wants to see in a sink. */
export interface AwaitedEntry {
  readonly sink: string
  readonly document: DocumentId
  readonly seq: Seq
}

export type RungAnswer = (code: ErrorCode, message: string) => void

/** The waits of one socket. */
export interface Awaits {
  begin(what: AwaitedEntry, answer: RungAnswer): void
  end(): void
}

/** None yet. Without `rungs` there are no sinks. */
export function createAwaits(rungs: Rungs | undefined): Awaits {
  const cancels = new Set<() => void>()
  return {
    begin(what, answer) {
      if (rungs === undefined) {
        answer('not_found', `this relay has no sink ${JSON.stringify(what.sink)}`)
        return
      }
      const cancel = rungs.wait(what, (code, message) => {
        cancels.delete(cancel)
        answer(code, message)
      })
      cancels.add(cancel)
    },
    end() {
      for (const cancel of cancels) cancel()
      cancels.clear()
    },
  }
}
