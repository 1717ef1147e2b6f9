/**
 * A view, its log and a sink in memory, with a forwarder that does only what a proof asks of one: what proofs are tried on.
 */
import type { ChainHash, DocumentId, Lineage, Position, Schema, Seq } from '@rejoin/shared'
import { collection, defineSchema, number, string } from '@rejoin/shared'
import * as Y from 'yjs'
import type { ProverParts } from '#server/forwarding/proof.js'
import { compileTransform } from '#server/projection/transform.js'
import { BUCKETS, bucketOf } from '#server/sinks/digest.js'
import { createMemoryDestination, openMemorySink } from '#server/sinks/memory.js'
import type { Forward, Key, Parked, Projection, Sink, SinkPlace } from '#server/sinks/sink.js'
import { forwardOf } from '#server/sinks/spec.js'
import { createMemoryNotes } from '#server/storage/notes-memory.js'
import { createMemoryView } from '#server/storage/view-memory.js'
import { allRecords, createReadingDoc, project } from '#server/view/project.js'
import { keyText } from '#server/view/view.js'
import { sinkContext } from './sink-context.ts'
import { createVirtualClock } from './virtual-clock.ts'

export const PETS: Schema = defineSchema({ pets: collection({ name: string(), age: number() }) })
const LINEAGE = '1'.repeat(32) as Lineage

/** A pet's key. */
export function petKey(id: string, document = 'clinic'): Key {
  return { collection: 'pets', document: document as DocumentId, id }
}

export async function createProofScene(
  options: { readonly projections?: readonly Projection[]; readonly forward?: Partial<Forward> } = {},
) {
  const clock = createVirtualClock()
  const view = createMemoryView('v'.padStart(32, '0'))
  const transform = compileTransform(PETS, options.projections ?? [])
  const traits = { transactional: true, strategies: ['state', 'actions'], readable: true } as const
  const forward: Forward = { ...forwardOf('memory', traits, {}), projections: options.projections ?? [], ...options.forward }
  const destination = createMemoryDestination()
  const notes = createMemoryNotes()
  const docs = new Map<DocumentId, { doc: Y.Doc; seq: number }>()
  const kept = new Map<number, BigUint64Array>()
  let version = 0
  const context = sinkContext({ name: 'warehouse', collections: transform.targets, log: 'l', forward, notes })
  const open = async (): Promise<Sink> => openMemorySink(destination, context)
  const sink = await open()
  let place: SinkPlace | undefined = (await sink.begin()).place

  const rowsOf = async (keys: readonly Key[], at: number) =>
    transform.rows(
      view,
      keys.map((source) => ({ source, version: at })),
    )
  const digest = async (at: number): Promise<BigUint64Array> => {
    const buckets = new BigUint64Array(BUCKETS)
    for (const made of await rowsOf(view.keys(at, 1e9), at))
      for (const { key, value } of made.rows) buckets[bucketOf(key)] = (buckets[bucketOf(key)] ?? 0n) + (sink.proof?.hash(key, value) ?? 0n)
    return buckets
  }
  view.commit({ entries: [], documents: [], places: [], misfits: [], source: { log: 'l', schema: '' }, settled: true })

  /** Changes a document, and the view with it. */
  const edit = (change: (pets: Y.Map<Y.Map<unknown>>) => void, document = 'clinic' as DocumentId): void => {
    const state = docs.get(document) ?? { doc: new Y.Doc(), seq: 0 }
    docs.set(document, state)
    const before = new Map(view.records(document).map((each) => [each.id, JSON.stringify(each.value)]))
    state.doc.transact(() => change(state.doc.getMap('pets')))
    state.seq++
    const reading = createReadingDoc(PETS)
    reading.apply([Y.encodeStateAsUpdate(state.doc)])
    const now = project(reading.doc, PETS, allRecords(reading.doc, PETS))
    const gone = [...before.keys()].filter((id) => !now.some((each) => each.id === id))
    const changes = [
      ...now.filter(({ id, text }) => before.get(id) !== text).map(({ collection: name, id, value }) => ({ collection: name, id, value })),
      ...gone.map((id) => ({ collection: 'pets', id, value: null })),
    ]
    version++
    const seq = state.seq as Seq
    const origin = { partition: 0, position: version as Position, epoch: 1, seq, document, actor: 'a', at: version }
    view.commit({
      entries: [{ ...origin, version, changes, settled: true }],
      documents: [{ document, partition: 0, lineage: LINEAGE, seq, parked: undefined }],
      places: [{ partition: 0, position: version as Position, hash: '0'.repeat(32) as ChainHash, ahead: 0 as Position }],
      misfits: [],
    })
  }

  /** Brings the destination to the head of the view, as the forwarder would. */
  const forwardAll = async (): Promise<void> => {
    const from = place?.version ?? 0
    const to: SinkPlace = { view: view.id, version: view.head() ?? 0, mark: view.mark(view.head() ?? 0) }
    const sources = transform.affected(view, view.dirty(from, to.version), to.version)
    const [old, now] = [await rowsOf(sources, from), await rowsOf(sources, to.version)]
    const rows = new Map(
      old
        .flatMap((made) => made.rows)
        .map(({ key }) => [keyText(key), { key, value: null as null | (typeof now)[number]['rows'][number]['value'] }]),
    )
    for (const { key, value } of now.flatMap((made) => made.rows)) rows.set(keyText(key), { key, value })
    await sink.commit({ rows: [...rows.values()], from: place, to })
    place = to
    kept.set(to.version, await digest(to.version))
  }

  const parts: ProverParts = {
    name: 'warehouse',
    schema: PETS,
    forward,
    log: {
      documents: async (limit, from) =>
        [...docs.keys()]
          .sort()
          .filter((id) => from === undefined || id > from)
          .slice(0, limit),
      head: async (document) => {
        const state = docs.get(document)
        return state && { partition: 0, lineage: LINEAGE, epoch: 1, seq: state.seq as Seq }
      },
      load: async (document) => {
        const state = docs.get(document)
        if (state === undefined) throw new Error('no such document')
        return { partition: 0, lineage: LINEAGE, epoch: 1, seq: state.seq as Seq, updates: [Y.encodeStateAsUpdate(state.doc)] }
      },
    },
    view,
    transform,
    forwarder: {
      digestAt: (at) => kept.get(at),
      parked: (): readonly Parked[] => [...destination.parked.values()],
      cursor: () => place?.version,
      recount: async () => kept.clear(),
      write: async (keys) => {
        const at = place?.version ?? 0
        const rows = []
        for (const key of keys) {
          const source = transform.sourceOf(key)
          const made = source === undefined ? [] : await rowsOf([source], at)
          rows.push({ key, value: made[0]?.rows.find((row) => keyText(row.key) === keyText(key))?.value ?? null })
        }
        if (place !== undefined) await sink.commit({ rows, from: place, to: place, force: true })
      },
    },
    open,
    notes,
    clock,
    hold: () => () => undefined,
  }
  return { clock, view, destination, notes, docs, kept, parts, edit, forwardAll }
}

/** Lets time pass until the promise is settled. */
export async function running<T>(clock: { advance(ms: number): Promise<void> }, promise: Promise<T>): Promise<T> {
  let done = false
  const ended = promise.finally(() => {
    done = true
  })
  ended.catch(() => undefined)
  for (let i = 0; i < 100_000 && !done; i++) await clock.advance(50)
  return ended
}
