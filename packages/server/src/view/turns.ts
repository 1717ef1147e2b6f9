/**
 * Documents take turns on the projector's thread (step 7 of the path). One that once held it too long is refused until it has changed much, or an hour has passed.
 */
import type { Clock, DocumentId } from '@rejoin/shared'

/** A document whose turn had to be ended by force. */
export interface SlowDocument {
  readonly document: DocumentId
  /** Of the updates it was put together from. */
  readonly bytes: number
  /** When, in ms since 1970. */
  readonly at: number
}

/** What the projector asks before and tells after it works on one document. */
export interface Turns {
  /** Throws when the document is not to be tried now. */
  begin(document: DocumentId, bytes: number): void
  end(): void
}

/** Nobody watches. */
export const unwatched: Turns = { begin: () => undefined, end: () => undefined }

const RETRY_MS = 3_600_000
const RETRY_GROWTH = 2
const MAX_SLOW = 1_000

/** `slow` with one more; of each document the last failure counts, of too many the latest. */
export function withSlow(slow: readonly SlowDocument[], one: SlowDocument): readonly SlowDocument[] {
  return [...slow.filter(({ document }) => document !== one.document), one].slice(-MAX_SLOW)
}

/** Refuses the slow ones, and hands the turns of the others on. */
export function refuseSlow(slow: readonly SlowDocument[], clock: Clock, turns: Turns): Turns {
  const known = new Map(slow.map((one) => [one.document, one]))
  return {
    begin: (document, bytes) => {
      const one = known.get(document)
      // A clock that was set back must not lock a document out.
      if (one !== undefined && bytes < one.bytes * RETRY_GROWTH && Math.abs(clock.now() - one.at) < RETRY_MS)
        throw new Error('took too long to put together: it is tried again at a change when its size has doubled, or after an hour')
      turns.begin(document, bytes)
    },
    end: () => {
      turns.end()
    },
  }
}
