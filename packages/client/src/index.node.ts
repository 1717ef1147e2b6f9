/**
 * `@rejoin/client` in Node: WebSockets from the `ws` package; the store must be given. The same names as in browsers, so that code for both compiles.
 */
import { DEFAULT_LIMITS, cryptoRandom, residentClock } from '@rejoin/shared'
import { WebSocket } from 'ws'
import { assembleClient } from './assembly.ts'
import type { Client, ClientOptions } from './client.ts'
import type { WebSocketLike } from './transports/websocket.ts'
import { webSocketTransport } from './transports/websocket.ts'

/** A client. Throws `bad_option`. */
export function createClient(options: ClientOptions): Client {
  return assembleClient(options, {
    // Offline there is no socket that keeps the process: the wait for the next dial must.
    clock: residentClock,
    random: Math.random,
    randomBytes: cryptoRandom,
    // Compression is off, as the protocol says; a message above the largest of the protocol ends the socket.
    transport: webSocketTransport(
      (url) => new WebSocket(url, { perMessageDeflate: false, maxPayload: DEFAULT_LIMITS.message }) as unknown as WebSocketLike,
    ),
    wake: () => () => undefined,
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
