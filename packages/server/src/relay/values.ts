/**
 * Passing over values of lib0's `any` (step 4 of the path), in slices, by a stack that is as deep as values may be nested.
 */
import type { ValueLimits } from './json.ts'
import type { Scan } from './scan.ts'
import { fail, isText, readByte, readUint, skip, skipInt, skipKey, skipString } from './scan.ts'

/** A place among values. */
export interface ValueScan extends Scan {
  readonly limits: ValueLimits
  /** Containers open around the value that is next; for each, and for the content itself at 0, how many values are left and whether they have keys. */
  depth: number
  readonly left: number[]
  readonly keyed: boolean[]
}

// Tags of lib0's `any`.
export const OBJECT = 118
const ARRAY = 117
const REFUSED_OPTIONS = ['guid', 'gcFilter'] as const

export function openContainer(scan: ValueScan, depth: number, count: number, keyed: boolean): void {
  scan.depth = depth
  scan.left[depth] = count
  scan.keyed[depth] = keyed
}

/** Passes over the values of the containers that are open; true when all are closed. Level 0 is the content itself; `areOptions`: it is those of a subdocument. */
export function skipValues(scan: ValueScan, pauseAt: number, areOptions: boolean): boolean {
  while (scan.fault === undefined) {
    const { depth } = scan
    const left = scan.left[depth] as number
    if (left === 0) {
      if (depth === 0) return true
      scan.depth = depth - 1
      continue
    }
    if (scan.pos > pauseAt) return false
    scan.left[depth] = left - 1
    if (scan.keyed[depth] === true) {
      const from = scan.pos
      skipKey(scan, scan.limits.key)
      if (depth === 1 && areOptions) checkOption(scan, from)
    }
    skipValue(scan)
  }
  return true
}

function skipValue(scan: ValueScan): void {
  const tag = readByte(scan)
  if (tag === 119) skipString(scan)
  else if (tag === 125) skipInt(scan)
  else if (tag === 123 || tag === 122) skip(scan, 8)
  else if (tag === 124) skip(scan, 4)
  else if (tag === 116) skip(scan, readUint(scan))
  else if (tag === OBJECT || tag === ARRAY) {
    if (scan.depth >= scan.limits.depth) fail(scan, 'limit', `a value nested deeper than ${scan.limits.depth}`)
    else openContainer(scan, scan.depth + 1, readUint(scan), tag === OBJECT)
  } else if (tag < 120 || tag > 127) fail(scan, 'bad_bytes', `${tag} is not the tag of a value`)
}

/** Yjs spreads the options over its own: these two would make every later encoding throw, or the application's subdocument. */
function checkOption(scan: ValueScan, from: number): void {
  const length = scan.bytes[from]
  const refused = REFUSED_OPTIONS.find((name) => name.length === length && isText(scan.bytes, from + 1, name))
  if (refused !== undefined) fail(scan, 'bad_bytes', `a subdocument with the option ${refused}`)
}
