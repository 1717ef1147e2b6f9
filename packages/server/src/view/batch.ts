/**
 * The projector's step (step 7 of the path): entries and documents in, what the view has to commit out. Its only effect is on the Y.Docs it keeps.
 */
import type { ChainHash, DocumentId, Lineage, Position, RecordValue, Schema, Seq } from '@rejoin/shared'
import type { Entry } from '../log/log.ts'
import type { OpenDocument, OpenDocuments } from './documents.ts'
import type { Projected, Touched } from './project.ts'
import { allRecords, project } from './project.ts'
import { sizeOf } from './source.ts'
import type { LoadedDocument } from './source.ts'
import type { Turns } from './turns.ts'
import type { DocumentState, Key, Place, ProjectedEntry, RecordChange, Source, ViewCommit, ViewStore } from './view.ts'
import { keyText } from './view.ts'

/** What to do with one entry, or in a stock-taking with one document. */
export type Task =
  /** The document is open at the entry before, or `base` brings it there. */
  | { readonly type: 'apply'; readonly entry: Entry; readonly base: LoadedDocument | undefined }
  /** The document as a whole, at the entry or (its entries were folded already) ahead of it. */
  | { readonly type: 'whole'; readonly entry: Entry; readonly loaded: LoadedDocument }
  /** The view has it already, or a later entry of this batch brings the document as a whole. */
  | { readonly type: 'pass'; readonly entry: Entry }
  /** The log cannot give the entry, or its document: bytes fail their checksum. */
  | { readonly type: 'damaged'; readonly origin: Origin; readonly reason: string; readonly inStock: boolean }
  | { readonly type: 'stock'; readonly document: DocumentId; readonly loaded: LoadedDocument }
  /** The log does not know the document. */
  | { readonly type: 'gone'; readonly state: DocumentState }

/** One batch of the projector. */
export interface Work {
  readonly tasks: readonly Task[]
  /** Where the partitions stand before it; `ahead` already counts what this batch reads ahead. */
  readonly places: readonly Place[]
  /** Ends a stock-taking: the places from which entries follow, and what the view is the projection of. */
  readonly finish?: { readonly places: readonly Place[]; readonly source: Source } | undefined
}

/** Where a version comes from. */
export interface Origin {
  readonly partition: number
  readonly position: Position
  readonly epoch: number
  readonly seq: Seq
  readonly document: DocumentId
  readonly lineage: Lineage
  readonly actor: string
  readonly at: number
}

/** Carries out one batch on the open documents. A document that throws is parked; the others go on. */
export function stepBatch(work: Work, schema: Schema, view: ViewStore, open: OpenDocuments, turns: Turns): ViewCommit {
  const batch = createBatch(view)
  const places = new Map(work.places.map((place) => [place.partition, place]))
  for (const task of work.tasks) {
    if (task.type === 'gone') {
      batch.forget(task.state, placeOf(places, task.state.partition))
      continue
    }
    const origin = originOf(task, places)
    const advances = 'entry' in task || (task.type === 'damaged' && !task.inStock)
    if (advances)
      places.set(origin.partition, {
        ...placeOf(places, origin.partition),
        position: origin.position,
        hash: 'entry' in task ? task.entry.hash : undefined,
      })
    const settled = advances && [...places.values()].every(({ position, ahead }) => position >= ahead)
    if (task.type === 'pass' || task.type === 'damaged') {
      if (task.type === 'pass') batch.pass(origin, settled)
      else batch.park(origin, task.reason, settled)
      continue
    }
    try {
      turns.begin(origin.document, bytesOf(task, open))
      const { document, touched } = carryOut(task, schema, open, batch)
      batch.add({ origin, at: document, settled, quiet: task.type === 'stock' }, project(document.reading.doc, schema, touched))
    } catch (error) {
      open.drop(origin.document)
      batch.park(origin, error instanceof Error ? error.message : String(error), settled)
    } finally {
      turns.end()
    }
  }
  open.shrink()
  if (work.finish === undefined) return batch.commit([...places.values()])
  const settled = work.finish.places.every(({ position, ahead }) => position >= ahead)
  return { ...batch.commit(work.finish.places), source: work.finish.source, settled }
}

type Reading = Exclude<Task, { readonly type: 'pass' | 'gone' | 'damaged' }>

/** Bytes of the updates that the document is then put together from. */
function bytesOf(task: Reading, open: OpenDocuments): number {
  if (task.type !== 'apply') return sizeOf(task.loaded)
  const before = task.base === undefined ? open.get(task.entry.document)?.bytes : sizeOf(task.base)
  return (before ?? 0) + task.entry.update.length
}

