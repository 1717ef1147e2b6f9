/**
 * `@rejoin/client` in browsers: the platform's WebSocket, IndexedDB by default. The code for the wire is loaded behind this.
 */
import { cryptoRandom, systemClock } from '@rejoin/shared'
import type { Client, ClientOptions } from './client.ts'
import { createClientOn } from './client.ts'
import { createLateNetwork } from './late-network.ts'
import { indexeddb } from './stores/indexeddb.ts'

/** A client. Throws `bad_option`. */
export function createClient(options: ClientOptions): Client {
  return createClientOn(options, {
    clock: systemClock,
    random: Math.random,
    randomBytes: cryptoRandom,
    network: (network) => createLateNetwork(network, async () => (await import('./browser-network.ts')).openBrowserNetwork),
    defaultStore: indexeddb,
  })
}

// Documents
export type { Client, ClientOptions } from './client.ts'
export type { Edit, Quarantine, QuarantinedEdit, Replica } from './handle.ts'
export type { Progress } from './replica-options.ts'
export type { Presence } from './presence.ts'

// What is true now
export type { ConnectionStatus, Status, StorageStatus } from './status.ts'
export type { Rung, WaitOptions } from './waits.ts'

// Stores
export { indexeddb } from './stores/indexeddb.ts'
export { memory } from './stores/memory.ts'
export type { StoreFactory } from './stores/store.ts'

// Errors
export { SyncError } from '@rejoin/shared'
export type { ErrorCode, Readable } from '@rejoin/shared'
