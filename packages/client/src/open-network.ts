/**
 * The network itself (step 3 of the path): a connection, and an exchange for every document.
 */
import type { ConnectionOptions } from './connection.ts'
import { Connection } from './connection.ts'
import { Exchange } from './exchange.ts'
import type { Network, NetworkOptions } from './network.ts'
import { syncUrl } from './sync-url.ts'

/** The network over a transport. It dials from `start` on. */
export function openNetwork(options: NetworkOptions & Pick<ConnectionOptions, 'transport' | 'wake'>): Network {
  const connection = new Connection({ ...options, url: syncUrl(options.url) })
  return {
    status: connection.status,
    start: () => connection.start(),
    close: () => connection.close(),
    join: (host) => new Exchange(host, { ...options, connection }),
  }
}
