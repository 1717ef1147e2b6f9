/**
 * WebSockets of native peers (step 3 of the path): what of `ws` the relay uses, with a limit on everything.
 */
import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import type { Limits } from '@rejoin/shared'
import type { WebSocket } from 'ws'
import { WebSocketServer } from 'ws'
import type { AuthRequest } from '../relay/grant.ts'
import type { RelaySocket, SocketListener } from '../relay/peer.ts'
import { createOutgoing } from './outgoing.ts'

/** Takes upgrade requests of `/sync`. */
export interface NativeSockets {
  /** Answers the upgrade; the socket belongs to it from then on. */
  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void
  /** Resolves when all are closed; what is still open after `ms` is ended without asking. */
  closed(ms: number): Promise<void>
}

/** What native sockets need. */
export interface NativeSocketPorts {
  readonly limits: Limits
  readonly connect: (socket: RelaySocket, request: Omit<AuthRequest, 'token'>) => SocketListener
  /** A listener threw: a fault of our own, at the cost of this socket only. */
  readonly fault: (error: unknown) => void
}

/** How long a closed socket may take to say goodbye, in ms. */
const GOODBYE_MS = 2000
/** Bytes of a WebSocket frame around its payload, and of the upgrade request's end. */
const FRAME_BYTES = 32
/** The longest reason a close frame carries, in bytes. */
const REASON_BYTES = 123

/** Native sockets in front of `connect`. */
export function createNativeSockets({ limits, connect, fault }: NativeSocketPorts): NativeSockets {
  const server = new WebSocketServer({
    noServer: true,
    maxPayload: limits.message,
    perMessageDeflate: false,
    clientTracking: true,
    skipUTF8Validation: true,
  })
  return {
    upgrade(request, socket, head) {
      server.handleUpgrade(request, socket, head, (ws) => {
        ws.on('error', () => undefined)
        limitFirstMessage(ws, socket, limits.helloMessage)
        attachSocket(ws, socket, (relaySocket) => connect(relaySocket, { url: request.url ?? '/', headers: flatHeaders(request) }), fault)
      })
    },
    async closed(ms) {
      const late = setTimeout(() => {
        for (const ws of server.clients) ws.terminate()
      }, ms)
      // server.clients loses a socket in the same event that is waited for here.
      await Promise.all([...server.clients].map((ws) => new Promise<void>((resolve) => ws.once('close', () => resolve()))))
      clearTimeout(late)
    },
  }
}

/** Ends a socket that sends more than a hello may hold before it was heard: `ws` itself would gather up to a whole message. */
function limitFirstMessage(ws: WebSocket, socket: Duplex, max: number): void {
  let bytes = 0
  const count = (chunk: Buffer): void => {
    bytes += chunk.length
    if (bytes > max + FRAME_BYTES) ws.terminate()
  }
  socket.on('data', count)
  ws.once('message', () => socket.off('data', count))
}

/** Lets the relay use an open WebSocket over `socket`; `fault` is told when its listener throws. */
export function attachSocket(
  ws: WebSocket,
  socket: Duplex,
  connect: (socket: RelaySocket) => SocketListener,
  fault: (error: unknown) => void,
): void {
  const outgoing = createOutgoing(socket)
  const flush = (): void => {
    // Nothing may stand behind a close frame, which `ws` answers by itself.
    if (ws.readyState === ws.OPEN) outgoing.write()
  }
  const listener = connect({
    get buffered() {
      return socket.writableLength + outgoing.waiting
    },
    send(bytes) {
      if (ws.readyState !== ws.OPEN) return
      if (outgoing.waiting === 0) process.nextTick(flush)
      outgoing.add(bytes)
    },
    pause: () => ws.pause(),
    resume: () => ws.resume(),
    close(code, reason) {
      if (ws.readyState !== ws.OPEN) return
      outgoing.write()
      ws.close(code, clip(reason))
      // A peer that is gone never answers, and one that is paused cannot be heard to.
      ws.resume()
      setTimeout(() => ws.terminate(), GOODBYE_MS).unref()
    },
  })
  const guard = (run: () => void): void => {
    try {
      run()
    } catch (error) {
      fault(error)
      ws.terminate()
    }
  }
  ws.on('message', (data, isBinary) => {
    if (!isBinary) ws.close(4400, 'text messages are not this protocol')
    else if (data instanceof Uint8Array) guard(() => listener.message(data))
  })
  socket.on('drain', () => guard(() => listener.drained()))
  ws.on('close', () => guard(() => listener.closed()))
}

function clip(reason: string): string {
  let clipped = reason
  while (Buffer.byteLength(clipped) > REASON_BYTES) clipped = clipped.slice(0, -1)
  return clipped
}

/** Headers by lower-case name, repeated ones joined. */
export function flatHeaders(request: IncomingMessage): Record<string, string | undefined> {
  const headers: Record<string, string | undefined> = {}
  for (const [name, value] of Object.entries(request.headers)) headers[name] = Array.isArray(value) ? value.join(', ') : value
  return headers
}
