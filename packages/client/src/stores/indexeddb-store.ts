/**
 * The browser's store (step 2 of the path): y-indexeddb's database and layout, one a document, so that an app which used y-indexeddb keeps what it has. Web Locks say which tab lives, BroadcastChannel what it committed.
 */
import type { DocumentId } from '@rejoin/shared'
import { SyncError, newIncarnationId } from '@rejoin/shared'
import type { Count, Tab } from './indexeddb-document.ts'
import { countRows, createDocumentStore, openDatabase } from './indexeddb-document.ts'
import type { IndexeddbPlatform } from './indexeddb-platform.ts'
import { askDurability, browserPlatform } from './indexeddb-platform.ts'
import { openRegistry } from './indexeddb-registry.ts'
import type { DocumentStore, Notice, Pending, Store } from './store.ts'

/** Options of `indexeddb()`. */
export interface IndexeddbOptions {
  /** Stands before the document id in the name of its database; y-indexeddb's name is the id itself. @default '' */
  readonly prefix?: string | undefined
  /** Who uses this browser: a user's id. The first owner of a document takes its database, with what was stored before there was an owner; every other owner gets one of their own. @default '' */
  readonly owner?: string | undefined
  /** Whether to ask the browser never to evict what is stored. Firefox then asks its user. @default true */
  readonly persist?: boolean | undefined
  /** Stand-ins for what the browser gives. @default the browser's own */
  readonly platform?: Partial<IndexeddbPlatform> | undefined
}

/** Databases that `pending` opens at once. */
const ABREAST = 8

/** Opens it. Rejects with SyncError `store_failed` where there is no IndexedDB, as in some private windows. */
export async function openIndexeddb({ prefix = '', owner = '', persist = true, platform: given }: IndexeddbOptions): Promise<Store> {
  const platform = browserPlatform(given)
  const [registry, durability] = await Promise.all([
    openRegistry(platform.indexedDB, platform.locks, newIncarnationId(platform.randomBytes)),
    askDurability(platform, persist),
  ])
  const channel = platform.createChannel(`rejoin:${JSON.stringify([prefix, owner])}`)
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a BroadcastChannel has no target origin
  const tell = (notice: Notice): void => channel.postMessage(notice)
  const tab: Tab = { platform, registry, prefix, owner, tell }
  const open = new Set<DocumentStore>()
  const closing = new Map<DocumentId, Promise<void>>()
  const listeners = new Set<(notice: Notice) => void>()
  channel.addEventListener('message', ({ data }: MessageEvent<Notice>) => {
    for (const listener of listeners) listener(data)
  })
  let closed = false
  const whileOpen = <T>(run: () => Promise<T>): Promise<T> =>
    closed ? Promise.reject(new SyncError('closed', 'this store was closed')) : run()

  async function openDocument(document: DocumentId): Promise<DocumentStore> {
    // A handle that closes may take the document off the list: not while the next one puts it on.
    await closing.get(document)
    const handle = createDocumentStore(tab, document, await openDatabase(tab, document))
    const close = (): Promise<void> => {
      if (!open.delete(own)) return closing.get(document) ?? Promise.resolve()
      const done = handle.close().finally(() => closing.delete(document))
      closing.set(document, done)
      return done
    }
    const own: DocumentStore = { ...handle, close }
    open.add(own)
    return own
  }

  return {
    durability,
    open: (document) => whileOpen(() => openDocument(document)),
    pending: () => whileOpen(() => readPending(tab)),
    watch: (listener) => {
      // A wrapper of its own, so that one function given twice is told twice.
      const own = (notice: Notice): void => listener(notice)
      listeners.add(own)
      return () => listeners.delete(own)
    },
    close: async () => {
      closed = true
      await Promise.all([...open].map((handle) => handle.close()))
      await Promise.all(closing.values())
      channel.close()
      registry.close()
    },
  }
}

async function readPending(tab: Tab): Promise<readonly Pending[]> {
  const found: Pending[] = []
  const listed = (await tab.registry.all()).filter(({ prefix }) => prefix === tab.prefix)
  const one = async (): Promise<void> => {
    for (let next = listed.pop(); next !== undefined; next = listed.pop()) {
      const { database, document } = next
      const count = await countRows(tab, database)
      if (isEmpty(count)) await tab.registry.sweep(database, async () => isEmpty(await countRows(tab, database)))
      else if (count?.own === true) found.push({ document, rows: count.rows, refused: count.refused })
    }
  }
  await Promise.all(Array.from({ length: ABREAST }, one))
  return found
}

/** No such database, or no row in it, whoever's. */
function isEmpty(count: Count | undefined): boolean {
  return count === undefined || count.rows + count.refused === 0
}
