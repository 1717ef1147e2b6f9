/**
 * A device's way to the relay, which can be pulled out: a TCP proxy on a port of its own.
 */
import { once } from 'node:events'
import type { Socket } from 'node:net'
import { connect, createServer } from 'node:net'
import { freePort } from './ports.ts'

export interface Cable {
  /** The relay, as seen through the cable. */
  readonly url: string
  /** Everything that was connected breaks off, and nothing connects until `plug`. */
  unplug(): void
  plug(): void
  close(): void
}

/** A cable to the port of the relay. */
export async function layCable(relayPort: number): Promise<Cable> {
  const sockets = new Set<Socket>()
  let plugged = true
  const server = createServer((near) => {
    const far = connect(relayPort, '127.0.0.1')
    for (const [one, other] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(one)
      // A broken connection is what this is about; its end takes the other half along.
      one.on('error', () => undefined)
      one.on('close', () => {
        sockets.delete(one)
        other.destroy()
      })
      one.pipe(other)
    }
    if (!plugged) near.destroy()
  })
  const port = await freePort()
  await once(server.listen(port, '127.0.0.1'), 'listening')
  const cut = (): void => {
    for (const socket of sockets) socket.destroy()
  }
  return {
    url: `http://127.0.0.1:${port}`,
    unplug: () => {
      plugged = false
      cut()
    },
    plug: () => {
      plugged = true
    },
    close: () => {
      cut()
      server.close()
    },
  }
}
