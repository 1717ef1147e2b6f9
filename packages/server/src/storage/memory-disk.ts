/**
 * A disk that lives in memory, for tests and the convergence world: what is committed becomes durable later, and a crash loses what was not.
 */
import type { ChainHash, Clock, DocumentId, IncarnationId, Lineage, Random, RandomBytes, Seq } from '@rejoin/shared'
import { cryptoRandom, toHex } from '@rejoin/shared'
import type { Entry } from '../log/log.ts'

/** Options of `createMemoryDisk`. */
export interface MemoryDiskOptions {
  /** Lets time pass between a commit and its durability. Without it a commit is durable in the next microtask. */
  readonly clock?: Clock | undefined
  /** Draws delays, and whether a commit that was under way survives a crash. @default Math.random */
  readonly random?: Random | undefined
  /** Makes log ids and lineages. @default crypto.getRandomValues */
  readonly randomBytes?: RandomBytes | undefined
  /** Longest time a commit takes, in ms. @default 10 */
  readonly flush?: number | undefined
  /** Longest time a read takes, in ms. @default 2 */
  readonly seek?: number | undefined
}

/** What a memory disk holds of a log. */
export interface LogImage {
  readonly id: string
  readonly epoch: number
  position: number
  /** The highest position that was ever trimmed. */
  trimmed: number
  readonly documents: Map<DocumentId, StoredDocument>
  /** Retained entries of all documents in the order of their positions. */
  journal: Entry[]
}

/** A document on such a disk. */
export interface StoredDocument {
  readonly lineage: Lineage
  seq: number
  hash: ChainHash
  /** Retained entries. */
  entries: Entry[]
  snapshot: { readonly seq: Seq; readonly hash: ChainHash; readonly update: Uint8Array; readonly admission: Uint8Array }
  readonly acked: Map<IncarnationId, { readonly n: number; readonly seq: Seq }>
}

/** One disk, which outlives the logs that are opened on it, as a disk outlives processes. */
export interface MemoryDisk {
  /** What is durable. */
  readonly image: LogImage
  /** While true, commits fail as on a full disk. */
  full: boolean
  /** While true, commits fail at their durability barrier. */
  broken: boolean
  /** A process mounts the disk; the mounts before it are dead from then on. */
  mount(): DiskMount
  /**
   * The process dies, as by kill -9 or power loss: nothing it waits for ever settles. A commit under way is then on the disk as a whole or not at
   * all, whichever chance decides.
   */
  crash(): void
}

/** What one process does with the disk. */
export interface DiskMount {
  /** Runs `apply` at the moment the commit is durable. One at a time. */
  commit<T>(apply: () => T): Promise<T>
  /** Gives what `read` finds, a little later. */
  read<T>(read: () => T): Promise<T>
}

/** What a commit on this disk rejects with. */
export class DiskError extends Error {
  override readonly name = 'DiskError'
  override readonly cause: 'full' | 'broken'
  constructor(cause: 'full' | 'broken') {
    super(cause === 'full' ? 'no space left on the disk' : 'fsync failed')
    this.cause = cause
  }
}

/** A fresh, empty disk. */
export function createMemoryDisk({
  clock,
  random = Math.random,
  randomBytes = cryptoRandom,
  flush = 10,
  seek = 2,
}: MemoryDiskOptions = {}): MemoryDisk {
  let generation = 0
  let underWay: (() => unknown) | undefined

  const later = (longest: number, run: () => void): void => {
    if (clock === undefined) queueMicrotask(run)
    else clock.after(random() * longest, run)
  }

  const mount = (): DiskMount => {
    const own = ++generation
    underWay = undefined
    return {
      commit: (apply) =>
        new Promise((resolve, reject) => {
          if (own !== generation) return
          underWay = apply
          later(flush, () => {
            if (own !== generation) return
            underWay = undefined
            if (disk.broken || disk.full) return reject(new DiskError(disk.broken ? 'broken' : 'full'))
            attempt(apply, resolve, reject)
          })
        }),
      read: (read) =>
        new Promise((resolve, reject) => {
          // What a reader is given may be older than the moment it is given.
          const early = clock !== undefined && random() < 0.5 ? held(read) : undefined
          later(seek, () => {
            if (own === generation) attempt(early ?? read, resolve, reject)
          })
        }),
    }
  }

  const disk: MemoryDisk = {
    image: { id: toHex(randomBytes(16)), epoch: 1, position: 0, trimmed: 0, documents: new Map(), journal: [] },
    full: false,
    broken: false,
    mount,
    crash() {
      generation++
      const commit = underWay
      underWay = undefined
      if (commit !== undefined && !disk.full && random() < 0.5) commit()
    },
  }
  return disk
}

/** What `run` does now, for later. */
function held<T>(run: () => T): () => T {
  try {
    const value = run()
    return () => value
  } catch (error) {
    return () => {
      throw error
    }
  }
}

function attempt<T>(run: () => T, resolve: (value: T) => void, reject: (error: unknown) => void): void {
  try {
    resolve(run())
  } catch (error) {
    reject(error)
  }
}
