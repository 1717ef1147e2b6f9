/**
 * Frames to bytes and back (step 3 of the path). Total and bounded: whatever arrives, the answer is frames or a reason, and what it costs is bounded by the message.
 */
import { ByteReader, ByteWriter } from './bytes.ts'
import { ERRORS, errorCode } from './errors.ts'
import type { ErrorCode } from './errors.ts'
import { FRAME_TYPES } from './frames.ts'
import type { Access, ClientFrame, Frame, OpenFrame, OpenMode, PushFrame, PushKind, RelayFrame, StateFrame } from './frames.ts'
import type { ChainHash, Cursor, IncarnationId, Lineage, Seq } from './ids.ts'
import { DEFAULT_LIMITS, WIRE_LIMITS } from './limits.ts'

const ACCESS: readonly [Access, ...Access[]] = ['none', 'read', 'write']
const MODES: readonly [OpenMode, ...OpenMode[]] = ['resumed', 'full', 'replaced']
const KINDS: readonly [PushKind, ...PushKind[]] = ['edit', 'state']
const CLIENT_ONLY: ReadonlySet<number> = new Set([FRAME_TYPES.hello, FRAME_TYPES.auth, FRAME_TYPES.open, FRAME_TYPES.close, FRAME_TYPES.push])
const RELAY_ONLY: ReadonlySet<number> = new Set(Object.values(FRAME_TYPES).filter((type) => type >= FRAME_TYPES.welcome))
const EDIT = DEFAULT_LIMITS.edit
const FRAGMENT = DEFAULT_LIMITS.fragment

/** What a message held: its frames in order, and how many of a type unknown here were skipped; or why it is not this protocol. */
export type Decoded<F extends Frame = Frame> = { readonly type: 'frames'; readonly frames: readonly F[]; readonly skipped: number } | { readonly type: 'bad'; readonly reason: string }

/** What a reader holds a message to. */
export interface DecodeOptions {
  /** Bytes. @default 1 MiB */
  readonly maxMessage?: number | undefined
  /** Which end sent it: a frame that only the other end sends is then bad, before its body costs anything. @default either */
  readonly from?: 'client' | 'relay' | undefined
}

/** Gathers frames into a message, in one buffer that is reused. */
export interface FrameWriter {
  /** Bytes gathered since the last `take`. */
  readonly length: number
  /** Appends a frame. Throws `SyncError('bad_option')`, appending nothing, when a field cannot go on the wire; a `message` that is too long is cut instead. */
  write(frame: Frame): void
  /** The message so far, as bytes of the caller's own; the writer is empty afterwards. */
  take(): Uint8Array
}

/** A writer for one connection. */
export function createFrameWriter(): FrameWriter {
  const writer = new ByteWriter()
  return {
    get length() {
      return writer.length
    },
    write(frame) {
      const start = writer.length
      try {
        writer.varUint(FRAME_TYPES[frame.type])
        const body = writer.begin()
        writeBody(writer, frame)
        writer.end(body)
      } catch (error) {
        writer.truncate(start)
        throw error
      }
    },
    take: () => writer.take(),
  }
}

/** One message of these frames. Throws as `FrameWriter.write` does. */
export function encodeFrames(frames: readonly Frame[]): Uint8Array {
  const writer = createFrameWriter()
  for (const frame of frames) writer.write(frame)
  return writer.take()
}

