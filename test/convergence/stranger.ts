/**
 * A y-websocket client in the world: what its provider does with a socket, without the provider's timers. It has no store, and keeps what it has in memory.
 */
import type { Clock, DocumentId } from '@rejoin/shared'
import * as decoding from 'lib0/decoding'
import * as encoding from 'lib0/encoding'
import * as syncProtocol from 'y-protocols/sync'
import * as Y from 'yjs'
import type { TransportSocket } from '#client/transports/transport.js'
import type { Chance } from './chance.ts'
import { scribble } from './edits.ts'
import type { Access, Listening, Network } from './network.ts'

/** When it dials again, in ms. */
const RETRY_MS = 2000
/** It gives a socket up on which it hears nothing for this long, in ms: as y-websocket does. */
const SILENCE_MS = 30_000

export class Stranger {
  readonly name: string
  readonly document: DocumentId
  readonly doc = new Y.Doc()
  readonly access: Access
  readonly #clock: Clock
  readonly #chance: Chance
  #socket: TransportSocket | undefined
  #heard = 0
  #edits = 0

  constructor(
    name: string,
    document: DocumentId,
    ports: { readonly clock: Clock; readonly network: Network; readonly address: () => Listening | undefined; readonly chance: Chance },
  ) {
    this.name = name
    this.document = document
    this.#clock = ports.clock
    this.#chance = ports.chance
    this.doc.clientID = ports.chance.below(2 ** 32)
    this.access = ports.network.access(undefined, ports.address)
    this.doc.on('update', (update: Uint8Array, origin: unknown) => {
      if (origin === this) return
      this.#say((encoder) => syncProtocol.writeUpdate(encoder, update))
    })
    this.#dial()
  }

  /** The mark it leaves. */
  edit(): string {
    const mark = `${this.name}.0/${++this.#edits}`
    this.doc.transact(() => scribble(this.doc, mark, this.#chance))
    return mark
  }

  #dial(): void {
    const socket: TransportSocket = this.access.transport('', {
      opened: () => {
        this.#socket = socket
        this.#heard = this.#clock.now()
        this.#say((encoder) => syncProtocol.writeSyncStep1(encoder, this.doc))
        this.#listen(socket)
      },
      message: (bytes) => this.#message(bytes),
      closed: () => {
        this.#socket = undefined
        this.#clock.after(RETRY_MS, () => this.#dial())
      },
    })
  }

  #listen(socket: TransportSocket): void {
    this.#clock.after(SILENCE_MS / 10, () => {
      if (this.#socket !== socket) return
      if (this.#clock.now() - this.#heard > SILENCE_MS) socket.close(1000, 'silence')
      else this.#listen(socket)
    })
  }

  #message(bytes: Uint8Array): void {
    this.#heard = this.#clock.now()
    const decoder = decoding.createDecoder(bytes)
    if (decoding.readVarUint(decoder) !== 0) return
    const encoder = encoding.createEncoder()
    encoding.writeVarUint(encoder, 0)
    syncProtocol.readSyncMessage(decoder, encoder, this.doc, this)
    if (encoding.length(encoder) > 1) this.#socket?.send(encoding.toUint8Array(encoder))
  }

  #say(write: (encoder: encoding.Encoder) => void): void {
    if (this.#socket === undefined) return
    const encoder = encoding.createEncoder()
    encoding.writeVarUint(encoder, 0)
    write(encoder)
    this.#socket.send(encoding.toUint8Array(encoder))
  }
}
