/**
 * Decides when a document is folded and what is no longer retained (beside step 5 of the path), in the background, before anyone asks.
 */
import type { ChainHash, Clock, DocumentId, Lineage, Position, Seq } from '@rejoin/shared'
import type { DocumentHead, Log, Snapshot } from './log.ts'

/** A snapshot ready to be put in place. */
export interface Folded extends Snapshot {
  readonly type: 'folded' | 'merged'
  /** Why it was only merged. */
  readonly reason?: string | undefined
}

/** A document as one update, as of `seq`. */
export interface DocumentState {
  readonly lineage: Lineage
  readonly epoch: number
  readonly seq: Seq
  readonly hash: ChainHash
  readonly update: Uint8Array
}

/** The work, wherever it is done. Only what is durable is seen. */
export interface CompactionWork {
  /** Everything up to the head folded; undefined when nothing is behind the snapshot. */
  fold(document: DocumentId): Promise<Folded | undefined>
  /** What a replica with that state vector lacks, or everything; undefined when nobody has opened the document yet. */
  state(document: DocumentId, stateVector?: Uint8Array): Promise<DocumentState | undefined>
  close(): Promise<void>
}

/** Options of `createCompactor`. */
export interface CompactorOptions {
  readonly log: Log
  readonly work: CompactionWork
  readonly clock: Clock
  /** How long folded entries are kept, in ms; Infinity: for ever. */
  readonly retain: number
  /** Entries behind this position are kept whatever their age: not every reader has them. */
  readonly keepAfter?: (() => Position) | undefined
  /** Something an operator should know. */
  readonly report?: ((what: string, details: Readonly<Record<string, unknown>>) => void) | undefined
  /** When a document at rest is folded. @default 64 KiB or 1,000 entries behind the snapshot, and more behind a large one */
  readonly thresholds?: FoldThresholds | undefined
  /** How many times that much lies behind the snapshot of one that is growing when it is folded. @default 4 */
  readonly patience?: number | undefined
}

/** A tail is folded beyond these. A fold costs in proportion to the whole, so the tail must be a share of it: then its cost per edit is constant. */
export interface FoldThresholds {
  readonly bytes: number
  readonly entries: number
  /** Share of the snapshot's bytes that the tail's must exceed. */
  readonly share: number
  /** Bytes of the snapshot for each of which the tail must have one entry more. */
  readonly bytesPerEntry: number
}

/** Folds and trims, one document at a time. */
export interface Compactor {
  /**
   * Looks at a document that is at rest, or one that is growing. Resolves once its snapshot was replaced;
   * undefined when nothing is to be done. Cheap.
   */
  consider(head: DocumentHead, growing?: boolean): Promise<void> | undefined
  /** As `CompactionWork.state`. */
  state(document: DocumentId, stateVector?: Uint8Array): Promise<DocumentState | undefined>
  /** Ends at once: the fold under way comes to nothing, and is due again next time. */
  close(): Promise<void>
}

const THRESHOLDS: FoldThresholds = { bytes: 64 * 1024, entries: 1_000, share: 0.5, bytesPerEntry: 100 }
/**
 * A fold takes a quarter of a microsecond for each byte of the whole (60 to 100 ms with 260,000 edits), from the same cores that take the edits. With this
 * patience that is at most 8 µs an edit on such a document; and a reader who comes meanwhile is sent at most twice the snapshot behind it.
 */
const PATIENCE = 4
/** Documents that wait to be folded, and documents whose last fold failed that are remembered. */
const MAX_QUEUE = 1_000
const MAX_FAILED = 10_000
/** After a fold failed, the document grows by this before the next attempt. */
const FAILED_GROWTH = 2
/** How often retained entries are looked at: an eighth of the retention, within these, in ms. */
const TRIM_EVERY = { shortest: 1_000, longest: 600_000 }

interface Waiting {
  readonly promise: Promise<void>
  readonly run: () => Promise<void>
}

/** A compactor over `log`. */
export function createCompactor(options: CompactorOptions): Compactor {
  const { log, work, report = () => undefined, thresholds = THRESHOLDS, patience = PATIENCE } = options
  const queue = new Map<DocumentId, Waiting>()
  const failedAt = new Map<DocumentId, number>()
  let working: Promise<void> | undefined
  let closed = false

  async function fold({ document, tailEntries }: DocumentHead): Promise<void> {
    try {
      const folded = await work.fold(document)
      if (folded === undefined || closed) return
      if (folded.type === 'merged') report('a document was merged, not folded', { document, reason: folded.reason })
      await log.fold(folded)
      failedAt.delete(document)
    } catch (error) {
      // What the log or the work says while they close is no failure of the document's.
      if (closed) return
      if (failedAt.size > MAX_FAILED) failedAt.clear()
      failedAt.set(document, tailEntries)
      throw error
    }
  }

  async function workThrough(): Promise<void> {
    for (const [document, { run }] of queue) {
      await run()
      queue.delete(document)
    }
    working = undefined
  }

  function enqueue(head: DocumentHead): Promise<void> {
    let run = (): Promise<void> => Promise.resolve()
    const promise = new Promise<void>((resolve, reject) => {
      // Settles its caller and never rejects itself: one document's failure does not stop the queue.
      run = () => (closed ? Promise.resolve() : fold(head)).then(resolve, reject)
    })
    queue.set(head.document, { promise, run })
    working ??= workThrough()
    return promise
  }

  const stopTrimming = startTrimming(options, report)

  return {
    consider(head, growing = false) {
      if (closed || !isDue(head, thresholds, growing ? patience : 1)) return undefined
      if (head.tailEntries < (failedAt.get(head.document) ?? 0) * FAILED_GROWTH) return undefined
      const waiting = queue.get(head.document)
      if (waiting !== undefined) return waiting.promise
      return queue.size < MAX_QUEUE ? enqueue(head) : undefined
    },
    state: (document, stateVector) => work.state(document, stateVector),
    async close() {
      closed = true
      await work.close()
      await Promise.all([working, stopTrimming()])
    },
  }
}

/** Whether the tail behind the snapshot is worth a fold. */
export function isDue(
  { snapshot, tailBytes, tailEntries }: DocumentHead,
  { bytes, entries, share, bytesPerEntry }: FoldThresholds = THRESHOLDS,
  times = 1,
): boolean {
  return (
    tailBytes > times * Math.max(bytes, snapshot.bytes * share) || tailEntries > times * Math.max(entries, snapshot.bytes / bytesPerEntry)
  )
}

function startTrimming(
  { log, clock, retain, keepAfter }: CompactorOptions,
  report: NonNullable<CompactorOptions['report']>,
): () => Promise<void> {
  if (retain === Infinity) return () => Promise.resolve()
  const every = Math.min(Math.max(retain / 8, TRIM_EVERY.shortest), TRIM_EVERY.longest)
  let trimming: Promise<unknown> | undefined
  let stopped = false
  let cancel = clock.after(every, trim)
  function trim(): void {
    trimming = log
      .trim(clock.now() - retain, keepAfter?.())
      .catch((error: unknown) => {
        report('entries were not trimmed', { reason: String(error) })
      })
      .then(() => {
        if (!stopped) cancel = clock.after(every, trim)
      })
  }
  return async () => {
    stopped = true
    cancel()
    await trimming
  }
}
