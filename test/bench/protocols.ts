/**
 * The three wire protocols of the contestants, each with just what a client must say to type and to be told.
 */
import { decodeFrames, encodeFrames, type Frame } from '@rejoin/shared/wire'
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

/** Rejoin's own protocol: acknowledgements mean fsynced. Frames of one turn share a message, as those of its client do. */
export const rejoin: Protocol = async (url, document, events) => {
  const incarnation = randomBytes(16)
  let n = 0
  let fragments = 0
  let pushHead: Uint8Array = incarnation
  const opened = signal()
  const on = (frame: Frame, socket: LoadSocket): void => {
    if (frame.type === 'ping') socket.send(encodeFrames([{ type: 'pong', nonce: frame.nonce }]))
    else if (frame.type === 'welcome') socket.send(encodeFrames([{ type: 'open', ref: 1, document }]))
    else if (frame.type === 'opened') {
      pushHead = bytesOf((encoder) => {
        encoding.writeVarUint(encoder, frame.handle)
        encoding.writeUint8Array(encoder, incarnation)
      })
      opened.resolve()
    } else if (frame.type === 'state') {
      fragments += frame.update.length
      if (fragments === frame.total) events.state(frame.total)
    } else if (frame.type === 'nack' || frame.type === 'refused' || frame.type === 'goaway') {
      throw new Error(`rejoin answered ${frame.type}: ${frame.code} ${frame.message}`)
    }
  }
  const open = await openSocket(`${url}/sync`, {
    joined: true,
    receive: (message, socket) => {
      readRejoin(message, events, (frame) => {
        on(frame, socket)
      })
    },
  })
  open.send(encodeFrames([{ type: 'hello', revisionMin: 1, revisionMax: 1, agent: 'bench', token: '' }]))
  await opened.promise
  return {
    type: (update) => {
      n++
      for (let from = 0; from === 0 || from < update.length; from += PART_BYTES) {
        for (const part of pushFrame(pushHead, n, update.length, from, update.subarray(from, from + PART_BYTES))) open.send(part)
      }
    },
    close: () => {
      open.close()
    },
  }
}

/** What a client sends in one frame of an update that is larger, in bytes. */
const PART_BYTES = 256 * 1024
const PUSH = 5
const ENTRIES = 36
const ACK = 37
const ID_BYTES = 16

/** The two frames that a typist is sent are read by hand: objects for them would cost the load generator more than they cost the relay. */
function readRejoin(message: Buffer, events: PeerEvents, other: (frame: Frame) => void): void {
  for (let at = 0; at < message.length;) {
    const from = at
    const type = varUintAt(message, at)
    const length = varUintAt(message, behind(message, at))
    let body = behind(message, behind(message, at))
    at = body + length
    if (type === ENTRIES) {
      const count = behind(message, behind(message, body))
      body = behind(message, count) + ID_BYTES
      for (let left = varUintAt(message, count); left > 0; left--) {
        const start = behind(message, body)
        const end = start + varUintAt(message, body)
        events.update(message.subarray(start, end))
        body = end
      }
    } else if (type === ACK) {
      events.acked(varUintAt(message, behind(message, body) + ID_BYTES))
    } else {
      const decoded = decodeFrames(message.subarray(from, at))
      if (decoded.type === 'bad') throw new Error(decoded.reason)
      for (const frame of decoded.frames) other(frame)
    }
  }
}

function varUintAt(bytes: Uint8Array, at: number): number {
  let value = 0
  let unit = 1
  for (let i = at; ; i++) {
    const byte = bytes[i] ?? 0
    value += (byte & 127) * unit
    if (byte < 128) return value
    unit *= 128
  }
}

/** The place behind the number at `at`. */
function behind(bytes: Uint8Array, at: number): number {
  let end = at
  while ((bytes[end] ?? 0) >= 128) end++
  return end + 1
}

/** A push of edit `n` alone, as parts of a message. */
function pushFrame(head: Uint8Array, n: number, total: number, offset: number, part: Uint8Array): readonly Uint8Array[] {
  const numbers: number[] = []
  // lo, hi, kind (edit), covers (none), total, offset, length
  for (const value of [n, n, 0, 0, total, offset, part.length]) pushVarUint(numbers, value)
  const frame = [PUSH]
  pushVarUint(frame, head.length + numbers.length + part.length)
  return [Uint8Array.from([...frame, ...head, ...numbers]), part]
}

function pushVarUint(to: number[], value: number): void {
  let rest = value
  for (; rest >= 128; rest = Math.floor(rest / 128)) to.push((rest % 128) | 128)
  to.push(rest)
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
  const synced = signal()
  const frame = (step: number, body: Uint8Array): Uint8Array =>
    bytesOf((encoder) => {
      encoding.writeUint8Array(encoder, prefix)
      encoding.writeVarUint(encoder, SYNC)
      encoding.writeVarUint(encoder, step)
      encoding.writeVarUint8Array(encoder, body)
    })
  const receive = (message: Uint8Array, socket: LoadSocket): void => {
    const decoder = decoding.createDecoder(message)
    if (prefix.length > 0) decoding.readVarUint8Array(decoder)
    const type = decoding.readVarUint(decoder)
    if (type === SYNC_STATUS) events.acked(++acked)
    if (type !== SYNC) return
    const step = decoding.readVarUint(decoder)
    const body = decoding.readVarUint8Array(decoder)
    if (step === STEP_1) socket.send(frame(STEP_2, NO_UPDATE))
    else if (step === STEP_2) {
      synced.resolve()
      events.state(body.length)
    } else events.update(body)
  }
  const open = await openSocket(url, { receive, joined: false })
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
export const PROTOCOLS = { rejoin, yWebsocket, hocuspocus, bare: yWebsocket } satisfies Readonly<Record<string, Protocol>>
