/**
 * The data folder of a relay (under step 5 of the path): made private, and owned by one process for as long as that lives.
 */
import { chmodSync, closeSync, existsSync, fsyncSync, mkdirSync, openSync, readFileSync, statSync, writeFileSync } from 'node:fs'
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
  return own(join(directory, 'lock'), () => `another process serves the data folder ${resolve(directory)}`)
}

/** Takes the view and the sinks of the folder, which a relay has or `rejoin forward`, likewise. `who` is told to whoever comes second. */
export function ownView(directory: string, who: string): () => void {
  const note = join(directory, 'view-owner')
  const release = own(join(directory, 'view-lock'), () => {
    const other = existsSync(note) ? readFileSync(note, 'utf8').trim() : 'another process'
    return `${other} keeps the view and the sinks of ${resolve(directory)}: there can be one only, a relay or rejoin forward (then serve with --forward elsewhere)`
  })
  writeFileSync(note, `${who}, process ${process.pid},\n`, { mode: 0o600 })
  return release
}

function own(path: string, taken: () => string): () => void {
  const lock = new Database(path, { timeout: 0 })
  try {
    lock.pragma('locking_mode = EXCLUSIVE')
    lock.exec('BEGIN EXCLUSIVE')
  } catch (error) {
    lock.close()
    if (!(error instanceof Database.SqliteError) || !error.code.startsWith('SQLITE_BUSY')) throw error
    throw new SyncError('store_in_use', taken(), { cause: error })
  }
  return () => {
    lock.close()
  }
}
