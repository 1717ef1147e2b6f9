/**
 * The log in memory (step 5 of the path), for tests and the convergence world. It survives what its disk survives.
 */
import type { ChainHash, DocumentId, IncarnationId, Lineage, Position, Seq } from '@rejoin/shared'
import { chainNext, chainStart, firstLineage } from '../log/chain.ts'
import type { Append, Appended, DocumentHead, Entry, FindWhat, Found, Log, ReadFrom, Snapshot } from '../log/log.ts'
import { LogError } from '../log/log.ts'
import type { LogImage, MemoryDisk, StoredDocument } from './memory-disk.ts'
import { DiskError, createMemoryDisk } from './memory-disk.ts'

const EMPTY = new Uint8Array(0)

/** Opens the log on `disk`: a fresh one when none is given. */
export function createMemoryLog(disk: MemoryDisk = createMemoryDisk()): Log {
  const { image } = disk
  const mount = disk.mount()
  const waiting: { readonly apply: () => unknown; readonly resolve: (value: never) => void; readonly reject: (error: unknown) => void }[] =
    []
  let committing: Promise<void> | undefined
  let failure: LogError | undefined
  let tellFailed: (error: LogError) => void
  const failed = new Promise<LogError>((resolve) => {
    tellFailed = resolve
  })

  /** Group commit: what has come while the disk was busy is the next transaction. */
  async function commitAll(): Promise<void> {
    while (waiting.length > 0) {
      const group = waiting.splice(0)
      try {
        const settle = await mount.commit(() => group.map((call) => attempt(call.apply)))
        group.forEach((call, i) => {
          const outcome = settle[i]
          if (outcome?.type === 'done') call.resolve(outcome.value as never)
          else call.reject(outcome?.error)
        })
      } catch (error) {
        const cause = error instanceof DiskError && error.cause === 'full' ? 'full' : 'failed'
        const refusal = new LogError(cause, error instanceof Error ? error.message : String(error), { cause: error })
        if (cause === 'failed') {
          failure = refusal
          tellFailed(refusal)
          group.push(...waiting.splice(0))
        }
        for (const call of group) call.reject(refusal)
      }
    }
    committing = undefined
  }

  function write<T>(apply: () => T): Promise<T> {
    if (failure !== undefined) return Promise.reject(failure)
    const written = new Promise<T>((resolve, reject) => {
      waiting.push({ apply, resolve, reject })
    })
    committing ??= commitAll()
    return written
  }

  const read = <T>(run: () => T): Promise<T> => (failure === undefined ? mount.read(run) : Promise.reject(failure))

  return {
    id: image.id,
    failed,
    head: (document) => read(() => headOf(image, document)),
    open: (document) =>
      write(() => {
        if (!image.documents.has(document)) image.documents.set(document, newDocument(firstLineage(document)))
        return headOf(image, document) as DocumentHead
      }),
    find: (document, what) => read(() => find(image.documents.get(document), what)),
    append: (batch) => {
      const copies = batch.map((append) => ({ ...append, update: append.update?.slice() }))
      return write(() => {
        check(image, copies)
        return copies.map((append) => apply(image, append))
      })
    },
    read: (from, maxBytes) => read(() => readEntries(image, from, maxBytes)),
    snapshot: (document, seq, offset, length) =>
      read(() => {
        const stored = image.documents.get(document)?.snapshot
        return stored === undefined || stored.seq !== seq || seq === 0 ? undefined : stored.update.slice(offset, offset + length)
      }),
    fold: (snapshot) => write(() => fold(image, snapshot)),
    trim: (before, keepAfter) => write(() => trim(image, before, keepAfter ?? Number.MAX_SAFE_INTEGER)),
    close: async () => {
      while (committing !== undefined) await committing
      failure ??= new LogError('failed', 'the log is closed')
    },
  }
}

type Outcome = { readonly type: 'done'; readonly value: unknown } | { readonly type: 'refused'; readonly error: unknown }

function attempt(run: () => unknown): Outcome {
  try {
    return { type: 'done', value: run() }
  } catch (error) {
    return { type: 'refused', error }
  }
}

function newDocument(lineage: Lineage): StoredDocument {
  const hash = chainStart(lineage)
  return { lineage, seq: 0, hash, entries: [], snapshot: { seq: 0 as Seq, hash, update: EMPTY, admission: EMPTY }, acked: new Map() }
}

function headOf(image: LogImage, document: DocumentId): DocumentHead | undefined {
  const stored = image.documents.get(document)
  if (stored === undefined) return undefined
  const { lineage, seq, hash, entries, snapshot } = stored
  const tail = entries.filter((entry) => entry.seq > snapshot.seq)
  return {
    document,
    partition: 0,
    lineage,
    epoch: image.epoch,
    seq: seq as Seq,
    hash,
    snapshot: { seq: snapshot.seq, hash: snapshot.hash, bytes: snapshot.update.length, admission: snapshot.admission },
    oldest: (seq - entries.length + 1) as Seq,
    tailBytes: tail.reduce((sum, entry) => sum + entry.update.length, 0),
    tailEntries: tail.length,
  }
}

