/**
 * What must hold in a world, checked while it runs and at its end (packages/shared/docs/promises.md).
 */
import type { DocumentId, IncarnationId } from '@rejoin/shared'
import type { RelayFrame } from '@rejoin/shared/wire'
import * as Y from 'yjs'
import type { MemoryDisk as DeviceDisk } from '#client/stores/memory.js'
import type { LogImage } from '#server/storage/memory.js'
import { canonical, structure } from './edits.ts'

/** One edit of the world. */
export interface Made {
  readonly document: DocumentId
  readonly mark: string
  readonly device: string
}

/** What the world has seen. */
export interface Ledger {
  readonly made: Map<string, Made>
  /** Told to be in the device's store. */
  readonly local: Map<string, Made>
  /** Told to be durable at the relay. */
  readonly acked: Map<string, Made>
  /** Marks seen in the log, up to a seq of each document. */
  readonly durable: Map<DocumentId, { seq: number; readonly marks: Set<string> }>
  /** Socket and handle → the last seq given. */
  readonly streams: Map<string, number>
  /** The log was once put back to an older state: then an acknowledged edit may be missing until its device has come back. */
  restored: boolean
  /** The first thing that was broken where nobody could throw. */
  violation: Error | undefined
}

export function newLedger(): Ledger {
  return { made: new Map(), local: new Map(), acked: new Map(), durable: new Map(), streams: new Map(), restored: false, violation: undefined }
}

/** P1, at an acknowledgement: the edit is in the log. */
export function checkAcked(ledger: Ledger, image: LogImage, { document, mark }: Made): Error | undefined {
  if (ledger.restored || durableMarks(ledger, image, document).has(mark)) return undefined
  return new Error(`P1: ${mark} was acknowledged and is not in the log of ${document}`)
}

/** P1, whatever has crashed and been folded: all that was ever acknowledged reads out of the log. */
export function checkAllAcked(ledger: Ledger, image: LogImage, documents: readonly DocumentId[]): void {
  if (ledger.restored) return
  for (const document of documents) {
    const doc = docOf(image, document)
    const marks = new Set(marksOf(doc))
    doc.destroy()
    for (const made of ledger.acked.values()) {
      if (made.document === document && !marks.has(made.mark)) throw new Error(`P1: ${made.mark} was acknowledged and is no longer in the log of ${document}`)
    }
  }
}

/** Marks of all entries so far; of those that are new since the last call only the new entries are looked at. */
function durableMarks(ledger: Ledger, image: LogImage, document: DocumentId): ReadonlySet<string> {
  const stored = image.documents.get(document)
  const known = ledger.durable.get(document) ?? { seq: 0, marks: new Set<string>() }
  ledger.durable.set(document, known)
  if (stored !== undefined && (stored.entries[0]?.seq ?? stored.seq + 1) > known.seq + 1) {
    // Folded before it was seen here.
    const doc = docOf(image, document)
    for (const mark of marksOf(doc)) known.marks.add(mark)
    doc.destroy()
    known.seq = stored.seq
  }
  for (const { seq, update } of stored?.entries ?? []) {
    if (seq <= known.seq) continue
    known.seq = seq
    for (const mark of marksIn(update)) known.marks.add(mark)
  }
  return known.marks
}

/** P5: what was told to be local is on the disk, and in the outbox too unless the log has it. */
export function checkDevice(ledger: Ledger, device: string, disk: DeviceDisk, documents: readonly DocumentId[], image: LogImage): void {
  for (const document of documents) {
    const log = docOf(image, document)
    const durable = new Set(marksOf(log))
    log.destroy()
    const { updates, outbox } = disk.read(document)
    const stored = merge(updates)
    const waiting = new Set(outbox.flatMap(({ update }) => marksIn(update)))
    const marks = marksOf(stored)
    for (const made of ledger.local.values()) {
      if (made.document !== document || made.device !== device) continue
      if (!marks.includes(made.mark)) throw new Error(`P5: ${made.mark} was told to be local and is not in the store of ${device}`)
      if (!waiting.has(made.mark) && !durable.has(made.mark) && !ledger.restored) {
        throw new Error(`P5: ${made.mark} is neither in the outbox of ${device} nor in the log`)
      }
    }
    for (const mark of waiting) if (!marks.includes(mark)) throw new Error(`P5: ${mark} is in the outbox of ${device} and not among its updates`)
    stored.destroy()
  }
}

