/**
 * Keeps the view the projection of the log (step 7 of the path): reads entries in partition order, turns them into versions, commits a batch at a time.
 *
 * It begins by comparing the view with the log. A view that is new, of another log or schema, ahead of the log, or so far behind that entries are gone takes
 * stock: every document is read as a whole and compared with the records there. Versions go on above the ones given before.
 */
import type { Clock, DocumentId, Lineage, Position, Random, Schema, Seq } from '@rejoin/shared'
import { canonicalJson } from '@rejoin/shared'
import type { Entry } from '../log/log.ts'
import { LogError } from '../log/log.ts'
import type { Batch, BatchLimits, Pump, PumpState } from '../pump.ts'
import { startPump } from '../pump.ts'
import type { Origin, Task, Work } from './batch.ts'
import { stepBatch } from './batch.ts'
import { createOpenDocuments } from './documents.ts'
import type { OpenDocuments } from './documents.ts'
import type { LoadedDocument, LogSource } from './source.ts'
import type { DocumentState, Place, Source, ViewCommit, ViewStore } from './view.ts'

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
  const { log, view, schema, onCommit } = options
  const source: Source = { log: log.id, schema: canonicalJson(schema.collections) }
  const open = createOpenDocuments(schema, options.maxOpenBytes ?? 16 << 20)
  return startPump<ProjectorCursor, Work, ViewCommit>({
    ...options,
    stages: {
      begin: () => {
        open.clear()
        return begin(log, view, source)
      },
      read: async (cursor, limits) => {
        if (cursor.type === 'stock') return readStock(log, view, source, cursor, limits)
        const batch = await follow(log, view, open, cursor.places, limits)
        return batch === 'trimmed' ? readStock(log, view, source, await takeStock(log, view, true), limits) : batch
      },
      step: (work) => stepBatch(work, schema, view, open),
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
  return { type: 'follow', places: [...ends.keys()].sort((a, b) => a - b).map((partition) => known.get(partition) ?? { partition, position: 0 as Position, hash: undefined, ahead: 0 as Position }) }
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

async function readStock(log: LogSource, view: ViewStore, source: Source, stock: Stock, limits: BatchLimits): Promise<Batch<ProjectorCursor, Work>> {
  const documents = await log.documents(limits.items, stock.after)
  if (documents.length === 0) return finishStock(log, view, source, stock)
  const tasks: Task[] = []
  let bytes = 0
  let last = stock.after
  for (const document of documents) {
    if (bytes > limits.bytes) break
    last = document
    const head = await loadable(() => log.head(document))
    const state = view.document(document)
    if (typeof head === 'string') {
      tasks.push({ type: 'damaged', origin: unknownOrigin(document, state, 0 as Position), reason: head, inStock: true })
      continue
    }
    if (head === undefined || (stock.onlyMoved && state?.seq === head.seq && state.lineage === head.lineage && state.parked === undefined)) continue
    const loaded = await loadable(() => log.load(document, head.seq))
    if (typeof loaded === 'string') {
      const position = stock.ends.find(({ partition }) => partition === head.partition)?.position ?? (0 as Position)
      tasks.push({ type: 'damaged', origin: { ...head, document, position, actor: '', at: 0 }, reason: loaded, inStock: true })
      continue
    }
    bytes += loaded.updates.reduce((sum, update) => sum + update.length, 0)
    tasks.push({ type: 'stock', document, loaded })
  }
  return { input: { tasks, places: view.standing().places }, next: { ...stock, after: last } }
}

/** Forgets documents the log does not know and opens the view to its readers, as soon as it is the projection of a prefix. */
async function finishStock(log: LogSource, view: ViewStore, source: Source, { ends }: Stock): Promise<Batch<ProjectorCursor, Work>> {
  const tasks: Task[] = []
  for (let page = view.documents(1_000); page.length > 0; page = view.documents(1_000, page.at(-1)?.document)) {
    for (const state of page) if ((await loadable(() => log.head(state.document))) === undefined) tasks.push({ type: 'gone', state })
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

async function follow(log: LogSource, view: ViewStore, open: OpenDocuments, places: readonly Place[], limits: BatchLimits): Promise<Batch<ProjectorCursor, Work> | undefined | 'trimmed'> {
  for (const place of places) {
    const entries = await readBehind(log, view, place, limits.bytes)
    if (entries === 'trimmed') return 'trimmed'
    if ('type' in entries) {
      const { position } = entries.origin
      return { input: { tasks: [entries], places }, next: { type: 'follow', places: places.map((each) => (each === place ? { ...place, position, hash: undefined } : each)) } }
    }
    if (entries.length === 0) continue
    const { tasks, ahead } = await plan(log, view, open, entries.slice(0, limits.items), limits.bytes)
    const last = entries[tasks.length - 1]
    if (last === undefined) continue
    const others = places.filter((each) => each !== place)
    const here = { ...place, ahead: Math.max(place.ahead, ahead) as Position }
    // The partition that was served comes last next time.
    return { input: { tasks, places: [...others, here] }, next: { type: 'follow', places: [...others, { ...here, position: last.position, hash: last.hash }] } }
  }
  return undefined
}

type Damaged = Task & { readonly type: 'damaged' }

/** Entries behind the place; or, when the next one is damaged, what to do about it: its document is parked, the others go on. */
async function readBehind(log: LogSource, view: ViewStore, place: Place, maxBytes: number): Promise<readonly Entry[] | 'trimmed' | Damaged> {
  try {
    return await log.read(place.partition, place.position, maxBytes)
  } catch (error) {
    if (!(error instanceof LogError) || error.failure !== 'corrupt' || error.document === undefined || error.position === undefined) throw error
    return { type: 'damaged', origin: unknownOrigin(error.document, view.document(error.document), error.position), reason: error.message, inStock: false }
  }
}

/** What is read, or why it cannot be: its bytes fail their checksum. Other failures are thrown. */
async function loadable<T>(read: () => Promise<T>): Promise<T | string> {
  try {
    return await read()
  } catch (error) {
    if (error instanceof LogError && error.failure === 'corrupt') return error.message
    throw error
  }
}

function unknownOrigin(document: DocumentId, state: DocumentState | undefined, position: Position): Origin {
  const { partition, lineage, seq } = state ?? { partition: 0, lineage: '' as Lineage, seq: 0 as Seq }
  return { partition, position, epoch: 0, seq, document, lineage, actor: '', at: 0 }
}

/** Decides for each entry what to do, loading what is not open, until more than `maxBytes` were loaded. */
async function plan(log: LogSource, view: ViewStore, open: OpenDocuments, entries: readonly Entry[], maxBytes: number): Promise<{ readonly tasks: readonly Task[]; readonly ahead: Position }> {
  const tasks: Task[] = []
  let bytes = 0
  let ahead = 0
  /** Where each document will be after the tasks so far. */
  const planned = new Map<DocumentId, { readonly lineage: string; readonly seq: number }>()
  const lastOf = new Map(entries.map((entry) => [entry.document, entry]))
  for (const entry of entries) {
    if (bytes > maxBytes) break
    const state = view.document(entry.document)
    const at = planned.get(entry.document) ?? (state?.parked === undefined ? state : undefined)
    if (at?.lineage === entry.lineage && at.seq >= entry.seq) {
      tasks.push({ type: 'pass', entry })
      continue
    }
    const opened = open.get(entry.document)
    const isOpen = planned.has(entry.document) || (opened?.seq === entry.seq - 1 && opened.lineage === entry.lineage)
    if (at?.lineage === entry.lineage && at.seq === entry.seq - 1 && isOpen) {
      planned.set(entry.document, entry)
      tasks.push({ type: 'apply', entry, base: undefined })
      continue
    }
    // A parked document is tried once a batch, at its last entry there.
    if (state?.parked !== undefined && !planned.has(entry.document) && lastOf.get(entry.document) !== entry) {
      tasks.push({ type: 'pass', entry })
      continue
    }
    const isNext = entry.seq === 1 ? state === undefined : at?.lineage === entry.lineage && at.seq === entry.seq - 1
    const loaded = isNext && entry.seq === 1 ? emptyBefore(entry) : await loadable(() => log.load(entry.document, (isNext ? entry.seq - 1 : entry.seq) as Seq))
    if (typeof loaded === 'string') {
      tasks.push({ type: 'damaged', origin: entry, reason: loaded, inStock: false })
      continue
    }
    bytes += loaded.updates.reduce((sum, update) => sum + update.length, 0)
    if (isNext && loaded.seq === entry.seq - 1 && loaded.lineage === entry.lineage) {
      planned.set(entry.document, entry)
      tasks.push({ type: 'apply', entry, base: loaded })
      continue
    }
    planned.set(entry.document, loaded)
    tasks.push({ type: 'whole', entry, loaded })
    // Asked after loading: what it was read ahead of is not beyond.
    if (loaded.seq > entry.seq) ahead = Math.max(ahead, (await log.ends()).get(entry.partition) ?? 0)
  }
  return { tasks, ahead: ahead as Position }
}

function emptyBefore({ partition, lineage, epoch }: Entry): LoadedDocument {
  return { partition, lineage, epoch, seq: 0 as Seq, updates: [] }
}
