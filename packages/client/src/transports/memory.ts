/**
 * Messages between two ends in one process (step 3 of the path): for tests, and for the simulated world, which puts its network between them.
 */
import type { Transport, TransportListener, TransportSocket } from './transport.ts'

/** Whoever answers dials: the other end of the pair. Throwing refuses the dial. */
export type Accept = (url: string, socket: TransportSocket) => TransportListener

/** How something reaches the other end: at once but not re-entrantly, unless given. Must keep the order. */
export type Carry = (deliver: () => void) => void

/** A transport whose dials `accept` answers. */
export function memoryTransport(accept: Accept, carry: Carry = queueMicrotask): Transport {
  return (url, near) => {
    // Nothing is sent after the close; what was sent before it still arrives before it.
    let over = false
    let told = false
    let far: TransportListener | undefined
    const end = (code: number, reason: string): void => {
      if (over) return
      over = true
      carry(() => {
        told = true
        near.closed(code, reason)
        far?.closed(code, reason)
      })
    }
    const side = (other: () => TransportListener | undefined): TransportSocket => ({
      send: (bytes) => {
        if (over) return
        // The sender may reuse its buffer.
        const copy = bytes.slice()
        carry(() => {
          if (!told) other()?.message(copy)
        })
      },
      close: end,
    })
    const farSocket = side(() => near)
    carry(() => {
      if (over) return
      try {
        far = accept(url, farSocket)
      } catch (error) {
        end(1006, error instanceof Error ? error.message : String(error))
        return
      }
      far.opened()
      near.opened()
    })
    return side(() => far)
  }
}
