/**
 * One document in the browser's store: its database, and the transactions over `updates` (y-indexeddb's) and `custom` (where ours lie under keys that begin with 'rejoin').
 */
import type { Cursor, DocumentId, IncarnationId } from '@rejoin/shared'
import { SyncError, abortError, newIncarnationId } from '@rejoin/shared'
import type { Connection } from './indexeddb-connection.ts'
import { connect, result } from './indexeddb-connection.ts'
import type { IndexeddbPlatform } from './indexeddb-platform.ts'
import type { Registry } from './indexeddb-registry.ts'
import type { Ranges, Sorted } from './indexeddb-rows.ts'
import { extend, sortRows, toKeys, toRanges } from './indexeddb-rows.ts'
import type { Commit, DocumentStore, Loaded, Notice, OutboxRow } from './store.ts'
import { TRIM_ROWS, createCommitQueue, isStored, noticeOf, storeFailed } from './store.ts'

/** One tab's store, as its documents see it. */
export interface Tab {
  readonly platform: IndexeddbPlatform
  readonly registry: Registry
  readonly tell: (notice: Notice) => void
  readonly prefix: string
  readonly owner: string
}

/** A document's database. */
export interface Database {
  readonly name: string
  readonly stamp: Stamp
  readonly connection: Connection
}

/** Whose the database is, and which: one that was deleted and made again has another id. */
interface Stamp {
  readonly owner: string
  readonly id: string
}

/** What a load found amiss; the next cursor that is committed settles it. */
interface Amiss extends Pick<Sorted, 'foreign' | 'unreadable' | 'missing'> {
  /** Own bytes of the outbox rows as loaded: the rows of `updates` that held them may be among those that are gone. */
  readonly rescued: readonly Uint8Array[]
}

const CURSOR = ['rejoin', 'cursor']
const OWN = ['rejoin', 'own']
const STAMP = ['rejoin', 'owner']
const OUTBOX = 'outbox'
const REFUSED = 'refused'
const ASIDE = 'aside'
/** No document id has control characters, so no other document's database has this name. */
const SEPARATOR = '\u001f'

/** The database of the document, which is made when it is not there: the plain one, or, where another owner has that, one of the owner's own. */
export async function openDatabase(tab: Tab, document: DocumentId): Promise<Database> {
  const plain = `${tab.prefix}${document}`
  const found = (await claim(tab, plain)) ?? (await claim(tab, `${plain}${SEPARATOR}${tab.owner}`))
  if (found === undefined) throw new SyncError('store_failed', `the IndexedDB databases of ${document} belong to other owners`)
  return found
}

/** Outbox rows of a database. */
export interface Count {
  readonly rows: number
  readonly refused: number
  /** Whether they are of this tab's owner, or of nobody yet. */
  readonly own: boolean
}

/** Counts outbox rows; undefined when there is no such database. */
export async function countRows(tab: Tab, name: string): Promise<Count | undefined> {
  const connection = await connect({ indexedDB: tab.platform.indexedDB, name, stores: ['updates', 'custom'] })
  if (connection === undefined) return undefined
  try {
    return await connection.transact('readonly', async (store) => {
      const custom = store('custom')
      const stamp = result<Stamp | undefined>(custom.get(STAMP))
      return { ...(await countOutbox(custom)), own: [tab.owner, '', undefined].includes((await stamp)?.owner) }
    })
  } finally {
    connection.close()
  }
}

