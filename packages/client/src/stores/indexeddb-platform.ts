/**
 * What the browser's store needs of the browser, as arguments: databases, locks, channels, and whether it keeps what is stored.
 */
import type { Clock, RandomBytes } from '@rejoin/shared'
import { SyncError, cryptoRandom, systemClock } from '@rejoin/shared'
import type { Durability } from './store.ts'

/** The subset of Web Locks that the store needs. */
export interface Locks {
  request(
    name: string,
    options: { readonly signal?: AbortSignal; readonly ifAvailable?: boolean },
    granted: (lock: unknown) => Promise<unknown>,
  ): Promise<unknown>
}

/** What the store needs of a browser. */
export interface IndexeddbPlatform {
  readonly indexedDB: IDBFactory
  readonly locks: Locks
  readonly createChannel: (name: string) => BroadcastChannel
  readonly storage: Pick<StorageManager, 'persist' | 'persisted'> | undefined
  readonly clock: Clock
  readonly randomBytes: RandomBytes
}

/** How long to wait, in ms, for an answer about persistence: it may hang on a prompt. */
const PATIENCE = 300

/** The browser's own, where nothing else is given. Throws SyncError `store_failed` that names what is missing. */
export function browserPlatform(given: Partial<IndexeddbPlatform> = {}): IndexeddbPlatform {
  // Not every environment has what the DOM's types promise.
  const { indexedDB, navigator, BroadcastChannel } = globalThis as Partial<typeof globalThis>
  return {
    indexedDB: given.indexedDB ?? present(indexedDB, 'IndexedDB'),
    locks:
      given.locks ??
      present((navigator as Partial<Navigator> | undefined)?.locks, 'Web Locks (only pages from https or localhost have them)'),
    createChannel: given.createChannel ?? ((name) => new (present(BroadcastChannel, 'BroadcastChannel'))(name)),
    storage: given.storage ?? (navigator as Partial<Navigator> | undefined)?.storage,
    clock: given.clock ?? systemClock,
    randomBytes: given.randomBytes ?? cryptoRandom,
  }
}

/** Whether the browser promises to keep what is stored, after asking for it if `persist` says so. Never waits long, never rejects. */
export async function askDurability({ storage, clock }: IndexeddbPlatform, persist: boolean): Promise<Durability> {
  if (typeof storage?.persisted !== 'function') return 'ephemeral'
  const asked = (async () => (await storage.persisted()) || (persist && (await storage.persist())))()
  let stop: (() => void) | undefined
  const late = new Promise<boolean>((resolve) => {
    stop = clock.after(PATIENCE, () => resolve(false))
  })
  // A browser that refuses to answer promises nothing.
  const kept = await Promise.race([asked.catch(() => false), late])
  stop?.()
  return kept ? 'durable' : 'ephemeral'
}

function present<T>(value: T | undefined, what: string): T {
  if (value === undefined || value === null) throw new SyncError('store_failed', `this browser gives no ${what}`)
  return value
}
