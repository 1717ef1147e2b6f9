/**
 * Connections to Postgres (step 8 of the path): a session that gives up by itself when its process is frozen, so that it never stands in its successor's way, and errors that never tell a password.
 */
import { readFileSync } from 'node:fs'
import { Socket } from 'node:net'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { SyncError } from '@rejoin/shared'
import type Pg from 'pg'
import type { from as CopyFrom } from 'pg-copy-streams'

/** Where to connect. */
export interface PostgresAddress {
  readonly url: string | undefined
  /** Read again at every connection, so that credentials can change without a restart. */
  readonly urlFile: string | undefined
  /** Of one statement, in ms. */
  readonly timeout: number
}

/** A cell as it comes from the server: text, unless Postgres' type is boolean, a small integer or JSON. */
export type Cells = readonly unknown[]

/** One session. */
export interface Session {
  /** Rows as arrays. Rejects as `failure` tells apart. A name prepares the statement once for the session. */
  query(text: string, values?: readonly unknown[], name?: string): Promise<readonly Cells[]>
  /** COPY … FROM STDIN in text format. */
  copy(text: string, chunks: Iterable<string>): Promise<void>
  /** Ends the session; one that does not answer is cut. */
  close(): Promise<void>
}

/** What Postgres said, as far as a sink acts on it. */
export interface Failure {
  /** SQLSTATE; undefined: the connection failed, and whether the statement happened is not known. */
  readonly state: string | undefined
  readonly message: string
  readonly schema: string | undefined
  readonly table: string | undefined
  readonly constraint: string | undefined
}

const CONNECT_MS = 10_000
/** How long a lock is waited for, and how long a transaction may stand still: at most a frozen process holds up its successor for so long. */
const STILL_MS = 10_000
/** A server that does not answer even its own timeout is gone. */
const ANSWER_MS = 15_000
const END_MS = 1_000

/** What a session is told first. A COPY whose sender was frozen ends by statement_timeout. */
function settings(timeout: number): string {
  const still = Math.min(STILL_MS, timeout)
  return Object.entries({
    statement_timeout: timeout,
    lock_timeout: still,
    idle_in_transaction_session_timeout: still,
    tcp_user_timeout: 30_000,
    tcp_keepalives_idle: 10,
    tcp_keepalives_interval: 5,
    tcp_keepalives_count: 3,
    // What was told must not be lost, whatever the server's or the role's default is.
    synchronous_commit: 'on',
    standard_conforming_strings: 'on',
  })
    .map(([name, value]) => `SET ${name} = ${value}`)
    .join('; ')
}

/** Connects. `name` is what `pg_stat_activity` shows. */
export async function connect(address: PostgresAddress, name: string): Promise<Session> {
  const { pg, copyFrom } = await drivers()
  const url = urlOf(address)
  const socket = new Socket()
  const client = new pg.Client({
    connectionString: url,
    stream: () => socket,
    connectionTimeoutMillis: CONNECT_MS,
    query_timeout: address.timeout + ANSWER_MS,
    keepAlive: true,
    keepAliveInitialDelayMillis: 10_000,
    application_name: name,
  })
  // The connection broke between two statements: the next one says so.
  client.on('error', () => undefined)
  // A stream of COPY does not notice that its connection is gone.
  const gone = new Promise<never>((_, reject) => {
    socket.once('close', () => reject(new Error('the connection to Postgres was closed')))
  })
  gone.catch(() => undefined)
  const masked = async <T>(work: Promise<T>): Promise<T> => {
    try {
      return await work
    } catch (error) {
      throw mask(error, url)
    }
  }
  const close = async (): Promise<void> => {
    const cut = setTimeout(() => socket.destroy(), END_MS)
    await client.end().catch(() => undefined)
    clearTimeout(cut)
    socket.destroy()
  }
  try {
    await masked(client.connect())
    await masked(client.query(settings(address.timeout)))
  } catch (error) {
    await close()
    throw error
  }
  return {
    query: async (text, values, statement) => {
      const result = await masked(
        client.query<unknown[]>({
          text,
          rowMode: 'array',
          ...(values === undefined ? {} : { values: [...values] }),
          ...(statement === undefined ? {} : { name: statement }),
        }),
      )
      return result.rows
    },
    copy: async (text, chunks) => {
      const copying = pipeline(Readable.from(chunks, { objectMode: true }), client.query(copyFrom(text)))
      await masked(Promise.race([copying, gone]))
    },
    close,
  }
}

/** What an error of `Session` says. */
export function failure(error: unknown): Failure {
  const { code, message, schema, table, constraint } = (typeof error === 'object' && error !== null ? error : {}) as Record<string, unknown>
  const text = (value: unknown): string | undefined => (typeof value === 'string' ? value : undefined)
  return {
    // Errors of the operating system have codes too: ECONNRESET.
    state: /^[0-9A-Z]{5}$/u.test(String(code)) ? text(code) : undefined,
    message: text(message) ?? String(error),
    schema: text(schema),
    table: text(table),
    constraint: text(constraint),
  }
}

/** Loaded when a sink is opened: whoever has no Postgres need not have the drivers. */
async function drivers(): Promise<{ readonly pg: typeof Pg; readonly copyFrom: typeof CopyFrom }> {
  try {
    const [pg, copy] = await Promise.all([import('pg'), import('pg-copy-streams')])
    return { pg: pg.default, copyFrom: copy.from }
  } catch (cause) {
    throw new SyncError('bad_option', 'postgres(): its drivers are not installed; run npm install pg pg-copy-streams', { cause })
  }
}

function urlOf({ url, urlFile }: PostgresAddress): string {
  const text = urlFile === undefined ? url : readFileSync(urlFile, 'utf8').trim()
  if (text === undefined || !/^postgres(ql)?:\/\/\S+$/u.test(text) || !URL.canParse(text))
    throw new SyncError(
      'bad_option',
      `postgres(): ${urlFile === undefined ? 'url' : `what is in ${urlFile}`} is not of the form postgres://user@host:port/database`,
    )
  return text
}

/** The error without the password, wherever a driver may have put it. */
function mask(error: unknown, url: string): unknown {
  const { password, searchParams } = new URL(url)
  const secrets = [password, decoded(password), searchParams.get('password') ?? ''].filter((secret) => secret !== '')
  if (!(error instanceof Error)) return error
  const clean = (text: string): string =>
    secrets.reduce((masked, secret) => masked.replaceAll(secret, '***'), text.replaceAll(url, 'postgres://***'))
  error.message = clean(error.message)
  if (error.stack !== undefined) error.stack = clean(error.stack)
  return error
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}
