/**
 * `/y/<document>` for unmodified y-websocket clients (step 3 of the path). Whoever may not come in is told at the upgrade, over HTTP: clients up to 3.0 read
 * no close code and would dial again for ever.
 */
import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import type { DocumentId, ErrorCode } from '@rejoin/shared'
import { ERRORS, SyncError, parseDocumentId, toSyncError } from '@rejoin/shared'
import { WebSocket, WebSocketServer } from 'ws'
import type { RelayDocument } from '../relay/attach.ts'
import type { AuthRequest, Grant } from '../relay/grant.ts'
import { accessOf } from '../relay/grant.ts'
import type { YPeerPorts } from '../relay/y-peer.ts'
import { YPeer } from '../relay/y-peer.ts'
import { attachSocket, flatHeaders } from './socket.ts'

/** Takes upgrade requests below `/y/`. */
export interface YWebSockets {
  /** Answers the upgrade; the socket belongs to it from then on. */
  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void
  /** Sockets that are open. */
  readonly count: number
  /** Holds every open socket of `principal` to another grant; with null, ends them. */
  regrant(principal: string, grant: Grant | null): void
  /** Reads nothing more from anybody: what was pushed still becomes durable. */
  stopReading(): void
  /** Tells all to come back, and resolves when they are closed; what is still open after `ms` is ended without asking. */
  closed(ms: number): Promise<void>
}

/** What y-websocket sockets need. */
export interface YWebSocketPorts extends Omit<YPeerPorts, 'gone'> {
  /** Rejects with `SyncError` when the request is granted nothing. */
  readonly authorize: (request: AuthRequest) => Promise<Grant>
  readonly hold: (document: DocumentId) => Promise<RelayDocument>
  /** Sockets of other kinds, which count towards `limits.connections` too. */
  readonly others: () => number
  /** Answers an upgrade that cannot be. */
  readonly refuse: (socket: Duplex, code: ErrorCode, message: string) => void
  /** A listener threw: a fault of our own, at the cost of this socket only. */
  readonly fault: (error: unknown) => void
}

/** Where documents begin in an address. */
export const Y_PREFIX = '/y/'
/** Begins a subprotocol that carries a token, since pages cannot send headers. */
const TOKEN_PROTOCOL = 'token.'
/** Every so often a socket is asked whether it is still there, in ms: TCP alone takes a quarter of an hour to find out. */
const PING_MS = 30_000
/** What may be told to a peer that is refused; the rest is the operator's to read. */
const TOLD: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'unauthorized',
  'expired',
  'forbidden',
  'bad_document',
  'too_many',
  'overloaded',
  'draining',
  'storage_full',
])

/** The code with which `ws` ends a socket by itself at a message above `maxPayload`. */
const MESSAGE_TOO_BIG = 1009

/** At 1009 y-websocket dials again and sends the same message, for ever; at a code of the table it stops and says so. */
class YWebSocket extends WebSocket {
  override close(code?: number, reason?: string | Buffer): void {
    if (code === MESSAGE_TOO_BIG) super.close(ERRORS.frame_too_large.close, 'a message above limits.yMessage')
    else super.close(code, reason)
  }
}

