/** A relay that keeps nothing and looks at nothing: what `ws` alone can do with the same traffic. */
import { type WebSocket, WebSocketServer } from 'ws'

const [port = '0'] = process.argv.slice(2)
const rooms = new Map<string, Set<WebSocket>>()
const server = new WebSocketServer({ host: '127.0.0.1', port: Number(port), backlog: 4096 })
server.on('listening', () => process.stdout.write('listening\n'))
server.on('connection', (socket, request) => {
  const name = request.url ?? ''
  const room = rooms.get(name) ?? new Set()
  rooms.set(name, room.add(socket))
  socket.on('error', () => socket.terminate())
  socket.on('close', () => room.delete(socket))
  socket.on('message', (message, binary) => {
    for (const peer of room) if (peer !== socket) peer.send(message, { binary })
  })
})
