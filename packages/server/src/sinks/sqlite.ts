/**
 * A mirror in SQLite (step 8 of the path): a file with one plain table per collection, for `SELECT * FROM pets`. Rows, place and fence commit together.
 */
import { mkdirSync, statSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { SyncError } from '@rejoin/shared'
import Database from 'better-sqlite3'
import type { Key, OpenSink, Sink, SinkCommit, SinkContext, SinkOutcome, SinkSpec, SinkTraits } from './sink.ts'
import type { ForwardOptions } from './spec.ts'
import { sinkSpec } from './spec.ts'
import { beginMirror, dropMirror, planMirror } from './sqlite-cursor.ts'
import { createProof } from './sqlite-proof.ts'
import { createTableWriters } from './sqlite-tables.ts'
import type { TableWriter } from './sqlite-tables.ts'
import { createWrite } from './sqlite-write.ts'

const TRAITS: SinkTraits = { transactional: true, strategies: ['state', 'actions'], readable: true }

/** Where the mirror's file is. Checked by `sqlite()`, before anything is opened; tables and columns that are missing are made. */
export interface SqliteSinkOptions extends ForwardOptions {
  /** The mirror's file; made when it is missing, with its folder. A relative path is taken from the folder the process was started in. */
  readonly path: string
}

/** A SQLite file to keep equal to the documents: `sinks: { mirror: sqlite({ path: './mirror.db' }) }`. Throws `SyncError('bad_option')`. */
export function sqlite(options: SqliteSinkOptions): SinkSpec {
  return sinkSpec(
    'sqlite',
    import.meta.url,
    TRAITS,
    { ...options },
    { options: { path: resolve(pathOf({ ...options })) }, names: ['path'] },
  )
}

/** Opens the mirror, in the worker. */
export const openSink: OpenSink = async (options, context) => createSink(pathOf(options), context)

function pathOf({ path }: Readonly<Record<string, unknown>>): string {
  if (typeof path !== 'string' || path === '' || path === ':memory:')
    throw new SyncError('bad_option', "sqlite({ path }): path is a file's path")
  return path
}

/** An open file with what it needs prepared; replaced when the file is. */
interface Mirror {
  readonly db: Database.Database
  readonly file: string
  readonly layout: unknown
  readonly tables: ReadonlyMap<string, TableWriter>
  readonly write: (commit: SinkCommit) => SinkOutcome
}

function createSink(path: string, context: SinkContext): Sink {
  const [untyped] = context.untyped
  if (untyped !== undefined)
    throw new SyncError(
      'bad_option',
      `sink ${context.name}: columns need types, and ${untyped} declares none; give its projection \`fields\``,
    )
  let mirror: Mirror | undefined
  const close = (): void => {
    mirror?.db.close()
    mirror = undefined
  }
  return {
    begin: async () => {
      // The old connection goes first: closing it later would remove the new file's WAL, which has the same name.
      close()
      const db = openFile(path)
      try {
        const { standing, fence } = beginMirror(db, context)
        const tables = createTableWriters(db, context.collections)
        mirror = { db, file: fileAt(path), layout: layoutOf(db), tables, write: createWrite(db, context, fence, tables) }
        return standing
      } catch (error) {
        db.close()
        throw error
      }
    },
    commit: async (commit) => {
      if (mirror === undefined) throw new SyncError('closed', 'the mirror is not open')
      // Deleted or replaced under us: SQLite would go on writing into a file that has no name. A layout that somebody changed is looked at by `begin`.
      if (fileAt(path) !== mirror.file || layoutOf(mirror.db) !== mirror.layout) return { type: 'lost' }
      return mirror.write(commit)
    },
    keys: async (limit, from) => {
      const keys: Key[] = []
      for (const collection of [...(mirror?.tables.keys() ?? [])].sort()) {
        if (keys.length === limit) break
        if (from !== undefined && collection < from.collection) continue
        keys.push(...(mirror?.tables.get(collection)?.keys(limit - keys.length, from?.collection === collection ? from : undefined) ?? []))
      }
      return keys
    },
    proof: createProof(path, context),
    plan: async () => {
      const isNew = fileAt(path) === ''
      const db = new Database(isNew ? ':memory:' : path, { readonly: !isNew })
      try {
        return [...(isNew ? [`create the file ${path}`] : []), ...planMirror(db, context)]
      } finally {
        db.close()
      }
    },
    drop: async () => {
      close()
      if (fileAt(path) === '') return
      const db = openFile(path)
      try {
        dropMirror(db, context)
      } finally {
        db.close()
      }
    },
    close: async () => {
      close()
    },
  }
}

function openFile(path: string): Database.Database {
  mkdirSync(dirname(path), { recursive: true })
  const db = new Database(path)
  try {
    // Somebody else's write transaction: the whole thread waits, so not for long; the forwarder tries again.
    db.pragma('busy_timeout = 1000')
    db.pragma('journal_mode = WAL')
    // Set explicitly: better-sqlite3 is built to fall back to NORMAL in WAL, and a cursor that was told must not be lost.
    db.pragma('synchronous = FULL')
    return db
  } catch (error) {
    db.close()
    throw error
  }
}

/** Which file lies at the path now. */
function fileAt(path: string): string {
  const stat = statSync(path, { bigint: true, throwIfNoEntry: false })
  return stat === undefined ? '' : `${stat.dev}:${stat.ino}`
}

function layoutOf(db: Database.Database): unknown {
  return db.pragma('schema_version', { simple: true })
}
