/**
 * Node's store (step 2 of the path): one SQLite file for every document of the device, owned by one process at a time. Never reached from the browser's entry.
 */
import { closeSync, mkdirSync, openSync } from 'node:fs'
import { dirname, resolve as absolute } from 'node:path'
import type { DocumentId } from '@rejoin/shared'
import { SyncError } from '@rejoin/shared'
import type { DriverName, SqliteDatabase, SqliteDriver } from './sqlite-driver.ts'
import { SQLITE, loadDriver, sqliteCode } from './sqlite-driver.ts'
import type { Amiss, Rows } from './sqlite-rows.ts'
import { APPLICATION, REVISION, SCHEMA, createRows } from './sqlite-rows.ts'
import type { Commit, CommitQueue, DocumentStore, Holds, Store, StoreFactory } from './store.ts'
import { TRIM_ROWS, createCommitQueue, createHolds, storeFailed } from './store.ts'

/** Options of `sqlite()`. */
export interface SqliteOptions {
  /** The file. It is made, readable by its owner only, with the folders it lies in. */
  readonly path: string
  /** Where SQLite comes from. @default node:sqlite where this Node has it, else better-sqlite3 */
  readonly driver?: DriverName | undefined
}

/** Written to the WAL before it is folded into the file, in bytes. */
const CHECKPOINT = 4 * 1024 * 1024

/** Node's store, on SQLite. Opening it rejects with SyncError `store_in_use` when any process has it open, and with `store_failed` when the file cannot be used. */
export function sqlite({ path, driver }: SqliteOptions): StoreFactory {
  return { name: 'sqlite', open: () => openStore(absolute(path), driver) }
}

interface Item {
  readonly handle: Handle
  readonly commit: Commit
}

interface Handle {
  readonly document: DocumentId
  /** What this handle's load found amiss. */
  amiss: Amiss | undefined
}

async function openStore(path: string, driver: DriverName | undefined): Promise<Store> {
  const db = openFile(path, await loadDriver(driver === undefined ? undefined : [driver]))
  const rows = createRows(db)
  const file = createFile(path, db, rows)
  // A tick's commits become one transaction: it is written when the tick's work is done.
  const queue = createCommitQueue<Item>(async (items) => file.write(items), setImmediate)
  const holds = createHolds()
  const handles = new Set<DocumentStore>()
  let closed = false
  const whileOpen = async <T>(run: () => T): Promise<T> => {
    if (closed) throw new SyncError('closed', 'this store was closed')
    return run()
  }
  return {
    durability: 'durable',
    open: (document) =>
      whileOpen(() => {
        const handle = createDocumentStore(document, file, rows, queue, holds, () => handles.delete(handle))
        handles.add(handle)
        return handle
      }),
    pending: () => whileOpen(() => file.run(() => rows.pending())),
    watch: () => () => {},
    close: async () => {
      if (closed) return
      closed = true
      for (const handle of handles) await handle.close()
      db.close()
    },
  }
}

function createDocumentStore(
  document: DocumentId,
  file: SqliteFile,
  rows: Rows,
  queue: CommitQueue<Item>,
  holds: Holds,
  left: () => void,
): DocumentStore {
  const handle: Handle = { document, amiss: undefined }
  const held = new Set<() => void>()
  let closed = false
  const whileOpen = async <T>(run: () => T | Promise<T>): Promise<T> => {
    if (closed) throw new SyncError('closed', `the store of ${document} was closed`)
    return run()
  }
  return {
    load: (options) =>
      whileOpen(() =>
        file.run(() => {
          const id = rows.find(document)
          if (id === undefined) return { updates: [], outbox: [], foreign: false }
          const { amiss, ...loaded } = rows.load(id, options?.verify ?? false)
          handle.amiss = amiss
          return loaded
        }),
      ),
    commit: (commit) => whileOpen(() => queue.add({ handle, commit })),
    hold: (incarnation, signal) =>
      whileOpen(async () => {
        const free = await holds.hold(`${document}\n${incarnation}`, signal)
        const release = (): void => {
          held.delete(release)
          free()
        }
        held.add(release)
        if (closed) release()
        return release
      }),
    outbox: () =>
      whileOpen(() =>
        file.run(() => {
          const id = rows.find(document)
          return id === undefined ? [] : rows.outbox(id)
        }),
      ),
    trim: (fold, least = TRIM_ROWS) => whileOpen(() => file.trim(document, fold, least)),
    close: async () => {
      closed = true
      await queue.idle()
      for (const release of held) release()
      left()
    },
  }
}

