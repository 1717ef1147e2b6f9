/**
 * Checkpoints of the log's WAL (under step 5 of the path), explicit so that their errors are seen, and between transactions on the writer's thread.
 */
import { statSync } from 'node:fs'
import type { Connection } from './sqlite-file.ts'

/** Pages of 4 KiB that are not yet copied when a checkpoint copies what no reader stands in the way of. */
const COPY_PAGES = 4_096
/** Pages in the WAL when a checkpoint waits for readers, so that the file can begin anew. */
const TRUNCATE_PAGES = 32_768
/** How long it waits for them, in ms. Readers keep no statement open, so this is a matter of one read. */
const READER_TIMEOUT = 100
const BUSY_TIMEOUT = 5_000
/** What a checkpoint leaves free on a full disk. */
const SPARE_BYTES = 32 * 1024

interface Progress {
  readonly busy: number
  /** Pages in the WAL. */
  readonly log: number
  /** Of them, copied. */
  readonly checkpointed: number
}

/** Checkpoints of one connection. Both throw what SQLite throws: an fsync that failed, or a full disk. */
export interface Checkpoints {
  /** Copies when enough has gathered. */
  bySize(): void
  /** Copies everything and empties the WAL, unless a reader stands in the way. */
  truncate(): void
  /** The same, when the copy fits into `free` bytes of disk. One that does not fit would take what is free and give nothing. */
  truncateWithin(free: number): void
}

/** Checkpoints on `db`. */
export function createCheckpoints(db: Connection): Checkpoints {
  const look = db.prepare<[], Progress>('PRAGMA wal_checkpoint(NOOP)')
  const copy = db.prepare<[], Progress>('PRAGMA wal_checkpoint(PASSIVE)')
  const empty = db.prepare<[], Progress>('PRAGMA wal_checkpoint(TRUNCATE)')
  let truncateAt = TRUNCATE_PAGES

  function truncate(): void {
    db.pragma(`busy_timeout = ${READER_TIMEOUT}`)
    try {
      const { busy, log } = empty.get() ?? NOTHING
      truncateAt = busy === 0 ? TRUNCATE_PAGES : log + COPY_PAGES
    } finally {
      db.pragma(`busy_timeout = ${BUSY_TIMEOUT}`)
    }
  }

  return {
    bySize() {
      const { log, checkpointed } = look.get() ?? NOTHING
      if (log >= truncateAt) truncate()
      else if (log - checkpointed >= COPY_PAGES) copy.get()
    },
    truncate,
    truncateWithin(free) {
      const pages = Number(db.pragma('page_count', { simple: true })) * Number(db.pragma('page_size', { simple: true }))
      const growth = Math.max(0, pages - statSync(db.name).size)
      if ((look.get() ?? NOTHING).log > 0 && growth + SPARE_BYTES <= free) truncate()
    },
  }
}

const NOTHING: Progress = { busy: 0, log: 0, checkpointed: 0 }
