/**
 * Batches between the main thread and the storage threads (step 5 of the path) as one byte array each way, whose buffer is transferred: fifty small
 * message objects cost twenty times as much. Appends are laid out so that the writer hashes and stores them where they lie.
 *
 *     strings = count:u32 { length:u32 utf8 }*          each distinct text of the batch once; where one is meant below stands its number
 *     appends = strings calls:u32 { count:u32 append* }*
 *     append  = seq:f64 at:f64 document:u32 actor:u32 incarnation:u32 covers:u32 length:u32 { incarnation:u32 n:f64 }* entry
 *     entry   = left free:40 hash (left free):16 incarnation:16 lo:u64be hi:u64be update:length     length is NONE without an update
 *     results = strings calls:u32 { count:u32 { position:f64 hash:16 }* | REFUSED failure:u32 document:u32 message:u32 }*
 *     entries = strings count:u32 { position seq epoch at lo hi:f64 document:u32 lineage:u32 actor:u32 hash:16 incarnation:16 length:u32 update }*
 */
import type { ChainHash, DocumentId, IncarnationId, Lineage, Position, Seq } from '@rejoin/shared'
import { LINK_HEAD_BYTES, setUint64 } from '../log/chain.ts'
import { NUMBERS_BYTES } from './checksum.ts'
import type { Append, Appended, Entry, LogFailure } from '../log/log.ts'
import { LogError } from '../log/log.ts'

/** An append as the writer sees it. Byte fields are views of the message. */
export interface PackedAppend {
  readonly document: DocumentId
  readonly seq: number
  readonly at: number
  readonly actor: string
  readonly incarnation: IncarnationId
  readonly lo: number
  readonly hi: number
  readonly covers: readonly { readonly incarnation: IncarnationId; readonly n: number }[]
  /** Room for NUMBERS_BYTES and a hash ‖ incarnation ‖ lo ‖ hi ‖ update: what the checksum covers, and behind the numbers what the chain hashes. */
  readonly entry: Buffer
  /** False when the edit added nothing: `entry` then ends before the update. */
  readonly adds: boolean
}

/** One call's outcome in the writer. */
export type CallResult =
  | { readonly type: 'appended'; readonly positions: readonly number[]; readonly hashes: readonly Uint8Array[] }
  | { readonly type: 'refused'; readonly failure: LogFailure; readonly document: DocumentId; readonly message: string }

/** A row of an entry, its checksum verified. */
export interface EntryRow {
  readonly position: number
  readonly seq: number
  readonly epoch: number
  readonly at: number
  readonly lo: number
  readonly hi: number
  readonly document: DocumentId
  readonly lineage: Lineage
  readonly actor: string
  readonly hash: Buffer
  readonly incarnation: Buffer
  readonly update: Buffer
}

const NONE = 0xffff_ffff
const APPEND_HEAD_BYTES = 8 + 8 + 5 * 4
const COVER_BYTES = 4 + 8
const ENTRY_HEAD_BYTES = 6 * 8 + 3 * 4 + 16 + 16 + 4

/** Appends of several calls as one message. */
export function packAppends(calls: readonly (readonly Append[])[]): Uint8Array<ArrayBuffer> {
  const strings = new Strings()
  const named: Named = { document: strings.run(), actor: strings.run(), incarnation: strings.run() }
  let size = 4
  for (const call of calls) {
    size += 4
    for (const { document, actor, incarnation, covers, update } of call) {
      named.document(document)
      named.actor(actor)
      named.incarnation(incarnation)
      for (const cover of covers) strings.add(cover.incarnation)
      size += APPEND_HEAD_BYTES + covers.length * COVER_BYTES + NUMBERS_BYTES + LINK_HEAD_BYTES + (update?.length ?? 0)
    }
  }
  const to = new Writer(strings, size)
  to.u32(calls.length)
  for (const call of calls) {
    to.u32(call.length)
    for (const append of call) writeAppend(to, strings, named, append)
  }
  return to.bytes
}

type Named = Readonly<Record<'document' | 'actor' | 'incarnation', (text: string) => number>>

