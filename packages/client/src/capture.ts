/**
 * What Yjs emits, as edits (step 1 of the path): everything between `beforeAllTransactions` and `afterAllTransactions` that is not our own doing is one edit.
 */
import { shielded } from '@rejoin/shared'
import * as Y from 'yjs'

/** The origins of transactions that are our own doing. An application sees them as `transaction.origin`. */
export const ORIGINS: {
  /** From this device's store, or from another tab of it. */
  readonly store: symbol
  /** From the relay. */
  readonly relay: symbol
} = { store: Symbol('rejoin store'), relay: Symbol('rejoin relay') }

/** Everything that Yjs emits in one go. `n` is set when it is over, 0 when it changed nothing. */
export interface Batch {
  n: number | undefined
}

export interface CaptureListener {
  /** An edit; returns its number. */
  edit(update: Uint8Array): number
  /** The application applied something that Yjs cannot integrate yet: to be stored, but not sent before it is integrated. */
  pending(update: Uint8Array): void
  /** Yjs gave up in the middle of a transaction: it tells nothing of what is done to this document from now on. */
  broken(): void
}

/** Watches a Y.Doc for as long as it lives or until `end`. */
export class Capture {
  readonly #doc: Y.Doc
  readonly #listener: CaptureListener
  #batch: Batch | undefined
  #parts: Uint8Array[] = []
  #foreign = false
  #pendingBefore: PendingMark = NONE
  /** Whether something that the application applied too early waits among what is pending. */
  #isOwing = false
  #isLooking = false

