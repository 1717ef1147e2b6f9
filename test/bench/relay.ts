/**
 * The relay beside others, interleaved in one run: typists in many documents, small updates, each contestant a process of its own, the load another.
 * README.md says how to read it.
 */
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Contestant, Running } from './contestants.ts'
import { CONTESTANTS, cpuSeconds, file, start, stop, within } from './contestants.ts'
import { OTHERS, SUBJECT, busyness, circumstances, median, quantile, show, table } from './report.ts'
import type { SwarmResult, SwarmTask } from './swarm.ts'

const number = (name: string, otherwise: number): number => Number(process.env[name] ?? otherwise)
const ROUNDS = number('ROUNDS', 3)
const DOCUMENTS = number('DOCUMENTS', 200)
const KEYSTROKES = number('KEYSTROKES', 600)
/** Each is a lane: updates that a typist has under way. */
const WINDOWS = (process.env['WINDOW'] ?? '8,1').split(',').map(Number)
const LARGE_DOCUMENTS = number('LARGE_DOCUMENTS', 4)
const LARGE_KEYSTROKES = number('LARGE_KEYSTROKES', 4000)
const LARGE_WINDOW = 64
const only = process.env['ONLY']?.split(',')
const contestants = CONTESTANTS.filter(({ name }) => only === undefined || only.some((part) => name.startsWith(part)))

/** What one swarm may take, in ms: a contestant that hangs loses its figures, not everybody's. */
const SWARM_MS = 90_000
/** In this time all who keep documents have stored or folded them, in ms. */
const SETTLE_MS = 12_000

/** Figures of one contestant in one lane, one for each round. */
interface Figures {
  readonly rate: number[]
  readonly cpu: number[]
  readonly load: number[]
  readonly latency: number[]
}
const byWindow = new Map(WINDOWS.map((window) => [window, newFigures()]))
const empty = newFigures()
const full = newFigures()
const opens = new Map<string, number[]>()
const failures: string[] = []

function newFigures(): Map<string, Figures> {
  return new Map(contestants.map(({ name }) => [name, { rate: [], cpu: [], load: [], latency: [] }]))
}

