/**
 * Ports that are still free when a server that was down comes back: below those that the system hands to outgoing connections.
 */
import { randomInt } from 'node:crypto'
import { createServer } from 'node:net'

/** A free port on 127.0.0.1. */
export async function freePort(): Promise<number> {
  for (let attempt = 0; attempt < 50; attempt++) {
    const port = randomInt(20_000, 32_768)
    if (await isFree(port)) return port
  }
  throw new Error('no free port between 20000 and 32767 in 50 attempts')
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createServer()
    probe.once('error', () => resolve(false))
    probe.listen(port, '127.0.0.1', () => probe.close(() => resolve(true)))
  })
}