/** The file, with what follows from a write that failed. */
interface SqliteFile {
  /** Reads. Throws SyncError `store_failed`. */
  run<T>(read: () => T): T
  write(items: readonly Item[]): void
  trim(document: DocumentId, fold: (updates: Uint8Array[]) => Uint8Array, least: number): void
}

function createFile(path: string, db: SqliteDatabase, rows: Rows): SqliteFile {
  let broken: SyncError | undefined
  let unfolded = 0

  function run<T>(work: () => T): T {
    if (broken !== undefined) throw broken
    try {
      return work()
    } catch (error) {
      throw storeFailed(path, error)
    }
  }

  function transact(work: () => void): void {
    run(() => {
      db.exec('BEGIN IMMEDIATE')
      try {
        work()
        db.exec('COMMIT')
      } catch (error) {
        rollBack(db)
        stopUnlessPassing(error)
        throw error
      }
    })
  }

  /** After an I/O error nobody knows what the disk holds (an fsync that failed once may succeed over lost pages): nothing is written any more. A full disk passes. */
  function stopUnlessPassing(error: unknown): void {
    const code = sqliteCode(error)
    if (code !== undefined && code !== SQLITE.FULL && code !== SQLITE.TOOBIG) broken = storeFailed(path, error)
  }

  /** By hand: SQLite's own checkpoints swallow the errors of their fsync. */
  function checkpoint(): void {
    if (unfolded < CHECKPOINT) return
    try {
      db.prepare('PRAGMA wal_checkpoint(PASSIVE)').all()
      unfolded = 0
    } catch (error) {
      // What was committed is durable in the WAL. On a full disk the next commit tries again.
      stopUnlessPassing(error)
    }
  }

  return {
    run,
    write: (items) => {
      const settled = new Set<Handle>()
      transact(() => {
        for (const { handle, commit } of items) {
          const settles = commit.cursor !== undefined && !settled.has(handle)
          rows.write(rows.find(handle.document) ?? rows.create(handle.document), commit, settles ? handle.amiss : undefined)
          if (settles) settled.add(handle)
        }
      })
      for (const handle of settled) handle.amiss = undefined
      for (const { commit } of items) unfolded += sizeOf(commit)
      checkpoint()
    },
    trim: (document, fold, least) => {
      transact(() => {
        const id = rows.find(document)
        if (id !== undefined) rows.trim(id, fold, least)
      })
    },
  }
}

/** Opens the file and takes it for this process, by the kernel's lock, which ends with the process however it ends. */
function openFile(path: string, driver: SqliteDriver): SqliteDatabase {
  let db: SqliteDatabase | undefined
  try {
    mkdirSync(dirname(path), { recursive: true })
    createPrivate(path)
    db = driver.open(path)
    // In this order: the lock of the first transaction is then kept, and the WAL needs no shared memory. FULL is said because better-sqlite3 makes it NORMAL in WAL.
    db.exec(
      'PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA fullfsync = 1; PRAGMA checkpoint_fullfsync = 1; PRAGMA wal_autocheckpoint = 0',
    )
    db.exec('BEGIN EXCLUSIVE')
    prepareTables(db)
    db.exec('COMMIT')
    return db
  } catch (error) {
    db?.close()
    const code = sqliteCode(error)
    if (code === SQLITE.BUSY || code === SQLITE.LOCKED)
      throw new SyncError('store_in_use', `${path} is open in another process, or twice in this one`, { cause: error })
    throw storeFailed(path, error)
  }
}

/** Makes the file if it is not there. One that is there is not opened here: closing it would drop the locks that another client of this process has on it. */
function createPrivate(path: string): void {
  try {
    closeSync(openSync(path, 'wx', 0o600))
  } catch (error) {
    if ((error as { code?: unknown }).code !== 'EEXIST') throw error
  }
}

function prepareTables(db: SqliteDatabase): void {
  const number = (pragma: string): number => Number(Object.values(db.prepare(`PRAGMA ${pragma}`).get() as object)[0])
  const tables = (db.prepare('SELECT count(*) AS n FROM sqlite_schema').get() as { n: number }).n
  if (tables === 0) return void db.exec(SCHEMA)
  if (number('application_id') !== APPLICATION) throw new SyncError('store_failed', 'this file is the database of another program')
  if (number('user_version') > REVISION) throw new SyncError('store_failed', 'this file was written by a later version of Rejoin')
}

function rollBack(db: SqliteDatabase): void {
  try {
    db.exec('ROLLBACK')
  } catch {
    // SQLite rolled back by itself: nothing is under way.
  }
}

function sizeOf({ updates = [], relayUpdates = [], put = [] }: Commit): number {
  return [...updates, ...relayUpdates, ...put.map(({ update }) => update)].reduce((sum, { length }) => sum + length, 0)
}