/** A handle on the document in its database; closing it closes the connection. */
export function createDocumentStore(tab: Tab, document: DocumentId, database: Database): DocumentStore {
  const { connection, stamp, name } = database
  const { locks } = tab.platform
  const held = new Set<() => void>()
  let amiss: Amiss | undefined
  let listed = false
  let closed = false

  /** One transaction over both object stores, in the database that was opened and no other. */
  function transact<T>(mode: 'readonly' | 'readwrite', body: (updates: IDBObjectStore, custom: IDBObjectStore) => Promise<T>): Promise<T> {
    return connection.transact(mode, async (store) => {
      const custom = store('custom')
      if ((await result<Stamp | undefined>(custom.get(STAMP)))?.id !== stamp.id)
        throw new SyncError('store_failed', `the IndexedDB database "${name}" was made anew under this tab`)
      return body(store('updates'), custom)
    })
  }

  const queue = createCommitQueue<Commit>(async (commits) => {
    if (!listed && commits.some(({ put }) => put !== undefined && put.length > 0)) {
      await tab.registry.list({ database: name, document, prefix: tab.prefix })
      listed = true
    }
    const settled = commits.some(({ cursor }) => cursor !== undefined) ? amiss : undefined
    await transact('readwrite', (updates, custom) => write(updates, custom, commits, settled))
    if (settled !== undefined && amiss === settled) amiss = undefined
    const notice = noticeOf(document, commits)
    if (notice !== undefined) tab.tell(notice)
  })

  async function load(verify: boolean): Promise<Loaded> {
    const loaded = await transact('readonly', (updates, custom) => read(updates, custom, verify))
    amiss = loaded.amiss
    return loaded
  }

  async function hold(incarnation: IncarnationId, signal: AbortSignal): Promise<() => void> {
    const release = await new Promise<() => void>((resolve, reject) => {
      locks
        .request(`rejoin:incarnation:${name}:${incarnation}`, { signal }, () => new Promise<void>((free) => resolve(free)))
        .catch((error: unknown) => reject(signal.aborted ? abortError(signal) : storeFailed('Web Locks', error)))
    })
    const once = (): void => {
      held.delete(once)
      release()
    }
    held.add(once)
    if (closed) once()
    return once
  }

  async function close(): Promise<void> {
    closed = true
    await queue.idle()
    for (const release of held) release()
    try {
      if (listed && (await transact('readonly', async (_, custom) => isNone(await countOutbox(custom))))) await tab.registry.unlist(name)
    } catch {
      // It stays on the list, one too many, until a tab that can read it finds no row there.
    } finally {
      connection.close()
    }
  }

  const whileOpen = <T>(run: () => Promise<T>): Promise<T> =>
    closed ? Promise.reject(new SyncError('closed', `the store of ${document} was closed`)) : run()
  return {
    load: (options) => whileOpen(() => load(options?.verify ?? false)),
    commit: (commit) => whileOpen(() => queue.add(commit)),
    hold: (incarnation, signal) => whileOpen(() => hold(incarnation, signal)),
    outbox: () => whileOpen(() => transact('readonly', (_, custom) => readOutbox(custom))),
    trim: (fold, least = TRIM_ROWS) =>
      whileOpen(async () => {
        await locks.request(`rejoin:trim:${name}`, { ifAvailable: true }, async (lock) => {
          if (lock !== null) await transact('readwrite', (updates, custom) => trim(updates, custom, fold, least))
        })
      }),
    close,
  }
}

/** Opens the database and stamps it with its owner; undefined when it is another's. */
async function claim(tab: Tab, name: string): Promise<Database | undefined> {
  const connection = await connect({ indexedDB: tab.platform.indexedDB, name, stores: ['updates', 'custom'], create: createLayout })
  if (connection === undefined) throw new SyncError('store_failed', `IndexedDB did not make the database "${name}"`)
  const stamp = await connection.transact('readwrite', async (store) => {
    const found = await result<Stamp | undefined>(store('custom').get(STAMP))
    if (found !== undefined && (found.owner === tab.owner || found.owner !== '')) return found
    const own: Stamp = { owner: tab.owner, id: found?.id ?? newIncarnationId(tab.platform.randomBytes) }
    store('custom').put(own, STAMP)
    return own
  })
  if (stamp.owner === tab.owner) return { name, stamp, connection }
  connection.close()
  return undefined
}

/** What y-indexeddb makes, to the letter: it opens ours as its own. */
function createLayout(db: IDBDatabase): void {
  db.createObjectStore('updates', { autoIncrement: true })
  db.createObjectStore('custom')
}

async function read(
  updates: IDBObjectStore,
  custom: IDBObjectStore,
  verify: boolean,
): Promise<Loaded & { readonly amiss: Amiss | undefined }> {
  const [keys, values, own, cursor, outbox] = await Promise.all([
    result(updates.getAllKeys()),
    result<unknown[]>(updates.getAll()),
    readOwn(custom),
    result<Cursor | undefined>(custom.get(CURSOR)),
    readOutbox(custom),
  ])
  const rows = sortRows(keys, values, toKeys(own), verify)
  if (rows.trusted) return { updates: rows.updates, cursor, outbox, foreign: false, amiss: undefined }
  const rescued = rows.missing.length + rows.unreadable.length > 0 ? outbox.map(({ update }) => update) : []
  return { updates: [...rows.updates, ...rescued], outbox, foreign: true, amiss: { ...rows, rescued } }
}

async function countOutbox(custom: IDBObjectStore): Promise<{ readonly rows: number; readonly refused: number }> {
  const [rows, refused] = await Promise.all([result(custom.count(rangeOf(OUTBOX))), result(custom.count(rangeOf(REFUSED)))])
  return { rows, refused }
}

function isNone({ rows, refused }: { readonly rows: number; readonly refused: number }): boolean {
  return rows + refused === 0
}

async function readOwn(custom: IDBObjectStore): Promise<Ranges> {
  return (await result<Ranges | undefined>(custom.get(OWN))) ?? []
}

