/**
 * Frames to bytes and back (step 3 of the path). Total and bounded: whatever arrives, the answer is frames or a reason, and what it costs is bounded by the message.
 */
import { BODIES } from './bodies.ts'
import { ByteReader, ByteWriter } from './bytes.ts'
import type { Field } from './fields.ts'
import { FRAME_TYPES } from './frames.ts'
import type { ClientFrame, Frame, RelayFrame } from './frames.ts'
import { DEFAULT_LIMITS, WIRE_LIMITS } from './limits.ts'

const NAMES: ReadonlyMap<number, Frame['type']> = new Map(Object.entries(FRAME_TYPES).map(([name, type]) => [type, name as Frame['type']]))

/** What a message held: its frames in order, and how many of a type unknown here were skipped; or why it is not this protocol. */
export type Decoded<F extends Frame = Frame> =
  | { readonly type: 'frames'; readonly frames: readonly F[]; readonly skipped: number }
  | { readonly type: 'bad'; readonly reason: string }

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
        bodyOf(frame.type).write(writer, frame, frame.type)
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
    const name = NAMES.get(type)
    if (name !== undefined && from !== undefined && !isSentBy(from, type)) reader.fail(`a frame of type ${type}, which no ${from} sends`)
    const before = faultOf(reader)
    if (before !== undefined) return { type: 'bad', reason: before }
    const end = reader.at + length
    reader.end = end
    if (name === undefined) skipped++
    else frames.push(typed(name, bodyOf(name).read(reader, name)))
    const fault = faultOf(reader)
    if (fault !== undefined) return { type: 'bad', reason: `frame ${type}: ${fault}` }
    reader.at = end
    reader.end = bytes.length
  }
  return { type: 'frames', frames, skipped }
}

/** Asked through a function: the compiler believes that a property it has seen stays as it was. */
function faultOf(reader: ByteReader): string | undefined {
  return reader.fault
}

/** Frames and bodies are told apart by the frame's name, which the compiler cannot follow through a table. */
function bodyOf(name: Frame['type']): Field<object> {
  return BODIES[name]
}

function typed(type: Frame['type'], body: { type?: Frame['type'] }): Frame {
  body.type = type
  return body as Frame
}

/** Of known types: relays alone send those from `welcome` on, and both send presence, ping and pong. */
function isSentBy(from: 'client' | 'relay', type: number): boolean {
  return from === 'client' ? type < FRAME_TYPES.welcome : type >= FRAME_TYPES.presence && type !== FRAME_TYPES.await
}
