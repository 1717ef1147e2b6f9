/**
 * Files of JSON lines (step 8 of the path): one line a row, appended and fsynced before the cursor moves, for whoever reads files.
 */
import { existsSync, statSync } from 'node:fs'
import { resolve } from 'node:path'
import type { Clock } from '@rejoin/shared'
import { SyncError, systemClock } from '@rejoin/shared'
import type { Delivery } from './delivery.ts'
import { deliverySink } from './delivery.ts'
import type { CursorFile, LineFile } from './jsonl-file.ts'
import { lastLine, openLines, readCursor, removeLines, rotatedNumbers, rotatedPath, writeCursor } from './jsonl-file.ts'
import { messageOf } from './message.ts'
import type { OpenSink, SinkContext, SinkPlace, SinkSpec, SinkTraits } from './sink.ts'
import type { ForwardOptions } from './spec.ts'
import { sinkSpec } from './spec.ts'

const TRAITS: SinkTraits = { transactional: false, strategies: ['state', 'actions'], readable: false }
const NAMES = ['path', 'rotate', 'fsync']

/** Which file, when it is put aside, and how sure a line is. Checked by `jsonl()`, before anything is opened. */
export interface JsonlOptions extends ForwardOptions {
  /** The file; made when it is missing, with its folder. Beside it lies `<path>.cursor`. */
  readonly path: string
  /** Puts the file aside (`events.jsonl` → `events.000001.jsonl`) before it would grow above `bytes`, or when a day of UTC has passed. @default never */
  readonly rotate?: { readonly bytes?: number | undefined; readonly daily?: boolean | undefined } | undefined
  /** Whether lines are on the disk before the cursor passes them. @default true */
  readonly fsync?: boolean | undefined
}

/** A file of JSON lines: `sinks: { events: jsonl({ path: './events.jsonl', strategy: 'actions' }) }`. Throws `SyncError('bad_option')`. */
export function jsonl(options: JsonlOptions): SinkSpec {
  const { path, rotate, fsync } = options
  parse({ path, rotate, fsync })
  return sinkSpec('jsonl', import.meta.url, TRAITS, { ...options }, { options: { path: resolve(path), rotate, fsync }, names: NAMES })
}

/** Opens the file, in the worker. */
export const openSink: OpenSink = async (options, context) => deliverySink(createJsonl(options, context), context)

type Told = Pick<SinkContext, 'name' | 'log' | 'adopt'> & { readonly forward: Pick<SinkContext['forward'], 'strategy'> }

/** The delivery. */
export function createJsonl(options: Readonly<Record<string, unknown>>, context: Told, clock: Clock = systemClock): Delivery {
  const { path, rotate, fsync } = parse(options)
  let file: LineFile | undefined
  let cursor: CursorFile | undefined
  let day = 0
  const close = (): void => {
    file?.close()
    file = undefined
  }
  const isDue = (lines: LineFile, bytes: number): boolean =>
    lines.size > 0 && (lines.size + bytes > rotate.bytes || (rotate.daily && day !== dayOf(clock.now())))
  /** The open file, if it and the cursor are as we left them. */
  const held = (): { readonly file: LineFile; readonly cursor: CursorFile } | 'fenced' | 'lost' => {
    if (file === undefined || cursor === undefined) throw new SyncError('closed', `${path} is not open`)
    const there = readCursor(path)
    if (there !== undefined && there.fence > cursor.fence) return 'fenced'
    return JSON.stringify(there) === JSON.stringify(cursor) && file.isInPlace() ? { file, cursor } : 'lost'
  }
  return {
    begin: async () => {
      close()
      const before = ours(readCursor(path), path, context)
      const standing = standingOf(path, before, context)
      const rotated = Math.max(before?.rotated ?? 0, rotatedNumbers(path).at(-1) ?? 0)
      day = dayOf(statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? clock.now())
      file = openLines(path, { fsync, rotated })
      // What counts as confirmed is unchanged, unless it is no longer there.
      const kept =
        standing.place === undefined
          ? { rotated: file.rotated, bytes: file.size }
          : { rotated: before?.rotated ?? 0, bytes: before?.bytes ?? 0 }
      cursor = { sink: context.name, log: context.log, fence: (before?.fence ?? 0) + 1, place: standing.place, ...kept }
      writeCursor(path, cursor, { fsync })
      return standing
    },
    deliver: async (rows, { to }) => {
      const ours = held()
      if (typeof ours === 'string') return ours
      const lines = Buffer.from(rows.map((row) => `${JSON.stringify(messageOf(row, to))}\n`).join(''))
      if (isDue(ours.file, lines.length)) ours.file.rotate()
      ours.file.append(lines)
      day = dayOf(clock.now())
      return []
    },
    moved: async (place) => {
      const ours = held()
      if (typeof ours === 'string') return
      cursor = { ...ours.cursor, place, rotated: ours.file.rotated, bytes: ours.file.size }
      writeCursor(path, cursor, { fsync })
    },
    check: async () => {
      const ours = held()
      return typeof ours === 'string' ? ours : undefined
    },
    plan: async () => (existsSync(path) ? [] : [`make the file ${path}`]),
    drop: async () => {
      close()
      removeLines(path)
    },
    close: async () => close(),
  }
}

