/**
 * A MySQL or MariaDB database (step 8 of the path): a plain table for each target, for `SELECT * FROM pets`. Rows, place and fence commit together.
 */
import { resolve } from 'node:path'
import { SyncError } from '@rejoin/shared'
import type { Destination } from './mysql-begin.ts'
import { begin, drop, plan } from './mysql-begin.ts'
import { createCommit } from './mysql-commit.ts'
import type { MysqlAddress, Session } from './mysql-connect.ts'
import { connect } from './mysql-connect.ts'
import { createProof, keysOf } from './mysql-proof.ts'
import { tablesOf } from './mysql-tables.ts'
import type { Key, OpenSink, Sink, SinkCommit, SinkContext, SinkOutcome, SinkSpec, SinkTraits } from './sink.ts'
import { compareText } from './sink.ts'
import type { ForwardOptions } from './spec.ts'
import { sinkSpec } from './spec.ts'

const TRAITS: SinkTraits = { transactional: true, strategies: ['state', 'actions'], readable: true }
const NAMES: readonly string[] = ['url', 'urlFile', 'timeout'] satisfies readonly (keyof MysqlSinkOptions)[]

/** Where the database is. Checked by `mysql()`, before anything connects; tables and columns that are missing are made. */
export interface MysqlSinkOptions extends ForwardOptions {
  /** `mysql://user:password@host:port/database`; parameters such as `?ssl={"rejectUnauthorized":true}` as the npm package `mysql2` reads them. Either this or `urlFile`. */
  readonly url?: string | undefined
  /** A file that holds the URL, read again at every connection. */
  readonly urlFile?: string | undefined
  /** How long one statement may take, in seconds. @default 60 */
  readonly timeout?: number | undefined
}

/** A MySQL or MariaDB database to keep equal to the documents: `sinks: { shop: mysql({ url: process.env.MYSQL_URL }) }`. Throws `SyncError('bad_option')`. */
export function mysql(options: MysqlSinkOptions): SinkSpec {
  const { url, urlFile, timeout } = checked({ ...options })
  return sinkSpec(
    'mysql',
    import.meta.url,
    TRAITS,
    { ...options },
    {
      options: { url, urlFile: urlFile === undefined ? undefined : resolve(urlFile), timeout: timeout / 1000 },
      names: NAMES,
    },
  )
}

/** Opens the sink, in the worker. It connects when it begins. */
export const openSink: OpenSink = async (options, context) => createSink(checked(options), context)

function checked({ url, urlFile, timeout = 60 }: Readonly<Record<string, unknown>>): MysqlAddress {
  const isText = (value: unknown): value is string => typeof value === 'string' && value !== ''
  // Neither is shown: both may hold a password, one by mistake.
  if (isText(url) === isText(urlFile) || (url !== undefined && !isText(url)) || (urlFile !== undefined && !isText(urlFile)))
    throw new SyncError(
      'bad_option',
      'mysql({ url }): either url or urlFile is a text; is the variable of the environment set that it comes from?',
    )
  if (typeof timeout !== 'number' || !(timeout >= 1 && timeout <= 86_400))
    throw new SyncError('bad_option', 'mysql({ timeout }): timeout is a number of seconds, from 1 to 86,400')
  return { timeout: timeout * 1000, url: isText(url) ? url : undefined, urlFile: isText(urlFile) ? urlFile : undefined }
}

function createSink(address: MysqlAddress, context: SinkContext): Sink {
  const destination: Destination = { context, tables: tablesOf(context.collections, context.untyped) }
  const dial = (): Promise<Session> => connect(address)
  let opened: { readonly session: Session; readonly commit: (commit: SinkCommit) => Promise<SinkOutcome> } | undefined

  const close = async (): Promise<void> => {
    const session = opened?.session
    opened = undefined
    await session?.close()
  }
  const beside = async <T>(work: (session: Session) => Promise<T>): Promise<T> => {
    const session = await dial()
    try {
      return await work(session)
    } finally {
      await session.close()
    }
  }
  const live = (): NonNullable<typeof opened> => {
    if (opened === undefined) throw new SyncError('closed', `sink ${context.name}: the connection is not open`)
    return opened
  }
  return {
    begin: async () => {
      await close()
      const session = await dial()
      try {
        const begun = await begin(session, destination)
        opened = { session, commit: createCommit(session, destination, begun) }
        return begun.standing
      } catch (error) {
        await session.close()
        throw error
      }
    },
    commit: async (commit) => live().commit(commit),
    keys: async (limit, from) => {
      const keys: Key[] = []
      for (const table of [...destination.tables].sort((a, b) => compareText(a.name, b.name))) {
        if (keys.length === limit) break
        if (from !== undefined && compareText(table.name, from.collection) < 0) continue
        const behind = from?.collection === table.name ? from : undefined
        keys.push(...(await keysOf(live().session, table, limit - keys.length, behind, context.forward.strangers === 'delete')))
      }
      return keys
    },
    proof: createProof(dial, destination),
    plan: () => beside((session) => plan(session, destination)),
    drop: async () => {
      await close()
      await beside((session) => drop(session, destination))
    },
    close,
  }
}
