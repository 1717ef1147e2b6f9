/**
 * A store in memory (step 2 of the path): what a client falls back to when the device's own store is broken, and, as a disk that several tabs share and that crashes, the device of the convergence world.
 */
import type { Clock, Cursor, DocumentId, IncarnationId, Random } from '@rejoin/shared'
import { SyncError } from '@rejoin/shared'
import type {
  Commit,
  CommitQueue,
  DocumentStore,
  Durability,
  Holds,
  Loaded,
  Notice,
  OutboxRow,
  Pending,
  Store,
  StoreFactory,
} from './store.ts'
import { TRIM_ROWS, createCommitQueue, createHolds, isStored, noticeOf, storeFailed } from './store.ts'

/** Options of `createMemoryDisk`. */
export interface MemoryDiskOptions {
  /** With it, reads, commits and notices take up to `latency`. @default everything in the next microtask */
  readonly clock?: Clock | undefined
  /** Draws the latencies, and whether a transaction under way at a crash had committed. @default 0, and it had not */
  readonly random?: Random | undefined
  /** The slowest read, commit or notice, in ms of `clock`. @default 20 */
  readonly latency?: number | undefined
  /** What the stores on this disk say of themselves. @default 'memory' */
  readonly durability?: Durability | undefined
  /** Asked at each transaction: a value other than undefined is why it fails. */
  readonly failure?: (() => unknown) | undefined
}

/** One device's disk. A tab that opened it sees what the other tabs committed, holds incarnations against them and hears their notices. */
export interface MemoryDisk {
  /** A new tab of the device (or, one after the other, a process). */
  tab(): MemoryTab
  /** Power is lost: every tab is gone, what had not committed is lost, whole transactions at a time. */
  crash(): void
  /** What is committed of a document. */
  read(document: DocumentId): Loaded
}

/** One tab: the store factory that its client is given, and its end. */
export interface MemoryTab extends StoreFactory {
  /** The tab dies: its promises never settle, its incarnations are free. */
  crash(): void
}

interface Rows {
  updates: Uint8Array[]
  cursor: Cursor | undefined
  readonly outbox: Map<string, OutboxRow>
}

/** What the tabs of one device share. */
interface Shared {
  readonly options: MemoryDiskOptions
  readonly documents: Map<DocumentId, Rows>
  readonly holds: Holds
  readonly tabs: Set<Tab>
}

interface Tab {
  dead: boolean
  /** Transactions under way: at a crash each has committed or not, with even odds. */
  readonly underWay: Set<() => void>
  readonly release: Set<() => void>
  readonly listeners: Set<(notice: Notice) => void>
  /** Notices on their way, so that they arrive in the order sent whatever the latencies drawn. */
  readonly inbox: Notice[]
}

/** A store in memory. Clients that are given the same factory share it, as tabs do. */
export function memory(): StoreFactory {
  const disk = createMemoryDisk()
  return { name: 'memory', open: () => disk.tab().open() }
}

/** A device's disk that several tabs share. With a clock it is as slow as one, and it crashes when told to. */
export function createMemoryDisk(options: MemoryDiskOptions = {}): MemoryDisk {
  const shared: Shared = { options, documents: new Map(), holds: createHolds(), tabs: new Set() }
  return {
    tab: () => {
      const opened: Tab[] = []
      return {
        name: 'memory',
        open: async () => {
          const tab: Tab = { dead: false, underWay: new Set(), release: new Set(), listeners: new Set(), inbox: [] }
          opened.push(tab)
          shared.tabs.add(tab)
          return openStore(shared, tab)
        },
        crash: () => {
          for (const tab of opened) endTab(shared, tab)
        },
      }
    },
    crash: () => {
      for (const tab of shared.tabs) endTab(shared, tab)
    },
    read: (document) => loaded(rowsOf(shared, document)),
  }
}

function openStore(shared: Shared, tab: Tab): Store {
  const open = new Set<DocumentStore>()
  let closed = false
  const whileOpen = <T>(run: () => T): Promise<T> =>
    closed ? Promise.reject(new SyncError('closed', 'this store was closed')) : later(shared, tab, run)
  return {
    durability: shared.options.durability ?? 'memory',
    open: (document) =>
      whileOpen(() => {
        const handle = openDocument(shared, tab, document)
        open.add(handle)
        return handle
      }),
    pending: () => whileOpen(() => pendingOf(shared)),
    watch: (listener) => {
      // A wrapper of its own, so that one function given twice is told twice.
      const own = (notice: Notice): void => listener(notice)
      tab.listeners.add(own)
      return () => tab.listeners.delete(own)
    },
    close: async () => {
      closed = true
      for (const handle of open) await handle.close()
      tab.listeners.clear()
      shared.tabs.delete(tab)
    },
  }
}

