/**
 * Appending to the log in SQLite (step 5 of the path): many calls, one transaction, one fsync. Runs in the writer's thread.
 */
import type { DocumentId } from '@rejoin/shared'
import { HASH_BYTES, INCARNATION_BYTES, LINK_HEAD_BYTES, digestInto } from '../log/chain.ts'
import type { LogFailure } from '../log/log.ts'
import { LogError } from '../log/log.ts'
import { NUMBERS_BYTES, sealEntry } from './checksum.ts'
import type { CallResult, PackedAppend } from './pack.ts'
import type { Documents, WrittenAcked, WrittenDocument } from './sqlite-documents.ts'
import type { Connection } from './sqlite-file.ts'
import { link as linkEntry } from './sqlite-links.ts'

/** One append with all it touches. */
interface Step {
  readonly append: PackedAppend
  readonly document: WrittenDocument
  readonly acked: WrittenAcked
  readonly covers: readonly { readonly acked: WrittenAcked; readonly n: number }[]
}

/** What a transaction has changed and writes once, at its end. */
interface Touched {
  readonly documents: Set<WrittenDocument>
  readonly acked: Set<WrittenAcked>
}

/**
 * Creates documents and performs all calls in one transaction, durable when it returns. A call that is not what comes next is a conflict and does not
 * disturb the others. Throws what SQLite throws, and then nothing was written.
 */
export type AppendAll = (create: readonly DocumentId[], calls: readonly (readonly PackedAppend[])[]) => CallResult[]

/** The appender on `db`. */
export function createAppend(db: Connection, documents: Documents): AppendAll {
  const insert = db.prepare('INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)')

  /** Completes the entry where it lies: its hash takes the place of its predecessor's, which it is made of. */
  function insertEntry({ entry, seq, lo, hi, actor, at }: PackedAppend, document: WrittenDocument): number {
    const { epoch } = documents
    const { key } = document
    const position = ++documents.position
    const { previous, skip } = linkEntry(document.path, document.seq, position)
    const link = entry.subarray(NUMBERS_BYTES)
    const hash = link.subarray(0, HASH_BYTES)
    hash.set(document.hash)
    digestInto(hash, link)
    const checksum = sealEntry(entry, { position, document: key, seq, epoch, at, actor })
    const incarnation = link.subarray(HASH_BYTES, HASH_BYTES + INCARNATION_BYTES)
    const update = link.subarray(LINK_HEAD_BYTES)
    insert.run(position, key, seq, epoch, incarnation, lo, hi, actor, at, hash, checksum, previous, skip, update)
    document.seq = seq
    document.hash = hash
    document.last = position
    document.tailBytes += update.length
    document.tailEntries++
    return position
  }

  function write({ append, document, acked, covers }: Step, touched: Touched): number {
    raise(acked, append.hi, append.seq, touched)
    for (const cover of covers) if (cover.n > cover.acked.n) raise(cover.acked, cover.n, append.seq, touched)
    if (!append.adds) return 0
    touched.documents.add(document)
    return insertEntry(append, document)
  }

  function performCall(call: readonly PackedAppend[], touched: Touched): CallResult {
    const steps = checkCall(documents, call)
    if (!Array.isArray(steps)) return steps
    const positions: number[] = []
    const hashes: Uint8Array[] = []
    for (const step of steps) {
      positions.push(write(step, touched))
      hashes.push(step.document.hash)
    }
    return { type: 'appended', positions, hashes }
  }

  return (create, calls) => {
    const results = documents.transaction(() => {
      for (const id of create) documents.create(id)
      const touched: Touched = { documents: new Set(), acked: new Set() }
      const performed = calls.map((call) => performCall(call, touched))
      for (const document of touched.documents) {
        // A view would keep the whole batch in memory.
        document.hash = new Uint8Array(document.hash)
        documents.saveDocument(document)
      }
      for (const acked of touched.acked) documents.saveAcked(acked)
      return performed
    })
    documents.forget()
    return results
  }
}

function raise(acked: WrittenAcked, n: number, seq: number, touched: Touched): void {
  acked.n = n
  acked.seq = seq
  touched.acked.add(acked)
}

type Refused = Extract<CallResult, { type: 'refused' }>

/** Whether every append of the call is next. Where one is not, nothing is remembered of the call. */
function checkCall(documents: Documents, call: readonly PackedAppend[]): Step[] | Refused {
  const steps: Step[] = []
  for (const append of call) {
    const problem = checkAppend(documents, append, steps)
    if (problem === undefined) continue
    for (const { document, acked, covers } of steps) {
      document.nextSeq = document.seq
      for (const one of [acked, ...covers.map((cover) => cover.acked)]) one.nextN = one.n
    }
    return { type: 'refused', document: append.document, ...problem }
  }
  return steps
}

interface Problem {
  readonly failure: LogFailure
  readonly message: string
}

/** Adds the append to `steps`, or says why it cannot be. A corrupt row is a matter of its document alone. */
function checkAppend(documents: Documents, append: PackedAppend, steps: Step[]): Problem | undefined {
  try {
    const message = whyNotNext(documents, append, steps)
    return message === undefined ? undefined : { failure: 'conflict', message }
  } catch (error) {
    if (error instanceof LogError) return { failure: error.failure, message: error.message }
    throw error
  }
}

function whyNotNext(documents: Documents, append: PackedAppend, steps: Step[]): string | undefined {
  const document = documents.find(append.document)
  if (document === undefined) return 'the document was not opened'
  const seq = document.nextSeq + (append.adds ? 1 : 0)
  if (append.seq !== seq) return `seq ${append.seq} does not follow the head ${document.nextSeq}`
  const acked = documents.acked(document, append.incarnation)
  const { lo, hi } = append
  if (lo > acked.nextN + 1 || hi <= acked.nextN || hi < lo) return `edits ${lo} to ${hi} do not follow edit ${acked.nextN}`
  const covers =
    append.covers.length === 0 ? NONE : append.covers.map(({ incarnation, n }) => ({ acked: documents.acked(document, incarnation), n }))
  document.nextSeq = seq
  acked.nextN = hi
  for (const cover of covers) cover.acked.nextN = Math.max(cover.acked.nextN, cover.n)
  steps.push({ append, document, acked, covers })
  return undefined
}

const NONE: Step['covers'] = []
