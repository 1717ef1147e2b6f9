/**
 * A file that only takes up space (under step 5 of the path): on a full disk a checkpoint, and even a DELETE, needs space to free any.
 */
import { closeSync, fsyncSync, openSync, rmSync, statSync, statfsSync, writeSync } from 'node:fs'
import { dirname } from 'node:path'
import { cryptoRandom } from '@rejoin/shared'

/** The ballast's size by default: 4 MiB, enough for a slice of trimming, but no more than an eighth of what is free. */
export const BALLAST_BYTES: number = 4 * 1024 * 1024
const BLOCK_BYTES = 64 * 1024

/** Space in reserve. */
export interface Ballast {
  /** Whether the space is held. */
  readonly held: boolean
  /** Gives the space to whoever needs it. */
  release(): void
  /** Takes the space again; false while there is not enough. */
  restore(): boolean
  /** Bytes that are free on the disk. */
  free(): number
}

/** The ballast in the file `path`, which is made at once when there is space. It outlives the process. */
export function createBallast(path: string, bytes: number = BALLAST_BYTES): Ballast {
  const folder = dirname(path)
  const free = (): number => {
    const { bavail, bsize } = statfsSync(folder)
    return bavail * bsize
  }
  const found = statSync(path, { throwIfNoEntry: false })?.size ?? 0
  const size = Math.floor(Math.min(bytes, (free() + found) / 8) / BLOCK_BYTES) * BLOCK_BYTES
  let held = found === size && size > 0

  const restore = (): boolean => {
    if (held) return true
    if (free() < size + BLOCK_BYTES) return false
    held = fill(path, size)
    return held
  }
  restore()

  return {
    get held() {
      return held
    },
    release() {
      held = false
      rmSync(path, { force: true })
    },
    restore,
    free,
  }
}

/** Writes random bytes, since a file system may store zeros in no space. False, and no file, when the disk has no room. */
function fill(path: string, size: number): boolean {
  const file = openSync(path, 'w', 0o600)
  try {
    const block = cryptoRandom(BLOCK_BYTES)
    for (let written = 0; written < size;) written += writeSync(file, block)
    fsyncSync(file)
    return true
  } catch (error) {
    if (!isNoSpace(error)) throw error
    rmSync(path)
    return false
  } finally {
    closeSync(file)
  }
}

function isNoSpace(error: unknown): boolean {
  const code = error instanceof Error && 'code' in error ? error.code : undefined
  return code === 'ENOSPC' || code === 'EDQUOT'
}
