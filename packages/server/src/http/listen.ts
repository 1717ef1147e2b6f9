/**
 * Listens for plain HTTP and upgrades, within limits of time and number.
 */
import type { IncomingMessage } from 'node:http'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Duplex } from 'node:stream'
import { getRequestListener } from '@hono/node-server'
import type { Hono } from 'hono'
import { SyncError, toSyncError } from '@rejoin/shared'

/** Where, and for what. */
export interface ListenOptions {
  readonly host: string
  readonly port: number
  readonly maxConnections: number
  readonly app: Hono
  /** Takes every upgrade. @default none is taken: the socket is closed */
  readonly upgrade?: ((request: IncomingMessage, socket: Duplex, head: Buffer) => void) | undefined
}

/** It listens. */
export interface Listening {
  readonly url: string
  readonly port: number
  /** Takes no more connections, lets `finish` end what is under way, and closes the rest. */
  close(finish: () => Promise<void>): Promise<void>
}

/** Connections that may wait to be accepted: all clients come back at once after a restart. */
const BACKLOG = 4096
/** How long a request may take to arrive: its headers, all of it. In ms. */
const HEADERS_MS = 10_000
const REQUEST_MS = 30_000

/** Rejects with `SyncError('bad_option')` when the address cannot be had; its cause has the code `EADDRINUSE` when somebody else has it. */
export async function listen({ host, port, maxConnections, app, upgrade }: ListenOptions): Promise<Listening> {
  const answer = getRequestListener(app.fetch)
  const http = createServer(
    { headersTimeout: HEADERS_MS, requestTimeout: REQUEST_MS, connectionsCheckingInterval: 5000 },
    (request, response) => void answer(request, response),
  )
  http.maxConnections = maxConnections
  if (upgrade !== undefined) http.on('upgrade', upgrade)
  try {
    await new Promise<void>((resolve, reject) => {
      http.once('error', reject)
      http.listen({ host, port, backlog: BACKLOG }, () => {
        http.off('error', reject)
        resolve()
      })
    })
  } catch (cause) {
    const isTaken = cause instanceof Error && 'code' in cause && cause.code === 'EADDRINUSE'
    const reason = isTaken
      ? `port ${port} of ${host} is taken: stop what listens there, or give another port (0 for a free one)`
      : `cannot listen on ${host}:${port}: ${toSyncError(cause).reason}`
    throw new SyncError('bad_option', reason, { cause })
  }
  const address = http.address() as AddressInfo
  return {
    url: `http://${host.includes(':') ? `[${host}]` : host}:${address.port}`,
    port: address.port,
    close: async (finish) => {
      const closed = new Promise<void>((resolve) => http.close(() => resolve()))
      http.closeIdleConnections()
      await finish()
      http.closeAllConnections()
      await closed
    },
  }
}
