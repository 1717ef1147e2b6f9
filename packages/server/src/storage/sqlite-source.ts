/**
 * The log in SQLite as the projector reads it, in its own thread (between steps 5 and 7 of the path).
 */
import type { ChainHash, DocumentId, IncarnationId, Position } from '@rejoin/shared'
import { toHex } from '@rejoin/shared'
import type { Entry, LogReader } from '../log/log.ts'
import type { LogSource } from '../view/source.ts'
import { createLogSource } from '../view/source.ts'
import { metaOf, openToRead } from './sqlite-file.ts'
import type { EntryRow } from './pack.ts'
import { openSqliteReader } from './sqlite-read.ts'

/** SQLite has one partition. */
const PARTITION = 0

/** Opens the log in `directory`, which a writer must have opened before. */
export function openSqliteSource(directory: string): LogSource & { close(): void } {
  const reader = openSqliteReader(directory)
  const db = openToRead(directory)
  const last = db.prepare('SELECT max(position) FROM entries').pluck()
  const page = db.prepare('SELECT id FROM documents WHERE id > ? ORDER BY id LIMIT ?').pluck()
  const log: LogReader = {
    head: async (document) => reader.head(document),
    find: async (document, what) => reader.find(document, what),
    read: async (from, maxBytes) => {
      const rows = reader.read(from, maxBytes)
      return rows === 'trimmed' ? rows : rows.map(entryOf)
    },
    snapshot: async (document, seq, offset, length) => reader.snapshot(document, seq, offset, length),
  }
  const source = createLogSource(log, {
    id: reader.id,
    // What was trimmed is counted: the last entry may be among it.
    ends: async () => new Map([[PARTITION, Math.max(Number(last.get() ?? 0), Number(metaOf(db, 'trimmed'))) as Position]]),
    documents: async (limit, from) => page.all(from ?? '', limit) as DocumentId[],
  })
  return {
    ...source,
    close: () => {
      reader.close()
      db.close()
    },
  }
}

function entryOf({ position, hash, incarnation, ...row }: EntryRow): Entry {
  return {
    ...row,
    partition: PARTITION,
    position: position as Position,
    seq: row.seq as Entry['seq'],
    hash: toHex(hash) as ChainHash,
    incarnation: toHex(incarnation) as IncarnationId,
  }
}
