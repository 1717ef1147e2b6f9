/**
 * The network of browsers (step 3 of the path): the platform's WebSocket, and its hints that things may have changed. Loaded behind what a page needs to show its documents.
 */
import type { Network, NetworkOptions } from './network.ts'
import { openNetwork } from './open-network.ts'
import type { Transport } from './transports/transport.ts'
import type { WebSocketLike } from './transports/websocket.ts'
import { webSocketTransport } from './transports/websocket.ts'

/** The network over WebSockets. */
export function openBrowserNetwork(options: NetworkOptions): Network {
  const transport = whileOnline(webSocketTransport((url) => new WebSocket(url) as unknown as WebSocketLike))
  return openNetwork({ ...options, transport, wake })
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