/** The frames of a message. Never throws. Byte fields are views of `bytes`. */
export function decodeFrames(bytes: Uint8Array, options: DecodeOptions & { readonly from: 'client' }): Decoded<ClientFrame>
export function decodeFrames(bytes: Uint8Array, options: DecodeOptions & { readonly from: 'relay' }): Decoded<RelayFrame>
export function decodeFrames(bytes: Uint8Array, options?: DecodeOptions): Decoded
export function decodeFrames(bytes: Uint8Array, { maxMessage = DEFAULT_LIMITS.message, from }: DecodeOptions = {}): Decoded {
  if (bytes.length > maxMessage) return { type: 'bad', reason: `a message of ${bytes.length} bytes, at most ${maxMessage}` }
  if (bytes.length === 0) return { type: 'bad', reason: 'an empty message' }
  const reader = new ByteReader(bytes)
  const frames: Frame[] = []
  let skipped = 0
  while (reader.at < bytes.length) {
    if (frames.length + skipped >= WIRE_LIMITS.frames) return { type: 'bad', reason: `more than ${WIRE_LIMITS.frames} frames in a message` }
    const type = reader.varUint()
    const length = reader.varUint()
    if (length > reader.left) reader.fail('a frame that ends behind its message')
    if ((from === 'client' && RELAY_ONLY.has(type)) || (from === 'relay' && CLIENT_ONLY.has(type))) reader.fail(`a frame of type ${type}, which no ${from} sends`)
    if (reader.fault !== undefined) return { type: 'bad', reason: reader.fault }
    const end = reader.at + length
    reader.end = end
    const frame = readBody(reader, type)
    const fault: string | undefined = reader.fault
    if (fault !== undefined) return { type: 'bad', reason: `frame ${type}: ${fault}` }
    if (frame === undefined) skipped++
    else frames.push(frame)
    reader.at = end
    reader.end = bytes.length
  }
  return { type: 'frames', frames, skipped }
}

function writeBody(w: ByteWriter, frame: Frame): void {
  switch (frame.type) {
    case 'hello':
      w.varUint(frame.revisionMin)
      w.varUint(frame.revisionMax)
      w.text(frame.agent, WIRE_LIMITS.agent, 'agent')
      return w.text(frame.token, WIRE_LIMITS.token, 'token')
    case 'auth':
      return w.text(frame.token, WIRE_LIMITS.token, 'token')
    case 'open':
      return writeOpen(w, frame)
    case 'close':
      return w.varUint(frame.handle)
    case 'push':
      return writePush(w, frame)
    case 'presence':
      w.varUint(frame.handle)
      return w.blob(frame.awareness)
    case 'ping':
    case 'pong':
      return w.varUint(frame.nonce)
    case 'welcome':
      w.varUint(frame.revision)
      w.varUint(frame.heartbeat)
      w.varUint(frame.window)
      w.hex16(frame.relay)
      return w.text(frame.principal, WIRE_LIMITS.principal, 'principal')
    case 'opened':
      w.varUint(frame.ref)
      w.varUint(frame.handle)
      w.hex16(frame.lineage)
      w.varUint(frame.epoch)
      w.varUint(frame.head)
      w.byte(ACCESS.indexOf(frame.grant))
      return w.byte(MODES.indexOf(frame.mode))
    case 'refused':
      w.varUint(frame.ref)
      return writeFailure(w, frame)
    case 'state':
      return writeState(w, frame)
    case 'entries':
      w.varUint(frame.handle)
      w.varUint(frame.first)
      w.varUint(frame.updates.length)
      w.hex16(frame.hash)
      for (const update of frame.updates) w.blob(update)
      return
    case 'ack':
      w.varUint(frame.handle)
      w.hex16(frame.incarnation)
      w.varUint(frame.n)
      w.varUint(frame.seq)
      w.byte(frame.hash === undefined ? 0 : 1)
      if (frame.hash !== undefined) w.hex16(frame.hash)
      return
    case 'nack':
      w.varUint(frame.handle)
      w.hex16(frame.incarnation)
      w.varUint(frame.n)
      w.varUint(frame.expected)
      return writeFailure(w, frame)
    case 'grant':
      w.varUint(frame.handle)
      w.byte(ACCESS.indexOf(frame.grant))
      w.varUint(ERRORS[frame.code].number)
      return w.clipped(frame.message, WIRE_LIMITS.text)
    case 'authenticate':
      w.varUint(ERRORS[frame.code].number)
      w.varUint(frame.deadline)
      return w.clipped(frame.message, WIRE_LIMITS.text)
    case 'authenticated':
      return w.text(frame.principal, WIRE_LIMITS.principal, 'principal')
    case 'closed':
      w.varUint(frame.handle)
      return writeFailure(w, frame)
    case 'goaway':
      return writeFailure(w, frame)
  }
}

