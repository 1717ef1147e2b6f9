/**
 * The log as the oracle remembers it: every entry that was ever durable, folded and trimmed or not, and the document they give.
 */
import type { ChainHash, DocumentId, IncarnationId } from '@rejoin/shared'
import * as Y from 'yjs'
import { chainStart, firstLineage } from '#server/log/chain.js'
import type { LogImage, StoredDocument } from '#server/storage/memory-disk.js'
import { deletesOf } from './edits.ts'

/** One entry, as it was when it became durable. */
export interface Remembered {
  readonly hash: ChainHash
  readonly incarnation: IncarnationId
  readonly lo: number
  readonly hi: number
  readonly update: Uint8Array
}

/** One document's past. */
export interface Past {
  readonly document: DocumentId
  /** Entry `seq` is at `seq − 1`. */
  entries: Remembered[]
  /** All of them, applied one by one. */
  doc: Y.Doc
}

/** What was durable, by document. */
export class History {
  readonly #image: LogImage
  readonly #pasts = new Map<DocumentId, Past>()

  constructor(image: LogImage) {
    this.#image = image
  }

  /** The document's past, up to what is durable now. Throws when an entry breaks a promise by itself. */
  of(document: DocumentId): Past {
    let past = this.#pasts.get(document)
    if (past === undefined) this.#pasts.set(document, (past = { document, entries: [], doc: blank() }))
    const stored = this.#image.documents.get(document)
    if (stored !== undefined && stored.seq > past.entries.length) learn(past, stored)
    return past
  }

  /** The entry, when it is durable. */
  entry(document: DocumentId, seq: number): Remembered | undefined {
    return this.of(document).entries[seq - 1]
  }

  hashAt(document: DocumentId, seq: number): ChainHash | undefined {
    return seq === 0 ? chainStart(firstLineage(document)) : this.entry(document, seq)?.hash
  }

  /** The last edit of the incarnation that is durable. */
  ackedOf(document: DocumentId, incarnation: IncarnationId): number {
    return this.#image.documents.get(document)?.acked.get(incarnation)?.n ?? 0
  }

  /** Learns what there is, before some of it is trimmed. */
  refresh(): void {
    for (const document of this.#image.documents.keys()) this.of(document)
  }

  /** The log was put back to an older state: what came later did not happen. */
  rewind(): void {
    for (const past of this.#pasts.values()) {
      past.entries = past.entries.slice(0, this.#image.documents.get(past.document)?.seq ?? 0)
      past.doc.destroy()
      past.doc = blank()
      for (const { update } of past.entries) Y.applyUpdate(past.doc, update)
    }
  }
}

function learn(past: Past, stored: StoredDocument): void {
  const { document, entries, doc } = past
  const known = entries.length
  if (stored.seq - stored.entries.length > known)
    throw new Error(`the oracle missed entries of ${document}: it was not told before they were trimmed`)
  for (const { seq, hash, incarnation, lo, hi, update } of stored.entries) {
    if (seq <= known) continue
    if (seq !== entries.length + 1) throw new Error(`P6: entry ${seq} of ${document} follows entry ${entries.length}`)
    // An edit that a state push had carried before adds nothing and makes no entry: a hole in the numbers is no loss (the marks tell), a step back is.
    const before = entries.findLast((entry) => entry.incarnation === incarnation)
    if (before !== undefined && hi <= before.hi)
      throw new Error(`P4: edits ${lo} to ${hi} of ${incarnation} stand behind ${before.hi} in ${document}`)
    if (!changes(doc, update) && !deletesMore(entries, update)) throw new Error(`P4: entry ${seq} of ${document} adds nothing`)
    const { pendingStructs, pendingDs } = doc.store
    if (pendingStructs !== null || pendingDs !== null) throw new Error(`P2: entry ${seq} of ${document} builds on what is not there`)
    entries.push({ hash, incarnation, lo, hi, update })
  }
}

/**
 * Whether `update` deletes what no entry deleted. Yjs deletes by itself too, as when of two concurrent values of a key one must go: a replica's whole state
 * names such deletions, and a relay without a document cannot know that they were implied. That makes an entry, once.
 */
function deletesMore(entries: readonly Remembered[], update: Uint8Array): boolean {
  const before = Y.mergeUpdates(entries.map((entry) => entry.update))
  return deletesOf(before) !== deletesOf(Y.mergeUpdates([before, update]))
}

/** A document that applies and does nothing by itself. */
export function blank(): Y.Doc {
  const doc = new Y.Doc({ guid: 'oracle' })
  // Clean-up of rich text would write deletions that nobody made.
  doc.on('beforeObserverCalls', (transaction) => {
    transaction.local = true
  })
  return doc
}

/** Applies `update`; whether it added anything. */
export function changes(doc: Y.Doc, update: Uint8Array): boolean {
  let changed = false
  const note = (): void => {
    changed = true
  }
  doc.on('update', note)
  Y.applyUpdate(doc, update)
  doc.off('update', note)
  return changed || doc.store.pendingStructs !== null || doc.store.pendingDs !== null
}

/** The document that `updates` give. */
export function merge(updates: readonly Uint8Array[]): Y.Doc {
  const doc = blank()
  doc.transact(() => {
    for (const update of updates) Y.applyUpdate(doc, update)
  })
  return doc
}

/** What the log itself would give a new reader: its snapshot and what follows. */
export function docOf(image: LogImage, document: DocumentId): Y.Doc {
  const stored = image.documents.get(document)
  if (stored === undefined) return blank()
  const { snapshot, entries } = stored
  return merge([
    ...(snapshot.seq > 0 ? [snapshot.update] : []),
    ...entries.filter(({ seq }) => seq > snapshot.seq).map(({ update }) => update),
  ])
}

export const marksOf = (doc: Y.Doc): readonly string[] => doc.getArray<string>('marks').toArray()
