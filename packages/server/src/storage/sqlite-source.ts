/**
 * The log in SQLite as the projector reads it, in its own thread (between steps 5 and 7 of the path).
 */
import type { DocumentId, Position } from '@rejoin/shared'
import type { LogSource } from '../view/source.ts'
import { createLogSource } from '../view/source.ts'
import { metaOf, openToRead } from './sqlite-file.ts'
import { createLogReader, openSqliteReader } from './sqlite-read.ts'

/** SQLite has one partition. */
const PARTITION = 0

/** Opens the log in `directory`, which a writer must have opened before. */
export function openSqliteSource(directory: string): LogSource & { close(): void } {
  const reader = openSqliteReader(directory)
  const db = openToRead(directory)
  const last = db.prepare('SELECT max(position) FROM entries').pluck()
  const page = db.prepare('SELECT id FROM documents WHERE id > ? ORDER BY id LIMIT ?').pluck()
  const source = createLogSource(createLogReader(reader), {
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
