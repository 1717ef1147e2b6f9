/**
 * The three wire protocols of the contestants, each with just what a client must say to type and to be told.
 */
import { decodeFrames, encodeFrames, type Frame } from '@rejoin/shared/wire'
import type { IncarnationId } from '@rejoin/shared'
import * as decoding from 'lib0/decoding'
import * as encoding from 'lib0/encoding'
import { randomBytes } from 'node:crypto'
import { type LoadSocket, openSocket } from './socket.ts'

/** What a peer is told. */
export interface PeerEvents {
  /** An update of the document arrived, its own echo included. */
  update(update: Uint8Array): void
  /** One of its own updates was acknowledged. Protocols without acknowledgements never say so. */
  acked(through: number): void
  /** The whole state of the document has arrived, in so many bytes. */
  state(bytes: number): void
}

/** One client with one document open. */
export interface Peer {
  type(update: Uint8Array): void
  close(): void
}

/** Connects, opens the document and resolves when the server knows of it. */
export type Protocol = (url: string, document: string, events: PeerEvents) => Promise<Peer>

const NO_STATE_VECTOR = Uint8Array.of(0)
const NO_UPDATE = Uint8Array.of(0, 0)

/** Rejoin's own protocol: acknowledgements mean fsynced. */
export const rejoin: Protocol = async (url, document, events) => {
  const incarnation = randomBytes(16).toString('hex') as IncarnationId
  let handle = 0
  let n = 0
  let fragments = 0
  let socket: LoadSocket | undefined
  const opened = signal()
  const on = (frame: Frame): void => {
    if (frame.type === 'entries') for (const update of frame.updates) events.update(update)
    else if (frame.type === 'ack') events.acked(frame.n)
    else if (frame.type === 'ping') socket?.send(encodeFrames([{ type: 'pong', nonce: frame.nonce }]))
    else if (frame.type === 'welcome') socket?.send(encodeFrames([{ type: 'open', ref: 1, document }]))
    else if (frame.type === 'opened') {
      handle = frame.handle
      opened.resolve()
    } else if (frame.type === 'state') {
      fragments += frame.update.length
      if (fragments === frame.total) events.state(frame.total)
    } else if (frame.type === 'nack' || frame.type === 'refused' || frame.type === 'goaway') {
      throw new Error(`rejoin answered ${frame.type}: ${frame.code} ${frame.message}`)
    }
  }
  socket = await openSocket(
    `${url}/sync`,
    (message) => {
      const decoded = decodeFrames(message)
      if (decoded.type === 'bad') throw new Error(decoded.reason)
      for (const frame of decoded.frames) on(frame)
    },
    () => {},
  )
  socket.send(encodeFrames([{ type: 'hello', revisionMin: 1, revisionMax: 1, agent: 'bench', token: '' }]))
  await opened.promise
  const open = socket
  return {
    type: (update) => {
      n++
      open.send(encodeFrames([{ type: 'push', handle, incarnation, lo: n, hi: n, kind: 'edit', covers: [], total: update.length, offset: 0, update }]))
    },
    close: () => {
      open.close()
    },
  }
}

/** y-websocket: no acknowledgements; echoes. */
export const yWebsocket: Protocol = async (url, document, events) => peerOfY(`${url}/${document}`, new Uint8Array(0), [], events)

/** Hocuspocus: every frame carries the document's name; each update is answered by a sync status. */
export const hocuspocus: Protocol = async (url, document, events) => {
  const name = bytesOf((encoder) => {
    encoding.writeVarString(encoder, document)
  })
  const auth = bytesOf((encoder) => {
    encoding.writeUint8Array(encoder, name)
    encoding.writeVarUint(encoder, 2)
    encoding.writeVarUint(encoder, 0)
    encoding.writeVarString(encoder, 'token')
    encoding.writeVarString(encoder, '4.7.0')
  })
  return peerOfY(url, name, [auth], events)
}

const SYNC = 0
const SYNC_STATUS = 8
const STEP_1 = 0
const STEP_2 = 1
const UPDATE = 2

/** y-protocols' sync, behind a prefix. */
async function peerOfY(url: string, prefix: Uint8Array, before: readonly Uint8Array[], events: PeerEvents): Promise<Peer> {
  // The first status answers our answer to the server's step 1, not something typed.
  let acked = -1
  let socket: LoadSocket | undefined
  const synced = signal()
  const frame = (step: number, body: Uint8Array): Uint8Array =>
    bytesOf((encoder) => {
      encoding.writeUint8Array(encoder, prefix)
      encoding.writeVarUint(encoder, SYNC)
      encoding.writeVarUint(encoder, step)
      encoding.writeVarUint8Array(encoder, body)
    })
  const receive = (message: Uint8Array): void => {
    const decoder = decoding.createDecoder(message)
    if (prefix.length > 0) decoding.readVarString(decoder)
    const type = decoding.readVarUint(decoder)
    if (type === SYNC_STATUS) events.acked(++acked)
    if (type !== SYNC) return
    const step = decoding.readVarUint(decoder)
    const body = decoding.readVarUint8Array(decoder)
    if (step === STEP_1) socket?.send(frame(STEP_2, NO_UPDATE))
    else if (step === STEP_2) {
      synced.resolve()
      events.state(body.length)
    } else events.update(body)
  }
  socket = await openSocket(url, receive, () => {})
  const open = socket
  for (const message of before) open.send(message)
  open.send(frame(STEP_1, NO_STATE_VECTOR))
  // A bare relay answers nothing: it is there as soon as the socket is.
  if (prefix.length > 0 || !url.includes(BARE_MARK)) await synced.promise
  return {
    type: (update) => {
      open.send(frame(UPDATE, update))
    },
    close: () => {
      open.close()
    },
  }
}

/** Documents of the bare relay carry this mark in their name. */
export const BARE_MARK = 'bare-'

function bytesOf(write: (encoder: encoding.Encoder) => void): Uint8Array {
  const encoder = encoding.createEncoder()
  write(encoder)
  return encoding.toUint8Array(encoder)
}

/** A promise and its resolution. */
function signal(): { promise: Promise<void>; resolve: () => void } {
  let resolve: () => void = () => {}
  const promise = new Promise<void>((done) => {
    resolve = done
  })
  return { promise, resolve }
}

/** Every protocol by its name on the command line of the swarm. */
export const PROTOCOLS: Readonly<Record<string, Protocol>> = { rejoin, yWebsocket, hocuspocus }