/** P6: each socket is given every seq once, in order. */
export function checkStream(ledger: Ledger, socket: number, frame: RelayFrame): void {
  if (frame.type === 'opened') ledger.streams.delete(`${socket}/${frame.handle}`)
  if (frame.type === 'state') ledger.streams.set(`${socket}/${frame.handle}`, frame.seq)
  const first = frame.type === 'entries' ? frame.first : frame.type === 'ack' && frame.hash !== undefined ? frame.seq : undefined
  if (first === undefined || !('handle' in frame)) return
  const count = frame.type === 'entries' ? frame.updates.length : 1
  const key = `${socket}/${frame.handle}`
  const last = ledger.streams.get(key)
  if (last !== undefined && first !== last + 1) throw new Error(`P6: socket ${socket} was given ${first} after ${last}`)
  ledger.streams.set(key, first + count - 1)
}

/** P1, P2, P4, P6, P7 at the end. */
export function checkEnd(ledger: Ledger, image: LogImage, documents: readonly DocumentId[], replicas: readonly { readonly name: string; readonly document: DocumentId; readonly doc: Y.Doc }[]): void {
  for (const document of documents) {
    const doc = docOf(image, document)
    const { pendingStructs, pendingDs } = doc.store
    if (pendingStructs !== null || pendingDs !== null) throw new Error(`P2: the log of ${document} has something pending`)
    const marks = marksOf(doc)
    const twice = marks.filter((mark, at) => marks.indexOf(mark) !== at)
    if (twice.length > 0) throw new Error(`P4: ${twice.join(', ')} took effect twice in ${document}`)
    for (const [mark, made] of ledger.local) {
      if (made.document === document && !marks.includes(mark)) throw new Error(`P12: ${mark} was local and never reached the log of ${document}${ledger.acked.has(mark) ? ' (acknowledged, then lost)' : ''}`)
    }
    checkOrder(image, document)
    const [view, shape] = [canonical(doc), structure(doc)]
    for (const { name, document: of, doc: replica } of replicas) {
      if (of !== document) continue
      if (canonical(replica) !== view) throw new Error(`P7: ${name} and the relay show ${document} differently:\n${canonical(replica)}\n${view}`)
      if (structure(replica) !== shape) throw new Error(`P7: ${name} and the relay hold ${document} differently:\n${structure(replica)}\n${shape}`)
    }
    doc.destroy()
  }
}

/** P6: the edits of one incarnation stand in the log in their order, none twice. */
function checkOrder(image: LogImage, document: DocumentId): void {
  const last = new Map<IncarnationId, number>()
  for (const { incarnation, lo, hi } of image.documents.get(document)?.entries ?? []) {
    const before = last.get(incarnation)
    // An edit that a state push had carried before adds nothing and makes no entry: a hole in the numbers is no loss (the marks tell), a step back is.
    if (before !== undefined && hi <= before) throw new Error(`P4: edits ${lo} to ${hi} of ${incarnation} stand behind ${before} in ${document}`)
    last.set(incarnation, hi)
  }
}

function docOf(image: LogImage, document: DocumentId): Y.Doc {
  const stored = image.documents.get(document)
  if (stored === undefined) return new Y.Doc({ guid: 'oracle' })
  const { snapshot, entries } = stored
  return merge([...(snapshot.seq > 0 ? [snapshot.update] : []), ...entries.filter(({ seq }) => seq > snapshot.seq).map(({ update }) => update)])
}

function merge(updates: readonly Uint8Array[]): Y.Doc {
  const doc = new Y.Doc({ guid: 'oracle' })
  // Clean-up of rich text would write deletions that nobody made.
  doc.on('beforeObserverCalls', (transaction) => {
    transaction.local = true
  })
  doc.transact(() => {
    for (const update of updates) Y.applyUpdate(doc, update)
  })
  return doc
}

const marksOf = (doc: Y.Doc): readonly string[] => doc.getArray<string>('marks').toArray()

/** Marks among an update's contents, whether or not it can be applied alone. */
function marksIn(update: Uint8Array): readonly string[] {
  const marks: string[] = []
  for (const struct of Y.decodeUpdate(update).structs) {
    const content = 'content' in struct ? (struct.content as { arr?: unknown[] }) : undefined
    for (const value of content?.arr ?? []) if (typeof value === 'string' && /^d\d+\.\d+\/\d+$/u.test(value)) marks.push(value)
  }
  return marks
}
