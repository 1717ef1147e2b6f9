/**
 * Clients on a virtual clock against a scripted relay, for unit tests of the client.
 */
import { cryptoRandom } from '@rejoin/shared'
import type { Client, ClientOptions } from '#client/client.js'
import { assembleClient } from '#client/assembly.js'
import type { Edit, Replica } from '#client/handle.js'
import { createMemoryDisk } from '#client/stores/memory.js'
import type { TransportSocket } from '#client/transports/transport.js'
import { ScriptedRelay } from './scripted-relay.ts'
import type { VirtualClock } from './virtual-clock.ts'
import { createVirtualClock } from './virtual-clock.ts'

/** Every client here draws 0.5: the first redial comes after this many ms. */
export const REDIAL = 250

const NOWHERE: TransportSocket = { send: () => undefined, close: () => undefined }

/** A relay, a clock, and the clients of one test. */
export class World {
  readonly relay = new ScriptedRelay()
  readonly clock: VirtualClock = createVirtualClock()
  readonly #clients: Client[] = []
  readonly #dead = new Set<Client>()
  #wake: (() => void)[] = []

  /** A client on a store of its own unless `options.store` is given. */
  connect(options: Partial<ClientOptions> = {}): Client {
    const client: Client = assembleClient(
      { url: 'http://relay.test', store: createMemoryDisk().tab(), ...options },
      {
        clock: this.clock,
        random: () => 0.5,
        randomBytes: cryptoRandom,
        transport: (url, listener) => (this.#dead.has(client) ? NOWHERE : this.relay.transport(url, listener)),
        wake: (listener) => {
          this.#wake.push(listener)
          return () => void (this.#wake = this.#wake.filter((other) => other !== listener))
        },
      },
    )
    this.#clients.push(client)
    return client
  }

  /** The platform says that things may have changed. */
  wake(): void {
    for (const listener of this.#wake) listener()
  }

  /** Lets everything happen that can happen without time. */
  settle(): Promise<void> {
    return this.clock.advance(0)
  }

  async opened(client: Client, id = 'doc'): Promise<Replica> {
    const replica = client.open(id)
    await replica.whenLoaded()
    await this.settle()
    return replica
  }

  /** Its tab has crashed while it was offline: nothing of it ever settles, nor dials. */
  forget(client: Client): void {
    this.#clients.splice(this.#clients.indexOf(client), 1)
    this.#dead.add(client)
  }

  async end(): Promise<void> {
    await Promise.all(this.#clients.splice(0).map((client) => client.close()))
  }
}

/** Appends to the text `t`, as one edit. */
export function type(replica: Replica, text: string): Edit<void> {
  const shared = replica.ydoc.getText('t')
  return replica.edit(() => shared.insert(shared.length, text))
}

export function textOf(doc: Replica['ydoc']): string {
  return doc.getText('t').toString()
}
