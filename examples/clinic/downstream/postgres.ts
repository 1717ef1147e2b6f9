/**
 * A private Postgres: the programs that this machine has, on a free port, with its files in a folder that is given. Nothing of an installed server is touched.
 */
import type { ChildProcess } from 'node:child_process'
import { execFile, spawn } from 'node:child_process'
import { accessSync, chownSync, closeSync, constants, existsSync, mkdirSync, openSync, readdirSync, readFileSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { promisify } from 'node:util'
import pg from 'pg'
import { freePort } from './ports.ts'

export interface Postgres {
  readonly url: string
  /** `Postgres 15.8`. */
  readonly version: string
  query(sql: string, values?: readonly unknown[]): Promise<readonly Readonly<Record<string, unknown>>[]>
  /** kill -9 of the server; those that served connections end with it. */
  kill(): Promise<void>
  /** On the same port and files. */
  start(): Promise<void>
  stop(): Promise<void>
  /** At once, for when this process ends. */
  abandon(): void
}

/** Debian's user nobody: Postgres refuses to run as root. */
const NOBODY = 65_534
const START_MS = 20_000
const STOP_MS = 5_000

/** Makes and starts one. Throws an error with the line to type when this machine has no Postgres. */
export async function startPostgres(folder: string): Promise<Postgres> {
  const programs = findPrograms()
  mkdirSync(folder)
  const asRoot = process.getuid?.() === 0
  if (asRoot) chownSync(folder, NOBODY, NOBODY)
  const who = asRoot ? { uid: NOBODY, gid: NOBODY } : {}
  const [data, logFile, port] = [join(folder, 'data'), join(folder, 'log'), await freePort()]
  // What PG* variables say is meant for somebody else's server.
  const env = { PATH: process.env['PATH'], LC_ALL: 'C' }
  const initdb = ['-D', data, '-U', 'postgres', '-A', 'trust', '-E', 'UTF8', '--locale=C', '--no-sync']
  await promisify(execFile)(join(programs, 'initdb'), initdb, { cwd: folder, env, ...who })

  const url = `postgres://postgres@127.0.0.1:${port}/postgres`
  let child: ChildProcess | undefined
  const running = (): boolean => child !== undefined && child.exitCode === null && child.signalCode === null
  const launch = (): void => {
    const args = ['-D', data, '-p', String(port), '-c', 'listen_addresses=127.0.0.1', '-c', 'unix_socket_directories=']
    // Its own group: Ctrl-C reaches us, and we stop it.
    const log = openSync(logFile, 'a')
    child = spawn(join(programs, 'postgres'), args, { cwd: folder, env, stdio: ['ignore', log, log], detached: true, ...who })
    closeSync(log)
  }
  const end = async (signal: NodeJS.Signals): Promise<void> => {
    if (child === undefined || !running()) return
    const over = new Promise((resolve) => child?.once('exit', resolve))
    child.kill(signal)
    await over
  }
  const start = async (): Promise<string> => {
    const limit = Date.now() + START_MS
    while (Date.now() < limit) {
      // After a kill it does not start until the last of those that it left has ended.
      if (!running()) launch()
      await setTimeout(100)
      try {
        const [row] = await ask(url, 'SHOW server_version')
        return `Postgres ${String(row?.['server_version']).split(' ')[0]}`
      } catch {
        // Not yet.
      }
    }
    throw new Error(`Postgres does not answer after ${START_MS / 1000} s. Its last words:\n${lastLines(logFile)}`)
  }
  const abandon = (): void => {
    // Immediate shutdown: it takes its children along.
    if (running()) child?.kill('SIGQUIT')
  }
  try {
    const version = await start()
    return {
      url,
      version,
      query: (sql, values) => ask(url, sql, values),
      kill: () => end('SIGKILL'),
      start: async () => {
        await start()
      },
      stop: () => Promise.race([end('SIGINT'), setTimeout(STOP_MS, undefined, { ref: false }).then(() => end('SIGQUIT'))]),
      abandon,
    }
  } catch (error) {
    abandon()
    throw error
  }
}

/** The folder with initdb and postgres: in PATH, or where Debian keeps each version, the newest first. */
function findPrograms(): string {
  const debian = '/usr/lib/postgresql'
  const versions = existsSync(debian) ? readdirSync(debian).sort((one, other) => Number(other) - Number(one)) : []
  const folders = [...(process.env['PATH'] ?? '').split(delimiter), ...versions.map((version) => join(debian, version, 'bin'))]
  const found = folders.find((folder) => folder !== '' && ['initdb', 'postgres'].every((name) => isProgram(join(folder, name))))
  if (found !== undefined) return found
  throw new Error(
    'There is no Postgres on this machine. On Debian and Ubuntu: sudo apt-get install postgresql (only its programs are used; a server that runs already is left alone)',
  )
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}

async function ask(url: string, sql: string, values: readonly unknown[] = []): Promise<readonly Readonly<Record<string, unknown>>[]> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 2_000, query_timeout: 10_000 })
  // A connection that breaks fails the query as well.
  client.on('error', () => undefined)
  try {
    await client.connect()
    const { rows } = await client.query<Readonly<Record<string, unknown>>>(sql, [...values])
    return rows
  } finally {
    await client.end().catch(() => undefined)
  }
}

function lastLines(path: string): string {
  return readFileSync(path, 'utf8').trimEnd().split('\n').slice(-10).join('\n')
}
