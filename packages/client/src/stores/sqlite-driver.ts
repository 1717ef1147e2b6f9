/**
 * SQLite for Node's store: node:sqlite where this Node has it, else better-sqlite3, behind the part that both have alike.
 */
import { SyncError } from '@rejoin/shared'

/** What a row or a parameter holds. */
export type SqliteValue = string | number | null | Uint8Array

/** A prepared statement. */
export interface SqliteStatement {
  run(...values: SqliteValue[]): unknown
  get(...values: SqliteValue[]): unknown
  all(...values: SqliteValue[]): unknown[]
}

/** One connection. Everything is synchronous. */
export interface SqliteDatabase {
  exec(sql: string): unknown
  prepare(sql: string): SqliteStatement
  close(): void
}

/** Opens files; a file that is locked fails at once. */
export interface SqliteDriver {
  readonly name: DriverName
  open(path: string): SqliteDatabase
}

/** Packages that give SQLite, the preferred first. */
export type DriverName = 'node:sqlite' | 'better-sqlite3'

const DRIVERS: Readonly<Record<DriverName, (module: object) => ((path: string) => SqliteDatabase) | undefined>> = {
  'node:sqlite': (module) => {
    const { DatabaseSync } = module as { DatabaseSync?: new (path: string) => SqliteDatabase }
    return DatabaseSync === undefined ? undefined : (path) => new DatabaseSync(path)
  },
  'better-sqlite3': (module) => {
    const { default: Database } = module as { default?: new (path: string, options: { timeout: number }) => SqliteDatabase }
    return Database === undefined ? undefined : (path) => new Database(path, { timeout: 0 })
  },
}

/** The first driver that loads. Rejects with SyncError `store_failed` that names what to install. */
export async function loadDriver(names: readonly DriverName[] = ['node:sqlite', 'better-sqlite3']): Promise<SqliteDriver> {
  const causes: unknown[] = []
  for (const name of names) {
    try {
      // By a variable: neither is there everywhere, and bundlers are not to look for them.
      const open = DRIVERS[name]((await import(name)) as object)
      if (open !== undefined) return { name, open }
      causes.push(new Error(`${name} is not the one known here`))
    } catch (error) {
      causes.push(error)
    }
  }
  throw new SyncError(
    'store_failed',
    `there is no SQLite: this Node (${process.version}) has no node:sqlite, and the package better-sqlite3 is not installed; npm install better-sqlite3`,
    {
      cause: new AggregateError(causes, 'no driver loaded'),
    },
  )
}

/** SQLite's primary result code of an error, by either driver: -1 for one that is not told apart here, undefined for an error that is not of SQLite. */
export function sqliteCode(error: unknown): number | undefined {
  const { errcode, code } = error as { errcode?: unknown; code?: unknown }
  if (typeof errcode === 'number') return errcode & 0xff
  if (typeof code !== 'string' || !code.startsWith('SQLITE_')) return undefined
  return Object.entries(SQLITE).find(([name]) => `${code}_`.startsWith(`SQLITE_${name}_`))?.[1] ?? -1
}

/** The result codes that are told apart (sqlite.org/rescode.html). */
export const SQLITE = { BUSY: 5, LOCKED: 6, FULL: 13, TOOBIG: 18 } as const
