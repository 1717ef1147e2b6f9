/**
 * Reading bytes a stranger wrote (step 4 of the path): the primitives of Yjs's encoding, bounded by the bytes themselves.
 * The first thing that does not fit becomes the `fault`; every later read answers with 0, at the end of the bytes.
 */

/** What is wrong with the bytes. */
export interface Fault {
  readonly code: 'bad_bytes' | 'bad_key' | 'limit'
  readonly message: string
}

/** A place in bytes. */
export interface Scan {
  readonly bytes: Uint8Array
  pos: number
  readonly end: number
  fault: Fault | undefined
}

/** Records the first fault. */
export function fail(scan: Scan, code: Fault['code'], message: string): void {
  scan.fault ??= { code, message }
  scan.pos = scan.end
}

export function readByte(scan: Scan): number {
  if (scan.pos < scan.end) return scan.bytes[scan.pos++] as number
  fail(scan, 'bad_bytes', 'the update ends before its fields do')
  return 0
}

/** An unsigned LEB128 number up to 2^53−1. */
export function readUint(scan: Scan): number {
  if (scan.pos < scan.end) {
    const byte = scan.bytes[scan.pos] as number
    if (byte < 128) {
      scan.pos++
      return byte
    }
  }
  return readLongUint(scan, 0, 1)
}

/** Passes over a signed number of lib0: like an unsigned one, but the first byte keeps a bit for the sign. */
export function skipInt(scan: Scan): void {
  const byte = readByte(scan)
  if (byte >= 128) readLongUint(scan, byte & 63, 64)
}

function readLongUint(scan: Scan, begun: number, firstUnit: number): number {
  const { bytes, end } = scan
  let value = begun
  let unit = firstUnit
  // Eight groups of seven bits hold 2^53; whatever is longer is padding, which lib0 turns into NaN at some length.
  while (scan.pos < end && unit <= 2 ** 49) {
    const byte = bytes[scan.pos++] as number
    value += (byte & 127) * unit
    if (byte < 128) {
      if (value <= Number.MAX_SAFE_INTEGER) return value
      break
    }
    unit *= 128
  }
  fail(scan, 'bad_bytes', scan.pos < end ? 'a number beyond 2^53-1' : 'the update ends within a number')
  return 0
}

/** Passes over `length` bytes. */
export function skip(scan: Scan, length: number): void {
  if (length <= scan.end - scan.pos) scan.pos += length
  else fail(scan, 'bad_bytes', 'the update ends before its fields do')
}

/** Passes over a string; returns its length in UTF-16 units, which is what Yjs counts. */
export function skipString(scan: Scan): number {
  const bytes = readUint(scan)
  const from = scan.pos
  skip(scan, bytes)
  if (scan.fault !== undefined) return 0
  const units = utf16Length(scan.bytes, from, scan.pos)
  if (units >= 0) return units
  fail(scan, 'bad_bytes', 'a string that is not well-formed UTF-8')
  return 0
}

/** Passes over the name of something: a map key, an attribute, an element, a root type. */
export function skipKey(scan: Scan, maxBytes: number): void {
  const length = readUint(scan)
  const from = scan.pos
  if (length > maxBytes) {
    fail(scan, length > scan.end - from ? 'bad_bytes' : 'bad_key', `a key of ${length} bytes, at most ${maxBytes}`)
    return
  }
  skip(scan, length)
  if (scan.fault !== undefined) return
  if (utf16Length(scan.bytes, from, scan.pos) < 0) fail(scan, 'bad_bytes', 'a key that is not well-formed UTF-8')
  else if (length === PROTO.length && isText(scan.bytes, from, PROTO)) fail(scan, 'bad_key', 'the key __proto__')
}

/** Whether `text`, which is ASCII, stands at `at`. */
export function isText(bytes: Uint8Array, at: number, text: string): boolean {
  for (let i = 0; i < text.length; i++) if (bytes[at + i] !== text.charCodeAt(i)) return false
  return true
}

/** Whose value is the prototype of an object, when somebody assigns it by name. */
export const PROTO = '__proto__'

/** Length in UTF-16 units of the UTF-8 in [from, to), or −1 when it is not well-formed: no overlong forms, no surrogates, nothing beyond U+10FFFF. */
export function utf16Length(bytes: Uint8Array, from: number, to: number): number {
  let at = from
  while (at < to && (bytes[at] as number) < 128) at++
  let units = at - from
  while (at < to) {
    const byte = bytes[at] as number
    const size = byte < 128 ? 1 : sequenceLength(bytes, at, to, byte)
    if (size === 0) return -1
    units += size === 4 ? 2 : 1
    at += size
  }
  return units
}

/** Length of the sequence of several bytes that begins at `at` with `lead`, or 0 when there is none. The ranges are table 3-7 of the Unicode standard. */
function sequenceLength(bytes: Uint8Array, at: number, to: number, lead: number): number {
  if (lead < 0xc2 || lead > 0xf4) return 0
  const size = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4
  if (to - at < size) return 0
  const second = bytes[at + 1] as number
  const lowest = lead === 0xe0 ? 0xa0 : lead === 0xf0 ? 0x90 : 0x80
  const highest = lead === 0xed ? 0x9f : lead === 0xf4 ? 0x8f : 0xbf
  if (second < lowest || second > highest) return 0
  if (size > 2 && ((bytes[at + 2] as number) & 0xc0) !== 0x80) return 0
  if (size > 3 && ((bytes[at + 3] as number) & 0xc0) !== 0x80) return 0
  return size
}
