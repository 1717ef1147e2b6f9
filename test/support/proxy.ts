/**
 * A TCP proxy in front of a server: it loses answers, and stands still in the middle of a message as a frozen process would.
 */
import type { Socket } from 'node:net'
import { connect, createServer } from 'node:net'

export interface Proxy {
  readonly port: number
  /** The next thing that a client says, and that has `marker` in it, arrives and is done; the answer is thrown away, and the connection with it. */
  loseReply(marker?: string): void
  /** The next thing that a client says does not arrive: the connection is cut before it. */
  loseRequest(): void
  /** Stands still when so many more bytes of clients have passed, counted from what has `marker` in it: nothing passes, nothing closes. */
  freezeAfter(bytes: number, marker?: string): void
  readonly frozen: boolean
  /** Everything that was held back passes. */
  thaw(): void
  close(): Promise<void>
}

/** Passes connections on to `target` on 127.0.0.1. */
export async function startProxy(target: number): Promise<Proxy> {
  const sockets = new Set<Socket>()
  let lose: 'nothing' | 'request' | 'reply' = 'nothing'
  let wanted = ''
  let left = Number.POSITIVE_INFINITY
  let from: string | undefined
  let held: (() => void)[] = []
  const frozen = (): boolean => from === undefined && left <= 0
  const pass = (write: () => void): void => {
    if (frozen()) held.push(write)
    else write()
  }
  const server = createServer((client) => {
    const upstream = connect(target, '127.0.0.1')
    let isLost = false
    const cut = (): void => {
      client.destroy()
      upstream.destroy()
    }
    for (const socket of [client, upstream]) {
      sockets.add(socket)
      socket.setNoDelay(true)
      socket.on('error', cut)
      socket.on('close', () => {
        sockets.delete(socket)
        pass(cut)
      })
    }
    client.on('data', (bytes) => {
      if (lose === 'request') {
        lose = 'nothing'
        cut()
        return
      }
      if (lose === 'reply' && bytes.includes(wanted)) {
        lose = 'nothing'
        isLost = true
      }
      pass(() => upstream.write(bytes))
      if (from !== undefined && bytes.includes(from)) from = undefined
      if (from === undefined) left -= bytes.length
    })
    upstream.on('data', (bytes) => {
      // It answers: what was asked is done.
      if (isLost) cut()
      else pass(() => client.write(bytes))
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  return {
    port: typeof address === 'object' && address !== null ? address.port : 0,
    loseReply: (marker = '') => {
      lose = 'reply'
      wanted = marker
    },
    loseRequest: () => void (lose = 'request'),
    freezeAfter: (bytes, marker) => {
      left = bytes
      from = marker
    },
    get frozen() {
      return frozen()
    },
    thaw: () => {
      left = Number.POSITIVE_INFINITY
      from = undefined
      const all = held
      held = []
      for (const write of all) write()
    },
    close: async () => {
      for (const socket of sockets) socket.destroy()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

/** The URL, by way of the proxy. */
export function throughProxy(url: string, { port }: Proxy): string {
  const changed = new URL(url)
  changed.port = String(port)
  return changed.href
}
