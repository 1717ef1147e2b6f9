/**
 * What must hold in a world, checked while it runs and at its end (packages/shared/docs/promises.md). What is said on the wire is judged by wire.ts.
 */
import type { DocumentId, IncarnationId } from '@rejoin/shared'
import * as Y from 'yjs'
import type { MemoryDisk as DeviceDisk } from '#client/stores/memory.js'
import type { LogImage } from '#server/storage/memory-disk.js'
import { canonical, structure } from './edits.ts'
import type { History } from './history.ts'
import { changes, docOf, marksOf, merge } from './history.ts'

/** One edit of the world. */
export interface Made {
  readonly document: DocumentId
  readonly mark: string
  readonly device: string
  readonly incarnation: IncarnationId
  readonly n: number
  /** The relay must refuse it for good. */
  readonly guilty: boolean
}

/** What the world has seen. */
export interface Ledger {
  readonly made: Map<string, Made>
  /** Told to be in the device's store. */
  readonly local: Map<string, Made>
  /** Told to be durable at the relay. */
  readonly acked: Map<string, Made>
  /** Of those told to be local, the ones that were not seen in the log yet. */
  readonly waiting: Set<Made>
  /** Device and document with a refused edit: what is made there afterwards waits. */
  readonly tainted: Set<string>
  /** The log was once put back to an older state: then an acknowledged edit may be missing until its device has come back. */
  restored: boolean
}

export function newLedger(): Ledger {
  return { made: new Map(), local: new Map(), acked: new Map(), waiting: new Set(), tainted: new Set(), restored: false }
}

/** A device as the oracle sees it. */
export interface Witness {
  readonly name: string
  readonly disk: DeviceDisk
}

/** A replica at the end. */
export interface Final {
  readonly name: string
  readonly device: string
  readonly document: DocumentId
  readonly doc: Y.Doc
  /** Ids in its quarantine. */
  readonly quarantine: readonly string[]
}

export const taintOf = (device: string, document: DocumentId): string => `${device}/${document}`

/** P1, at an acknowledgement: the edit is in the log. */
export function checkAcked(ledger: Ledger, history: History, { document, mark }: Made): void {
  if (ledger.restored || durableMarks(history, document).has(mark)) return
  throw new Error(`P1: ${mark} was acknowledged and is not in the log of ${document}`)
}

/** P1, whatever has crashed and been folded: all that was ever acknowledged reads out of the log. */
export function checkAllAcked(ledger: Ledger, image: LogImage, documents: readonly DocumentId[]): void {
  if (ledger.restored) return
  for (const document of documents) {
    const doc = docOf(image, document)
    const marks = new Set(marksOf(doc))
    doc.destroy()
    for (const made of ledger.acked.values()) {
      if (made.document === document && !marks.has(made.mark))
        throw new Error(`P1: ${made.mark} was acknowledged and is no longer in the log of ${document}`)
    }
  }
}

const markSets = new WeakMap<object, { readonly size: number; readonly marks: Set<string> }>()

/** Marks of all that is durable. */
function durableMarks(history: History, document: DocumentId): ReadonlySet<string> {
  const past = history.of(document)
  const known = markSets.get(past.doc)
  if (known?.size === past.entries.length) return known.marks
  const marks = new Set(marksOf(past.doc))
  markSets.set(past.doc, { size: past.entries.length, marks })
  return marks
}

/** P5, at every moment: what was told to be local is in the outbox until it is in the log. */
export function checkOutbox(ledger: Ledger, history: History, devices: readonly Witness[]): void {
  const disks = new Map(devices.map(({ name, disk }) => [name, disk]))
  const rows = new Map<string, ReadonlySet<string>>()
  for (const made of ledger.waiting) {
    const { device, document, incarnation, n, mark } = made
    if (history.ackedOf(document, incarnation) >= n) {
      ledger.waiting.delete(made)
      continue
    }
    const key = taintOf(device, document)
    let waiting = rows.get(key)
    if (waiting === undefined)
      rows.set(
        key,
        (waiting = new Set(
          disks
            .get(device)
            ?.read(document)
            .outbox.map((row) => `${row.incarnation}/${row.n}`),
        )),
      )
    if (!waiting.has(`${incarnation}/${n}`) && !ledger.restored)
      throw new Error(`P5: ${mark} is neither in the outbox of ${device} nor in the log`)
  }
}