/** Runs one swarm against a contestant. */
async function swarm(
  { contestant, child: server, url }: Running,
  task: Partial<SwarmTask>,
): Promise<SwarmResult & { readonly cpu: number }> {
  const whole: SwarmTask = {
    protocol: contestant.protocol,
    acks: contestant.ack !== undefined,
    url,
    name: 'doc',
    documents: DOCUMENTS,
    keystrokes: KEYSTROKES,
    window: 8,
    preload: false,
    open: false,
    ...task,
  }
  const child = spawn(process.execPath, ['--import', 'jiti/register', file('swarm.ts'), JSON.stringify(whole)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const running: Running = { contestant, child: server, url }
  let text = ''
  let before = cpuSeconds(running)
  child.stdout.on('data', (chunk: Buffer) => {
    // The swarm says when it has connected and warmed up.
    if (text === '') before = cpuSeconds(running)
    text += chunk.toString()
  })
  try {
    const code = await within(SWARM_MS, 'the load', new Promise((resolve) => child.once('close', resolve)))
    if (code !== 0) throw new Error(`the load ended with ${String(code)}`)
  } finally {
    child.kill('SIGKILL')
  }
  return { ...(JSON.parse(text.slice(text.indexOf('{'))) as SwarmResult), cpu: cpuSeconds(running) - before }
}

function note(
  to: Map<string, Figures>,
  { name }: Contestant,
  { updates, seconds, latency, cpu, load }: SwarmResult & { cpu: number },
): void {
  const figures = to.get(name)
  figures?.rate.push(updates / seconds)
  figures?.cpu.push((cpu / updates) * 1e6)
  figures?.load.push((load / updates) * 1e6)
  figures?.latency.push(quantile(latency, 0.5), quantile(latency, 0.99))
}

/** Runs `work` on a contestant that is started for it; what goes wrong is noted, and the others go on. */
async function alone(contestant: Contestant, folder: string, work: (running: Running) => Promise<void>): Promise<void> {
  try {
    const running = await start(contestant, folder)
    try {
      await work(running)
    } finally {
      await stop(running)
    }
  } catch (error) {
    failures.push(`${contestant.name}: ${error instanceof Error ? error.message : String(error)}`)
  }
}

async function inFolder(contestant: Contestant, work: (folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), `bench-${contestant.protocol}-`))
  try {
    await work(folder)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

async function young(contestant: Contestant, window: number, to: Map<string, Figures>): Promise<void> {
  // A small window is slow: as many updates in as long a time.
  const keystrokes = Math.ceil((KEYSTROKES * Math.min(window, 4)) / 4)
  await inFolder(contestant, (folder) =>
    alone(contestant, folder, async (running) => note(to, contestant, await swarm(running, { window, keystrokes }))),
  )
}

/** The same few documents empty and holding the whole trace, in turns; then, where something is kept, opened cold. */
async function large(contestant: Contestant): Promise<void> {
  const task = { documents: LARGE_DOCUMENTS, keystrokes: LARGE_KEYSTROKES, window: LARGE_WINDOW }
  await inFolder(contestant, async (folder) => {
    await alone(contestant, folder, async (running) => {
      for (let round = 0; round < ROUNDS; round++) {
        note(empty, contestant, await swarm(running, { ...task, name: `empty-${round}` }))
        note(full, contestant, await swarm(running, { ...task, name: `large-${round}`, preload: true }))
      }
      if (contestant.keeps) await new Promise((resolve) => setTimeout(resolve, SETTLE_MS))
    })
    if (!contestant.keeps) return
    await alone(contestant, folder, async (running) => {
      const results = await swarm(running, { ...task, name: 'large-0', open: true })
      opens.set(contestant.name, [...results.opens])
    })
  })
}

/** The median over the rounds of how many times the subject's figure the other's is. */
function ratio(figures: Map<string, Figures>, other: string): number {
  const [mine, theirs] = [figures.get(SUBJECT)?.rate ?? [], figures.get(other)?.rate ?? []]
  return median(mine.flatMap((rate, round) => (theirs[round] === undefined ? [] : [rate / theirs[round]])))
}

function report(): string {
  const ratios = OTHERS.filter((other) => contestants.some(({ name }) => name === other)).map((other) => [
    `÷ ${other}`,
    ...WINDOWS.map((window) => `${show(ratio(byWindow.get(window) ?? new Map<string, Figures>(), other), 2)}×`),
  ])
  const rows = WINDOWS.flatMap((window) =>
    contestants.map(({ name, ack }) => {
      const { rate, cpu, load, latency } = byWindow.get(window)?.get(name) ?? { rate: [], cpu: [], load: [], latency: [] }
      const [p50, p99] = [latency.filter((_, i) => i % 2 === 0), latency.filter((_, i) => i % 2 === 1)]
      return [
        name,
        String(window),
        show(median(rate)),
        show(median(cpu), 1),
        show(median(load), 1),
        show(median(p50), 1),
        show(median(p99), 1),
        ack ?? 'none',
      ]
    }),
  )
  const largeRows = contestants.map(({ name }) => {
    const [large, small] = [full.get(name)?.rate ?? [], empty.get(name)?.rate ?? []]
    const share = median(large.flatMap((rate, round) => (small[round] === undefined ? [] : [rate / small[round]])))
    const cold = opens.get(name) ?? []
    return [name, `${show(share, 2)}×`, show(median(large)), show(median(small)), show(median(cold), 1), show(Math.max(...cold), 1)]
  })
  return [
    `\n${DOCUMENTS} documents × 2 typists, one keystroke an update; median of ${ROUNDS} interleaved rounds\n\n`,
    table([`${SUBJECT}'s rate`, ...WINDOWS.map((window) => `window ${window}`)], ratios),
    '\n',
    table(['', 'window', 'updates/s', 'CPU µs/update', 'load µs/update', 'p50 ms', 'p99 ms', 'an ack means'], rows),
    `\n${LARGE_DOCUMENTS} documents × 2 typists, window ${LARGE_WINDOW}, each document holding 260,000 edits\n\n`,
    table(['', 'rate ÷ empty', 'updates/s', 'empty', 'cold open ms', 'slowest'], largeRows),
    `\n${circumstances()}\n${busy}${failures.map((failure) => `no figure from ${failure}\n`).join('')}`,
  ].join('')
}

const busy = busyness()
const began = performance.now()
for (let round = 0; round < ROUNDS; round++) {
  // The order turns, so that a slow minute of the machine hits everybody.
  const order = contestants.map((_, i) => contestants[(i + round) % contestants.length] as Contestant)
  for (const [window, figures] of byWindow) for (const contestant of order) await young(contestant, window, figures)
}
if (LARGE_DOCUMENTS > 0) for (const contestant of contestants) await large(contestant)
process.stdout.write(`${report()}took ${show((performance.now() - began) / 1000)} s\n`)
