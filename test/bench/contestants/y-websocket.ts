/** @y/websocket-server as published: it keeps documents in memory only. */
import http from 'node:http'
import { WebSocketServer } from 'ws'
// @ts-expect-error -- the package has no types for this entry
import { setupWSConnection } from '@y/websocket-server/utils'

const [port = '0'] = process.argv.slice(2)
const sockets = new WebSocketServer({ noServer: true })
sockets.on('connection', setupWSConnection as (...args: unknown[]) => void)
const server = http.createServer()
server.on('upgrade', (request, socket, head) => {
  sockets.handleUpgrade(request, socket, head, (peer) => sockets.emit('connection', peer, request))
})
server.listen(Number(port), '127.0.0.1', 4096, () => process.stdout.write('listening\n'))
