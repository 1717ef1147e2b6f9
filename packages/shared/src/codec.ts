/**
 * Frames to bytes and back (step 3 of the path). Total and bounded: whatever arrives, the answer is frames or a reason, and what it costs is bounded by the message.
 */
import { readBody } from './body-read.ts'
import { writeBody } from './body-write.ts'
import { ByteReader, ByteWriter } from './bytes.ts'
import { FRAME_TYPES } from './frames.ts'
import type { ClientFrame, Frame, RelayFrame } from './frames.ts'
import { DEFAULT_LIMITS, WIRE_LIMITS } from './limits.ts'

const CLIENT_ONLY: ReadonlySet<number> = new Set([
  FRAME_TYPES.hello,
  FRAME_TYPES.auth,
  FRAME_TYPES.open,
  FRAME_TYPES.close,
  FRAME_TYPES.push,
])
const RELAY_ONLY: ReadonlySet<number> = new Set(Object.values(FRAME_TYPES).filter((type) => type >= FRAME_TYPES.welcome))

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
    if ((from === 'client' && RELAY_ONLY.has(type)) || (from === 'relay' && CLIENT_ONLY.has(type)))
      reader.fail(`a frame of type ${type}, which no ${from ?? 'peer'} sends`)
    const before = faultOf(reader)
    if (before !== undefined) return { type: 'bad', reason: before }
    const end = reader.at + length
    reader.end = end
    const frame = readBody(reader, type)
    const fault = faultOf(reader)
    if (fault !== undefined) return { type: 'bad', reason: `frame ${type}: ${fault}` }
    if (frame === undefined) skipped++
    else frames.push(frame)
    reader.at = end
    reader.end = bytes.length
  }
  return { type: 'frames', frames, skipped }
}

/** Asked through a function: the compiler believes that a property it has seen stays as it was. */
function faultOf(reader: ByteReader): string | undefined {
  return reader.fault
}
