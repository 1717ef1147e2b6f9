/**
 * Real servers for tests: started on a free port in a folder of their own, waited for, stopped, killed, frozen, and never left behind.
 */
import { spawn } from 'node:child_process'
import { closeSync, openSync, readFileSync, rmSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { until, within } from '../until.ts'
import type { Place } from './place.ts'
import { identity, makePlace } from './place.ts'
import { isAlive, isStopped, processTree, signalAll } from './processes.ts'

/** How one kind of server is run. */
export interface Recipe {
  readonly name: string
  /** Fills the folder, once. `run` runs a program there, as the server's user, to its end. */
  readonly prepare?: (place: Place, run: (command: readonly string[]) => Promise<void>) => void | Promise<void>
  /** The program, absolute, and its arguments. It must stay in the foreground. */
  readonly command: (place: Place) => readonly string[]
  /** Whether the server answers in its own protocol. To throw is to say no. */
  readonly answers: (place: Place) => Promise<boolean>
  /** Asks the server to end without waiting for its clients. SIGTERM unless said. */
  readonly stopSignal?: NodeJS.Signals
  /** How long it may take to answer, in ms. 15,000 unless said. */
  readonly startLimit?: number
}

/** A server that runs for a test. */
export interface TestServer {
  readonly name: string
  /** On 127.0.0.1; the same after a restart. */
  readonly port: number
  readonly folder: string
  /** The server's processes, the first one first; none while it is down. */
  processes(): readonly number[]
  /** Its last log lines. */
  log(lines?: number): string
  /** Ends it for good: politely, after 5 s by force. Removes its folder. */
  stop(): Promise<void>
  /** Ends all its processes at once, as a crash would. The folder stays, for `restart`. */
  kill(): Promise<void>
  /** Ends it politely if it runs, then starts it on the same port and folder. Resolves when it answers. */
  restart(): Promise<void>
  /** Stops all its processes where they stand: connections stay open, nothing answers. */
  freeze(): Promise<void>
  thaw(): Promise<void>
}

const STOP_LIMIT = 5000

/** Starts a server and resolves when it answers. Rejects with its last log lines when it ends before, or takes longer than its limit. */
export async function startServer(recipe: Recipe): Promise<TestServer> {
  const place = await makePlace()
  let first: number | undefined
  const processes = (): readonly number[] => (first === undefined ? [] : processTree(first))

  const start = async (): Promise<void> => {
    const child = launch(place, recipe.command(place))
    first = child.pid
    await answering(recipe, place, child.ended)
  }
  const kill = async (): Promise<void> => {
    // Frozen ones too: SIGKILL needs nobody's help. The first one goes first, so that it starts no more.
    const pids = processes()
    signalAll(pids, 'SIGKILL')
    await until(() => !pids.some(isAlive), `the end of ${recipe.name}`)
    first = undefined
  }
  const thaw = async (): Promise<void> => {
    signalAll([...processes()].reverse(), 'SIGCONT')
    await until(() => !processes().some(isStopped), `${recipe.name} to go on`)
  }
  const end = async (): Promise<void> => {
    await thaw()
    // Looked up first: once the first process has ended, its children are no longer in the tree.
    const pids = processes()
    signalAll(pids.slice(0, 1), recipe.stopSignal ?? 'SIGTERM')
    await until(() => !pids.some(isAlive), `${recipe.name} to end by itself`, STOP_LIMIT).catch(() => signalAll(pids, 'SIGKILL'))
    await kill()
  }
  const leave = (): void => {
    signalAll(processes(), 'SIGKILL')
    rmSync(place.folder, { recursive: true, force: true, maxRetries: 5 })
  }
  const forget = (): void => {
    leave()
    process.off('exit', leave)
  }
  process.once('exit', leave)

  try {
    await recipe.prepare?.(place, (command) => runToEnd(recipe.name, place, command))
    await start()
  } catch (error) {
    await kill()
    forget()
    throw error
  }
  return {
    name: recipe.name,
    port: place.port,
    folder: place.folder,
    processes,
    log: (lines) => tail(place, lines),
    kill,
    thaw,
    stop: async () => {
      await end()
      forget()
    },
    restart: async () => {
      await end()
      await start()
    },
    freeze: async () => {
      // Again until nobody moves: a process may have been born while the others were stopped.
      await until(() => {
        signalAll(processes(), 'SIGSTOP')
        return processes().every(isStopped)
      }, `${recipe.name} to stand still`)
    },
  }
}

/** The connection's URL with another database. */
export function withDatabase(url: string, database: string): string {
  const changed = new URL(url)
  changed.pathname = `/${database}`
  return changed.href
}

interface Launched {
  readonly pid: number | undefined
  /** Resolves with how it ended, in words. */
  readonly ended: Promise<string>
}

function launch({ folder }: Place, command: readonly string[]): Launched {
  const log = openSync(logFile(folder), 'a')
  try {
    const child = spawn('setpriv', [...identity(), ...command], {
      cwd: folder,
      env: environment(folder),
      // Ctrl-C in a terminal reaches the tests, which stop it; not the server itself.
      detached: true,
      stdio: ['ignore', log, log],
    })
    const ended = new Promise<string>((resolve) => {
      child.once('error', (error) => resolve(error.message))
      child.once('exit', (code, signal) => resolve(signal === null ? `exit code ${code}` : `signal ${signal}`))
    })
    return { pid: child.pid, ended }
  } finally {
    closeSync(log)
  }
}

async function answering({ name, answers, startLimit = 15_000 }: Recipe, place: Place, ended: Promise<string>): Promise<void> {
  let end: string | undefined
  void ended.then((words) => (end = words))
  // A look that gets no answer must not use up the time of the others.
  const look = async (): Promise<boolean> => end !== undefined || within(answers(place), `${name} answers`, 3000)
  try {
    await until(look, `${name} to answer`, startLimit)
  } catch (cause) {
    throw new Error(`${name} did not answer within ${startLimit} ms\n${tail(place)}`, { cause })
  }
  if (end !== undefined) throw new Error(`${name} ended while it was starting (${end})\n${tail(place)}`)
}

async function runToEnd(name: string, place: Place, command: readonly string[]): Promise<void> {
  const end = await launch(place, command).ended
  if (end !== 'exit code 0') throw new Error(`${name}: ${command[0]} failed (${end})\n${tail(place)}`)
}

/** Nothing of the tester's own settings: what PG*, MYSQL_* or JAVA_TOOL_OPTIONS say must not reach a server. */
function environment(folder: string): NodeJS.ProcessEnv {
  const path = [process.env['PATH'] ?? '', '/usr/sbin', '/usr/bin', '/bin'].join(delimiter)
  return { PATH: path, HOME: folder, TMPDIR: folder, LC_ALL: 'C.UTF-8' }
}

function logFile(folder: string): string {
  return join(folder, 'server.log')
}

function tail({ folder }: Place, lines = 20): string {
  return readFileSync(logFile(folder), 'utf8').trimEnd().split('\n').slice(-lines).join('\n')
}
