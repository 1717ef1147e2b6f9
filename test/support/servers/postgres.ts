/**
 * PostgreSQL for tests, with logical decoding on.
 */
import { randomUUID } from 'node:crypto'
import pg from 'pg'
import { findProgram, requires } from '../requires.ts'
import type { Probe } from '../requires.ts'
import type { TestServer } from './server.ts'
import { startServer, withDatabase } from './server.ts'

/** A server whose superuser `postgres` needs no password. */
export interface PostgresServer extends TestServer {
  /** Of the database `postgres`. */
  readonly url: string
  /** Makes an empty database, such as a test wants for itself, and resolves with its URL. */
  database(): Promise<string>
}

export interface PostgresOptions {
  /** Settings as in postgresql.conf. */
  readonly settings?: Readonly<Record<string, string>>
}

/** Why there is no PostgreSQL here, if so. */
export const postgresProbe: Probe = () =>
  findProgram('initdb') === undefined || findProgram('postgres') === undefined
    ? 'no PostgreSQL on this machine (apt-get install postgresql)'
    : undefined

/** `describe` of suites that need PostgreSQL. */
export const describePostgres: (suite: string, body: () => void) => void = requires('PostgreSQL', postgresProbe)

/** Starts an empty PostgreSQL. */
export async function startPostgres({ settings = {} }: PostgresOptions = {}): Promise<PostgresServer> {
  const all = { listen_addresses: '127.0.0.1', wal_level: 'logical', ...settings }
  const given = Object.entries(all).flatMap(([name, value]) => ['-c', `${name}=${value}`])
  const server = await startServer({
    name: 'PostgreSQL',
    prepare: ({ folder }, run) => {
      const how = ['-U', 'postgres', '-A', 'trust', '-E', 'UTF8', '--locale=C', '--no-sync']
      return run([findProgram('initdb') ?? 'initdb', '-D', `${folder}/data`, ...how])
    },
    command: ({ folder, port }) => [findProgram('postgres') ?? 'postgres', '-D', `${folder}/data`, '-p', `${port}`, '-k', folder, ...given],
    answers: async ({ port }) => {
      await query(urlOf(port), 'SELECT 1')
      return true
    },
    // SIGTERM would wait for its clients.
    stopSignal: 'SIGINT',
  })
  const url = urlOf(server.port)
  const database = async (): Promise<string> => {
    const name = `test_${randomUUID().replaceAll('-', '')}`
    await query(url, `CREATE DATABASE ${name}`)
    return withDatabase(url, name)
  }
  return { ...server, url, database }
}

function urlOf(port: number): string {
  return `postgres://postgres@127.0.0.1:${port}/postgres`
}

async function query(url: string, sql: string): Promise<void> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 2000, query_timeout: 5000 })
  // A connection that breaks also fails the query: one report is enough.
  client.on('error', () => undefined)
  try {
    await client.connect()
    await client.query(sql)
  } finally {
    await client.end()
  }
}
