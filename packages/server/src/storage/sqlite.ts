/**
 * The log in SQLite (step 5 of the path): one thread writes, one reads, and the main thread waits for neither.
 */
import type { DocumentId, Position } from '@rejoin/shared'
import type { DocumentHead, Found, Log } from '../log/log.ts'
import { LogError } from '../log/log.ts'
import { makeFolder, ownFolder, syncFolder } from './folder.ts'
import { unpackEntries } from './pack.ts'
import { startCommits } from './sqlite-commits.ts'
import type { Synchronous } from './sqlite-file.ts'
import type { ReadReply, ReadRequest } from './sqlite-reader.ts'
import { createThread } from './thread.ts'

/** Options of `openSqliteLog`. */
export interface SqliteLogOptions {
  /** The data folder. Made when it is missing, closed to other users, and owned by one process. */
  readonly directory: string
  /** Bytes that may wait to be written before appends are refused as `overloaded`. @default 256 MiB */
  readonly pendingBytes?: number | undefined
  /** Bytes kept in reserve for a full disk. @default 4 MiB, an eighth of what is free at most */
  readonly ballast?: number | undefined
}

/** For tests of the tests only: what the product never changes. */
export interface SqliteLogSeams {
  readonly synchronous?: Synchronous | undefined
}

const PENDING_BYTES = 256 * 1024 * 1024
const LAST_POSITION = Number.MAX_SAFE_INTEGER as Position

/** Opens the log in a folder. Throws `SyncError`: `store_in_use`, `store_failed` (a file that is not ours), `storage_failed`. */
export async function openSqliteLog(
  { directory, pendingBytes = PENDING_BYTES, ballast }: SqliteLogOptions,
  { synchronous = 'FULL' }: SqliteLogSeams = {},
): Promise<Log> {
  makeFolder(directory)
  const disown = ownFolder(directory)
  try {
    const writer = await startCommits({ directory, synchronous, ballast }, pendingBytes)
    syncFolder(directory)
    const reader = createThread<ReadRequest, ReadReply>({
      module: new URL('./sqlite-reader.js', import.meta.url),
      data: { directory },
      gone: (cause) => writer.fail(`the reader's thread ended: ${cause.message}`),
    })
    const head = (document: DocumentId): Promise<DocumentHead | undefined> =>
      reader.ask({ type: 'head', document }) as Promise<DocumentHead | undefined>

    // Whoever comes first must not wait for the thread to start and to open its file. No document has this id.
    await head('' as DocumentId)

    return {
      id: writer.id,
      failed: writer.failed,
      head,
      find: (document, what) => reader.ask({ type: 'find', document, what }) as Promise<Found>,
      async read(from, maxBytes) {
        const reply = (await reader.ask({ type: 'read', from, maxBytes })) as Uint8Array | 'trimmed'
        return reply === 'trimmed' ? reply : unpackEntries(reply)
      },
      snapshot: (document, seq, offset, length) =>
        reader.ask({ type: 'snapshot', document, seq, offset, length }) as Promise<Uint8Array | undefined>,
      async open(document) {
        const known = await head(document)
        if (known !== undefined) return known
        await writer.ask({ type: 'create', document })
        const created = await head(document)
        if (created === undefined) throw new LogError('corrupt', 'a document that was created cannot be found', { document })
        return created
      },
      append: (batch) => writer.append(batch),
      async fold(snapshot) {
        await writer.ask({ type: 'fold', snapshot })
      },
      trim: (before, keepAfter = LAST_POSITION) => writer.ask({ type: 'trim', before, keepAfter }),
      async close() {
        await reader.end()
        await writer.close()
        disown()
      },
    }
  } catch (error) {
    disown()
    throw error
  }
}
