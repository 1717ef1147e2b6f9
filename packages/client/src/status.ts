/**
 * What an application is told of itself: connection, storage, pending edits. Never more than is true (steps 1 to 5 of the path).
 */
import type { Durability } from './stores/store.ts'

/** `offline` and `needs-auth` dial again by themselves at `retryAt`, ms since 1970. */
export interface ConnectionStatus {
  readonly name: 'connecting' | 'connected' | 'offline' | 'needs-auth' | 'closed'
  readonly reason?: string
  readonly retryAt?: number
}

/** `durable` survives the loss of power, `ephemeral` may be evicted by the platform, `memory` ends with the process; `failed`: the store that was asked for cannot be used, everything is in memory. */
export interface StorageStatus {
  readonly name: Durability | 'failed'
  readonly reason?: string
}

/** Of one replica, or of the whole client. */
export interface Status {
  readonly connection: ConnectionStatus
  readonly storage: StorageStatus
  readonly pending: {
    /** Edits that are not yet in this device's store. */
    readonly local: number
    /** Edits that the relay has not acknowledged; of the client: of every document on this device, open or not. */
    readonly relay: number
  }
  /** Edits wait for a grant. */
  readonly held: boolean
  /** Edits that the relay refused for good: kept, and shown by `quarantine.list()`. */
  readonly quarantined: number
}

/** Nothing is pending. */
export function quietStatus(connection: ConnectionStatus, storage: StorageStatus): Status {
  return { connection, storage, pending: { local: 0, relay: 0 }, held: false, quarantined: 0 }
}

/** Whether two snapshots say the same, so that the older one can stay. */
export function sameStatus(a: Status, b: Status): boolean {
  return (
    a.connection === b.connection &&
    a.storage.name === b.storage.name &&
    a.storage.reason === b.storage.reason &&
    a.pending.local === b.pending.local &&
    a.pending.relay === b.pending.relay &&
    a.held === b.held &&
    a.quarantined === b.quarantined
  )
}
