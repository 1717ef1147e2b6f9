/**
 * Decides what the projector's step does with each entry, and reads what it needs for that from the log (step 7 of the path).
 */
import type { DocumentId, Lineage, Position, Seq } from '@rejoin/shared'
import type { Entry } from '../log/log.ts'
import { LogError } from '../log/log.ts'
import type { Origin, Task } from './batch.ts'
import type { OpenDocuments } from './documents.ts'
import type { LoadedDocument, LogSource } from './source.ts'
import { sizeOf } from './source.ts'
import type { DocumentState, Place, ViewStore } from './view.ts'

/** Tasks for the first entries of those given, one each; and the position that a document was read ahead to, 0 for none. */
export interface Plan {
  readonly tasks: readonly Task[]
  readonly ahead: Position
}

/** Reads what is not open, until more than `maxBytes` were read. */
export async function plan(
  log: LogSource,
  view: ViewStore,
  open: OpenDocuments,
  entries: readonly Entry[],
  maxBytes: number,
): Promise<Plan> {
  const tasks: Task[] = []
  /** Where each document will be after the tasks so far. */
  const planned = new Map<DocumentId, { readonly lineage: Lineage; readonly seq: Seq }>()
  const last = new Map(entries.map((entry) => [entry.document, entry]))
  let [bytes, ahead] = [0, 0]
  for (const entry of entries) {
    if (bytes > maxBytes) break
    const reached = planned.get(entry.document)
    const state = reached === undefined ? view.document(entry.document) : undefined
    const at = reached ?? (state?.parked === undefined ? state : undefined)
    const isNext = at === undefined ? state === undefined && entry.seq === 1 : at.lineage === entry.lineage && at.seq === entry.seq - 1
    const opened = open.get(entry.document)
    if (at?.lineage === entry.lineage && at.seq >= entry.seq) {
      tasks.push({ type: 'pass', entry })
    } else if (isNext && (reached !== undefined || (opened?.seq === entry.seq - 1 && opened.lineage === entry.lineage))) {
      planned.set(entry.document, entry)
      tasks.push({ type: 'apply', entry, base: undefined })
    } else if (state?.parked !== undefined && at === undefined && last.get(entry.document) !== entry) {
      // A parked document is tried once a batch, at its last entry there.
      tasks.push({ type: 'pass', entry })
    } else {
      const task = await readFor(log, entry, isNext)
      tasks.push(task)
      if (task.type === 'damaged') continue
      const loaded = task.type === 'apply' ? task.base : task.loaded
      bytes += sizeOf(loaded)
      planned.set(entry.document, task.type === 'apply' ? entry : loaded)
      // Asked after reading: what was read does not lie beyond.
      if (isAhead(task)) ahead = Math.max(ahead, (await log.ends()).get(entry.partition) ?? 0)
    }
  }
  return { tasks, ahead: ahead as Position }
}

type Damaged = Task & { readonly type: 'damaged' }
type Whole = Task & { readonly type: 'whole' }
type Based = Task & { readonly type: 'apply' } & { readonly base: LoadedDocument }

/** The document before the entry where the log still has that, otherwise the document as a whole. */
async function readFor(log: LogSource, entry: Entry, isNext: boolean): Promise<Based | Whole | Damaged> {
  const { partition, lineage, epoch } = entry
  const before = (entry.seq - 1) as Seq
  if (isNext && before === 0) return { type: 'apply', entry, base: { partition, lineage, epoch, seq: before, updates: [] } }
  const loaded = await readable(() => log.load(entry.document, isNext ? before : entry.seq))
  if (typeof loaded === 'string') return { type: 'damaged', origin: entry, reason: loaded, inStock: false }
  return isNext && loaded.seq === before && loaded.lineage === lineage
    ? { type: 'apply', entry, base: loaded }
    : { type: 'whole', entry, loaded }
}

/** Later entries were folded into the snapshot already, or the document began another life. */
function isAhead(task: Task): boolean {
  return task.type === 'whole' && (task.loaded.seq > task.entry.seq || task.loaded.lineage !== task.entry.lineage)
}

/** Entries behind the place; or, when the next one is damaged, what to do about it: its document is parked, the others go on. */
export async function readBehind(
  log: LogSource,
  view: ViewStore,
  place: Place,
  maxBytes: number,
): Promise<readonly Entry[] | 'trimmed' | Damaged> {
  try {
    return await log.read(place.partition, place.position, maxBytes)
  } catch (error) {
    if (!(error instanceof LogError) || error.failure !== 'corrupt' || error.document === undefined || error.position === undefined)
      throw error
    const origin = unknownOrigin(error.document, view.document(error.document), error.position)
    return { type: 'damaged', origin, reason: error.message, inStock: false }
  }
}

/** What is read, or why it cannot be: its bytes fail their checksum. Other failures are thrown. */
export async function readable<T>(read: () => Promise<T>): Promise<T | string> {
  try {
    return await read()
  } catch (error) {
    if (error instanceof LogError && error.failure === 'corrupt') return error.message
    throw error
  }
}

/** Of a document about which the log can tell nothing now. */
export function unknownOrigin(document: DocumentId, state: DocumentState | undefined, position: Position): Origin {
  const { partition, lineage, seq } = state ?? { partition: 0, lineage: '' as Lineage, seq: 0 as Seq }
  return { partition, position, epoch: 0, seq, document, lineage, actor: '', at: 0 }
}
