/** Who is measured, and each as a process of its own: started, asked for its processor time, ended within bounds. */
import { type ChildProcess, spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { fileURLToPath } from 'node:url'
import type { SwarmTask } from './swarm.ts'

/** One relay. */
export interface Contestant {
  readonly name: string
  readonly protocol: SwarmTask['protocol']
  /** What its acknowledgement of an update says; undefined when it gives none. */
  readonly ack: string | undefined
  /** Whether documents outlive its process. */
  readonly keeps: boolean
  command(port: number, folder: string): readonly string[]
}

/** Path of a file beside this one. */
export const file = (path: string): string => fileURLToPath(new URL(path, import.meta.url))

const script =
  (path: string) =>
  (port: number, folder: string): readonly string[] => ['--import', 'jiti/register', file(path), String(port), folder]

/** The first is what the others are compared with. */
export const CONTESTANTS: readonly Contestant[] = [
  {
    name: 'rejoin',
    protocol: 'rejoin',
    ack: 'fsynced',
    keeps: true,
    command: (port, folder) => [file('../../packages/server/dist/cli.js'), ...serve(port, folder)],
  },
  { name: 'hocuspocus + sqlite', protocol: 'hocuspocus', ack: 'in memory', keeps: true, command: script('contestants/hocuspocus.ts') },
  { name: 'y-websocket-server', protocol: 'yWebsocket', ack: undefined, keeps: false, command: script('contestants/y-websocket.ts') },
  { name: 'bare ws', protocol: 'bare', ack: undefined, keeps: false, command: script('contestants/bare.ts') },
]

function serve(port: number, folder: string): readonly string[] {
  return ['serve', '--port', String(port), '--data', folder, '--log-level', 'error']
}

/** A contestant that listens. */
export interface Running {
  readonly contestant: Contestant
  readonly child: ChildProcess
  readonly url: string
}

/** How long a start may take, and a stop before it is no longer asked for, in ms. */
const START_MS = 30_000
const STOP_MS = 6_000

/** Starts it on a free port of loopback. */
export async function start(contestant: Contestant, folder: string): Promise<Running> {
  const port = await freePort()
  const child = spawn(process.execPath, contestant.command(port, folder), { stdio: ['ignore', 'pipe', 'inherit'] })
  const running: Running = { contestant, child, url: `ws://127.0.0.1:${port}` }
  const listening = new Promise<void>((resolve, reject) => {
    child.stdout?.on('data', (text: Buffer) => {
      if (text.includes('listening')) resolve()
    })
    child.on('exit', (code) => reject(new Error(`exited with ${code} before it listened`)))
  })
  try {
    await within(START_MS, 'start', listening)
  } catch (error) {
    await stop(running)
    throw error
  }
  return running
}

/** Ends it, by force when it does not go. */
export async function stop({ child }: Running): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const gone = new Promise((resolve) => child.once('exit', resolve))
  child.kill('SIGTERM')
  const force = setTimeout(() => child.kill('SIGKILL'), STOP_MS)
  await gone
  clearTimeout(force)
}

/** User and system time of all its threads so far, in seconds; NaN where the system does not tell. */
export function cpuSeconds({ child }: Running): number {
  try {
    const fields = readFileSync(`/proc/${child.pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? []
    // In hundredths, on every Linux there is.
    return (Number(fields[11]) + Number(fields[12])) / 100
  } catch {
    return Number.NaN
  }
}

/** Rejects when it takes longer. */
export async function within<T>(ms: number, what: string, work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} took longer than ${ms / 1000} s`)), ms)
  })
  try {
    return await Promise.race([work, late])
  } finally {
    clearTimeout(timer)
  }
}

async function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const probe = createServer().listen(0, '127.0.0.1', () => {
      const address = probe.address()
      probe.close(() => resolve(typeof address === 'object' && address !== null ? address.port : 0))
    })
  })
}
