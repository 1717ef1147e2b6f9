/**
 * What the projector reads (between steps 5 and 7 of the path): a log in the order of its positions, and whole documents out of it.
 */
import type { DocumentId, Lineage, Position, Seq } from '@rejoin/shared'
import type { Entry, LogReader } from '../log/log.ts'

/** A log as the projector reads it. */
export interface LogSource {
  /** Id of the log. */
  readonly id: string
  /** The highest position of each partition. */
  ends(): Promise<ReadonlyMap<number, Position>>
  /** Entries behind a position, at least one if there is one, up to `maxBytes`. 'trimmed': some of them are gone. */
  read(partition: number, after: Position, maxBytes: number): Promise<readonly Entry[] | 'trimmed'>
  /** Ids of documents, in an order of its own that does not change, at most `limit`, behind `from`. */
  documents(limit: number, from?: DocumentId): Promise<readonly DocumentId[]>
  /** Where a document stands; undefined when there is none. */
  head(
    document: DocumentId,
  ): Promise<{ readonly partition: number; readonly lineage: Lineage; readonly epoch: number; readonly seq: Seq } | undefined>
  /** The document as of `upTo`, or as near above it as its snapshot allows. */
  load(document: DocumentId, upTo: Seq): Promise<LoadedDocument>
}

/** Updates that give the document as of `seq` when they are applied to an empty one. */
export interface LoadedDocument {
  readonly partition: number
  readonly lineage: Lineage
  readonly epoch: number
  readonly seq: Seq
  readonly updates: readonly Uint8Array[]
}

/** What a reader of a log must tell beside what the port has. */
export interface LogListing {
  readonly id: string
  ends(): Promise<ReadonlyMap<number, Position>>
  documents(limit: number, from?: DocumentId): Promise<readonly DocumentId[]>
}

/** Bytes of the updates. */
export function sizeOf({ updates }: LoadedDocument): number {
  return updates.reduce((sum, update) => sum + update.length, 0)
}

const FRAGMENT_BYTES = 1 << 20
const TAIL_BYTES = 4 << 20
/** A snapshot that is replaced while it is read is read again; one that is replaced each time is a fault. */
const LOADS = 8

/** A source over any log. */
export function createLogSource(log: LogReader, listing: LogListing): LogSource {
  const tryLoad = async (document: DocumentId, upTo: Seq): Promise<LoadedDocument | undefined> => {
    const head = await log.head(document)
    if (head === undefined) throw new Error(`the log does not know the document ${JSON.stringify(document)}`)
    const { partition, lineage, epoch, snapshot } = head
    const updates: Uint8Array[] = []
    const whole = new Uint8Array(snapshot.bytes)
    for (let offset = 0; offset < whole.length;) {
      const part = await log.snapshot(document, snapshot.seq, offset, FRAGMENT_BYTES)
      if (part === undefined || part.length === 0) return undefined
      whole.set(part, offset)
      offset += part.length
    }
    if (whole.length > 0) updates.push(whole)
    let seq = snapshot.seq
    while (seq < upTo) {
      const entries = await log.read({ document, after: seq }, TAIL_BYTES)
      if (entries === 'trimmed') return undefined
      const wanted = entries.filter((entry) => entry.seq <= upTo)
      for (const entry of wanted) updates.push(entry.update)
      seq = wanted.at(-1)?.seq ?? upTo
      if (wanted.length < entries.length || entries.length === 0) break
    }
    return { partition, lineage, epoch, seq, updates }
  }
  return {
    ...listing,
    read: (partition, after, maxBytes) => log.read({ partition, after }, maxBytes),
    head: (document) => log.head(document),
    load: async (document, upTo) => {
      for (let attempt = 0; attempt < LOADS; attempt++) {
        const loaded = await tryLoad(document, upTo)
        if (loaded !== undefined) return loaded
      }
      throw new Error(`the snapshot of ${JSON.stringify(document)} changes faster than it can be read`)
    },
  }
}

/** The same source, which keeps what a read gave beyond what its batch took: small entries are many to a read. `forget` when the log may be another. */
export function withReadAhead(log: LogSource): LogSource & { forget(): void } {
  const kept = new Map<number, readonly Entry[]>()
  return {
    ...log,
    read: async (partition, after, maxBytes) => {
      const left = kept.get(partition) ?? []
      const first = left.findIndex(({ position }) => position > after)
      const entries = left[first]?.position === after + 1 ? left.slice(first) : await log.read(partition, after, maxBytes)
      kept.set(partition, entries === 'trimmed' ? [] : entries)
      return entries
    },
    forget: () => {
      kept.clear()
    },
  }
}