/** P5 and P8: what a device holds, as it would find it when it starts again. */
export function checkDevice(ledger: Ledger, { name, disk }: Witness, documents: readonly DocumentId[], history: History): void {
  for (const document of documents) {
    const durable = durableMarks(history, document)
    const { updates, outbox, cursor } = disk.read(document)
    const stored = merge(updates)
    const waiting = new Set(outbox.map(({ incarnation, n }) => `${incarnation}/${n}`))
    const marks = new Set(marksOf(stored))
    for (const { device, document: of, mark, incarnation, n } of ledger.made.values()) {
      if (of !== document || device !== name) continue
      const isWaiting = waiting.has(`${incarnation}/${n}`)
      if (ledger.local.has(mark) && !marks.has(mark)) throw new Error(`P5: ${mark} was told to be local and is not in the store of ${name}`)
      if (isWaiting && !marks.has(mark)) throw new Error(`P5: ${mark} is in the outbox of ${name} and not among its updates`)
      if (marks.has(mark) && !isWaiting && !durable.has(mark) && !ledger.restored)
        throw new Error(`P5: ${mark} is stored on ${name}, and neither in its outbox nor in the log`)
    }
    if (cursor !== undefined && history.hashAt(document, cursor.seq) === cursor.hash) {
      const { entries } = history.of(document)
      for (const { update } of entries.slice(0, cursor.seq)) {
        if (changes(stored, update))
          throw new Error(`P8: the cursor of ${document} on ${name} says ${cursor.seq}, and the store lacks what is before it`)
      }
    }
    stored.destroy()
  }
}

/** P1, P2, P4, P5, P7, P10, P12 at the end. */
export function checkEnd(
  ledger: Ledger,
  history: History,
  image: LogImage,
  documents: readonly DocumentId[],
  replicas: readonly Final[],
  devices: readonly Witness[],
): void {
  for (const document of documents) {
    const doc = docOf(image, document)
    const { pendingStructs, pendingDs } = doc.store
    if (pendingStructs !== null || pendingDs !== null) throw new Error(`P2: the log of ${document} has something pending`)
    const marks = marksOf(doc)
    const twice = marks.filter((mark, at) => marks.indexOf(mark) !== at)
    if (twice.length > 0) throw new Error(`P4: ${twice.join(', ')} took effect twice in ${document}`)
    for (const [mark, made] of ledger.local) {
      if (made.document !== document || marks.includes(mark) || ledger.tainted.has(taintOf(made.device, document))) continue
      throw new Error(
        `P12: ${mark} was local and never reached the log of ${document}${ledger.acked.has(mark) ? ' (acknowledged, then lost)' : ''}`,
      )
    }
    for (const mark of marks)
      if (ledger.made.get(mark)?.guilty === true) throw new Error(`P3: ${mark} must be refused and is in the log of ${document}`)
    const [view, shape] = [canonical(doc), structure(doc)]
    const past = history.of(document).doc
    if (canonical(past) !== view || structure(past) !== shape)
      throw new Error(
        `P10: the log of ${document} does not read as its entries did:\n${view}\n${canonical(past)}\n${shape}\n${structure(past)}`,
      )
    for (const { name, device, document: of, doc: replica } of replicas) {
      if (of !== document) continue
      if (ledger.tainted.has(taintOf(device, document))) {
        const copy = merge([Y.encodeStateAsUpdate(replica)])
        if (changes(copy, Y.encodeStateAsUpdate(doc)))
          throw new Error(`P7: ${name} holds refused edits of ${document} and lacks what the relay has`)
        copy.destroy()
        continue
      }
      if (canonical(replica) !== view)
        throw new Error(`P7: ${name} and the relay show ${document} differently:\n${canonical(replica)}\n${view}`)
      if (structure(replica) !== shape)
        throw new Error(`P7: ${name} and the relay hold ${document} differently:\n${structure(replica)}\n${shape}`)
    }
    doc.destroy()
    for (const { name, disk } of devices) {
      const left = disk.read(document).outbox
      if (left.length > 0 && !ledger.tainted.has(taintOf(name, document)))
        throw new Error(`P5: ${left.length} edits of ${document} are left in the outbox of ${name}, and status says none`)
    }
  }
  checkQuarantine(ledger, replicas)
}

/** What must be refused is kept where the application can show it. */
function checkQuarantine(ledger: Ledger, replicas: readonly Final[]): void {
  for (const taint of ledger.tainted) {
    const listed = new Set(
      replicas.filter(({ device, document }) => taintOf(device, document) === taint).flatMap(({ quarantine }) => quarantine),
    )
    const guilty = [...ledger.made.values()].filter((made) => made.guilty && taintOf(made.device, made.document) === taint)
    const isListed = guilty.some(({ incarnation, n }) => listed.has(`${incarnation}/${n}`))
    if (guilty.some(({ mark }) => ledger.local.has(mark)) && !isListed) throw new Error(`P5: nothing is in the quarantine of ${taint}`)
  }
}
