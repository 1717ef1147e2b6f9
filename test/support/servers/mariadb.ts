/**
 * MariaDB for tests.
 */
import { randomUUID } from 'node:crypto'
import { createConnection } from 'mysql2/promise'
import type { Probe } from '../requires.ts'
import { findProgram, requires } from '../requires.ts'
import type { TestServer } from './server.ts'
import { startServer, withDatabase } from './server.ts'

/** A server whose user `root` needs no password. */
export interface MariadbServer extends TestServer {
  /** Of the database `test`. */
  readonly url: string
  /** Makes an empty database, such as a test wants for itself, and resolves with its URL. */
  database(): Promise<string>
}

export interface MariadbOptions {
  /** Settings as in my.cnf, without the dashes. */
  readonly settings?: Readonly<Record<string, string>>
}

/** Why there is no MariaDB here, if so. */
export const mariadbProbe: Probe = () =>
  findProgram('mariadbd') === undefined || findProgram('mariadb-install-db') === undefined
    ? 'no MariaDB on this machine (apt-get install mariadb-server)'
    : undefined

/** `describe` of suites that need MariaDB. */
export const describeMariadb: (suite: string, body: () => void) => void = requires('MariaDB', mariadbProbe)

/** Starts an empty MariaDB. */
export async function startMariadb({ settings = {} }: MariadbOptions = {}): Promise<MariadbServer> {
  const all = { 'character-set-server': 'utf8mb4', ...settings }
  const given = Object.entries(all).map(([name, value]) => `--${name}=${value}`)
  const server = await startServer({
    name: 'MariaDB',
    prepare: ({ folder }, run) => {
      const how = ['--auth-root-authentication-method=normal', '--skip-test-db', '--skip-name-resolve']
      return run([findProgram('mariadb-install-db') ?? 'mariadb-install-db', '--no-defaults', `--datadir=${folder}/data`, ...how])
    },
    command: ({ folder, port }) => [
      findProgram('mariadbd') ?? 'mariadbd',
      ...['--no-defaults', `--datadir=${folder}/data`, '--bind-address=127.0.0.1', `--port=${port}`, '--skip-name-resolve'],
      ...[`--socket=${folder}/socket`, `--pid-file=${folder}/pid`],
      ...given,
    ],
    answers: async ({ port }) => {
      await query(rootUrl(port), 'CREATE DATABASE IF NOT EXISTS test')
      return true
    },
  })
  const url = rootUrl(server.port)
  const database = async (): Promise<string> => {
    const name = `test_${randomUUID().replaceAll('-', '')}`
    await query(url, `CREATE DATABASE ${name}`)
    return withDatabase(url, name)
  }
  return { ...server, url: withDatabase(url, 'test'), database }
}

function rootUrl(port: number): string {
  return `mysql://root@127.0.0.1:${port}`
}

async function query(url: string, sql: string): Promise<void> {
  const connection = await createConnection({ uri: url, connectTimeout: 2000 })
  try {
    await connection.query(sql)
  } finally {
    connection.destroy()
  }
}
