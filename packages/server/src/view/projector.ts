/**
 * Keeps the view the projection of the log (step 7 of the path): reads entries in partition order, turns them into versions, commits a batch at a time.
 *
 * It begins by comparing the view with the log. A view that is new, of another log or schema, ahead of the log, or so far behind that entries are gone takes
 * stock: every document is read as a whole and compared with the records there. Versions go on above the ones given before.
 */
import type { Clock, DocumentId, Position, Random, Schema } from '@rejoin/shared'
import { canonicalJson } from '@rejoin/shared'
import type { Batch, BatchLimits, Pump, PumpState } from '../pump.ts'
import { startPump } from '../pump.ts'
import type { Task, Work } from './batch.ts'
import { stepBatch } from './batch.ts'
import { createOpenDocuments } from './documents.ts'
import type { OpenDocuments } from './documents.ts'
import { plan, readBehind, readable, unknownOrigin } from './plan.ts'
import type { LogSource } from './source.ts'
import { sizeOf, withReadAhead } from './source.ts'
import type { Turns } from './turns.ts'
import { unwatched } from './turns.ts'
import type { Place, Source, ViewCommit, ViewStore } from './view.ts'

export interface ProjectorOptions {
  readonly log: LogSource
  readonly view: ViewStore
  readonly schema: Schema
  readonly clock: Clock
  readonly random: Random
  /** Of the updates of documents kept open; a Y.Doc takes some twenty times that. @default 16 MiB */
  readonly maxOpenBytes?: number | undefined
  /** Of one batch and commit. @default { items: 1_000, bytes: 4 MiB } */
  readonly limits?: BatchLimits | undefined
  /** Told of each document that is worked on, and may refuse one. @default nobody */
  readonly turns?: Turns | undefined
  /** After each commit. Must not throw. */
  readonly onCommit?: (() => void) | undefined
  readonly onState?: ((state: PumpState) => void) | undefined
}

/** Where the projector is: behind a place in each partition, or taking stock, behind a document. */
type ProjectorCursor = { readonly type: 'follow'; readonly places: readonly Place[] } | Stock

interface Stock {
  readonly type: 'stock'
  readonly after: DocumentId | undefined
  /** The partitions' ends when it began: entries follow from there. */
  readonly ends: readonly Place[]
  /** Documents at the seq the view has need not be read again: only entries were missed, nothing else changed. */
  readonly onlyMoved: boolean
}

/** Starts projecting. `poke` it when the log has grown. */
export function startProjector(options: ProjectorOptions): Pump {
  const { view, schema, onCommit, turns = unwatched } = options
  const log = withReadAhead(options.log)
  const source: Source = { log: log.id, schema: canonicalJson(schema.collections) }
  const open = createOpenDocuments(schema, options.maxOpenBytes ?? 16 << 20)
  return startPump<ProjectorCursor, Work, ViewCommit>({
    ...options,
    stages: {
      begin: () => {
        open.clear()
        log.forget()
        return begin(log, view, source)
      },
      read: async (cursor, limits) => {
        if (cursor.type === 'stock') return readStock(log, view, source, cursor, limits)
        const batch = await follow(log, view, open, cursor.places, limits)
        return batch === 'trimmed' ? readStock(log, view, source, await takeStock(log, view, true), limits) : batch
      },
      step: (work) => stepBatch(work, schema, view, open, turns),
      write: (commit) => {
        view.commit(commit)
        onCommit?.()
        return 'written'
      },
    },
  })
}

/** Compares the view with the log. */
async function begin(log: LogSource, view: ViewStore, source: Source): Promise<ProjectorCursor> {
  const standing = view.standing()
  if (standing.source?.log !== source.log) {
    // Records of another log: nobody may read them as this one's.
    view.commit({ entries: [], documents: [], places: [], misfits: [], source: null })
    return takeStock(log, view, false)
  }
  if (standing.source.schema !== source.schema) return takeStock(log, view, false)
  const ends = await log.ends()
  for (const place of standing.places) {
    if ((ends.get(place.partition) ?? 0) < place.position || (await isReplaced(log, place))) return takeStock(log, view, false)
  }
  const known = new Map(standing.places.map((place) => [place.partition, place]))
  return {
    type: 'follow',
    places: [...ends.keys()]
      .sort((a, b) => a - b)
      .map((partition) => known.get(partition) ?? { partition, position: 0 as Position, hash: undefined, ahead: 0 as Position }),
  }
}