function openDocument(shared: Shared, tab: Tab, document: DocumentId): DocumentStore {
  const queue: CommitQueue<Commit> = createCommitQueue((commits) => write(shared, tab, document, commits), queueMicrotask)
  const held = new Set<() => void>()
  let closed = false
  const whileOpen = <T>(run: () => Promise<T>): Promise<T> =>
    closed ? Promise.reject(new SyncError('closed', `the store of ${document} was closed`)) : run()

  return {
    load: () => whileOpen(() => later(shared, tab, () => loaded(rowsOf(shared, document)))),
    commit: (commit) => whileOpen(() => queue.add(commit)),
    hold: (incarnation, signal) =>
      whileOpen(async () => {
        const free = await shared.holds.hold(`${document}\n${incarnation}`, signal)
        const release = (): void => {
          held.delete(release)
          tab.release.delete(release)
          free()
        }
        held.add(release)
        tab.release.add(release)
        // Granted to a tab that died, or a handle that was closed, while it waited.
        if (tab.dead || closed) release()
        if (tab.dead) return new Promise<() => void>(() => {})
        return release
      }),
    outbox: () => whileOpen(() => later(shared, tab, () => ordered(rowsOf(shared, document)))),
    trim: (fold, least = TRIM_ROWS) =>
      whileOpen(() =>
        later(shared, tab, () => {
          const rows = rowsOf(shared, document)
          refuse(shared)
          if (rows.updates.length > 1 && rows.updates.length >= least) rows.updates = [folded(fold, rows.updates)]
        }),
      ),
    close: async () => {
      closed = true
      await queue.idle()
      for (const release of held) release()
    },
  }
}

/** One transaction, then its notice. A tab that dies meanwhile is told nothing. */
async function write(shared: Shared, tab: Tab, document: DocumentId, commits: readonly Commit[]): Promise<void> {
  const transaction = (): void => {
    for (const commit of commits) apply(rowsOf(shared, document), commit)
  }
  tab.underWay.add(transaction)
  await later(shared, tab, () => {
    tab.underWay.delete(transaction)
    refuse(shared)
    transaction()
  })
  const notice = noticeOf(document, commits)
  if (notice === undefined) return
  for (const other of shared.tabs) if (other !== tab) tell(shared, other, notice)
}

function refuse(shared: Shared): void {
  const failure = shared.options.failure?.()
  if (failure !== undefined) throw storeFailed('the disk refused a write', failure)
}

function apply(rows: Rows, commit: Commit): void {
  rows.updates.push(...(commit.updates ?? []))
  for (const row of commit.put ?? []) rows.outbox.set(keyOf(row), row)
  for (const { incarnation, through } of commit.acked ?? []) {
    for (const [key, row] of rows.outbox)
      if (row.incarnation === incarnation && row.n <= through && row.refused === undefined) rows.outbox.delete(key)
  }
  if (commit.cursor !== undefined && isStored(commit.cursor, rows.cursor)) return
  rows.updates.push(...(commit.relayUpdates ?? []))
  rows.cursor = commit.cursor ?? rows.cursor
}

function tell(shared: Shared, tab: Tab, notice: Notice): void {
  tab.inbox.push(notice)
  void later(shared, tab, () => {
    const next = tab.inbox.shift()
    if (next !== undefined) for (const listener of tab.listeners) listener(next)
  })
}

function endTab(shared: Shared, tab: Tab): void {
  if (tab.dead) return
  tab.dead = true
  const { random } = shared.options
  for (const transaction of tab.underWay) if (random !== undefined && random() < 0.5) transaction()
  shared.tabs.delete(tab)
  for (const release of tab.release) release()
}

function rowsOf(shared: Shared, document: DocumentId): Rows {
  let rows = shared.documents.get(document)
  if (rows === undefined) shared.documents.set(document, (rows = { updates: [], cursor: undefined, outbox: new Map() }))
  return rows
}

function loaded(rows: Rows): Loaded {
  return { updates: [...rows.updates], cursor: rows.cursor, outbox: ordered(rows), foreign: false }
}

function ordered(rows: Rows): readonly OutboxRow[] {
  return [...rows.outbox.values()].toSorted((a, b) =>
    a.incarnation === b.incarnation ? a.n - b.n : a.incarnation < b.incarnation ? -1 : 1,
  )
}

function pendingOf(shared: Shared): readonly Pending[] {
  return [...shared.documents]
    .map(([document, { outbox }]) => {
      const refused = [...outbox.values()].filter((row) => row.refused !== undefined).length
      return { document, rows: outbox.size - refused, refused }
    })
    .filter(({ rows, refused }) => rows + refused > 0)
}

function folded(fold: (updates: Uint8Array[]) => Uint8Array, updates: Uint8Array[]): Uint8Array {
  try {
    return fold(updates)
  } catch (error) {
    throw storeFailed('the updates do not fold', error)
  }
}

function keyOf({ incarnation, n }: { readonly incarnation: IncarnationId; readonly n: number }): string {
  return `${incarnation} ${n}`
}

/** What `run` answers, after the disk's latency; never when the tab died before. */
function later<T>(shared: Shared, tab: Tab, run: () => T): Promise<T> {
  return new Promise((resolve, reject) => {
    after(shared, () => {
      if (tab.dead) return
      try {
        resolve(run())
      } catch (error) {
        reject(error)
      }
    })
  })
}

function after(shared: Shared, run: () => void): void {
  const { clock, random, latency = 20 } = shared.options
  if (clock === undefined) queueMicrotask(run)
  else clock.after((random?.() ?? 0) * latency, run)
}
