/**
 * Says whether bytes are one JSON text, without building it (step 4 of the path): what passes here, `JSON.parse` takes.
 */
import type { Scan } from './scan.ts'
import { PROTO, fail, readUint, skip, utf16Length } from './scan.ts'

/** Bounds of a value. */
export interface ValueLimits {
  /** Containers inside one another, as a count. */
  readonly depth: number
  /** Bytes of a key. */
  readonly key: number
}

const BAD = 'a value that is not JSON'
const decoder = new TextDecoder()

/** Passes over a string that holds one JSON text, or the word `undefined` where that is `lenient`. */
export function skipJson(scan: Scan, limits: ValueLimits, lenient: boolean): void {
  const length = readUint(scan)
  const from = scan.pos
  skip(scan, length)
  if (scan.fault !== undefined) return
  const to = scan.pos
  if (utf16Length(scan.bytes, from, to) < 0) {
    fail(scan, 'bad_bytes', 'a string that is not well-formed UTF-8')
    return
  }
  if (lenient && length === 9 && hasWord(scan.bytes, from, to, 'undefined')) return
  let at = spaces(scan.bytes, from, to)
  at = value(scan, at, to, limits, 0)
  if (at >= 0 && spaces(scan.bytes, at, to) !== to) at = -1
  if (at < 0) fail(scan, 'bad_bytes', BAD)
}

/** Each of these returns the place behind what it read, or −1. */
function value(scan: Scan, at: number, to: number, limits: ValueLimits, depth: number): number {
  if (at >= to) return -1
  const { bytes } = scan
  switch (bytes[at] as number) {
    case 0x22:
      return text(bytes, at, to)
    case 0x7b:
      return container(scan, at + 1, to, limits, depth + 1, true)
    case 0x5b:
      return container(scan, at + 1, to, limits, depth + 1, false)
    case 0x74:
      return hasWord(bytes, at, to, 'true') ? at + 4 : -1
    case 0x66:
      return hasWord(bytes, at, to, 'false') ? at + 5 : -1
    case 0x6e:
      return hasWord(bytes, at, to, 'null') ? at + 4 : -1
    default:
      return number(bytes, at, to)
  }
}

function container(scan: Scan, from: number, to: number, limits: ValueLimits, depth: number, keyed: boolean): number {
  if (depth > limits.depth) {
    fail(scan, 'limit', `a value nested deeper than ${limits.depth}`)
    return -1
  }
  const { bytes } = scan
  const close = keyed ? 0x7d : 0x5d
  let at = spaces(bytes, from, to)
  if (at < to && bytes[at] === close) return at + 1
  for (;;) {
    if (keyed) {
      at = key(scan, at, to, limits)
      if (at < 0) return -1
    }
    at = value(scan, at, to, limits, depth)
    if (at < 0) return -1
    at = spaces(bytes, at, to)
    if (at >= to) return -1
    const byte = bytes[at++]
    if (byte === close) return at
    if (byte !== 0x2c) return -1
    at = spaces(bytes, at, to)
  }
}

/** A key, its colon, and the spaces around it. */
function key(scan: Scan, from: number, to: number, limits: ValueLimits): number {
  const { bytes } = scan
  if (from >= to || bytes[from] !== 0x22) return -1
  const end = text(bytes, from, to)
  if (end < 0) return -1
  if (!fits(bytes, from, end, limits.key)) {
    fail(scan, 'bad_key', `a key that is ${PROTO} or longer than ${limits.key} bytes`)
    return -1
  }
  const colon = spaces(bytes, end, to)
  return colon < to && bytes[colon] === 0x3a ? spaces(bytes, colon + 1, to) : -1
}

/** Whether the key in its quotes [from, end) may be. One with escapes is unescaped to see; no escape makes more than one byte of two, or of six. */
function fits(bytes: Uint8Array, from: number, end: number, max: number): boolean {
  const length = end - from - 2
  if (length > max * 6) return false
  if (length <= max && length < PROTO.length) return true
  let escaped = false
  for (let at = from + 1; at < end - 1 && !escaped; at++) escaped = bytes[at] === 0x5c
  if (!escaped) return length <= max && !(length === PROTO.length && hasWord(bytes, from + 1, end, PROTO))
  const plain = JSON.parse(decoder.decode(bytes.subarray(from, end))) as string
  return plain !== PROTO && Buffer.byteLength(plain) <= max
}

function text(bytes: Uint8Array, from: number, to: number): number {
  let at = from + 1
  while (at < to) {
    const byte = bytes[at++] as number
    if (byte === 0x22) return at
    if (byte < 0x20) return -1
    if (byte === 0x5c) {
      at = escape(bytes, at, to)
      if (at < 0) return -1
    }
  }
  return -1
}

/** Behind a backslash: one of "\/bfnrt, or u and four hexadecimal digits. */
function escape(bytes: Uint8Array, at: number, to: number): number {
  if (at >= to) return -1
  const byte = bytes[at] as number
  if (byte !== 0x75) return ESCAPES.has(byte) ? at + 1 : -1
  if (to - at < 5) return -1
  for (let i = at + 1; i < at + 5; i++) if (!isHex(bytes[i] as number)) return -1
  return at + 5
}

const ESCAPES: ReadonlySet<number> = new Set([0x22, 0x5c, 0x2f, 0x62, 0x66, 0x6e, 0x72, 0x74])

function number(bytes: Uint8Array, from: number, to: number): number {
  let at = from
  if (bytes[at] === 0x2d) at++
  if (at < to && bytes[at] === 0x30) at++
  else at = digits(bytes, at, to)
  if (at >= 0 && at < to && bytes[at] === 0x2e) at = digits(bytes, at + 1, to)
  if (at >= 0 && at < to && ((bytes[at] as number) | 0x20) === 0x65) {
    at++
    if (at < to && (bytes[at] === 0x2b || bytes[at] === 0x2d)) at++
    at = digits(bytes, at, to)
  }
  return at
}

/** At least one digit. */
function digits(bytes: Uint8Array, from: number, to: number): number {
  let at = from
  while (at < to && isDigit(bytes[at] as number)) at++
  return at > from ? at : -1
}

function spaces(bytes: Uint8Array, from: number, to: number): number {
  let at = from
  while (at < to && isSpace(bytes[at] as number)) at++
  return at
}

function hasWord(bytes: Uint8Array, from: number, to: number, word: string): boolean {
  if (to - from < word.length) return false
  for (let i = 0; i < word.length; i++) if (bytes[from + i] !== word.charCodeAt(i)) return false
  return true
}

function isDigit(byte: number): boolean {
  return byte >= 0x30 && byte <= 0x39
}

function isHex(byte: number): boolean {
  return isDigit(byte) || ((byte | 0x20) >= 0x61 && (byte | 0x20) <= 0x66)
}

function isSpace(byte: number): boolean {
  return byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09
}
