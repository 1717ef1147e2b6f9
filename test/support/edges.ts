/**
 * What tests of limits need: messages and edits of an exact size, and a socket that says whether it still lives.
 */
import { expect } from 'vitest'
import * as Y from 'yjs'
import type { ClientFrame } from '@rejoin/shared/wire'
import { encodeFrames } from '@rejoin/shared/wire'
import type { WireClient } from './wire-client.ts'

export const PING: ClientFrame = { type: 'ping', nonce: 7 }

/** The frame as a message of exactly `bytes` bytes: what stands behind the fields of a body is ignored. */
export function padded(frame: ClientFrame, bytes: number): Uint8Array {
  const short = encodeFrames([frame])
  const [type = 0, length = 0] = short
  if (length > 127) throw new Error('a longer length than this can read')
  for (let digits = 1; digits < 5; digits++) {
    const body = new Uint8Array(bytes - 1 - digits)
    body.set(short.subarray(2))
    const head = [type]
    for (let rest = body.length; head.length === 1 || rest > 0; rest >>>= 7) head.push((rest & 127) | (rest > 127 ? 128 : 0))
    if (head.length === 1 + digits) return Uint8Array.from([...head, ...body])
  }
  throw new Error('no length fits')
}

/** Opens a document; its handle. */
export async function open(wire: WireClient, document: string): Promise<number> {
  wire.send({ type: 'open', ref: 1, document })
  return (await wire.next('opened')).handle
}

/** The socket is open, and is answered. */
export async function expectAlive(wire: WireClient): Promise<void> {
  wire.send(PING)
  expect(await wire.next('pong')).toMatchObject({ nonce: 7 })
}

/** The update of one change made to `doc`. */
export function updateOf(doc: Y.Doc, change: (doc: Y.Doc) => void): Uint8Array {
  const before = Y.encodeStateVector(doc)
  doc.transact(() => change(doc))
  return Y.encodeStateAsUpdate(doc, before)
}

/** A text at the end of `t`, of as many characters as make the update this long. */
export function textOf(bytes: number): (doc: Y.Doc) => void {
  const insert = (length: number) => (doc: Y.Doc) => doc.getText('t').insert(doc.getText('t').length, 'x'.repeat(length))
  return (doc) => {
    // The same to the byte: client ids are not all equally long.
    const probe = new Y.Doc()
    Y.applyUpdate(probe, Y.encodeStateAsUpdate(doc))
    probe.clientID = doc.clientID
    insert(bytes - (updateOf(probe, insert(bytes)).length - bytes))(doc)
  }
}
