/**
 * `@rejoin/client` in browsers: the platform's WebSocket, IndexedDB by default.
 */
import { cryptoRandom, systemClock } from '@rejoin/shared'
import type { Client, ClientOptions } from './client.ts'
import { assembleClient } from './client.ts'
import { indexeddb } from './stores/indexeddb.ts'
import type { Transport } from './transports/transport.ts'
import type { WebSocketLike } from './transports/websocket.ts'
import { webSocketTransport } from './transports/websocket.ts'

/** A client. Throws `bad_option`. */
export function createClient(options: ClientOptions): Client {
  return assembleClient(options, {
    clock: systemClock,
    random: Math.random,
    randomBytes: cryptoRandom,
    transport: whileOnline(webSocketTransport((url) => new WebSocket(url) as unknown as WebSocketLike)),
    wake,
    defaultStore: indexeddb,
  })
}

/**
 * Ends the socket when the browser says that the network is gone: by itself it would be found dead only after two heartbeats, and until then
 * the status would claim a connection. Where the browser is wrong (a relay on this very machine), dialling again costs one round trip.
 */
function whileOnline(transport: Transport): Transport {
  return (url, listener) => {
    const hangUp = (): void => socket.close(1000, 'the browser says that it is offline')
    const socket = transport(url, {
      opened: () => listener.opened(),
      message: (bytes) => listener.message(bytes),
      closed: (code, reason) => {
        window.removeEventListener('offline', hangUp)
        listener.closed(code, reason)
      },
    })
    window.addEventListener('offline', hangUp)
    return socket
  }
}

/** The network came back, the tab is seen again, the page left the back/forward cache, the browser thawed it. Each is only a hint: the client looks for itself. */
function wake(listener: () => void): () => void {
  const visible = (): void => {
    if (document.visibilityState === 'visible') listener()
  }
  const hints: readonly (readonly [EventTarget, string, () => void])[] = [
    [window, 'online', listener],
    [window, 'pageshow', listener],
    [document, 'visibilitychange', visible],
    [document, 'resume', listener],
  ]
  for (const [target, name, call] of hints) target.addEventListener(name, call)
  return () => {
    for (const [target, name, call] of hints) target.removeEventListener(name, call)
  }
}

// Documents
export type { Client, ClientOptions } from './client.ts'
export type { Edit, Quarantine, QuarantinedEdit, Replica } from './handle.ts'
export type { Progress } from './replica.ts'
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