/** The cursor, unless it is another's. */
function ours(cursor: CursorFile | undefined, path: string, { name, log, adopt }: Told): CursorFile | undefined {
  if (cursor === undefined || (cursor.log === log && cursor.sink === name)) return cursor
  if (adopt) return { ...cursor, place: undefined }
  const whose = cursor.log === log ? `the sink ${cursor.sink}` : `another log (${cursor.log}; this is ${log})`
  throw new SyncError('bad_option', `sink ${name}: ${path} belongs to ${whose}; name another file, or adopt this one`)
}

/**
 * What is still there of what was confirmed. A file that was cut or replaced by an older copy goes on below its last line. One that is gone is begun anew; with actions it may well have been taken away by its
 * reader, and the next event is the first line of the new one.
 */
function standingOf(
  path: string,
  cursor: CursorFile | undefined,
  { forward }: Told,
): { readonly place: SinkPlace | undefined; readonly stamp: number; readonly isNew: boolean } {
  const place = cursor?.place
  const last = versionOf(lastLine(path))
  const stamp = Math.max(place?.version ?? 0, last ?? 0)
  if (place === undefined) return { place: undefined, stamp, isNew: forward.strategy === 'state' }
  // Between two cursors at most, the file of the cursor has become the next rotated one.
  const aside = rotatedPath(path, (cursor?.rotated ?? 0) + 1)
  const size = statSync(existsSync(aside) ? aside : path, { throwIfNoEntry: false })?.size ?? 0
  if (size >= (cursor?.bytes ?? 0)) return { place, stamp, isNew: false }
  if (last !== undefined)
    return { place: { view: place.view, version: Math.min(place.version, Math.max(0, last - 1)) }, stamp, isNew: false }
  return forward.strategy === 'actions' ? { place, stamp, isNew: false } : { place: undefined, stamp, isNew: true }
}

function versionOf(line: unknown): number | undefined {
  const version = typeof line === 'object' && line !== null && 'version' in line ? line.version : undefined
  return typeof version === 'number' ? version : undefined
}

const DAY = 86_400_000

function dayOf(ms: number): number {
  return Math.floor(ms / DAY)
}

interface Settings {
  readonly path: string
  readonly rotate: { readonly bytes: number; readonly daily: boolean }
  readonly fsync: boolean
}

function parse({ path, rotate = {}, fsync = true }: Readonly<Record<string, unknown>>): Settings {
  if (typeof path !== 'string' || path === '') refuse("path is a file's path")
  if (typeof rotate !== 'object' || rotate === null) refuse('rotate is { bytes, daily }')
  const { bytes = Number.POSITIVE_INFINITY, daily = false } = rotate as Readonly<Record<string, unknown>>
  if (typeof bytes !== 'number' || !(bytes >= 1024)) refuse('rotate.bytes is a number from 1024')
  if (typeof daily !== 'boolean' || typeof fsync !== 'boolean') refuse('rotate.daily and fsync are true or false')
  return { path, rotate: { bytes, daily }, fsync }
}

function refuse(problem: string): never {
  throw new SyncError('bad_option', `jsonl(): ${problem}`)
}
