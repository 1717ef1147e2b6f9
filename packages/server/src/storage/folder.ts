/**
 * The data folder of a relay (under step 5 of the path): made private, and owned by one process for as long as that lives.
 */
import { chmodSync, closeSync, fsyncSync, mkdirSync, openSync, statSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { SyncError } from '@rejoin/shared'
import Database from 'better-sqlite3'

/** Makes the folder when there is none, and closes it to other users. A folder of another user keeps the mode its owner gave it. */
export function makeFolder(directory: string): void {
  const created = mkdirSync(directory, { recursive: true, mode: 0o700 })
  const { uid, mode } = statSync(directory)
  if (process.getuid?.() === uid && (mode & 0o777) !== 0o700) chmodSync(directory, 0o700)
  if (created !== undefined) syncFolder(dirname(resolve(created)))
}

/** Makes new names in a folder durable: an fsynced file whose name is lost is lost. */
export function syncFolder(directory: string): void {
  if (process.platform === 'win32') return
  const handle = openSync(directory, 'r')
  try {
    fsyncSync(handle)
  } finally {
    closeSync(handle)
  }
}

/**
 * Takes the folder for this process, and returns how to give it back. The lock is SQLite's lock on a file of its own, so the kernel lets go of it
 * however the process ends; a file with a process id in it would outlive a kill -9. Throws `SyncError('store_in_use')`.
 */
export function ownFolder(directory: string): () => void {
  const lock = new Database(join(directory, 'lock'), { timeout: 0 })
  try {
    lock.pragma('locking_mode = EXCLUSIVE')
    lock.exec('BEGIN EXCLUSIVE')
  } catch (error) {
    lock.close()
    if (!(error instanceof Database.SqliteError) || !error.code.startsWith('SQLITE_BUSY')) throw error
    throw new SyncError('store_in_use', `another process serves the data folder ${resolve(directory)}`, { cause: error })
  }
  return () => {
    lock.close()
  }
}
