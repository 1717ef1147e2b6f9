/**
 * What Yjs itself makes of an update: the other side of admission in its tests.
 */
import * as Y from 'yjs'

/** Internals of a document that say what it holds. */
interface Store {
  readonly clients: Map<number, { readonly id: Y.ID; readonly length: number; readonly deleted: boolean }[]>
  readonly pendingStructs: unknown
  readonly pendingDs: unknown
}

export function storeOf(doc: Y.Doc): Store {
  return doc.store
}

/** A document that does not clean up rich text after remote updates: what it holds is what the updates say. */
export function quietDoc(gc = true): Y.Doc {
  const doc = new Y.Doc({ gc })
  doc.on('beforeObserverCalls', (transaction: Y.Transaction) => {
    transaction.local = true
  })
  return doc
}

export function copyOf(doc: Y.Doc): Y.Doc {
  const copy = quietDoc(doc.gc)
  Y.applyUpdate(copy, Y.encodeStateAsUpdate(doc))
  return copy
}

/** Applies `update`: 'whole' when everything of it is in, 'pending' when something waits; throws what Yjs throws. */
export function apply(doc: Y.Doc, update: Uint8Array): 'whole' | 'pending' {
  Y.applyUpdate(doc, update)
  const { pendingStructs, pendingDs } = storeOf(doc)
  return pendingStructs === null && pendingDs === null ? 'whole' : 'pending'
}

/** Client → the clocks that updates said are deleted, in a form that has no structure to get wrong. */
export type SaidDeletes = Map<number, Set<number>>

/** Adds what `update` says is deleted; `before` is the state vector of the document it is applied to. Says whether it said anything new. */
export function noteDeletes(said: SaidDeletes, before: ReadonlyMap<number, number>, update: Uint8Array): boolean {
  const { structs, ds } = Y.decodeUpdate(update)
  let added = false
  const note = (client: number, from: number, length: number): void => {
    const clocks = said.get(client) ?? new Set()
    said.set(client, clocks)
    for (let clock = from; clock < from + length; clock++) {
      added ||= !clocks.has(clock)
      clocks.add(clock)
    }
  }
  for (const struct of structs) {
    const isGone = struct instanceof Y.GC || (struct instanceof Y.Item && struct.content instanceof Y.ContentDeleted)
    const from = Math.max(struct.id.clock, before.get(struct.id.client) ?? 0)
    const end = struct.id.clock + struct.length
    if (isGone && from < end) note(struct.id.client, from, end - from)
  }
  for (const [client, ranges] of ds.clients) for (const { clock, len } of ranges) note(client, clock, len)
  return added
}

export function stateVector(doc: Y.Doc): Map<number, number> {
  return Y.decodeStateVector(Y.encodeStateVector(doc))
}

/** Everything two documents must agree on, whatever order their maps have. */
export function fingerprint(doc: Y.Doc): unknown {
  const roots = [...doc.share]
    .map(([name, type]) => [name, children(type as Y.AbstractType<unknown>)] as const)
    .filter(([, what]) => what !== undefined)
  const deleted = [...storeOf(doc).clients].map(
    ([client, structs]) =>
      [client, structs.filter((struct) => struct.deleted).flatMap((struct) => spread(struct.id.clock, struct.length))] as const,
  )
  return { roots: sortPairs(roots), deleted: sortPairs(deleted), vector: sortPairs([...stateVector(doc)]) }
}

function spread(from: number, length: number): number[] {
  return Array.from({ length }, (_, nth) => from + nth)
}

function sortPairs(pairs: readonly (readonly [string | number, unknown])[]): unknown {
  return pairs.toSorted(([a], [b]) => (a < b ? -1 : 1))
}

/** The live content of a type of unknown kind. */
function children(type: Y.AbstractType<unknown>): unknown {
  const { _start, _map } = type as unknown as { _start: Y.Item | null; _map: Map<string, Y.Item> }
  const items: unknown[] = []
  for (let item = _start; item !== null; item = item.right) if (!item.deleted) items.push(...contentOf(item))
  const entries = [..._map].filter(([, item]) => !item.deleted).map(([name, item]) => [name, contentOf(item)] as const)
  return items.length === 0 && entries.length === 0 ? undefined : { items, entries: sortPairs(entries) }
}

function contentOf(item: Y.Item): unknown[] {
  const { content } = item
  if (content instanceof Y.ContentType)
    return [{ type: content.type.constructor.name, of: children(content.type as Y.AbstractType<unknown>) ?? null }]
  if (content instanceof Y.ContentFormat) return [{ key: content.key, format: content.value as unknown }]
  if ('doc' in content) return [{ guid: (content as { doc: Y.Doc }).doc.guid }]
  return content.getContent()
}
