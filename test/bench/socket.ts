/**
 * A WebSocket client with nothing in it: so that the load generator is not what a bench measures. Messages are masked with the key 0, which needs no work.
 */
import { connect, type Socket } from 'node:net'
import { randomBytes } from 'node:crypto'

/** One open socket of the load generator. */
export interface LoadSocket {
  /** Sends a message; or, on a joined socket, a part of the message that leaves at the end of this turn. The bytes must not be changed. */
  send(message: Uint8Array): void
  close(): void
}

const MASK_BIT = 0x80
const BINARY_FINAL = 0x82
const PONG_FINAL = 0x8a

/** What a load socket is opened with. */
export interface LoadSocketOptions {
  /** Gets each whole message, a view that is only valid during the call, and whom to answer. */
  readonly receive: (message: Buffer, socket: LoadSocket) => void
  /** Whether all that is sent in one turn is one message, as the protocol allows. */
  readonly joined: boolean
}

/** Connects and performs the handshake. */
export function openSocket(url: string, { receive, joined }: LoadSocketOptions): Promise<LoadSocket> {
  const { hostname, port, pathname, search } = new URL(url)
  return new Promise((resolve, reject) => {
    const socket = connect(Number(port), hostname)
    socket.setNoDelay(true)
    socket.on('error', reject)
    socket.on('close', () => {
      reject(new Error(`${url} closed the socket`))
    })
    socket.write(
      `GET ${pathname}${search} HTTP/1.1\r\nHost: ${hostname}:${port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
        `Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${randomBytes(16).toString('base64')}\r\n\r\n`,
    )
    let buffer: Buffer = Buffer.alloc(0)
    let open: LoadSocket | undefined
    socket.on('data', (chunk: Buffer) => {
      buffer = buffer.length === 0 ? chunk : Buffer.concat([buffer, chunk])
      if (open === undefined) {
        const end = buffer.indexOf('\r\n\r\n')
        if (end < 0) return
        const status = buffer.toString('latin1', 0, buffer.indexOf('\r\n'))
        if (!status.includes(' 101 ')) {
          reject(new Error(`handshake with ${url} refused: ${status}`))
          socket.destroy()
          return
        }
        open = loadSocket(socket, joined)
        buffer = buffer.subarray(end + 4)
        resolve(open)
      }
      const from = open
      buffer = readMessages(buffer, socket, (message) => {
        receive(message, from)
      })
    })
  })
}

function loadSocket(socket: Socket, joined: boolean): LoadSocket {
  let parts: Uint8Array[] = []
  let length = 0
  const flush = (): void => {
    socket.write(joined ? message(parts, length) : Buffer.concat(parts.map((part) => message([part], part.length))))
    parts = []
    length = 0
  }
  return {
    send: (part) => {
      // One system call for all that is sent in one turn of the event loop.
      if (parts.length === 0) process.nextTick(flush)
      parts.push(part)
      length += part.length
    },
    close: () => {
      socket.destroy()
    },
  }
}

/** A masked binary message of these parts. */
function message(parts: readonly Uint8Array[], length: number): Buffer {
  const extra = extraOf(length)
  const bytes = Buffer.allocUnsafe(2 + extra + 4 + length)
  let at = writeHeader(bytes, BINARY_FINAL, length, extra)
  for (const part of parts) {
    bytes.set(part, at)
    at += part.length
  }
  return bytes
}

function extraOf(length: number): 0 | 2 | 8 {
  return length < 126 ? 0 : length < 65536 ? 2 : 8
}

/** Returns where the payload begins. */
function writeHeader(bytes: Buffer, first: number, length: number, extra: 0 | 2 | 8): number {
  bytes[0] = first
  bytes[1] = MASK_BIT | (extra === 0 ? length : extra === 2 ? 126 : 127)
  if (extra === 2) bytes.writeUInt16BE(length, 2)
  else if (extra === 8) bytes.writeBigUInt64BE(BigInt(length), 2)
  return bytes.writeUInt32BE(0, 2 + extra)
}

/** Hands out whole messages and returns what is left of the buffer. Fragmented messages are not used by any contestant. */
function readMessages(buffer: Buffer, socket: Socket, receive: (message: Buffer) => void): Buffer {
  let at = 0
  for (;;) {
    if (buffer.length - at < 2) break
    const opcode = (buffer[at] ?? 0) & 0x0f
    let length = (buffer[at + 1] ?? 0) & 0x7f
    let from = at + 2
    if (length === 126) {
      if (buffer.length - from < 2) break
      length = buffer.readUInt16BE(from)
      from += 2
    } else if (length === 127) {
      if (buffer.length - from < 8) break
      length = Number(buffer.readBigUInt64BE(from))
      from += 8
    }
    if (buffer.length - from < length) break
    const body = buffer.subarray(from, from + length)
    at = from + length
    if (opcode === 2) receive(body)
    else if (opcode === 9) {
      const pong = message([body], length)
      pong[0] = PONG_FINAL
      socket.write(pong)
    }
  }
  return at === 0 ? buffer : buffer.subarray(at)
}
