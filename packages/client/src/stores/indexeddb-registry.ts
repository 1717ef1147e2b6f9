/**
 * The list of databases that may hold outbox rows, for the browser's store: so that what waits in closed documents is counted, and sent. It may name one too many, never one too few.
 */
import type { DocumentId } from '@rejoin/shared'
import type { Connection } from './indexeddb-connection.ts'
import { connect, result } from './indexeddb-connection.ts'
import type { Locks } from './indexeddb-platform.ts'
import { storeFailed } from './store.ts'

/** A database on the list. */
export interface Listed {
  readonly database: string
  readonly document: DocumentId
  readonly prefix: string
}

/**
 * The list. Each tab has entries of its own, under its token: it lists a database before its first outbox row there commits, and unlists it when, with nothing of its own under way, no row is left.
 * So a row's database is always listed, by the tab that wrote it. Entries of tabs that are gone are swept by whoever finds no row there.
 */
export interface Registry {
  list(entry: Listed): Promise<void>
  unlist(database: string): Promise<void>
  all(): Promise<readonly Listed[]>
  /** Removes the entries that tabs which are gone left for `database`, unless `isEmpty` finds rows. */
  sweep(database: string, isEmpty: () => Promise<boolean>): Promise<void>
  close(): void
}

/** The registry's database. A document of this name, without a prefix, cannot be stored. */
export const REGISTRY = 'rejoin:registry'
const STORE = 'documents'

/** Opens the list, and holds `token`'s lock until it is closed: the sign that this tab lives. Rejects with SyncError `store_failed`. */
export async function openRegistry(indexedDB: IDBFactory, locks: Locks, token: string): Promise<Registry> {
  const connection = await connect({ indexedDB, name: REGISTRY, stores: [STORE], create: (db) => db.createObjectStore(STORE) })
  if (connection === undefined) throw storeFailed(REGISTRY, new Error('it was not made'))
  const end = await liveAs(lockOf(token), locks)

  return {
    list: (entry) =>
      connection.transact('readwrite', async (store) => void (await result(store(STORE).put(entry, [entry.database, token])))),
    unlist: (database) => connection.transact('readwrite', (store) => result(store(STORE).delete([database, token]))),
    all: async () => {
      const entries = await connection.transact('readonly', (store) => result<Listed[]>(store(STORE).getAll()))
      return [...new Map(entries.map((entry) => [entry.database, entry])).values()]
    },
    sweep: (database, isEmpty) => sweep(connection, locks, token, database, isEmpty),
    close: () => {
      end()
      connection.close()
    },
  }
}

/** Holds the lock until the returned end is called, or the tab is gone. */
function liveAs(name: string, locks: Locks): Promise<() => void> {
  return new Promise((resolve, reject) => {
    locks
      .request(name, {}, () => new Promise<void>((end) => resolve(end)))
      .catch((error: unknown) => reject(storeFailed('Web Locks', error)))
  })
}

async function sweep(
  connection: Connection,
  locks: Locks,
  token: string,
  database: string,
  isEmpty: () => Promise<boolean>,
): Promise<void> {
  const range = IDBKeyRange.bound([database], [database, []])
  const keys = await connection.transact('readonly', (store) => result(store(STORE).getAllKeys(range)))
  for (const key of keys as [string, string][]) {
    const other = key[1]
    if (other === token) continue
    // First that the tab is gone, for good, then that there is no row: the other way round it could write one in between.
    await locks.request(lockOf(other), { ifAvailable: true }, async (lock) => {
      if (lock !== null && (await isEmpty())) await connection.transact('readwrite', (store) => result(store(STORE).delete(key)))
    })
  }
}

function lockOf(token: string): string {
  return `rejoin:tab:${token}`
}
