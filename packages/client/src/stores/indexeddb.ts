/**
 * The browser's store, by name (step 2 of the path). Its code comes with the client's: a page that has no network must find what it has stored.
 */
import type { IndexeddbOptions } from './indexeddb-store.ts'
import { openIndexeddb } from './indexeddb-store.ts'
import type { StoreFactory } from './store.ts'

export type { IndexeddbOptions } from './indexeddb-store.ts'

/** The browser's store, on IndexedDB. Opening it rejects with SyncError `store_failed` where there is none, as in some private windows. */
export function indexeddb(options: IndexeddbOptions = {}): StoreFactory {
  return { name: 'indexeddb', open: () => openIndexeddb(options) }
}
