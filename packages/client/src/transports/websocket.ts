/**
 * Messages over a WebSocket (step 3 of the path): the browser's own, or the `ws` package's in Node.
 */
import type { Transport, TransportListener, TransportSocket } from './transport.ts'

/** The subset of a WebSocket that is needed; the browser's and `ws`'s both have it. */
export interface WebSocketLike {
  binaryType: string
  readonly readyState: number
  onopen: ((event: never) => void) | null
  onmessage: ((event: { data: unknown }) => void) | null
  onclose: ((event: { code: number; reason: string }) => void) | null
  onerror: ((event: never) => void) | null
  send(bytes: Uint8Array): void
  close(code?: number, reason?: string): void
}

/** A WebSocket's constructor. */
export type WebSocketFactory = (url: string) => WebSocketLike

/** A transport over WebSockets that `create` makes. */
export function webSocketTransport(create: WebSocketFactory): Transport {
  return (url, listener) => dial(create, url, listener)
}

const OPEN = 1

function dial(create: WebSocketFactory, url: string, listener: TransportListener): TransportSocket {
  let over = false
  const end = (code: number, reason: string): void => {
    if (over) return
    over = true
    listener.closed(code, reason)
  }
  let socket: WebSocketLike
  try {
    socket = create(url)
  } catch (error) {
    // A constructor that throws (mixed content, a bad port) is told as a socket that closed, but not before the caller has its object.
    queueMicrotask(() => end(1006, error instanceof Error ? error.message : String(error)))
    return { send: () => undefined, close: (code, reason) => end(code, reason) }
  }
  let problem = ''
  socket.binaryType = 'arraybuffer'
  socket.onopen = () => {
    if (!over) listener.opened()
  }
  socket.onmessage = ({ data }) => {
    if (over) return
    if (data instanceof ArrayBuffer) listener.message(new Uint8Array(data))
    else close(4400, 'a message that is not binary')
  }
  socket.onerror = (event: { message?: unknown }) => {
    if (typeof event.message === 'string') problem = event.message
  }
  socket.onclose = ({ code, reason }) => end(code, reason === '' ? problem : reason)
  const close = (code: number, reason: string): void => {
    try {
      socket.close(code === 1000 || (code >= 3000 && code < 5000) ? code : 1000, reason.slice(0, 40))
    } catch {
      socket.close()
    }
    // A dead peer never answers the close: whoever ends a socket is not kept waiting for it.
    queueMicrotask(() => end(code, reason))
  }
  return {
    send: (bytes) => {
      if (!over && socket.readyState === OPEN) socket.send(bytes)
    },
    close,
  }
}
