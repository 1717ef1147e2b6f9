/**
 * Connections to MySQL or MariaDB (step 8 of the path): sessions that are strict whatever the server's defaults are, give up in time, and never tell a password.
 */
import { readFileSync } from 'node:fs'
import { SyncError } from '@rejoin/shared'
import type * as Driver from 'mysql2/promise'

/** Where to connect. */
export interface MysqlAddress {
  readonly url: string | undefined
  /** Read again at every connection, so that credentials can change without a restart. */
  readonly urlFile: string | undefined
  /** Of one statement, in ms. */
  readonly timeout: number
}

/** A cell as it comes from the server. */
export type Cells = readonly unknown[]

/** One session. Values are put into the text as `text` says; there are no prepared statements. */
export interface Session {
  /** Rows as arrays. */
  rows(sql: string): Promise<readonly Cells[]>
  /** How many rows a statement found, whether it changed them or not. */
  run(sql: string): Promise<number>
  /** Name of the database. */
  readonly database: string
  /** utf8mb4 by code point, where trailing spaces count. */
  readonly collation: string
  /** Bytes of one statement at most. */
  readonly packet: number
  close(): Promise<void>
}

/** What the server said, as far as a sink acts on it. */
export interface Failure {
  /** Undefined: the connection failed, and whether the statement happened is not known. */
  readonly code: number | undefined
  readonly state: string
  readonly message: string
}

const CONNECT_MS = 10_000
const LOCK_S = 10
const IDLE_IN_TRANSACTION_S = 10
const END_MS = 1_000

/** Connects. */
export async function connect(address: MysqlAddress): Promise<Session> {
  const mysql = await driver()
  const url = urlOf(address)
  const masked = async <T>(work: Promise<T>): Promise<T> => {
    try {
      return await work
    } catch (error) {
      throw mask(error, url)
    }
  }
  const connection = await masked(
    mysql.createConnection({
      uri: url,
      connectTimeout: CONNECT_MS,
      charset: 'utf8mb4',
      multipleStatements: false,
      dateStrings: true,
      enableKeepAlive: true,
    }),
  )
  // The connection broke between two statements: the next one says so.
  connection.on('error', () => undefined)
  // A server that does not answer even its own timeout is gone.
  const limit = address.timeout + 15_000
  const rows = async (sql: string): Promise<readonly Cells[]> =>
    (await masked(connection.query({ sql, rowsAsArray: true, timeout: limit })))[0] as unknown as readonly Cells[]
  try {
    const settings = await settle(rows, address.timeout)
    return {
      rows,
      run: async (sql) => (await masked(connection.query<Driver.ResultSetHeader>({ sql, timeout: limit })))[0].affectedRows,
      ...settings,
      close: () => end(connection),
    }
  } catch (error) {
    await end(connection)
    throw error
  }
}

async function settle(
  rows: (sql: string) => Promise<readonly Cells[]>,
  timeout: number,
): Promise<Pick<Session, 'database' | 'collation' | 'packet'>> {
  const [first] = await rows("SELECT DATABASE(), @@max_allowed_packet, VERSION() LIKE '%MariaDB%'")
  const [database, packet, isMaria] = first ?? []
  if (typeof database !== 'string')
    throw new SyncError('bad_option', 'mysql(): the url names no database; write mysql://user@host:port/database')
  const [found] = await rows(
    "SELECT COLLATION_NAME FROM information_schema.COLLATIONS WHERE COLLATION_NAME IN ('utf8mb4_nopad_bin', 'utf8mb4_0900_bin')",
  )
  if (found === undefined)
    throw new SyncError(
      'bad_option',
      'mysql(): the server has neither utf8mb4_nopad_bin nor utf8mb4_0900_bin; it takes MariaDB 10.3 or MySQL 8.0, or later',
    )
  const collation = String(found[0])
  // A frozen predecessor must not stand in its successor's way for ever; MySQL has no limit for that.
  const limits = isMaria === 1 ? [`idle_transaction_timeout = ${IDLE_IN_TRANSACTION_S}`, `max_statement_time = ${timeout / 1000}`] : []
  await rows(
    `SET SESSION ${["sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,ERROR_FOR_DIVISION_BY_ZERO'", `innodb_lock_wait_timeout = ${LOCK_S}`, `lock_wait_timeout = ${LOCK_S}`, 'unique_checks = 1', 'foreign_key_checks = 1', 'autocommit = 1', ...limits].join(', ')}`,
  )
  await rows(`SET NAMES utf8mb4 COLLATE ${collation}`)
  await rows('SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED')
  return { database, collation, packet: Number(packet) }
}

async function end(connection: Driver.Connection): Promise<void> {
  const cut = setTimeout(() => connection.destroy(), END_MS)
  await connection.end().catch(() => undefined)
  clearTimeout(cut)
  connection.destroy()
}

/** What an error of `Session` says. */
export function failure(error: unknown): Failure {
  const { errno, sqlState, sqlMessage, message } = (typeof error === 'object' && error !== null ? error : {}) as Record<string, unknown>
  const isServers = typeof errno === 'number' && typeof sqlState === 'string' && sqlState.length === 5
  return {
    code: isServers ? errno : undefined,
    state: isServers ? sqlState : '',
    message: typeof sqlMessage === 'string' ? sqlMessage : typeof message === 'string' ? message : String(error),
  }
}

const SPECIAL = /[\p{Cc}"'\\]/gu
const ESCAPES: Readonly<Record<string, string>> = {
  '\0': '\\0',
  '\b': '\\b',
  '\t': '\\t',
  '\n': '\\n',
  '\r': '\\r',
  '\u001a': '\\Z',
  '"': '\\"',
  "'": "\\'",
  '\\': '\\\\',
}

/** A text in a statement. Backslashes escape: sql_mode is ours. */
export function literal(value: string): string {
  return `'${value.replace(SPECIAL, (character) => ESCAPES[character] ?? character)}'`
}

/** A name in a statement. */
export function quote(name: string): string {
  return `\`${name.replaceAll('`', '``')}\``
}

/** Loaded when a sink is opened: whoever has no MySQL need not have the driver. */
async function driver(): Promise<typeof Driver> {
  try {
    return await import('mysql2/promise')
  } catch (cause) {
    throw new SyncError('bad_option', 'mysql(): its driver is not installed; run npm install mysql2', { cause })
  }
}

function urlOf({ url, urlFile }: MysqlAddress): string {
  const text = urlFile === undefined ? url : readFileSync(urlFile, 'utf8').trim()
  if (text === undefined || !/^(mysql|mariadb):\/\/\S+$/u.test(text) || !URL.canParse(text))
    throw new SyncError(
      'bad_option',
      `mysql(): ${urlFile === undefined ? 'url' : `what is in ${urlFile}`} is not of the form mysql://user@host:port/database`,
    )
  return text.replace(/^mariadb:/u, 'mysql:')
}

/** The error without the password, and without the statement, which holds an application's data. */
function mask(error: unknown, url: string): unknown {
  if (!(error instanceof Error)) return error
  const { password } = new URL(url)
  const secrets = [password, decoded(password)].filter((secret) => secret !== '')
  const clean = (text: string): string =>
    secrets.reduce((masked, secret) => masked.replaceAll(secret, '***'), text.replaceAll(url, 'mysql://***'))
  const { errno, sqlState, sqlMessage, code, message } = error as Error & Record<string, unknown>
  const told = new Error(clean(message))
  if (error.stack !== undefined) told.stack = clean(error.stack)
  return Object.assign(told, { errno, sqlState, code, ...(typeof sqlMessage === 'string' ? { sqlMessage: clean(sqlMessage) } : {}) })
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}