/** y-websocket sockets in front of `ports.hold`. */
export function createYWebSockets(ports: YWebSocketPorts): YWebSockets {
  const { limits, clock, refuse } = ports
  const server = new WebSocketServer({
    noServer: true,
    maxPayload: limits.yMessage,
    WebSocket: YWebSocket,
    perMessageDeflate: false,
    clientTracking: true,
    skipUTF8Validation: true,
    handleProtocols,
  })
  const peers = new Set<YPeer>()
  const peerPorts: YPeerPorts = { ...ports, gone: (peer) => void peers.delete(peer) }
  const alive = new WeakSet<WebSocket>()
  let arriving = 0
  let stopped = false
  ping()

  async function arrive(request: IncomingMessage, socket: Duplex): Promise<Arrival> {
    if (stopped) throw new SyncError('draining', 'the relay is going down')
    if (peers.size + arriving + ports.others() > limits.connections)
      throw new SyncError('too_many', `at most ${limits.connections} connections`)
    const id = documentOf(request)
    const grant = await ports.authorize(tokenRequest(request))
    if (accessOf(grant, id) === 'none') throw new SyncError('forbidden', `${grant.principal} may not read this document`)
    if (socket.destroyed) throw new SyncError('aborted', 'the client is gone')
    return { document: await ports.hold(id), grant }
  }

  function open(request: IncomingMessage, socket: Duplex, head: Buffer, { document, grant }: Arrival): void {
    let opened = false
    // Calls back before it returns, or not at all when the handshake is none.
    server.handleUpgrade(request, socket, head, (ws) => {
      opened = true
      ws.on('error', () => undefined)
      alive.add(ws)
      ws.on('pong', () => alive.add(ws))
      ws.on('message', () => alive.add(ws))
      attachSocket(
        ws,
        socket,
        (relaySocket) => {
          const peer = new YPeer(peerPorts, relaySocket, document, grant)
          peers.add(peer)
          return peer
        },
        ports.fault,
      )
    })
    if (!opened) document.release()
  }

  function refused(socket: Duplex, error: SyncError): void {
    if (TOLD.has(error.code)) refuse(socket, error.code, error.reason)
    else {
      if (error.code !== 'aborted') ports.report('a y-websocket client could not be let in', { reason: error.reason })
      refuse(socket, 'internal', 'the relay could not let this client in')
    }
  }

  function ping(): void {
    clock.after(PING_MS, () => {
      for (const ws of server.clients) {
        // Whom we do not read cannot be heard.
        if (!alive.has(ws) && !ws.isPaused) ws.terminate()
        alive.delete(ws)
        ws.ping()
      }
      if (!stopped) ping()
    })
  }

  return {
    upgrade(request, socket, head) {
      arriving++
      arrive(request, socket)
        .then((arrival) => open(request, socket, head, arrival))
        .catch((error: unknown) => refused(socket, toSyncError(error)))
        .finally(() => arriving--)
    },
    get count() {
      return peers.size
    },
    regrant(principal, grant) {
      for (const peer of peers) if (peer.principal === principal) peer.regrant(grant)
    },
    stopReading() {
      stopped = true
      for (const peer of peers) peer.stopReading()
    },
    async closed(ms) {
      stopped = true
      const left = [...server.clients].map((ws) => new Promise<void>((resolve) => ws.once('close', () => resolve())))
      for (const peer of peers) peer.close('draining', 'the relay is going down')
      const cancel = clock.after(ms, () => {
        for (const ws of server.clients) ws.terminate()
      })
      await Promise.all(left)
      cancel()
    },
  }
}

interface Arrival {
  readonly document: RelayDocument
  readonly grant: Grant
}

/** The rest of the path, decoded; y-websocket itself encodes nothing. */
function documentOf({ url = '' }: IncomingMessage): DocumentId {
  const end = url.indexOf('?')
  const raw = url.slice(Y_PREFIX.length, end < 0 ? undefined : end)
  let id: string
  try {
    id = decodeURIComponent(raw)
  } catch (cause) {
    throw new SyncError('bad_document', 'a document id in an address is percent-encoded UTF-8', { cause })
  }
  return parseDocumentId(id)
}

/** The token stands in the query or in a subprotocol, and from here on nowhere else. */
function tokenRequest(request: IncomingMessage): AuthRequest {
  const [path, query] = split(request.url ?? '/')
  const parameters = new URLSearchParams(query)
  const offered = (request.headers['sec-websocket-protocol'] ?? '').split(',').map((each) => each.trim())
  const protocol = offered.find((each) => each.startsWith(TOKEN_PROTOCOL))?.slice(TOKEN_PROTOCOL.length)
  const token = parameters.get('token') ?? protocol ?? ''
  parameters.delete('token')
  const rest = parameters.toString()
  const headers = {
    ...flatHeaders(request),
    'sec-websocket-protocol': offered.filter((each) => !each.startsWith(TOKEN_PROTOCOL)).join(', '),
  }
  return { token, url: rest === '' ? path : `${path}?${rest}`, headers }
}

function split(url: string): readonly [path: string, query: string] {
  const end = url.indexOf('?')
  return end < 0 ? [url, ''] : [url.slice(0, end), url.slice(end + 1)]
}

/** A browser gives up a socket on which none of its subprotocols is chosen; the token goes back only when it was the only one. */
function handleProtocols(offered: ReadonlySet<string>): string | false {
  const all = [...offered]
  return all.find((each) => !each.startsWith(TOKEN_PROTOCOL)) ?? all[0] ?? false
}
