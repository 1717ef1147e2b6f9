/**
 * The transport contract, by every transport.
 */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { WebSocket, WebSocketServer } from 'ws'
import { memoryTransport } from '#client/transports/memory.js'
import type { WebSocketLike } from '#client/transports/websocket.js'
import { webSocketTransport } from '#client/transports/websocket.js'
import type { FarEnd, TransportFixture } from './transport.contract.ts'
import { transportContract } from './transport.contract.ts'

interface Far extends FarEnd {
  closed: { readonly code: number; readonly reason: string } | undefined
}

transportContract('memory', () => {
  const arrived: Far[] = []
  const transport = memoryTransport((url, socket) => {
    if (url === 'nowhere') throw new Error('nobody listens')
    const far: Far = {
      received: [],
      closed: undefined,
      send: (bytes) => socket.send(bytes),
      close: (code, reason) => socket.close(code, reason),
    }
    arrived.push(far)
    return {
      opened: () => undefined,
      message: (bytes) => void far.received.push(bytes),
      closed: (code, reason) => void (far.closed = { code, reason }),
    }
  })
  return Promise.resolve({ transport, url: 'here', nowhere: 'nowhere', arrived, end: () => Promise.resolve() })
})

async function overWs(): Promise<TransportFixture> {
  const arrived: Far[] = []
  const http = createServer()
  const server = new WebSocketServer({ server: http, perMessageDeflate: false })
  server.on('connection', (socket) => {
    const far: Far = {
      received: [],
      closed: undefined,
      send: (bytes) => socket.send(bytes),
      close: (code, reason) => socket.close(code, reason),
      vanish: () => socket.terminate(),
    }
    arrived.push(far)
    socket.on('message', (data: Buffer) => far.received.push(new Uint8Array(data)))
    socket.on('close', (code, reason) => (far.closed = { code, reason: reason.toString() }))
    socket.on('error', () => undefined)
  })
  await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve))
  const { port } = http.address() as AddressInfo
  return {
    transport: webSocketTransport((url) => new WebSocket(url, { perMessageDeflate: false }) as unknown as WebSocketLike),
    url: `ws://127.0.0.1:${port}/sync`,
    nowhere: 'ws://127.0.0.1:9/sync',
    arrived,
    end: async () => {
      for (const socket of server.clients) socket.terminate()
      server.close()
      await new Promise((resolve) => http.close(resolve))
    },
  }
}

transportContract('WebSocket', overWs)