function writeAppend(to: Writer, strings: Strings, named: Named, append: Append): void {
  const { seq, at, document, actor, incarnation, covers, lo, hi, update } = append
  to.f64(seq)
  to.f64(at)
  to.u32(named.document(document))
  to.u32(named.actor(actor))
  to.u32(named.incarnation(incarnation))
  to.u32(covers.length)
  to.u32(update === undefined ? NONE : update.length)
  for (const cover of covers) {
    to.u32(strings.add(cover.incarnation))
    to.f64(cover.n)
  }
  to.skip(NUMBERS_BYTES + 16)
  to.hex16(incarnation)
  to.u64be(lo)
  to.u64be(hi)
  if (update !== undefined) to.raw(update)
}

/** The calls of a message of `packAppends`. */
export function unpackAppends(bytes: Uint8Array): PackedAppend[][] {
  const from = new Reader(bytes)
  const strings = from.strings()
  const text = (): string => strings[from.u32()] ?? ''
  return times(from.u32(), () =>
    times(from.u32(), () => {
      const seq = from.f64()
      const at = from.f64()
      const document = text() as DocumentId
      const actor = text()
      const incarnation = text() as IncarnationId
      const coverCount = from.u32()
      const length = from.u32()
      const covers = coverCount === 0 ? NO_COVERS : times(coverCount, () => ({ incarnation: text() as IncarnationId, n: from.f64() }))
      const lo = from.u64be(NUMBERS_BYTES + 32)
      const hi = from.u64be(NUMBERS_BYTES + 40)
      const entry = from.raw(NUMBERS_BYTES + LINK_HEAD_BYTES + (length === NONE ? 0 : length))
      return { seq, at, document, actor, incarnation, covers, lo, hi, entry, adds: length !== NONE }
    }),
  )
}

/** What `read` gives, `count` times. `Array.from` of a length goes through an iterator, which took longer than the reading. */
function times<T>(count: number, read: () => T): T[] {
  const all: T[] = []
  for (let i = 0; i < count; i++) all.push(read())
  return all
}

const NO_COVERS: PackedAppend['covers'] = []
const REFUSED = 0xffff_ffff

/** The outcomes of a transaction's calls as one message. */
export function packResults(results: readonly CallResult[]): Uint8Array<ArrayBuffer> {
  const strings = new Strings()
  let size = 4
  for (const result of results) {
    if (result.type === 'appended') size += 4 + result.positions.length * 24
    else {
      for (const text of [result.failure, result.document, result.message]) strings.add(text)
      size += 16
    }
  }
  const to = new Writer(strings, size)
  to.u32(results.length)
  for (const result of results) {
    if (result.type === 'refused') {
      to.u32(REFUSED)
      for (const text of [result.failure, result.document, result.message]) to.u32(strings.add(text))
      continue
    }
    to.u32(result.positions.length)
    for (let i = 0; i < result.positions.length; i++) {
      to.f64(result.positions[i] ?? 0)
      to.raw(result.hashes[i] ?? EMPTY)
    }
  }
  return to.bytes
}

const EMPTY = new Uint8Array(0)

/** The outcomes of a message of `packResults`, one for each call. */
export function unpackResults(bytes: Uint8Array): (readonly Appended[] | LogError)[] {
  const from = new Reader(bytes)
  const strings = from.strings()
  return times(from.u32(), () => {
    const count = from.u32()
    if (count === REFUSED) {
      const failure = strings[from.u32()] as LogFailure
      const document = strings[from.u32()] as DocumentId
      return new LogError(failure, strings[from.u32()] ?? '', { document })
    }
    return times(count, () => {
      const position = from.f64()
      return { position: position === 0 ? undefined : (position as Position), hash: from.hex16() as ChainHash }
    })
  })
}

/** Entries as one message. */
export function packEntries(rows: readonly EntryRow[]): Uint8Array<ArrayBuffer> {
  const strings = new Strings()
  let size = 4
  for (const { document, lineage, actor, update } of rows) {
    strings.add(document)
    strings.add(lineage)
    strings.add(actor)
    size += ENTRY_HEAD_BYTES + update.length
  }
  const to = new Writer(strings, size)
  to.u32(rows.length)
  for (const row of rows) {
    to.f64(row.position)
    to.f64(row.seq)
    to.f64(row.epoch)
    to.f64(row.at)
    to.f64(row.lo)
    to.f64(row.hi)
    to.u32(strings.add(row.document))
    to.u32(strings.add(row.lineage))
    to.u32(strings.add(row.actor))
    to.raw(row.hash)
    to.raw(row.incarnation)
    to.u32(row.update.length)
    to.raw(row.update)
  }
  return to.bytes
}