/** Undefined for a type that is unknown here. After a fault the frame holds nothing of use and is thrown away by the caller. */
function readBody(r: ByteReader, type: number): Frame | undefined {
  switch (type) {
    case FRAME_TYPES.hello:
      return { type: 'hello', revisionMin: r.varUint(), revisionMax: r.varUint(), agent: r.text(WIRE_LIMITS.agent, 'agent'), token: r.text(WIRE_LIMITS.token, 'token') }
    case FRAME_TYPES.auth:
      return { type: 'auth', token: r.text(WIRE_LIMITS.token, 'token') }
    case FRAME_TYPES.open:
      return readOpen(r)
    case FRAME_TYPES.close:
      return { type: 'close', handle: r.varUint() }
    case FRAME_TYPES.push:
      return readPush(r)
    case FRAME_TYPES.presence:
      return { type: 'presence', handle: r.varUint(), awareness: r.blob(WIRE_LIMITS.presence, 'presence') }
    case FRAME_TYPES.ping:
      return { type: 'ping', nonce: r.varUint() }
    case FRAME_TYPES.pong:
      return { type: 'pong', nonce: r.varUint() }
    case FRAME_TYPES.welcome:
      return { type: 'welcome', revision: r.varUint(), heartbeat: r.varUint(), window: r.varUint(), relay: r.hex16(), principal: r.text(WIRE_LIMITS.principal, 'principal') }
    case FRAME_TYPES.opened:
      return {
        type: 'opened', ref: r.varUint(), handle: r.varUint(), lineage: readLineage(r), epoch: r.varUint(), head: readSeq(r), grant: r.oneOf(ACCESS, 'grant'), mode: r.oneOf(MODES, 'mode'),
      }
    case FRAME_TYPES.refused:
      return { type: 'refused', ref: r.varUint(), ...readFailure(r) }
    case FRAME_TYPES.state:
      return readState(r)
    case FRAME_TYPES.entries:
      return readEntries(r)
    case FRAME_TYPES.ack: {
      const ack = { type: 'ack', handle: r.varUint(), incarnation: readIncarnation(r), n: r.varUint(), seq: readSeq(r) } as const
      return r.flag('hasHash') ? { ...ack, hash: readHash(r) } : ack
    }
    case FRAME_TYPES.nack:
      return { type: 'nack', handle: r.varUint(), incarnation: readIncarnation(r), n: r.varUint(), expected: r.varUint(), ...readFailure(r) }
    case FRAME_TYPES.grant:
      return { type: 'grant', handle: r.varUint(), grant: r.oneOf(ACCESS, 'grant'), code: errorCode(r.varUint()), message: r.text(WIRE_LIMITS.text, 'message') }
    case FRAME_TYPES.authenticate:
      return { type: 'authenticate', code: errorCode(r.varUint()), deadline: r.varUint(), message: r.text(WIRE_LIMITS.text, 'message') }
    case FRAME_TYPES.authenticated:
      return { type: 'authenticated', principal: r.text(WIRE_LIMITS.principal, 'principal') }
    case FRAME_TYPES.closed:
      return { type: 'closed', handle: r.varUint(), ...readFailure(r) }
    case FRAME_TYPES.goaway:
      return { type: 'goaway', ...readFailure(r) }
    default:
      return undefined
  }
}

interface Failure { readonly code: ErrorCode; readonly retryAfter: number; readonly message: string }

function writeFailure(w: ByteWriter, failure: Failure): void {
  w.varUint(ERRORS[failure.code].number)
  w.varUint(failure.retryAfter)
  w.clipped(failure.message, WIRE_LIMITS.text)
}

function readFailure(r: ByteReader): Failure {
  return { code: errorCode(r.varUint()), retryAfter: r.varUint(), message: r.text(WIRE_LIMITS.text, 'message') }
}