  constructor(doc: Y.Doc, listener: CaptureListener) {
    this.#doc = doc
    this.#listener = listener
    doc.on('beforeAllTransactions', this.#begin)
    doc.on('beforeTransaction', this.#note)
    doc.on('update', this.#update)
    doc.on('afterAllTransactions', this.#finish)
  }

  /** The batch that an edit made now belongs to. */
  get batch(): Batch {
    this.#batch ??= { n: undefined }
    return this.#batch
  }

  /** Runs a change of the application, and looks at once whether Yjs survived it. */
  transact<T>(change: () => T): T {
    const isOutermost = isAtRest(this.#doc)
    try {
      return this.#doc.transact(change)
    } finally {
      if (isOutermost) this.#look()
    }
  }

  /** The store has been read: what is pending now was left so by the application, in an earlier life. */
  loaded(): void {
    this.#isOwing = markPending(this.#doc) !== NONE
  }

  /** Ends, and lets every later change of the document throw: the document would take it, and nobody would hear of it. */
  refuse(error: Error): void {
    this.end()
    this.#doc.on('beforeTransaction', () => {
      // Yjs is not yet where it would do this by itself, and would take the next change for a part of this one.
      this.#doc._transaction = null
      this.#doc._transactionCleanups.pop()
      throw error
    })
  }

  end(): void {
    this.#left()
    this.#doc.off('beforeAllTransactions', this.#begin)
    this.#doc.off('beforeTransaction', this.#note)
    this.#doc.off('update', this.#update)
    this.#doc.off('afterAllTransactions', this.#finish)
  }

  readonly #begin = (): void => {
    this.#pendingBefore = markPending(this.#doc)
    if (this.#isLooking) return
    this.#isLooking = true
    // Transactions are synchronous: by then they are over.
    queueMicrotask(this.#look)
  }

  readonly #look = (): void => {
    this.#isLooking = false
    if (!isAtRest(this.#doc)) this.#listener.broken()
  }

  readonly #note = (transaction: Y.Transaction): void => {
    if (!isOurs(transaction.origin)) this.#foreign = true
  }

  readonly #update = (update: Uint8Array, origin: unknown): void => {
    // What the application applied too early and what only now found its place comes out under the origin of whatever completed it, perhaps our own: it is still the application's, and the relay may lack it.
    // Another tab's edit that came before what it builds on waits there too, and is in that tab's outbox.
    if (!isOurs(origin) || (this.#isOwing && !samePending(this.#pendingBefore, markPending(this.#doc)))) {
      if (this.#parts.length === 0) queueMicrotask(this.#left)
      this.#parts.push(update)
    }
  }

  /** A handler of the application that throws can keep Yjs from ever telling the end. */
  readonly #left = (): void => {
    if (this.#parts.length > 0) this.#finish()
  }

  readonly #finish = (): void => {
    const batch = this.#batch
    const parts = this.#parts
    this.#batch = undefined
    this.#parts = []
    const [first] = parts
    const n = first === undefined ? 0 : this.#listener.edit(parts.length === 1 ? first : Y.mergeUpdates(parts))
    if (batch !== undefined) batch.n = n
    const mark = markPending(this.#doc)
    if (mark === NONE) this.#isOwing = false
    else if (this.#foreign && !samePending(this.#pendingBefore, mark)) {
      this.#isOwing = true
      this.#listener.pending(encodePending(mark))
    }
    this.#foreign = false
    this.#pendingBefore = NONE
  }
}

/** What came of applying updates. `pending`: something that was not pending before waits for what is missing. `failed`: one of them could not be read. */
export type Applied = 'whole' | 'pending' | 'failed'

/** Whether no transaction is under way. Where none can be, as between two tasks, one that is was left by an error, and stays: of what follows Yjs tells nothing. */
export function isAtRest({ _transaction, _transactionCleanups }: Y.Doc): boolean {
  return _transaction === null && _transactionCleanups.length === 0
}

/** Applies updates in one transaction, never inside another. `tidy`: Yjs may remove superfluous formatting marks afterwards, as an edit of this replica. Never throws. */
export function applyUpdates(doc: Y.Doc, updates: readonly Uint8Array[], origin: symbol, tidy: boolean): Applied {
  const before = markPending(doc)
  let good = true
  // After changes from elsewhere Yjs removes superfluous formatting marks by a transaction of its own, which would be an edit that nobody made: one that a reader may not send, and that a store must not hide.
  const hush = (transaction: Y.Transaction): void => {
    if (transaction.origin === origin) transaction._needFormattingCleanup = false
  }
  if (!tidy) doc.on('afterTransaction', hush)
  // Observers of the application run at its end, when everything is integrated: one that throws must not keep from the store what the cursor counts as held.
  shielded(() => {
    try {
      doc.transact(() => {
        for (const update of updates) {
          try {
            Y.applyUpdate(doc, update, origin)
          } catch {
            // Yjs is neither atomic nor total here: the caller treats the whole as not to be trusted.
            good = false
          }
        }
      }, origin)
    } catch (error) {
      // Yjs itself, cleaning up what is nested deeper than the stack: whoever captures this document is told.
      if (!isAtRest(doc)) good = false
      else throw error
    }
  })
  if (!tidy) doc.off('afterTransaction', hush)
  const after = markPending(doc)
  if (!good || !isAtRest(doc)) return 'failed'
  return before === NONE && after !== NONE ? 'pending' : 'whole'
}

/** All that the document holds and `stateVector` lacks, with nothing that is pending; the delete set is whole. */
export function encodeDifference(doc: Y.Doc, stateVector?: Uint8Array): Uint8Array {
  const { store } = doc
  const { pendingStructs, pendingDs } = store
  store.pendingStructs = null
  store.pendingDs = null
  try {
    return Y.encodeStateAsUpdate(doc, stateVector)
  } finally {
    store.pendingStructs = pendingStructs
    store.pendingDs = pendingDs
  }
}

/** Whether the document has no content at all, deleted content included. */
export function isBlank(doc: Y.Doc): boolean {
  return doc.store.clients.size === 0 && doc.store.pendingStructs === null && doc.store.pendingDs === null
}

/** Folds stored updates into one, without the content that was deleted, adding nothing and losing nothing else. */
export function foldUpdates(updates: readonly Uint8Array[]): Uint8Array {
  const doc = new Y.Doc()
  const applied = applyUpdates(doc, updates, ORIGINS.store, false)
  // What cannot be applied is kept as bytes rather than lost.
  const folded = applied !== 'failed' ? Y.encodeStateAsUpdate(doc) : Y.mergeUpdates([...updates])
  doc.destroy()
  return folded
}

interface PendingMark {
  readonly structs: Uint8Array | undefined
  readonly deletes: Uint8Array | undefined
}
const NONE: PendingMark = { structs: undefined, deletes: undefined }

function markPending({ store }: Y.Doc): PendingMark {
  const structs = store.pendingStructs?.update
  const deletes = store.pendingDs ?? undefined
  return structs === undefined && deletes === undefined ? NONE : { structs, deletes }
}

function samePending(a: PendingMark, b: PendingMark): boolean {
  return sameBytes(a.structs, b.structs) && sameBytes(a.deletes, b.deletes)
}

function sameBytes(a: Uint8Array | undefined, b: Uint8Array | undefined): boolean {
  return a === b || (a !== undefined && b !== undefined && a.length === b.length && a.every((byte, index) => byte === b[index]))
}

function encodePending({ structs, deletes }: PendingMark): Uint8Array {
  return Y.convertUpdateFormatV2ToV1(Y.mergeUpdatesV2([structs, deletes].filter((part) => part !== undefined)))
}

function isOurs(origin: unknown): boolean {
  return origin === ORIGINS.store || origin === ORIGINS.relay
}
