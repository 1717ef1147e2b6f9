/**
 * A Postgres database (step 8 of the path): a plain table for each target, for `SELECT * FROM pets`. Rows, place and fence commit together.
 */
import { resolve } from 'node:path'
import { SyncError } from '@rejoin/shared'
import type { Destination } from './postgres-begin.ts'
import { begin, drop, plan } from './postgres-begin.ts'
import { createCommit } from './postgres-commit.ts'
import type { PostgresAddress, Session } from './postgres-connect.ts'
import { connect } from './postgres-connect.ts'
import { createProof } from './postgres-proof.ts'
import { bookkeepingIn } from './postgres-statements.ts'
import { STAMP, tablesOf } from './postgres-tables.ts'
import type { Key, OpenSink, Sink, SinkCommit, SinkContext, SinkOutcome, SinkSpec, SinkTraits } from './sink.ts'
import { compareText } from './sink.ts'
import type { ForwardOptions } from './spec.ts'
import { sinkSpec } from './spec.ts'

const TRAITS: SinkTraits = { transactional: true, strategies: ['state', 'actions'], readable: true }

/** Of a statement that reads a whole table. */
const PROOF_MS = 600_000

/** Where the database is and who makes its tables. All of it is checked by `postgres()`, before anything connects. */
export interface PostgresSinkOptions extends ForwardOptions {
  /** `postgres://user:password@host:port/database`; parameters such as `?sslmode=verify-full` as the npm package `pg` reads them. Either this or `urlFile`. */
  readonly url?: string | undefined
  /** A file that holds the URL, read again at every connection. */
  readonly urlFile?: string | undefined
  /** Schema of the tables; made when it is missing. @default 'public' */
  readonly schema?: string | undefined
  /** 'auto': tables and columns that are missing are made. 'given': nothing is ever made, and `rejoin sinks plan` says what is missing. @default 'auto' */
  readonly tables?: 'auto' | 'given' | undefined
  /** How long one statement may take, in seconds: the largest commit, the longest ALTER TABLE. @default 60 */
  readonly timeout?: number | undefined
}

const NAMES: readonly string[] = ['url', 'urlFile', 'schema', 'tables', 'timeout'] satisfies readonly (keyof PostgresSinkOptions)[]

/** A Postgres database to keep equal to the documents: `sinks: { warehouse: postgres({ url: process.env.DATABASE_URL }) }`. Throws `SyncError('bad_option')`. */
export function postgres(options: PostgresSinkOptions): SinkSpec {
  const given = { ...options }
  const { urlFile, ...others } = checked(given)
  return sinkSpec('postgres', import.meta.url, TRAITS, given, {
    options: { ...others, timeout: others.timeout / 1000, urlFile: urlFile === undefined ? undefined : resolve(urlFile) },
    names: NAMES,
  })
}

/** Opens the sink, in the worker. It connects when it begins. */
export const openSink: OpenSink = async (options, context) => createSink(checked(options), context)

interface Options extends PostgresAddress {
  readonly schema: string
  readonly tables: 'auto' | 'given'
}

function checked({ url, urlFile, schema = 'public', tables = 'auto', timeout = 60 }: Readonly<Record<string, unknown>>): Options {
  const isText = (value: unknown): value is string => typeof value === 'string' && value !== ''
  // Neither is shown: both may hold a password, one by mistake.
  if (isText(url) === isText(urlFile) || (url !== undefined && !isText(url)) || (urlFile !== undefined && !isText(urlFile)))
    throw new SyncError(
      'bad_option',
      'postgres({ url }): either url or urlFile is a text; is the variable of the environment set that it comes from?',
    )
  if (!isText(schema) || Buffer.byteLength(schema) > 63 || /\0|^pg_/u.test(schema))
    throw new SyncError('bad_option', 'postgres({ schema }): schema is the name of a schema, at most 63 bytes')
  if (tables !== 'auto' && tables !== 'given') throw new SyncError('bad_option', "postgres({ tables }): tables is 'auto' or 'given'")
  if (typeof timeout !== 'number' || !(timeout >= 1 && timeout <= 86_400))
    throw new SyncError('bad_option', 'postgres({ timeout }): timeout is a number of seconds, from 1 to 86,400')
  return { timeout: timeout * 1000, url: isText(url) ? url : undefined, urlFile: isText(urlFile) ? urlFile : undefined, schema, tables }
}

function createSink(options: Options, context: SinkContext): Sink {
  const { schema, tables } = options
  const destination: Destination = {
    context,
    schema,
    books: bookkeepingIn(schema),
    tables: tablesOf(context.collections, context.untyped, schema),
    given: tables === 'given',
  }
  const dial = (timeout = options.timeout): Promise<Session> => connect({ ...options, timeout }, `rejoin ${context.name}`)
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
    keys: async (limit, from) => keysOf(live().session, destination, limit, from),
    proof: createProof(() => dial(Math.max(PROOF_MS, options.timeout)), destination),
    plan: () => beside((session) => plan(session, destination)),
    drop: async () => {
      await close()
      await beside((session) => drop(session, destination))
    },
    close,
  }
}

/** Keys that a refresh has to look at. What somebody else put there is left alone, unless strangers are to go. */
async function keysOf(session: Session, { context, tables }: Destination, limit: number, from: Key | undefined): Promise<readonly Key[]> {
  const keys: Key[] = []
  const written = context.forward.strangers === 'delete' ? 'true' : `${STAMP} > 0`
  for (const { name, sql } of [...tables].sort((a, b) => compareText(a.name, b.name))) {
    if (keys.length === limit) break
    if (from !== undefined && compareText(name, from.collection) < 0) continue
    const behind = from?.collection === name ? ' AND (document COLLATE "C", id COLLATE "C") > ($2, $3)' : ''
    const rows = await session.query(
      `SELECT document, id FROM ${sql} WHERE ${written}${behind} ORDER BY document COLLATE "C", id COLLATE "C" LIMIT $1`,
      [limit - keys.length, ...(behind === '' ? [] : [from?.document, from?.id])],
    )
    keys.push(...rows.map(([document, id]) => ({ collection: name, document, id }) as Key))
  }
  return keys
}
