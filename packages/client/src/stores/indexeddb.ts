/**
 * The browser's store, by name (step 2 of the path): its code is loaded when a client opens it, behind what a page needs to begin.
 */
import type { IndexeddbOptions } from './indexeddb-store.ts'
import type { StoreFactory } from './store.ts'

export type { IndexeddbOptions } from './indexeddb-store.ts'

/** The browser's store, on IndexedDB. Opening it rejects with SyncError `store_failed` where there is none, as in some private windows, and where its code does not load. */
export function indexeddb(options: IndexeddbOptions = {}): StoreFactory {
  return { name: 'indexeddb', open: async () => (await import('./indexeddb-store.ts')).openIndexeddb(options) }
}
