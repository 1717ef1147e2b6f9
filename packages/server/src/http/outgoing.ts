/**
 * What leaves a WebSocket in one turn of the event loop (behind step 6 of the path), framed here and written at once: `ws` would make two buffers, a list
 * and a gathering write of each message, which cost more than the messages.
 */
import type { Duplex } from 'node:stream'

/** Messages on their way into a socket. */
export interface Outgoing {
  /** Bytes of messages that were added and not yet written. */
  readonly waiting: number
  add(message: Uint8Array): void
  /** Writes what was added. */
  write(): void
}

/** RFC 6455 §5.2: a final binary frame. A server masks nothing, and without extensions nothing else stands between a message and its frame. */
const BINARY_FINAL = 0x82
const LENGTH_16 = 126
const LENGTH_64 = 127
/** The longest frame head, in bytes. */
const HEAD_BYTES = 10
/** Up to so many bytes, copying the messages together costs less than handing them over one by one. */
const COPIED_BYTES = 64 * 1024

/** Frames for `socket`, on which nobody is in the middle of a frame: true of `ws` without compression between its calls. */
export function createOutgoing(socket: Duplex): Outgoing {
  let messages: Uint8Array[] = []
  let waiting = 0
  return {
    get waiting() {
      return waiting
    },
    add(message) {
      messages.push(message)
      waiting += message.length
    },
    write() {
      const written = messages
      const bytes = waiting
      messages = []
      waiting = 0
      if (written.length === 0 || !socket.writable) return
      if (bytes <= COPIED_BYTES) socket.write(framed(written, bytes + written.length * HEAD_BYTES))
      else {
        socket.cork()
        for (const message of written) {
          const head = Buffer.allocUnsafe(HEAD_BYTES)
          socket.write(head.subarray(0, writeHead(head, 0, message.length)))
          socket.write(message)
        }
        socket.uncork()
      }
    },
  }
}

function framed(messages: readonly Uint8Array[], atMost: number): Buffer {
  const buffer = Buffer.allocUnsafe(atMost)
  let at = 0
  for (const message of messages) {
    at = writeHead(buffer, at, message.length)
    buffer.set(message, at)
    at += message.length
  }
  return buffer.subarray(0, at)
}

function writeHead(to: Buffer, from: number, length: number): number {
  to[from] = BINARY_FINAL
  if (length < LENGTH_16) {
    to[from + 1] = length
    return from + 2
  }
  if (length < 0x1_0000) {
    to[from + 1] = LENGTH_16
    return to.writeUInt16BE(length, from + 2)
  }
  to[from + 1] = LENGTH_64
  to.writeUInt32BE(Math.floor(length / 0x1_0000_0000), from + 2)
  return to.writeUInt32BE(length % 0x1_0000_0000, from + 6)
}