function writeOpen(w: ByteWriter, frame: OpenFrame): void {
  w.varUint(frame.ref)
  w.text(frame.document, WIRE_LIMITS.documentId, 'document id')
  w.byte(frame.cursor === undefined ? 0 : 1)
  if (frame.cursor !== undefined) {
    w.hex16(frame.cursor.lineage)
    w.varUint(frame.cursor.epoch)
    w.varUint(frame.cursor.seq)
    w.hex16(frame.cursor.hash)
  }
  w.byte(frame.resume === undefined ? 0 : 1)
  if (frame.resume !== undefined) {
    w.varUint(frame.resume.snapshotSeq)
    w.varUint(frame.resume.offset)
  }
}

function readOpen(r: ByteReader): OpenFrame {
  const open: { -readonly [K in keyof OpenFrame]: OpenFrame[K] } = { type: 'open', ref: r.varUint(), document: r.text(WIRE_LIMITS.documentId, 'document id') }
  if (r.flag('hasCursor')) {
    const cursor: Cursor = { lineage: readLineage(r), epoch: r.varUint(), seq: readSeq(r), hash: readHash(r) }
    open.cursor = cursor
  }
  if (r.flag('hasResume')) open.resume = { snapshotSeq: readSeq(r), offset: r.varUint() }
  return open
}

function writePush(w: ByteWriter, frame: PushFrame): void {
  w.varUint(frame.handle)
  w.hex16(frame.incarnation)
  w.varUint(frame.lo)
  w.varUint(frame.hi)
  w.byte(KINDS.indexOf(frame.kind))
  w.varUint(frame.covers.length)
  for (const cover of frame.covers) {
    w.hex16(cover.incarnation)
    w.varUint(cover.n)
  }
  w.varUint(frame.total)
  w.varUint(frame.offset)
  w.blob(frame.update)
}

function readPush(r: ByteReader): PushFrame {
  const handle = r.varUint()
  const incarnation = readIncarnation(r)
  const lo = r.varUint()
  const hi = r.varUint()
  if (lo < 1 || hi < lo) r.fail(`edits ${lo} to ${hi}`)
  const kind = r.oneOf(KINDS, 'kind')
  const covers: { incarnation: IncarnationId; n: number }[] = []
  for (let left = r.upTo(WIRE_LIMITS.covers, 'coverCount'); left > 0 && r.fault === undefined; left--) covers.push({ incarnation: readIncarnation(r), n: r.varUint() })
  const total = r.upTo(EDIT, 'total')
  const offset = r.varUint()
  const update = r.blob(EDIT, 'update')
  if (offset + update.length > total) r.fail('a part that ends behind its whole')
  return { type: 'push', handle, incarnation, lo, hi, kind, covers, total, offset, update }
}

function writeState(w: ByteWriter, frame: StateFrame): void {
  w.varUint(frame.handle)
  w.hex16(frame.lineage)
  w.varUint(frame.epoch)
  w.varUint(frame.seq)
  w.hex16(frame.hash)
  w.varUint(frame.total)
  w.varUint(frame.offset)
  w.blob(frame.update)
}

function readState(r: ByteReader): StateFrame {
  const state: StateFrame = {
    type: 'state', handle: r.varUint(), lineage: readLineage(r), epoch: r.varUint(), seq: readSeq(r), hash: readHash(r), total: r.varUint(), offset: r.varUint(), update: r.blob(FRAGMENT, 'fragment'),
  }
  if (state.offset + state.update.length > state.total) r.fail('a fragment that ends behind its whole')
  return state
}

function readEntries(r: ByteReader): Frame {
  const handle = r.varUint()
  const first = readSeq(r)
  const count = r.upTo(WIRE_LIMITS.entries, 'count')
  const hash = readHash(r)
  const updates: Uint8Array[] = []
  for (let left = count; left > 0 && r.fault === undefined; left--) updates.push(r.blob(r.left, 'update'))
  return { type: 'entries', handle, first, hash, updates }
}

// The brands are put on here and in ids.ts only: these are the bytes they come from.
function readIncarnation(r: ByteReader): IncarnationId {
  return r.hex16() as IncarnationId
}
function readLineage(r: ByteReader): Lineage {
  return r.hex16() as Lineage
}
function readHash(r: ByteReader): ChainHash {
  return r.hex16() as ChainHash
}
function readSeq(r: ByteReader): Seq {
  return r.varUint() as Seq
}
