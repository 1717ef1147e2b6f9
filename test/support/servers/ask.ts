/**
 * The smallest question to a server: some bytes over TCP, and the first bytes that come back.
 */
import { connect } from 'node:net'

/** Connects to 127.0.0.1, writes `question` and resolves with the first bytes of the answer. Rejects when the connection fails, ends, or brings none for `limit` ms. */
export function ask(port: number, question: string | Uint8Array, limit = 2000): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: '127.0.0.1', port })
    socket.setTimeout(limit, () => socket.destroy(new Error(`no answer from port ${port} within ${limit} ms`)))
    socket.once('connect', () => socket.write(question))
    socket.once('data', (answer) => {
      resolve(answer)
      socket.destroy()
    })
    socket.once('error', reject)
    socket.once('close', () => reject(new Error(`port ${port} closed the connection without an answer`)))
  })
}
