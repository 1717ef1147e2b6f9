/**
 * Reading and writing the primitives of the wire. The reader never throws: the first thing that does not fit becomes its `fault`.
 */
import { SyncError } from './errors.ts'
import { toHex } from './ids.ts'

const utf8Encoder = new TextEncoder()
// ignoreBOM: a leading U+FEFF is a character like any other and must survive.
const utf8Decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
const NOTHING = new Uint8Array(0)
/** A writer that once held more than this gives its buffer back. */
const KEEP = 64 * 1024

/** Appends primitives to one growing buffer, which is reused. */
export class ByteWriter {
  #bytes: Uint8Array = new Uint8Array(256)
  #at = 0

  /** Bytes written since the last `take`. */
  get length(): number {
    return this.#at
  }

  /** Forgets what was written behind `length`. */
  truncate(length: number): void {
    this.#at = length
  }

  /** A copy of what was written; the writer is empty afterwards. */
  take(): Uint8Array {
    const taken = this.#bytes.slice(0, this.#at)
    this.#at = 0
    if (this.#bytes.length > KEEP) this.#bytes = new Uint8Array(256)
    return taken
  }

  byte(value: number): void {
    this.#reserve(1)
    this.#bytes[this.#at++] = value
  }

  varUint(value: number): void {
    if (!Number.isSafeInteger(value) || value < 0)
      throw new SyncError('bad_option', `${value} is not a number the wire carries (0 to 2^53-1)`)
    this.#reserve(8)
    let rest = value
    while (rest >= 128) {
      this.#bytes[this.#at++] = (rest % 128) | 128
      rest = Math.floor(rest / 128)
    }
    this.#bytes[this.#at++] = rest
  }

  raw(bytes: Uint8Array): void {
    this.#reserve(bytes.length)
    this.#bytes.set(bytes, this.#at)
    this.#at += bytes.length
  }

  blob(bytes: Uint8Array): void {
    this.varUint(bytes.length)
    this.raw(bytes)
  }

  /** 16 bytes from 32 hexadecimal digits. */
  hex16(text: string): void {
    this.#reserve(16)
    if (text.length !== 32) throw new SyncError('bad_option', `"${text}" is not 32 hexadecimal digits`)
    for (let i = 0; i < 32; i += 2) this.#bytes[this.#at++] = (digit(text, i) << 4) | digit(text, i + 1)
  }

  /** Throws when `text` takes more than `max` bytes. */
  text(text: string, max: number, what: string): void {
    const bytes = utf8Encoder.encode(text)
    if (bytes.length > max) throw new SyncError('bad_option', `the ${what} is ${bytes.length} bytes, at most ${max} go on the wire`)
    this.blob(bytes)
  }

  /** Cuts `text` at a character so that it takes at most `max` bytes. */
  clipped(text: string, max: number): void {
    const bytes = utf8Encoder.encode(text)
    let end = bytes.length
    if (end > max) {
      end = max
      while (end > 0 && ((bytes[end] ?? 0) & 0xc0) === 0x80) end--
    }
    this.blob(bytes.subarray(0, end))
  }

  /** Begins a body that stands behind its own length; `end` of the returned place finishes it. One byte is kept free for the length. */
  begin(): number {
    this.byte(0)
    return this.#at
  }

  /** Ends the body that began at `bodyAt`. A body of 128 bytes and more is moved to make room for its length, which is cheaper than a second buffer. */
  end(bodyAt: number): void {
    const length = this.#at - bodyAt
    const shift = varUintLength(length) - 1
    if (shift > 0) {
      this.#reserve(shift)
      this.#bytes.copyWithin(bodyAt + shift, bodyAt, this.#at)
    }
    this.#at = bodyAt - 1
    this.varUint(length)
    this.#at = bodyAt + shift + length
  }

  #reserve(more: number): void {
    const needed = this.#at + more
    if (needed <= this.#bytes.length) return
    const grown = new Uint8Array(Math.max(needed, this.#bytes.length * 2))
    grown.set(this.#bytes.subarray(0, this.#at))
    this.#bytes = grown
  }
}

/** Ids that came lately, each in the one slot its first bytes name. */
const RECURRING = 1024
const recurring: ({ readonly bytes: Uint8Array; readonly text: string } | undefined)[] = Array.from({ length: RECURRING })

function isAt(part: Uint8Array, bytes: Uint8Array, at: number): boolean {
  for (let i = 0; i < part.length; i++) if (part[i] !== bytes[at + i]) return false
  return true
}

/** Reads primitives of a message; what it hands out are views of it. After a `fault` every read answers with nothing. */
export class ByteReader {
  readonly #bytes: Uint8Array
  /** The next byte to read. */
  at = 0
  /** Reads stop here. */
  end: number
  /** What was wrong first, or undefined. */
  fault: string | undefined

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes
    this.end = bytes.length
  }

  get left(): number {
    return this.end - this.at
  }

  /** Records the first fault, and lets every later read answer with nothing. */
  fail(reason: string): void {
    this.fault ??= reason
    this.at = this.end
  }

  byte(): number {
    if (this.at >= this.end) return this.#short()
    return this.#bytes[this.at++] ?? 0
  }

  varUint(): number {
    let value = 0
    let unit = 1
    for (;;) {
      if (this.at >= this.end) return this.#short()
      const byte = this.#bytes[this.at++] ?? 0
      value += (byte & 127) * unit
      if (value > Number.MAX_SAFE_INTEGER) break
      if (byte < 128) return value
      unit *= 128
      // Eight groups of seven bits hold 2^53; a longer number is padding.
      if (unit > 2 ** 49) break
    }
    this.fail('a number beyond 2^53-1')
    return 0
  }

  /** A number from 0 to `max`. */
  upTo(max: number, what: string): number {
    const value = this.varUint()
    if (value <= max) return value
    this.fail(`${what} is ${value}, at most ${max}`)
    return 0
  }

  raw(length: number): Uint8Array {
    if (length > this.left) {
      this.#short()
      return NOTHING
    }
    const from = this.at
    this.at += length
    return this.#bytes.subarray(from, this.at)
  }

  blob(max: number, what: string): Uint8Array {
    return this.raw(this.upTo(max, what))
  }

  hex16(): string {
    return toHex(this.raw(16))
  }

  /** As `hex16`, for ids that come again and again: mostly the very text as last time, which needs no making, hashing and comparing anew. */
  recurring16(): string {
    const bytes = this.#bytes
    const { at } = this
    if (this.left < 16) return this.hex16()
    const slot = (((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0)) % RECURRING
    const known = recurring[slot]
    if (known !== undefined && isAt(known.bytes, bytes, at)) {
      this.at += 16
      return known.text
    }
    const text = this.hex16()
    recurring[slot] = { bytes: bytes.slice(at, at + 16), text }
    return text
  }

  text(max: number, what: string): string {
    const bytes = this.blob(max, what)
    try {
      return utf8Decoder.decode(bytes)
    } catch {
      this.fail(`${what} is not well-formed UTF-8`)
      return ''
    }
  }

  /** Whether an optional field follows. */
  flag(what: string): boolean {
    const value = this.byte()
    if (value > 1) this.fail(`${what} is ${value}, not 0 or 1`)
    return value === 1
  }

  /** One of `values`, by its index. */
  oneOf<T>(values: readonly [T, ...T[]], what: string): T {
    const index = this.byte()
    const value = values[index]
    if (value !== undefined) return value
    this.fail(`${what} is ${index}, at most ${values.length - 1}`)
    return values[0]
  }

  #short(): number {
    this.fail('the bytes end before the fields do')
    return 0
  }
}

function varUintLength(value: number): number {
  let length = 1
  for (let rest = value; rest >= 128; rest = Math.floor(rest / 128)) length++
  return length
}

function digit(text: string, at: number): number {
  const code = text.charCodeAt(at)
  if (code >= 48 && code <= 57) return code - 48
  if (code >= 97 && code <= 102) return code - 87
  throw new SyncError('bad_option', `"${text}" is not 32 lower-case hexadecimal digits`)
}
