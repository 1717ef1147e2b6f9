/**
 * The relay beside others, interleaved in one run: 200 documents × 2 typists, small updates, each contestant in its own process, the load in another. What to
 * read is the ratios: machines are shared and noisy.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { SwarmResult, SwarmTask } from './swarm.ts'

interface Contestant {
  readonly name: string
  readonly protocol: string
  readonly acks: boolean
  readonly keeps: boolean
  command(port: number, folder: string): readonly string[]
}

const file = (path: string): string => fileURLToPath(new URL(path, import.meta.url))
const script =
  (path: string) =>
  (port: number, folder: string): readonly string[] => ['--import', 'jiti/register', file(path), String(port), folder]

const CONTESTANTS: readonly Contestant[] = [
  {
    name: 'rejoin',
    protocol: 'rejoin',
    acks: true,
    keeps: true,
    command: (port, folder) => [file('../../packages/server/dist/cli.js'), 'serve', '--port', String(port), '--data', folder, '--log-level', 'error'],
  },
  { name: 'hocuspocus', protocol: 'hocuspocus', acks: true, keeps: true, command: script('contestants/hocuspocus.ts') },
  { name: 'y-websocket-server', protocol: 'yWebsocket', acks: false, keeps: false, command: script('contestants/y-websocket.ts') },
  { name: 'bare ws', protocol: 'yWebsocket', acks: false, keeps: false, command: script('contestants/bare.ts') },
]

const number = (name: string, otherwise: number): number => Number(process.env[name] ?? otherwise)
const ROUNDS = number('ROUNDS', 3)
const DOCUMENTS = number('DOCUMENTS', 200)
const KEYSTROKES = number('KEYSTROKES', 250)
const WINDOW = number('WINDOW', 8)
const LARGE_DOCUMENTS = number('LARGE_DOCUMENTS', 4)
const LARGE_KEYSTROKES = number('LARGE_KEYSTROKES', 2000)
const only = process.env['ONLY']?.split(',')
const contestants = CONTESTANTS.filter(({ name }) => only === undefined || only.includes(name))

interface Running {
  readonly child: ChildProcess
  readonly url: string
  readonly folder: string
}

async function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const probe = createServer().listen(0, '127.0.0.1', () => {
      const address = probe.address()
      probe.close(() => resolve(typeof address === 'object' && address !== null ? address.port : 0))
    })
  })
}

async function start(contestant: Contestant, folder: string): Promise<Running> {
  const port = await freePort()
  const child = spawn(process.execPath, contestant.command(port, folder), { stdio: ['ignore', 'pipe', 'inherit'] })
  await new Promise<void>((resolve, reject) => {
    child.stdout?.on('data', (text: Buffer) => {
      if (text.includes('listening')) resolve()
    })
    child.on('exit', (code) => reject(new Error(`${contestant.name} exited with ${code}`)))
  })
  return { child, url: `ws://127.0.0.1:${port}`, folder }
}

async function stop({ child }: Running): Promise<void> {
  if (child.exitCode !== null) return
  const gone = new Promise((resolve) => child.once('exit', resolve))
  child.kill('SIGTERM')
  const force = setTimeout(() => child.kill('SIGKILL'), 6000)
  await gone
  clearTimeout(force)
}

/** User and system time of a process so far, in seconds. */
function cpuSeconds({ child }: Running): number {
  const fields = readFileSync(`/proc/${child.pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? []
  return (Number(fields[11]) + Number(fields[12])) / 100
}

async function swarm(contestant: Contestant, running: Running, task: Partial<SwarmTask>): Promise<SwarmResult & { cpu: number }> {
  const whole: SwarmTask = {
    protocol: contestant.protocol,
    bare: contestant.name === 'bare ws',
    acks: contestant.acks,
    url: running.url,
    name: 'doc',
    documents: DOCUMENTS,
    keystrokes: KEYSTROKES,
    window: WINDOW,
    preload: false,
    open: false,
    ...task,
  }
  const before = cpuSeconds(running)
  const child = spawn(process.execPath, ['--import', 'jiti/register', file('swarm.ts'), JSON.stringify(whole)], { stdio: ['ignore', 'pipe', 'inherit'] })
  let text = ''
  child.stdout.on('data', (chunk: Buffer) => {
    text += chunk.toString()
  })
  const code = await new Promise((resolve) => child.once('close', resolve))
  if (code !== 0) throw new Error(`the swarm against ${contestant.name} ended with ${String(code)}`)
  return { ...(JSON.parse(text) as SwarmResult), cpu: cpuSeconds(running) - before }
}

const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[values.length >> 1] ?? Number.NaN
const percentile = (values: readonly number[], share: number): number => [...values].sort((a, b) => a - b)[Math.floor(values.length * share)] ?? Number.NaN

interface Figures {
  rate: number[]
  cpu: number[]
  p50: number[]
  p99: number[]
  large: number[]
  small: number[]
  opens: number[]
}
const figures = new Map<string, Figures>(
  contestants.map(({ name }) => [name, { rate: [], cpu: [], p50: [], p99: [], large: [], small: [], opens: [] }]),
)
const figuresOf = (contestant: Contestant): Figures => figures.get(contestant.name) as Figures

async function inFolder(contestant: Contestant, work: (folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), `bench-${contestant.protocol}-`))
  try {
    await work(folder)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

async function young(contestant: Contestant): Promise<void> {
  await inFolder(contestant, async (folder) => {
    const running = await start(contestant, folder)
    const { updates, seconds, latency, cpu } = await swarm(contestant, running, {})
    await stop(running)
    const f = figuresOf(contestant)
    f.rate.push(updates / seconds)
    f.cpu.push((cpu / updates) * 1e6)
    f.p50.push(percentile(latency, 0.5))
    f.p99.push(percentile(latency, 0.99))
  })
}

/** The same few documents empty and holding the whole trace; then, where something is kept, opened cold. */
async function large(contestant: Contestant): Promise<void> {
  const task = { documents: LARGE_DOCUMENTS, keystrokes: LARGE_KEYSTROKES, window: 64 }
  await inFolder(contestant, async (folder) => {
    const running = await start(contestant, folder)
    const empty = await swarm(contestant, running, { ...task, name: 'empty' })
    const full = await swarm(contestant, running, { ...task, name: 'large', preload: true })
    figuresOf(contestant).small.push(empty.updates / empty.seconds)
    figuresOf(contestant).large.push(full.updates / full.seconds)
    // Both of those who keep documents store or fold them in the background within this time.
    if (contestant.keeps) await new Promise((resolve) => setTimeout(resolve, 12_000))
    await stop(running)
    if (!contestant.keeps) return
    const again = await start(contestant, folder)
    const { opens } = await swarm(contestant, again, { ...task, name: 'large', open: true })
    figuresOf(contestant).opens.push(...opens)
    await stop(again)
  })
}

for (let round = 0; round < ROUNDS; round++) {
  // The order turns, so that a slow minute of the machine hits everybody.
  const order = contestants.map((_, i) => contestants[(i + round) % contestants.length] as Contestant)
  for (const contestant of order) await young(contestant)
}
for (const contestant of contestants) await large(contestant)

const show = (value: number, digits = 0): string => (Number.isNaN(value) ? '–' : value.toFixed(digits))
const rejoinRate = median(figures.get('rejoin')?.rate ?? [])
process.stdout.write(`\n${DOCUMENTS} documents × 2 typists × ${KEYSTROKES} updates, window ${WINDOW}, median of ${ROUNDS} interleaved rounds, node ${process.version}\n\n`)
process.stdout.write('contestant           updates/s  rejoin is  cpu µs/update  p50 ms  p99 ms   updates/s on 260k edits ÷ on empty   cold open ms\n')
for (const { name } of contestants) {
  const f = figures.get(name) as Figures
  const row = [
    name.padEnd(20),
    show(median(f.rate)).padStart(10),
    `${show(rejoinRate / median(f.rate), 2)}×`.padStart(10),
    show(median(f.cpu), 1).padStart(14),
    show(median(f.p50), 1).padStart(7),
    show(median(f.p99), 1).padStart(7),
    `${show(median(f.large))} ÷ ${show(median(f.small))} = ${show(median(f.large) / median(f.small), 2)}`.padStart(38),
    show(median(f.opens), 1).padStart(14),
  ]
  process.stdout.write(`${row.join(' ')}\n`)
}
