/**
 * A WebSocket client with nothing in it: so that the load generator is not what a bench measures. Messages are masked with the key 0, which needs no work.
 */
import { connect, type Socket } from 'node:net'
import { randomBytes } from 'node:crypto'

/** One open socket of the load generator. */
export interface LoadSocket {
  send(message: Uint8Array): void
  close(): void
}

const MASK_BIT = 0x80
const BINARY_FINAL = 0x82

/** Connects and performs the handshake; `receive` gets each whole message (a view that is only valid during the call). */
export function openSocket(url: string, receive: (message: Uint8Array) => void, closed: (reason: string) => void): Promise<LoadSocket> {
  const { hostname, port, pathname, search } = new URL(url)
  return new Promise((resolve, reject) => {
    const socket = connect(Number(port), hostname)
    socket.setNoDelay(true)
    socket.on('error', reject)
    socket.on('close', () => {
      closed('socket closed')
    })
    socket.write(
      `GET ${pathname}${search} HTTP/1.1\r\nHost: ${hostname}:${port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
        `Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${randomBytes(16).toString('base64')}\r\n\r\n`,
    )
    let buffer: Buffer = Buffer.alloc(0)
    let open = false
    socket.on('data', (chunk: Buffer) => {
      buffer = buffer.length === 0 ? chunk : Buffer.concat([buffer, chunk])
      if (!open) {
        const end = buffer.indexOf('\r\n\r\n')
        if (end < 0) return
        const status = buffer.toString('latin1', 0, buffer.indexOf('\r\n'))
        if (!status.includes(' 101 ')) {
          reject(new Error(`handshake with ${url} refused: ${status}`))
          socket.destroy()
          return
        }
        open = true
        buffer = buffer.subarray(end + 4)
        resolve(loadSocket(socket))
      }
      buffer = readMessages(buffer, socket, receive)
    })
  })
}

function loadSocket(socket: Socket): LoadSocket {
  let corked = false
  return {
    send: (message) => {
      // One system call for all that is sent in one turn of the event loop.
      if (!corked) {
        corked = true
        socket.cork()
        process.nextTick(() => {
          corked = false
          socket.uncork()
        })
      }
      socket.write(header(BINARY_FINAL, message.length))
      socket.write(message)
    },
    close: () => {
      socket.destroy()
    },
  }
}

function header(first: number, length: number): Buffer {
  const extra = length < 126 ? 0 : length < 65536 ? 2 : 8
  const bytes = Buffer.alloc(2 + extra + 4)
  bytes[0] = first
  if (extra === 0) bytes[1] = MASK_BIT | length
  else if (extra === 2) {
    bytes[1] = MASK_BIT | 126
    bytes.writeUInt16BE(length, 2)
  } else {
    bytes[1] = MASK_BIT | 127
    bytes.writeBigUInt64BE(BigInt(length), 2)
  }
  return bytes
}

/** Hands out whole messages and returns what is left of the buffer. Fragmented messages are not used by any contestant. */
function readMessages(buffer: Buffer, socket: Socket, receive: (message: Uint8Array) => void): Buffer {
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
    if (opcode === 9) {
      socket.write(header(0x8a, length))
      socket.write(Buffer.from(body))
    } else if (opcode === 2) receive(body)
  }
  return at === 0 ? buffer : buffer.subarray(at)
}
