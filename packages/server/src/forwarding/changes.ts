/**
 * The feed of changes (beside step 8 of the path): every change of every record in the order of the view's versions, a page behind a cursor that only this view understands.
 */
import type { DocumentId, RecordValue } from '@rejoin/shared'
import { SyncError } from '@rejoin/shared'
import type { View } from '../view/view.ts'
import type { ChangeFormat } from './formats.ts'
import { changeText } from './formats.ts'

/** Which changes, and how. */
export interface ChangesRequest {
  /** A cursor that the feed gave, 'now', or 'oldest': all that is kept. */
  readonly after: string
  readonly format: ChangeFormat
  /** At most so many changes, and about so many characters. */
  readonly limit: number
  readonly characters: number
  /** How long to wait for a change when there is none, in ms. */
  readonly wait: number
}

/** A page of the feed. */
export interface ChangesPage {
  readonly changes: readonly ChangeLine[]
  /** To continue from. */
  readonly cursor: string
  /** There was nothing behind it. */
  readonly ended: boolean
}

export interface ChangeLine {
  /** Whose record it is: a reader may not be allowed to see it. */
  readonly document: DocumentId
  readonly cursor: string
  /** One line. */
  readonly text: string
}

/** Everything up to `version`, and `index` changes of the entry behind it. */
interface Place {
  readonly version: number
  readonly index: number
}

/** Entries read at a time, and for one page: most may have changed no record. */
const ENTRIES = 200
const MAX_ENTRIES = 5_000

/** The changes behind the cursor. Throws `SyncError`: 'bad_option' for what is no cursor, 'cut_off' for one that cannot be continued from, 'overloaded' while the view is being made. */
export function readChanges(
  view: Pick<View, 'id' | 'head' | 'oldest' | 'mark' | 'changes'>,
  { after, format, limit, characters }: Omit<ChangesRequest, 'wait'>,
  { log, now }: { readonly log: string; readonly now: number },
): ChangesPage {
  const head = view.head()
  if (head === undefined) throw new SyncError('overloaded', 'the view is being made: it is ready when every document has been read')
  let place = placeOf(view, head, after)
  let mark = { version: place.version, text: view.mark(place.version) }
  const cursorAt = ({ version, index }: Place): string => {
    if (mark.version !== version) mark = { version, text: view.mark(version) }
    return encodeCursor([view.id, version, index, mark.text])
  }
  const changes: ChangeLine[] = []
  let size = 0
  for (let read = 0; read < MAX_ENTRIES; read += ENTRIES) {
    const entries = view.changes(place.version, head, ENTRIES)
    if (entries.length === 0) return { changes, cursor: cursorAt(place), ended: true }
    for (const entry of entries) {
      const from = place
      for (const [index, { key, before, after: behind }] of entry.changes.entries()) {
        if (index < from.index) continue
        place = index === entry.changes.length - 1 ? { version: entry.version, index: 0 } : { version: from.version, index: index + 1 }
        if (before === behind) continue
        const cursor = cursorAt(place)
        const fact = { log, entry, index, key, before: recordOf(before), after: recordOf(behind), cursor, now }
        const text = changeText(format, fact)
        changes.push({ document: key.document, cursor, text })
        size += text.length
        if (changes.length >= limit || size >= characters) return { changes, cursor, ended: false }
      }
      // Of an entry without changes as well.
      place = { version: entry.version, index: 0 }
    }
  }
  return { changes, cursor: cursorAt(place), ended: false }
}

function recordOf(text: string | null): RecordValue | null {
  return text === null ? null : (JSON.parse(text) as RecordValue)
}

function placeOf(view: Pick<View, 'id' | 'oldest' | 'mark'>, head: number, after: string): Place {
  if (after === 'now') return { version: head, index: 0 }
  if (after === 'oldest') return { version: Math.min(view.oldest(), head), index: 0 }
  const [id, version, index, mark] = decodeCursor(after)
  if (id !== view.id) throw new SyncError('cut_off', 'the cursor is of another view: it was made anew, or this is another relay')
  if (version < view.oldest()) throw new SyncError('cut_off', 'the changes behind this cursor are not kept any more')
  if (version > head || view.mark(version) !== mark)
    throw new SyncError('cut_off', 'the cursor is of a history that this relay does not have: it was restored from an older copy')
  return { version, index }
}

type Cursor = readonly [view: string, version: number, index: number, mark: string]

function encodeCursor(cursor: Cursor): string {
  return Buffer.from(JSON.stringify(cursor)).toString('base64url')
}

const MAX_CURSOR = 1_000

function decodeCursor(text: string): Cursor {
  const parts: unknown = text.length > MAX_CURSOR ? undefined : parse(Buffer.from(text, 'base64url').toString())
  if (Array.isArray(parts) && parts.length === 4) {
    const [view, version, index, mark] = parts as readonly unknown[]
    const isPlace = Number.isSafeInteger(version) && Number(version) >= 0 && Number.isSafeInteger(index) && Number(index) >= 0
    if (typeof view === 'string' && typeof mark === 'string' && isPlace) return [view, Number(version), Number(index), mark]
  }
  throw new SyncError('bad_option', "after is a cursor that the feed gave, 'now' or 'oldest'")
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** Readers that wait for the view to grow. */
export interface Waiting {
  /** Resolves when it has grown, after `ms`, or when the signal is aborted. */
  wait(ms: number, signal: AbortSignal): Promise<void>
  /** It has. */
  wake(): void
}

/** None waits. */
export function createWaiting(after: (ms: number, run: () => void) => () => void): Waiting {
  const waiting = new Set<() => void>()
  return {
    wait: (ms, signal) =>
      new Promise((resolve) => {
        const end = (): void => {
          waiting.delete(end)
          cancel()
          signal.removeEventListener('abort', end)
          resolve()
        }
        const cancel = after(ms, end)
        signal.addEventListener('abort', end, { once: true })
        waiting.add(end)
        if (signal.aborted) end()
      }),
    wake: () => {
      for (const end of [...waiting]) end()
    },
  }
}