/** Whether another entry lies at the place now: the log was restored from a copy and went on differently. */
async function isReplaced(log: LogSource, { partition, position, hash }: Place): Promise<boolean> {
  if (hash === undefined) return false
  const entries = await log.read(partition, (position - 1) as Position, 1)
  if (entries === 'trimmed') return false
  return entries[0]?.position === position && entries[0].hash !== hash
}

async function takeStock(log: LogSource, view: ViewStore, onlyMoved: boolean): Promise<Stock> {
  const ends = await log.ends()
  const places = [...ends].map(([partition, position]) => ({ partition, position, hash: undefined, ahead: position }))
  return { type: 'stock', after: undefined, ends: places, onlyMoved: onlyMoved && view.standing().source !== undefined }
}

async function readStock(
  log: LogSource,
  view: ViewStore,
  source: Source,
  stock: Stock,
  limits: BatchLimits,
): Promise<Batch<ProjectorCursor, Work>> {
  const documents = await log.documents(limits.items, stock.after)
  if (documents.length === 0) return finishStock(log, view, source, stock)
  const tasks: Task[] = []
  let bytes = 0
  let last = stock.after
  for (const document of documents) {
    if (bytes > limits.bytes) break
    last = document
    const head = await readable(() => log.head(document))
    const state = view.document(document)
    if (typeof head === 'string') {
      tasks.push({ type: 'damaged', origin: unknownOrigin(document, state, 0 as Position), reason: head, inStock: true })
      continue
    }
    if (head === undefined || (stock.onlyMoved && state?.seq === head.seq && state.lineage === head.lineage && state.parked === undefined))
      continue
    const loaded = await readable(() => log.load(document, head.seq))
    if (typeof loaded === 'string') {
      const position = stock.ends.find(({ partition }) => partition === head.partition)?.position ?? (0 as Position)
      tasks.push({ type: 'damaged', origin: { ...head, document, position, actor: '', at: 0 }, reason: loaded, inStock: true })
      continue
    }
    bytes += sizeOf(loaded)
    tasks.push({ type: 'stock', document, loaded })
  }
  return { input: { tasks, places: view.standing().places }, next: { ...stock, after: last } }
}

/** Forgets documents the log does not know and opens the view to its readers, as soon as it is the projection of a prefix. */
async function finishStock(log: LogSource, view: ViewStore, source: Source, { ends }: Stock): Promise<Batch<ProjectorCursor, Work>> {
  const tasks: Task[] = []
  for (let page = view.documents(1_000); page.length > 0; page = view.documents(1_000, page.at(-1)?.document)) {
    for (const state of page) if ((await readable(() => log.head(state.document))) === undefined) tasks.push({ type: 'gone', state })
  }
  const now = await log.ends()
  const places: Place[] = []
  for (const end of ends) {
    const at = await log.read(end.partition, Math.max(0, end.position - 1) as Position, 1)
    const entry = at === 'trimmed' ? undefined : at[0]
    places.push({ ...end, hash: entry?.position === end.position ? entry.hash : undefined, ahead: now.get(end.partition) ?? end.position })
  }
  return { input: { tasks, places: view.standing().places, finish: { places, source } }, next: { type: 'follow', places } }
}

async function follow(
  log: LogSource,
  view: ViewStore,
  open: OpenDocuments,
  places: readonly Place[],
  limits: BatchLimits,
): Promise<Batch<ProjectorCursor, Work> | undefined | 'trimmed'> {
  for (const place of places) {
    const entries = await readBehind(log, view, place, limits.bytes)
    if (entries === 'trimmed') return 'trimmed'
    if ('type' in entries) {
      const { position } = entries.origin
      return {
        input: { tasks: [entries], places },
        next: { type: 'follow', places: places.map((each) => (each === place ? { ...place, position, hash: undefined } : each)) },
      }
    }
    if (entries.length === 0) continue
    const { tasks, ahead } = await plan(log, view, open, entries.slice(0, limits.items), limits.bytes)
    const last = entries[tasks.length - 1]
    if (last === undefined) continue
    const others = places.filter((each) => each !== place)
    const here = { ...place, ahead: Math.max(place.ahead, ahead) as Position }
    // The partition that was served comes last next time.
    return {
      input: { tasks, places: [...others, here] },
      next: { type: 'follow', places: [...others, { ...here, position: last.position, hash: last.hash }] },
    }
  }
  return undefined
}