function find(stored: StoredDocument | undefined, { incarnation, seq }: FindWhat): Found {
  if (stored === undefined) return {}
  const acked = incarnation === undefined ? undefined : stored.acked.get(incarnation)
  return { acked, hash: seq === undefined ? undefined : hashAt(stored, seq) }
}

function hashAt(stored: StoredDocument, seq: Seq): ChainHash | undefined {
  if (seq === 0) return chainStart(stored.lineage)
  if (seq === stored.seq) return stored.hash
  if (seq === stored.snapshot.seq) return stored.snapshot.hash
  return stored.entries[seq - (stored.seq - stored.entries.length) - 1]?.hash
}

/** Throws `conflict` unless every append of the batch is the next of its document and of its incarnation. */
function check(image: LogImage, batch: readonly Append[]): void {
  const seqs = new Map<DocumentId, number>()
  const numbers = new Map<string, number>()
  for (const { document, seq, incarnation, lo, hi, covers, update } of batch) {
    const stored = image.documents.get(document)
    if (stored === undefined) throw new LogError('conflict', 'the document was not opened', { document })
    const head = seqs.get(document) ?? stored.seq
    if (seq !== (update === undefined ? head : head + 1))
      throw new LogError('conflict', `seq ${seq} does not follow the head ${head}`, { document })
    seqs.set(document, seq)
    const acked = (of: IncarnationId): number => numbers.get(`${of} ${document}`) ?? stored.acked.get(of)?.n ?? 0
    if (lo > acked(incarnation) + 1 || hi <= acked(incarnation) || hi < lo) {
      throw new LogError('conflict', `edits ${lo} to ${hi} do not follow edit ${acked(incarnation)}`, { document })
    }
    numbers.set(`${incarnation} ${document}`, hi)
    for (const cover of covers) numbers.set(`${cover.incarnation} ${document}`, Math.max(cover.n, acked(cover.incarnation)))
  }
}

function apply(image: LogImage, { document, seq, incarnation, lo, hi, covers, actor, at, update }: Append): Appended {
  const stored = image.documents.get(document) as StoredDocument
  stored.acked.set(incarnation, { n: hi, seq })
  for (const cover of covers) {
    if (cover.n > (stored.acked.get(cover.incarnation)?.n ?? 0)) stored.acked.set(cover.incarnation, { n: cover.n, seq })
  }
  if (update === undefined) return { position: undefined, hash: stored.hash }
  const position = ++image.position as Position
  const hash = chainNext(stored.hash, { incarnation, lo, hi, update })
  const entry: Entry = {
    document,
    partition: 0,
    position,
    epoch: image.epoch,
    lineage: stored.lineage,
    seq,
    hash,
    incarnation,
    lo,
    hi,
    actor,
    at,
    update,
  }
  stored.seq = seq
  stored.hash = hash
  stored.entries.push(entry)
  image.journal.push(entry)
  return { position, hash }
}

function readEntries(image: LogImage, from: ReadFrom, maxBytes: number): readonly Entry[] | 'trimmed' {
  if ('partition' in from) {
    if (from.after < image.trimmed) return 'trimmed'
    return take(image.journal, firstAfter(image.journal, from.after), maxBytes)
  }
  const stored = image.documents.get(from.document)
  if (stored === undefined) return []
  const skip = from.after - (stored.seq - stored.entries.length)
  return skip < 0 ? 'trimmed' : take(stored.entries, skip, maxBytes)
}

function take(entries: readonly Entry[], start: number, maxBytes: number): Entry[] {
  let end = start
  let bytes = 0
  for (let entry = entries[end]; entry !== undefined && (end === start || bytes + entry.update.length <= maxBytes); entry = entries[end]) {
    bytes += entry.update.length
    end++
  }
  return entries.slice(start, end)
}

function firstAfter(journal: readonly Entry[], position: number): number {
  let low = 0
  let high = journal.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if ((journal[middle]?.position ?? Infinity) <= position) low = middle + 1
    else high = middle
  }
  return low
}

function fold(image: LogImage, { document, lineage, seq, update, admission }: Snapshot): void {
  const stored = image.documents.get(document)
  if (stored === undefined || stored.lineage !== lineage || seq > stored.seq)
    throw new LogError('conflict', 'the snapshot is of another history', { document })
  if (seq <= stored.snapshot.seq) return
  const hash = hashAt(stored, seq)
  if (hash === undefined) throw new LogError('conflict', `there is no entry ${seq} to fold`, { document })
  stored.snapshot = { seq, hash, update: update.slice(), admission: admission.slice() }
}

function trim(image: LogImage, before: number, keepAfter: number): number {
  const gone = new Set<Entry>()
  for (const stored of image.documents.values()) {
    const keep = stored.entries.findIndex((entry) => entry.seq > stored.snapshot.seq || entry.at >= before || entry.position > keepAfter)
    for (const entry of stored.entries.splice(0, keep < 0 ? stored.entries.length : keep)) gone.add(entry)
  }
  if (gone.size === 0) return 0
  image.journal = image.journal.filter((entry) => !gone.has(entry))
  for (const entry of gone) image.trimmed = Math.max(image.trimmed, entry.position)
  return gone.size
}
