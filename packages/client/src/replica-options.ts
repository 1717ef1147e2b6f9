/**
 * What a replica is made from, and what it shows of a first sync (steps 1 to 3 of the path).
 */
import type { Clock, DocumentId, Random, RandomBytes } from '@rejoin/shared'
import type { Network } from './network.ts'
import type { Store } from './stores/store.ts'

export interface ReplicaOptions {
  readonly document: DocumentId
  readonly network: Network
  /** Rejects when the device's store cannot be opened. */
  readonly store: Promise<Store>
  readonly clock: Clock
  readonly random: Random
  readonly randomBytes: RandomBytes
  /** Status may have changed, or the outbox may be empty now. */
  readonly onChange: () => void
}

/** State fragments on their way, in bytes. */
export interface Progress {
  readonly received: number
  readonly total: number
}