/** Brings the document to where the task wants it, and tells which records to read. */
function carryOut(
  task: Reading,
  schema: Schema,
  open: OpenDocuments,
  batch: BatchOfChanges,
): { readonly document: OpenDocument; readonly touched: Touched } {
  if (task.type === 'apply') {
    const { entry, base } = task
    const document = base === undefined ? open.get(entry.document) : open.build(entry.document, base)
    if (document === undefined) throw new Error('the document is not open')
    const touched = document.reading.apply([entry.update])
    document.seq = entry.seq
    document.bytes += entry.update.length
    return { document, touched }
  }
  const id = task.type === 'stock' ? task.document : task.entry.document
  const document = open.build(id, task.loaded)
  // What is there now and what was: the latter may be gone, or be of a collection that is no longer declared.
  const touched = new Map([...allRecords(document.reading.doc, schema)].map(([collection, ids]) => [collection, new Set(ids)]))
  for (const { collection, id: record } of batch.records(id)) touched.set(collection, (touched.get(collection) ?? new Set()).add(record))
  return { document, touched }
}

function originOf(task: Exclude<Task, { readonly type: 'gone' }>, places: ReadonlyMap<number, Place>): Origin {
  if ('entry' in task) return task.entry
  if (task.type === 'damaged') return task.origin
  const { partition, lineage, epoch, seq } = task.loaded
  // Nobody's edit: many of them at once.
  return { partition, position: placeOf(places, partition).position, epoch, seq, document: task.document, lineage, actor: '', at: 0 }
}

function placeOf(places: ReadonlyMap<number, Place>, partition: number): Place {
  return places.get(partition) ?? { partition, position: 0 as Position, hash: undefined as ChainHash | undefined, ahead: 0 as Position }
}

interface BatchOfChanges {
  /** Records of a document as the tasks before this one left them. */
  records(document: DocumentId): Iterable<{ readonly collection: string; readonly id: string }>
  /** One version with those of the records that differ; the document is now `at`. A `quiet` one without a change is not worth a version. */
  add(
    what: {
      readonly origin: Origin
      readonly at: { readonly lineage: Lineage; readonly seq: Seq }
      readonly settled: boolean
      readonly quiet: boolean
    },
    records: readonly Projected[],
  ): void
  /** A version that changes nothing. */
  pass(origin: Origin, settled: boolean): void
  park(origin: Origin, reason: string, settled: boolean): void
  forget(state: DocumentState, place: Place): void
  commit(places: readonly Place[]): ViewCommit
}

/** Collects a commit; later tasks see what earlier ones changed. */
function createBatch(view: ViewStore): BatchOfChanges {
  let version = view.standing().version
  const before = version
  const entries: ProjectedEntry[] = []
  const documents = new Map<DocumentId, DocumentState>()
  const gone: DocumentId[] = []
  const misfits = new Map<string, ViewCommit['misfits'][number]>()
  const changed = new Map<string, { readonly key: Key; readonly text: string | null }>()

  const previous = (key: Key): string | null => {
    const known = changed.get(keyText(key))
    if (known !== undefined) return known.text
    const value: RecordValue | null = view.get(key, before)
    return value === null ? null : JSON.stringify(value)
  }
  const push = (origin: Origin, settled: boolean, changes: readonly RecordChange[]): void => {
    const { partition, position, epoch, seq, document, actor, at } = origin
    entries.push({ version: ++version, partition, position, epoch, seq, document, actor, at, changes, settled })
  }
  const stand = ({ document, partition, lineage, seq }: Origin, parked: string | undefined): void => {
    documents.set(document, { document, partition, lineage, seq, parked })
  }
  return {
    records: function* (document) {
      yield* view.records(document)
      for (const { key } of changed.values()) if (key.document === document) yield key
    },
    add: ({ origin, at, settled, quiet }, records) => {
      const { document } = origin
      const changes = records.filter(({ collection, id, text }) => text !== previous({ collection, document, id }))
      for (const { collection, id, text } of changes)
        changed.set(keyText({ collection, document, id }), { key: { collection, document, id }, text })
      for (const { collection, id, misfits: found } of records) {
        const key = { collection, document, id }
        misfits.set(keyText(key), { key, found: found.map((misfit) => ({ ...misfit, document })) })
      }
      if (changes.length > 0 || !quiet)
        push(
          origin,
          settled,
          changes.map(({ collection, id, value }) => ({ collection, id, value })),
        )
      stand({ ...origin, lineage: at.lineage, seq: at.seq }, undefined)
    },
    pass: (origin, settled) => push(origin, settled, []),
    park: (origin, reason, settled) => {
      push(origin, settled, [])
      // Of several failures the first is the cause.
      stand(origin, documents.get(origin.document)?.parked ?? reason)
    },
    forget: (state, { position }) => {
      const changes = view.records(state.document).map(({ collection, id }) => ({ collection, id, value: null }))
      if (changes.length > 0) push({ ...state, position, epoch: 0, actor: '', at: 0 }, false, changes)
      gone.push(state.document)
    },
    commit: (places) => ({ entries, documents: [...documents.values()], places, misfits: [...misfits.values()], gone }),
  }
}