async function readOutbox(custom: IDBObjectStore): Promise<readonly OutboxRow[]> {
  const [waiting, refused] = await Promise.all([
    result<OutboxRow[]>(custom.getAll(rangeOf(OUTBOX))),
    result<OutboxRow[]>(custom.getAll(rangeOf(REFUSED))),
  ])
  if (refused.length === 0) return waiting
  return [...waiting, ...refused].toSorted((a, b) => (a.incarnation === b.incarnation ? a.n - b.n : a.incarnation < b.incarnation ? -1 : 1))
}

/** Several commits in one transaction. `settled` is what the cursor among them settles. */
async function write(
  updates: IDBObjectStore,
  custom: IDBObjectStore,
  commits: readonly Commit[],
  settled: Amiss | undefined,
): Promise<void> {
  const [own, before] = await Promise.all([readOwn(custom), result<Cursor | undefined>(custom.get(CURSOR))])
  // What is gone or unreadable may be what the stored cursor speaks of: then the relay's bytes are written even if another tab was faster.
  const damaged = settled !== undefined && settled.missing.length + settled.unreadable.length > 0
  const added: Uint8Array[] = [...(settled?.rescued ?? [])]
  let cursor = before
  for (const commit of commits) {
    added.push(...(commit.updates ?? []))
    writeOutbox(custom, commit)
    const stored = commit.cursor !== undefined && isStored(commit.cursor, cursor)
    if (!stored || damaged) added.push(...(commit.relayUpdates ?? []))
    if (!stored) cursor = commit.cursor ?? cursor
  }
  if (cursor !== before) custom.put(cursor, CURSOR)
  const kept = settled === undefined ? own : await settle(updates, custom, own, settled)
  const now = await append(updates, kept, added)
  if (now !== own) custom.put(now, OWN)
}

function writeOutbox(custom: IDBObjectStore, { put, acked }: Commit): void {
  for (const row of put ?? []) {
    const { incarnation, n, update, refused } = row
    const is = refused === undefined ? OUTBOX : REFUSED
    custom.put(refused === undefined ? { incarnation, n, update } : { incarnation, n, update, refused }, ['rejoin', is, incarnation, n])
    custom.delete(['rejoin', is === OUTBOX ? REFUSED : OUTBOX, incarnation, n])
  }
  for (const { incarnation, through } of acked ?? [])
    custom.delete(IDBKeyRange.bound(['rejoin', OUTBOX, incarnation, 0], ['rejoin', OUTBOX, incarnation, through]))
}

/** The relay has all that was loaded: foreign rows become ours, those that are gone are forgotten, and what cannot be read is moved aside. */
async function settle(
  updates: IDBObjectStore,
  custom: IDBObjectStore,
  own: Ranges,
  { foreign, unreadable, missing }: Amiss,
): Promise<Ranges> {
  const keys = toKeys(own)
  for (const key of foreign) keys.add(key)
  for (const key of missing) keys.delete(key)
  for (const key of unreadable) {
    keys.delete(key)
    const value = await result<unknown>(updates.get(key))
    if (value === undefined) continue
    custom.put(value, ['rejoin', ASIDE, key])
    updates.delete(key)
  }
  return toRanges(keys)
}

/** Adds rows. The keys of one transaction follow each other: the last tells the first. */
async function append(updates: IDBObjectStore, own: Ranges, added: readonly Uint8Array[]): Promise<Ranges> {
  let last: IDBRequest<IDBValidKey> | undefined
  for (const update of added) last = updates.add(update)
  if (last === undefined) return own
  const key = (await result(last)) as number
  return extend(own, key - added.length + 1, key)
}

/** Folds our readable rows into one of ours; every other row stays, and stays what it is. */
async function trim(
  updates: IDBObjectStore,
  custom: IDBObjectStore,
  fold: (updates: Uint8Array[]) => Uint8Array,
  least: number,
): Promise<void> {
  const [keys, values, own] = await Promise.all([result(updates.getAllKeys()), result<unknown[]>(updates.getAll()), readOwn(custom)])
  const ours = toKeys(own)
  const folded: number[] = []
  const bytes: Uint8Array[] = []
  for (const [i, key] of keys.entries()) {
    const value = values[i]
    if (typeof key !== 'number' || !ours.has(key) || !(value instanceof Uint8Array) || value.length === 0) continue
    folded.push(key)
    bytes.push(value)
  }
  if (folded.length < Math.max(2, least)) return
  for (const key of folded) ours.delete(key)
  for (const [from, to] of toRanges(folded)) updates.delete(IDBKeyRange.bound(from, to))
  custom.put(await append(updates, toRanges(ours), [fold(bytes)]), OWN)
}

function rangeOf(kind: typeof OUTBOX | typeof REFUSED): IDBKeyRange {
  return IDBKeyRange.bound(['rejoin', kind], ['rejoin', kind, []])
}
