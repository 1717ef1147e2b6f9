/**
 * The clinic's programs as an operator runs them: `rejoin serve` and `rejoin forward`, each a process that can be killed, and `rejoin sinks …` beside them.
 */
import type { ChildProcess } from 'node:child_process'
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import type { Edit } from '@rejoin/client'
import { mergeReceipts } from '@rejoin/shared/receipts'
import { freePort } from './ports.ts'

/** A process, at the same port and with the same files whenever it is started. */
export interface Program {
  readonly port: number
  /** Resolves when it listens. */
  start(): Promise<void>
  /** kill -9. */
  kill(): Promise<void>
  stop(): Promise<void>
  /** At once, for when this process ends. */
  abandon(): void
}

export interface Rejoin {
  readonly relay: Program
  readonly forwarder: Program
  /** Waits until these edits can be seen in the sink: first each for the relay, then all of them by one receipt. */
  seen(edits: readonly Edit<unknown>[], sink: string, signal: AbortSignal): Promise<void>
  /** `rejoin sinks <command> …`: what it printed, and whether it exited with 0. */
  sinks(command: string, ...args: readonly string[]): Promise<{ readonly ok: boolean; readonly text: string }>
}

const cli = fileURLToPath(new URL('./cli.js', import.meta.resolve('@rejoin/server')))
const config = fileURLToPath(new URL('../downstream.config.ts', import.meta.url))
const STOP_MS = 6_000
const AGAIN_MS = 100

/** Both programs on the files in `folder`, and the Postgres at `databaseUrl`. `failed` is told when one of them ends by itself. */
export async function prepareRejoin(folder: string, databaseUrl: string, failed: (error: Error) => void): Promise<Rejoin> {
  const data = join(folder, 'data')
  const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith('REJOIN_'))
  const env = { ...Object.fromEntries(inherited), DATABASE_URL: databaseUrl, DATA: data }
  const prepare = async (command: string, ...flags: readonly string[]): Promise<Program> => {
    const port = await freePort()
    return program(port, [command, '--config', config, '--port', String(port), ...flags], {
      env,
      logFile: join(folder, `${command}.log`),
      failed,
    })
  }
  const relay = await prepare('serve', '--forward', 'elsewhere')
  const forwarder = await prepare('forward')
  const url = `http://127.0.0.1:${forwarder.port}`
  return {
    relay,
    forwarder,
    seen: async (edits, sink, signal) => {
      await Promise.all(edits.map((edit) => edit.wait({ to: 'relay', signal })))
      const receipt = mergeReceipts(...edits.flatMap((edit) => edit.receipt ?? []))
      while (!(await isSeen(`${url}/v1/sinks/${sink}?after=${receipt}&timeout=10`, signal)))
        await setTimeout(AGAIN_MS, undefined, { signal })
    },
    sinks: (command, ...args) =>
      new Promise((resolve) => {
        execFile(process.execPath, [cli, 'sinks', command, ...args, '--url', url, '--data', data], { env }, (error, stdout, stderr) =>
          resolve({ ok: error === null, text: `${stdout}${stderr}`.trimEnd() }),
        )
      }),
  }
}

interface Surroundings {
  readonly env: NodeJS.ProcessEnv
  readonly logFile: string
  readonly failed: (error: Error) => void
}

function program(port: number, args: readonly string[], { env, logFile, failed }: Surroundings): Program {
  let child: ChildProcess | undefined
  let ending = false
  const end = async (signal: NodeJS.Signals): Promise<void> => {
    ending = true
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
    const over = once(child, 'exit')
    child.kill(signal)
    await over
  }
  return {
    port,
    start: async () => {
      ending = false
      const log = openSync(logFile, 'a')
      // A group of its own: Ctrl-C reaches us, and we stop it.
      const started = spawn(process.execPath, [cli, ...args], { env, stdio: ['ignore', 'pipe', log], detached: true })
      closeSync(log)
      child = started
      // Its one line on standard output says that it listens.
      const listening = new Promise((resolve) => started.stdout?.once('data', resolve))
      const ended = new Promise<never>((_, reject) => {
        started.once('exit', (code, signal) => {
          const error = new Error(`rejoin ${args[0]} ended (${signal ?? `exit code ${code}`}). Its last words:\n${lastLines(logFile)}`)
          reject(error)
          if (!ending) failed(error)
        })
      })
      await Promise.race([listening, ended])
      ended.catch(() => undefined)
    },
    kill: () => end('SIGKILL'),
    stop: () => Promise.race([end('SIGTERM'), setTimeout(STOP_MS, undefined, { ref: false }).then(() => end('SIGKILL'))]),
    abandon: () => {
      ending = true
      child?.kill('SIGKILL')
    },
  }
}

/** Asks the forwarder, which answers once the sink is there. Not yet, or nobody there to answer: false. */
async function isSeen(url: string, signal: AbortSignal): Promise<boolean> {
  const answer = await fetch(url, { signal }).catch((error: unknown) => {
    if (signal.aborted) throw error
  })
  if (answer === undefined) return false
  const text = await answer.text().catch(() => '')
  if (answer.ok || answer.status === 503 || text === '') return answer.status === 200
  throw new Error(`waiting for a sink: ${answer.status} ${text}`)
}

function lastLines(path: string): string {
  return readFileSync(path, 'utf8').trimEnd().split('\n').slice(-10).join('\n')
}
