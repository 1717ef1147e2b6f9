/**
 * One connection to an IndexedDB database, for the browser's store: strict transactions as promises, and a second try on a new connection when the browser closed the old one under us.
 */
import { SyncError } from '@rejoin/shared'
import { storeFailed } from './store.ts'

/** What to connect to. */
export interface ConnectionOptions {
  readonly indexedDB: IDBFactory
  readonly name: string
  /** The object stores that a transaction runs over. */
  readonly stores: readonly string[]
  /** Makes them in a new database. Without it a database that does not exist stays so. */
  readonly create?: ((db: IDBDatabase) => void) | undefined
}

/** A database that stays connected. */
export interface Connection {
  /**
   * Runs `body` in one transaction over all object stores, durable when it resolves. `body` may await its own requests and nothing else; it may run twice. When it throws, the transaction is aborted.
   * Rejects with SyncError `store_failed`, or with the SyncError that `body` threw; then nothing was written.
   */
  transact<T>(mode: 'readonly' | 'readwrite', body: (store: (name: string) => IDBObjectStore) => Promise<T>): Promise<T>
  close(): void
}

/** Connects. Resolves with undefined when there is no such database and none is to be made. Rejects with SyncError `store_failed`. */
export async function connect(options: ConnectionOptions): Promise<Connection | undefined> {
  const { name } = options
  const failed = (error: unknown): SyncError => storeFailed(`IndexedDB database "${name}"`, error)
  let db = await openDatabase(options).catch((error: unknown) => {
    throw failed(error)
  })
  if (db === undefined) return undefined
  let reopening: Promise<IDBDatabase> | undefined
  let closed = false

  /** What was there must still be there: to make it anew would lose what is in it, and say nothing. */
  async function reopen(lost: IDBDatabase): Promise<IDBDatabase> {
    if (db !== lost && db !== undefined) return db
    lost.close()
    reopening ??= openDatabase({ ...options, create: undefined }).then((found) => {
      if (found === undefined) throw new SyncError('store_failed', `the IndexedDB database "${name}" was deleted under this tab`)
      db = found
      if (closed) found.close()
      return found
    })
    return reopening.finally(() => {
      reopening = undefined
    })
  }

  return {
    transact: async (mode, body) => {
      if (closed || db === undefined) throw new SyncError('closed', `the IndexedDB database "${name}" was closed`)
      const used = db
      try {
        return await transactOnce(used, options.stores, mode, body)
      } catch (error) {
        // A connection that is gone shows as InvalidStateError, AbortError or UnknownError, by browser: everything is tried again, once, but what cannot pass.
        if (error instanceof SyncError || isQuota(error)) throw failed(error)
      }
      try {
        return await transactOnce(await reopen(used), options.stores, mode, body)
      } catch (error) {
        throw failed(error)
      }
    },
    close: () => {
      closed = true
      db?.close()
    },
  }
}

/** The result of a request, to be awaited inside the transaction's body. */
export function result<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.addEventListener('success', () => resolve(request.result))
    request.addEventListener('error', () => reject(request.error ?? new Error('an IndexedDB request failed')))
  })
}

function openDatabase({ indexedDB, name, stores, create }: ConnectionOptions): Promise<IDBDatabase | undefined> {
  return new Promise((resolve, reject) => {
    // No version: what is there is taken as it is, and y-indexeddb's open tabs are not disturbed by a change of version.
    const request = indexedDB.open(name)
    let missing = false
    request.addEventListener('upgradeneeded', () => {
      if (create !== undefined) return create(request.result)
      missing = true
      request.transaction?.abort()
    })
    request.addEventListener('error', (event) => {
      event.preventDefault()
      if (missing) resolve(undefined)
      else reject(request.error ?? new Error('IndexedDB does not open it'))
    })
    request.addEventListener('success', () => {
      const db = request.result
      // Somebody deletes or upgrades it and waits for us: the next transaction finds out which.
      db.addEventListener('versionchange', () => db.close())
      if (stores.every((store) => db.objectStoreNames.contains(store))) return resolve(db)
      db.close()
      reject(new Error(`it has the object stores ${[...db.objectStoreNames].join(', ') || 'of nobody'}, not ${stores.join(', ')}`))
    })
  })
}

async function transactOnce<T>(
  db: IDBDatabase,
  stores: readonly string[],
  mode: 'readonly' | 'readwrite',
  body: (store: (name: string) => IDBObjectStore) => Promise<T>,
): Promise<T> {
  // Relaxed, the default, answers before the bytes are on the disk.
  const transaction = db.transaction([...stores], mode, { durability: 'strict' })
  const completed = new Promise<undefined>((resolve) => {
    transaction.addEventListener('complete', () => resolve(undefined))
  })
  const aborted = new Promise<{ readonly cause: DOMException | null }>((resolve) => {
    transaction.addEventListener('abort', () => resolve({ cause: transaction.error }))
  })
  let value: T
  try {
    value = await body((name) => transaction.objectStore(name))
  } catch (error) {
    try {
      transaction.abort()
    } catch {
      // It is aborted already: that is why the body failed.
    }
    // The transaction's own error says more than that of a request which fell with it.
    throw (await Promise.race([completed, aborted]))?.cause ?? error
  }
  const end = await Promise.race([completed, aborted])
  if (end !== undefined) throw end.cause ?? new Error('the transaction was aborted')
  return value
}

function isQuota(error: unknown): boolean {
  return error instanceof Error && error.name === 'QuotaExceededError'
}
