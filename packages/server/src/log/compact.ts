/**
 * Folds a snapshot and the entries behind it into one update that reads exactly as they do (beside step 5 of the path, P10). Pure. Runs in worker threads.
 */
import * as Y from 'yjs'
import { canonical } from './canonical.ts'

/** What came of a fold. */
export interface Compacted {
  /** 'folded': without what was deleted. 'merged': the same bytes merged, because the fold did not read the same. */
  readonly type: 'folded' | 'merged'
  readonly update: Uint8Array
  /** Why it was only merged. */
  readonly reason?: string | undefined
}

/** How many updates are merged at once: `mergeUpdates` of a flat list is quadratic, of a tree it is not. */
const FAN_IN = 64
const EMPTY = new Y.Doc()

/**
 * Folds `updates`: a snapshot, when there is one, and what follows it. The result was loaded into a fresh document and compared with the fold. Throws
 * when they are not Yjs updates, or leave something pending: then they must stay as they are. `encode` is Yjs's; a test gives one that loses something.
 */
export function compact(updates: readonly Uint8Array[], encode: (folded: Y.Doc) => Uint8Array = Y.encodeStateAsUpdate): Compacted {
  const folded = load(updates, true)
  requireWhole(folded)
  const update = encode(folded)
  const wanted = canonical(folded)
  if (equal(canonical(load([update], true)), wanted)) return { type: 'folded', update }
  const merged = mergeTree(updates)
  if (!equal(canonical(load([merged], false)), canonical(load(updates, false))))
    throw new Error('neither the fold nor the merge reads as the entries do')
  return { type: 'merged', update: new Uint8Array(merged), reason: 'the fold, loaded again, does not read as it did' }
}

/** Merges updates without a document: what was deleted stays in them. `merge` is Yjs's; a test gives one that counts. */
export function mergeTree(updates: readonly Uint8Array[], merge: (updates: Uint8Array[]) => Uint8Array = Y.mergeUpdates): Uint8Array {
  let level = updates
  while (level.length > 1) {
    const next: Uint8Array[] = []
    for (let i = 0; i < level.length; i += FAN_IN) next.push(merge(level.slice(i, i + FAN_IN)))
    level = next
  }
  return level[0] ?? Y.encodeStateAsUpdate(EMPTY)
}

/** The document that `updates` give. */
function load(updates: readonly Uint8Array[], gc: boolean): Y.Doc {
  const doc = new Y.Doc({ gc })
  // Otherwise the rich-text clean-up of remote changes may delete marks that no entry deleted. One transaction from nothing has none to clean up as Yjs
  // is today, but that is its affair.
  doc.on('beforeObserverCalls', (transaction: Y.Transaction) => {
    transaction.local = true
  })
  doc.transact(() => {
    for (const update of updates) Y.applyUpdate(doc, update)
  })
  return doc
}

function requireWhole({ store }: Y.Doc): void {
  if (store.pendingStructs !== null || store.pendingDs !== null) throw new Error('the entries leave something pending')
}

function equal(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0
}
