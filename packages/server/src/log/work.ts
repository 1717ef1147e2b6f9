/**
 * The heavy part of compaction (beside step 5 of the path): reads a document out of the log, checks its chain, folds it, or gives its state. Runs in a
 * worker thread with a reader of its own; tests and the convergence world run it in one process.
 */
import type { ChainHash, DocumentId, Lineage, Seq } from '@rejoin/shared'
import * as Y from 'yjs'
import { chainNext } from './chain.ts'
import { compact, mergeTree } from './compact.ts'
import type { CompactionWork, DocumentState, Folded } from './compactor.ts'
import type { DocumentHead, Entry, LogReader } from './log.ts'
import { LogError } from './log.ts'

/** Options of `createCompactionWork`. */
export interface CompactionWorkOptions {
  readonly reader: LogReader
  /** What admission keeps of a document, from the document as one update. */
  readonly admissionOf: (update: Uint8Array) => Uint8Array
  /** Merged documents that are kept in memory for `state`, in bytes. @default 64 MiB */
  readonly cacheBytes?: number | undefined
}

const CACHE_BYTES = 64 * 1024 * 1024
const READ_BYTES = 4 * 1024 * 1024
const SNAPSHOT_BYTES = 1024 * 1024
/** A snapshot may be replaced, and entries trimmed, while they are read. */
const ATTEMPTS = 5

/** A document up to a seq. */
interface Beginning {
  readonly seq: Seq
  readonly hash: ChainHash
  readonly updates: readonly Uint8Array[]
}

/** A document up to a seq, as one update. */
interface Merged extends Beginning {
  readonly lineage: Lineage
  readonly update: Uint8Array
}

/** Compaction's work over `reader`. */
export function createCompactionWork({ reader, admissionOf, cacheBytes = CACHE_BYTES }: CompactionWorkOptions): CompactionWork {
  const cache = new Map<DocumentId, Merged>()
  let cached = 0

  function remember(document: DocumentId, merged: Merged): void {
    forget(document)
    if (merged.update.length > cacheBytes / 2) return
    cache.set(document, merged)
    cached += merged.update.length
    for (const oldest of cache.keys()) {
      if (cached <= cacheBytes) break
      forget(oldest)
    }
  }

  function forget(document: DocumentId): void {
    cached -= cache.get(document)?.update.length ?? 0
    cache.delete(document)
  }

  async function merged(head: DocumentHead): Promise<Merged | undefined> {
    const { document, lineage, seq } = head
    const known = cache.get(document)
    const isFresh = known !== undefined && known.lineage === lineage && known.seq >= head.snapshot.seq && known.seq <= seq
    const from: Beginning | undefined = isFresh ? known : await loadSnapshot(reader, head)
    const tail = from === undefined ? undefined : await loadTail(reader, head, from)
    if (from === undefined || tail === undefined) return undefined
    const update = mergeTree([...from.updates, ...tail.map((entry) => entry.update)])
    const result: Merged = { lineage, seq, hash: head.hash, update, updates: [update] }
    remember(document, result)
    return result
  }

  return {
    async fold(document) {
      return attempt(async () => {
        const head = await reader.head(document)
        if (head === undefined || head.seq === head.snapshot.seq) return { value: undefined }
        const snapshot = await loadSnapshot(reader, head)
        const tail = snapshot === undefined ? undefined : await loadTail(reader, head, snapshot)
        if (snapshot === undefined || tail === undefined) return undefined
        const { type, update, reason } = compact([...snapshot.updates, ...tail.map((entry) => entry.update)])
        return {
          value: { document, lineage: head.lineage, seq: head.seq, update, admission: admissionOf(update), type, reason } satisfies Folded,
        }
      })
    },
    async state(document, stateVector) {
      return attempt(async () => {
        const head = await reader.head(document)
        if (head === undefined) return { value: undefined }
        const whole = await merged(head)
        if (whole === undefined) return undefined
        const { epoch, lineage, seq, hash } = head
        const update = stateVector === undefined ? new Uint8Array(whole.update) : Y.diffUpdate(whole.update, stateVector)
        return { value: { lineage, epoch, seq, hash, update } satisfies DocumentState }
      })
    },
    close: () => Promise.resolve(),
  }
}

/** Reads again what was replaced while it was read. */
async function attempt<T>(run: () => Promise<{ readonly value: T } | undefined>): Promise<T> {
  for (let i = 0; i < ATTEMPTS; i++) {
    const result = await run()
    if (result !== undefined) return result.value
  }
  throw new LogError('overloaded', `the snapshot was replaced ${ATTEMPTS} times while it was read`)
}

/** The document's snapshot, whole; undefined when it is not there any more. */
async function loadSnapshot(reader: LogReader, { document, snapshot: { seq, hash, bytes } }: DocumentHead): Promise<Beginning | undefined> {
  if (seq === 0) return { seq, hash, updates: [] }
  const update = new Uint8Array(bytes)
  for (let offset = 0; offset < bytes; offset += SNAPSHOT_BYTES) {
    const part = await reader.snapshot(document, seq, offset, SNAPSHOT_BYTES)
    if (part === undefined) return undefined
    update.set(part, offset)
  }
  return { seq, hash, updates: [update] }
}

/** The entries up to the head, each hash recomputed: what is folded goes, so it must be what was acknowledged. */
async function loadTail(reader: LogReader, { document, seq, lineage }: DocumentHead, from: Beginning): Promise<Entry[] | undefined> {
  const tail: Entry[] = []
  let last: { readonly seq: Seq; readonly hash: ChainHash } = from
  while (last.seq < seq) {
    const entries = await reader.read({ document, after: last.seq }, READ_BYTES)
    if (entries === 'trimmed') return undefined
    if (entries.length === 0) throw new LogError('corrupt', `the log has no entry ${last.seq + 1}, its head is ${seq}`, { document })
    for (const entry of entries) {
      if (entry.lineage !== lineage) return undefined
      if (chainNext(last.hash, entry) !== entry.hash)
        throw new LogError('corrupt', `entry ${entry.seq} breaks the chain`, { document, position: entry.position })
      last = entry
      if (entry.seq <= seq) tail.push(entry)
    }
  }
  return tail
}
