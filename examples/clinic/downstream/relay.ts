/**
 * The relay of the example as an operator runs it: `rejoin serve` with the clinic's config file, and `rejoin sinks …` beside it.
 */
import type { ChildProcess } from 'node:child_process'
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, existsSync, openSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { freePort } from './ports.ts'

export interface Relay {
  readonly port: number
  /** On the same port and folder. Resolves when it listens. */
  start(): Promise<void>
  /** kill -9. */
  kill(): Promise<void>
  /** Ends the thread of the relay that projects and forwards, where it stands. Resolves when the relay has said so. */
  killForwarder(): Promise<void>
  /** `rejoin sinks <command> …`: what it printed, and whether it exited with 0. */
  sinks(command: string, ...args: readonly string[]): Promise<{ readonly ok: boolean; readonly text: string }>
  stop(): Promise<void>
  /** At once, for when this process ends. */
  abandon(): void
}

const cli = fileURLToPath(new URL('./cli.js', import.meta.resolve('@rejoin/server')))
const config = fileURLToPath(new URL('../downstream.config.ts', import.meta.url))
const crash = new URL('crash.js', import.meta.url).href
const DIED = 'the worker that keeps view and sinks died'
const LOOK_MS = 20
const LATE_MS = 20_000
const STOP_MS = 6_000

/** A relay that keeps its files in `folder` and writes to the Postgres at `databaseUrl`. `failed` is told when it ends by itself. */
export async function prepareRelay(folder: string, databaseUrl: string, failed: (error: Error) => void): Promise<Relay> {
  const [data, logFile, port] = [join(folder, 'data'), join(folder, 'log'), await freePort()]
  const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith('REJOIN_'))
  const env = { ...Object.fromEntries(inherited), DATABASE_URL: databaseUrl, DATA: data }
  let child: ChildProcess | undefined
  let ending = false

  const start = async (): Promise<void> => {
    ending = false
    const args = ['--import', crash, cli, 'serve', '--config', config, '--port', String(port)]
    const log = openSync(logFile, 'a')
    const started = spawn(process.execPath, args, { env, stdio: ['ignore', 'pipe', log], detached: true })
    closeSync(log)
    child = started
    const listening = new Promise((resolve) => started.stdout?.once('data', resolve))
    const ended = new Promise<never>((_, reject) => {
      started.once('exit', (code, signal) => {
        const error = new Error(`The relay ended (${signal ?? `exit code ${code}`}). Its last words:\n${lastLines(logFile)}`)
        reject(error)
        if (!ending) failed(error)
      })
    })
    // Its one line on standard output says that it listens.
    await Promise.race([listening, ended])
    ended.catch(() => undefined)
  }
  const end = async (signal: NodeJS.Signals): Promise<void> => {
    ending = true
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
    const over = once(child, 'exit')
    child.kill(signal)
    await over
  }
  const deaths = (): number => (existsSync(logFile) ? readFileSync(logFile, 'utf8').split(DIED).length - 1 : 0)
  return {
    port,
    start,
    kill: () => end('SIGKILL'),
    killForwarder: async () => {
      const before = deaths()
      child?.kill('SIGUSR2')
      const limit = Date.now() + LATE_MS
      while (deaths() === before) {
        if (Date.now() > limit)
          throw new Error(`The forwarder was told to end, and goes on. The relay's last words:\n${lastLines(logFile)}`)
        await setTimeout(LOOK_MS)
      }
    },
    sinks: (command, ...args) =>
      new Promise((resolve) => {
        const words = ['sinks', command, ...args, '--url', `http://127.0.0.1:${port}`, '--data', data]
        execFile(process.execPath, [cli, ...words], { env }, (error, stdout, stderr) =>
          resolve({ ok: error === null, text: `${stdout}${stderr}`.trimEnd() }),
        )
      }),
    stop: () => Promise.race([end('SIGTERM'), setTimeout(STOP_MS, undefined, { ref: false }).then(() => end('SIGKILL'))]),
    abandon: () => {
      ending = true
      child?.kill('SIGKILL')
    },
  }
}

function lastLines(path: string): string {
  return readFileSync(path, 'utf8').trimEnd().split('\n').slice(-10).join('\n')
}
