/**
 * The example app as its user starts it: built, then `serve.js` with a relay of its own, on free ports and a data folder of its own.
 */
import type { ChildProcess } from 'node:child_process'
import { execFile, spawn } from 'node:child_process'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { promisify } from 'node:util'
import { root } from './sources.ts'

const folder = join(root, 'examples/clinic')

/** Addresses as `npm start` prints them. */
export interface Example {
  readonly app: string
  readonly relay: string
  readonly mirror: string
  /** kill -9 of the app's server and the relay together. */
  kill(): Promise<void>
  /** SIGTERM; resolves with the exit code. */
  stop(): Promise<number | null>
}

/** Builds the app's page, once per run of the tests. */
export async function buildExample(): Promise<void> {
  await promisify(execFile)(process.execPath, [join(root, 'node_modules/vite/bin/vite.js'), 'build', '--logLevel', 'error'], {
    cwd: folder,
    env: { ...process.env, NODE_ENV: 'production' },
  })
}

/** Starts the example on `data`; on the ports of an earlier one when it is given. */
export async function startExample(data: string, earlier?: Example): Promise<Example> {
  const port = (url: string | undefined): string => (url === undefined ? '0' : new URL(url).port)
  const env = { ...process.env, DATA: data, PORT: port(earlier?.relay), APP_PORT: port(earlier?.app) }
  // A process group of its own, so that one signal reaches the relay as well.
  const child = spawn(process.execPath, ['serve.js'], { cwd: folder, env, stdio: ['ignore', 'pipe', 'inherit'], detached: true })
  const addresses = await readAddresses(child)
  return { ...addresses, kill: () => signal(child, 'SIGKILL').then(() => undefined), stop: () => signal(child, 'SIGTERM') }
}

async function readAddresses(child: ChildProcess): Promise<{ app: string; relay: string; mirror: string }> {
  const found = new Map<string, string>()
  if (child.stdout === null) throw new Error('the example has no standard output')
  for await (const line of createInterface({ input: child.stdout })) {
    const [, name, address] = /^\s*(app|relay|mirror)\s+(\S+)$/u.exec(line) ?? []
    if (name !== undefined && address !== undefined) found.set(name, address)
    const [app, relay, mirror] = ['app', 'relay', 'mirror'].map((key) => found.get(key))
    if (app !== undefined && relay !== undefined && mirror !== undefined) return { app, relay, mirror }
  }
  throw new Error(`the example ended before it said where it is (exit code ${child.exitCode})`)
}

function signal(child: ChildProcess, name: 'SIGKILL' | 'SIGTERM'): Promise<number | null> {
  if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return Promise.resolve(child.exitCode)
  const target = name === 'SIGKILL' ? -child.pid : child.pid
  return new Promise((ended) => {
    child.once('exit', (code) => ended(code))
    process.kill(target, name)
  })
}