/** The entries of a message of `packEntries`. Their updates are views of it. */
export function unpackEntries(bytes: Uint8Array): Entry[] {
  const from = new Reader(bytes)
  const strings = from.strings()
  return times(from.u32(), () => ({
    partition: 0,
    position: from.f64() as Position,
    seq: from.f64() as Seq,
    epoch: from.f64(),
    at: from.f64(),
    lo: from.f64(),
    hi: from.f64(),
    document: strings[from.u32()] as DocumentId,
    lineage: strings[from.u32()] as Lineage,
    actor: strings[from.u32()] ?? '',
    hash: from.hex16() as ChainHash,
    incarnation: from.hex16() as IncarnationId,
    update: from.bytes(),
  }))
}

/** The distinct texts of a batch, numbered as they come. */
class Strings {
  readonly #numbers = new Map<string, number>()
  /** Bytes they take at most. */
  size = 4

  add(text: string): number {
    const known = this.#numbers.get(text)
    if (known !== undefined) return known
    const number = this.#numbers.size
    this.#numbers.set(text, number)
    this.size += 4 + text.length * 3
    return number
  }

  /** `add` for texts that come in runs: the one before costs nothing. */
  run(): (text: string) => number {
    let last: string | undefined
    let number = 0
    return (text) => {
      if (text !== last) {
        number = this.add(text)
        last = text
      }
      return number
    }
  }

  get all(): Iterable<string> & { readonly size: number } {
    return { size: this.#numbers.size, [Symbol.iterator]: () => this.#numbers.keys() }
  }
}

/** Writes into one buffer of its own, which can be transferred. */
class Writer {
  readonly #buffer: Buffer<ArrayBuffer>
  readonly #view: DataView
  #at = 0

  constructor(strings: Strings, size: number) {
    this.#buffer = Buffer.from(new ArrayBuffer(strings.size + size))
    this.#view = new DataView(this.#buffer.buffer)
    this.u32(strings.all.size)
    for (const text of strings.all) {
      const length = this.#buffer.write(text, this.#at + 4, 'utf8')
      this.u32(length)
      this.#at += length
    }
  }

  get bytes(): Uint8Array<ArrayBuffer> {
    return new Uint8Array(this.#buffer.buffer, 0, this.#at)
  }

  u32(value: number): void {
    this.#view.setUint32(this.#at, value, true)
    this.#at += 4
  }

  f64(value: number): void {
    this.#view.setFloat64(this.#at, value, true)
    this.#at += 8
  }

  u64be(value: number): void {
    setUint64(this.#view, this.#at, value)
    this.#at += 8
  }

  hex16(text: string): void {
    this.#buffer.write(text, this.#at, 16, 'hex')
    this.#at += 16
  }

  raw(bytes: Uint8Array): void {
    this.#buffer.set(bytes, this.#at)
    this.#at += bytes.length
  }

  skip(bytes: number): void {
    this.#at += bytes
  }
}

/** Reads what a `Writer` wrote. */
class Reader {
  readonly #buffer: Buffer
  readonly #view: DataView
  #at = 0

  constructor(bytes: Uint8Array) {
    this.#buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  }

  strings(): string[] {
    return times(this.u32(), () => {
      const length = this.u32()
      this.#at += length
      return this.#buffer.toString('utf8', this.#at - length, this.#at)
    })
  }

  u32(): number {
    this.#at += 4
    return this.#view.getUint32(this.#at - 4, true)
  }

  f64(): number {
    this.#at += 8
    return this.#view.getFloat64(this.#at - 8, true)
  }

  /** A u64be that lies `ahead` bytes from here; does not move. */
  u64be(ahead: number): number {
    return this.#view.getUint32(this.#at + ahead) * 0x1_0000_0000 + this.#view.getUint32(this.#at + ahead + 4)
  }

  hex16(): string {
    this.#at += 16
    return this.#buffer.toString('hex', this.#at - 16, this.#at)
  }

  raw(length: number): Buffer {
    this.#at += length
    return this.#buffer.subarray(this.#at - length, this.#at)
  }

  bytes(): Uint8Array {
    const length = this.u32()
    this.#at += length
    return new Uint8Array(this.#buffer.buffer, this.#buffer.byteOffset + this.#at - length, length)
  }
}
