/**
 * A client that has everything at hand: in Node, and wherever the transport is an argument.
 */
import type { Client, ClientOptions, Platform } from './client.ts'
import { createClientOn } from './client.ts'
import type { ConnectionOptions } from './connection.ts'
import { openNetwork } from './open-network.ts'

/** A platform by its transport. `wake` tells when things may have changed: online, visible, resumed; it returns the unsubscribe. */
export type WiredPlatform = Omit<Platform, 'network'> & Pick<ConnectionOptions, 'transport' | 'wake'>

/** A client from its parts. Throws `bad_option`. */
export function assembleClient(options: ClientOptions, { transport, wake, ...platform }: WiredPlatform): Client {
  return createClientOn(options, { ...platform, network: (network) => openNetwork({ ...network, transport, wake }) })
}
