/**
 * The file under the JSON lines sink: appended whole, cut back where it was torn, rotated by rename, with a cursor beside it that is replaced as one.
 */
import {
  closeSync,
  existsSync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { basename, dirname, extname, join } from 'node:path'
import type { SinkPlace } from './sink.ts'

/** What lies in `<path>.cursor`. */
export interface CursorFile {
  readonly sink: string
  readonly log: string
  readonly fence: number
  /** Undefined: nothing is confirmed. */
  readonly place?: SinkPlace | undefined
  /** How many files were rotated away, and the bytes of the next one, when `place` was reached. */
  readonly rotated: number
  readonly bytes: number
}

/** An open file of lines. */
export interface LineFile {
  readonly size: number
  /** Numbers of the rotated files begin at 1. */
  readonly rotated: number
  /** Whether the name still leads to this file. */
  isInPlace(): boolean
  /** Appends whole lines, all of them or nothing, and makes them durable. */
  append(lines: Buffer): void
  /** Puts the file aside as the next number, and begins an empty one. */
  rotate(): void
  close(): void
}

const CHUNK = 64 << 10

function cursorPath(path: string): string {
  return `${path}.cursor`
}

/** `events.jsonl` → `events.000001.jsonl`. */
export function rotatedPath(path: string, number: number): string {
  const extension = extname(path)
  return join(dirname(path), `${basename(path, extension)}.${String(number).padStart(6, '0')}${extension}`)
}

/** Numbers of the rotated files that are still there, ascending. */
export function rotatedNumbers(path: string): readonly number[] {
  if (!existsSync(dirname(path))) return []
  const extension = extname(path)
  const [before, after] = [`${basename(path, extension)}.`, extension]
  return readdirSync(dirname(path))
    .filter(
      (name) => name.startsWith(before) && name.endsWith(after) && /^\d{6,}$/u.test(name.slice(before.length, name.length - after.length)),
    )
    .map((name) => Number(name.slice(before.length, name.length - after.length)))
    .sort((a, b) => a - b)
}

/** Opens the file, made when it is missing, and cuts off a last line that is not whole. `rotated`: how many came before it. */
export function openLines(path: string, { fsync, rotated }: { readonly fsync: boolean; readonly rotated: number }): LineFile {
  mkdirSync(dirname(path), { recursive: true })
  const open = (): number => {
    const made = openSync(path, 'a+', 0o640)
    if (fsync) syncFolder(path)
    return made
  }
  let file = open()
  let size = wholeLines(file)
  let number = rotated
  if (size < fstatSync(file).size) ftruncateSync(file, size)
  return {
    get size() {
      return size
    },
    get rotated() {
      return number
    },
    isInPlace: () => {
      const there = statSync(path, { throwIfNoEntry: false })
      const ours = fstatSync(file)
      return there !== undefined && there.ino === ours.ino && there.dev === ours.dev && there.size === size
    },
    append: (bytes) => {
      try {
        for (let written = 0; written < bytes.length;) written += writeSync(file, bytes, written)
        if (fsync) fsyncSync(file)
      } catch (error) {
        // A full disk leaves no half of a line, in the middle of which the next one would begin.
        ftruncateSync(file, size)
        throw error
      }
      size += bytes.length
    },
    rotate: () => {
      let next = number + 1
      while (existsSync(rotatedPath(path, next))) next++
      if (!fsync) fsyncSync(file)
      renameSync(path, rotatedPath(path, next))
      number = next
      closeSync(file)
      file = open()
      size = 0
    },
    close: () => closeSync(file),
  }
}

/** The cursor beside the file; undefined when there is none. Throws when it cannot be read. */
export function readCursor(path: string): CursorFile | undefined {
  try {
    return JSON.parse(readFileSync(cursorPath(path), 'utf8')) as CursorFile
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined
    throw error
  }
}

/** Replaces the cursor, wholly or not at all. */
export function writeCursor(path: string, cursor: CursorFile, { fsync }: { readonly fsync: boolean }): void {
  mkdirSync(dirname(path), { recursive: true })
  const fresh = `${cursorPath(path)}.new`
  writeFileSync(fresh, `${JSON.stringify(cursor)}\n`, { mode: 0o640, flush: fsync })
  renameSync(fresh, cursorPath(path))
  if (fsync) syncFolder(path)
}

/** The last line that is whole, parsed; undefined when there is none or it is no JSON. */
export function lastLine(path: string): unknown {
  if (!existsSync(path)) return undefined
  const file = openSync(path, 'r')
  try {
    const end = wholeLines(file)
    if (end === 0) return undefined
    const begin = lineEndBefore(file, end - 1)
    const bytes = Buffer.alloc(end - 1 - begin)
    readSync(file, bytes, 0, bytes.length, begin)
    return JSON.parse(bytes.toString('utf8'))
  } catch (error) {
    if (error instanceof SyntaxError) return undefined
    throw error
  } finally {
    closeSync(file)
  }
}

/** Removes the file, those rotated away, and the cursor. */
export function removeLines(path: string): void {
  for (const each of [...rotatedNumbers(path).map((number) => rotatedPath(path, number)), path, cursorPath(path)])
    rmSync(each, { force: true })
}

/** Where the last whole line ends. */
function wholeLines(file: number): number {
  return lineEndBefore(file, fstatSync(file).size)
}

/** The place behind the last line feed below `end`; 0 when there is none. */
function lineEndBefore(file: number, end: number): number {
  const chunk = Buffer.alloc(CHUNK)
  for (let upTo = end; upTo > 0;) {
    const from = Math.max(0, upTo - CHUNK)
    const found = chunk.subarray(0, readSync(file, chunk, 0, upTo - from, from)).lastIndexOf(10)
    if (found >= 0) return from + found + 1
    upTo = from
  }
  return 0
}

function syncFolder(path: string): void {
  const folder = openSync(dirname(path), 'r')
  try {
    fsyncSync(folder)
  } finally {
    closeSync(folder)
  }
}
