/** A whole relay with sinks: how soon an edit is a row in Postgres, and how soon edits are acknowledged with and without sinks, and while a proof is made. */
import { spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import type { Client, Replica } from '@rejoin/client'
import { createClient, memory } from '@rejoin/client'
import pg from 'pg'
import type * as Y from 'yjs'
import { file, within } from './contestants.ts'
import { quantile } from './report.ts'

/** Milliseconds. */
export interface Spread {
  readonly p50: number
  readonly p99: number
}

export interface RelayFigures {
  /** From the edit to the row, at 1,000 edits a second. */
  readonly visible: Spread
  /** Acknowledgements at 500 edits a second, one for each round. */
  readonly acks: readonly { readonly none: Spread; readonly five: Spread }[]
  /** At 500 edits a second with one sink: with nothing else, and while its rows are proved again and again. */
  readonly proving: { readonly rows: number; readonly without: Spread; readonly during: Spread; readonly proofs: number }
}

export interface RelaySettings {
  /** A database of its own for each relay. */
  readonly database: () => Promise<string>
  readonly seconds: number
  readonly rounds: number
  /** Rows that are proved while others edit. */
  readonly proved: number
}

const DOCUMENTS = 50
const PETS = 200
const CLIENTS = 10
const START_MS = 30_000

export async function runRelay({ database, seconds, rounds, proved }: RelaySettings): Promise<RelayFigures> {
  const visible = await withRelay(await database(), 1, async (load, url) => {
    await arrived(url, DOCUMENTS * PETS)
    await load.edit(1_000, 2)
    const [, seen] = await Promise.all([load.edit(1_000, seconds), watch(url, seconds)])
    return spread(seen)
  })
  const acks = []
  for (let round = 0; round < rounds; round++) {
    const measure = async (sinks: number): Promise<Spread> =>
      withRelay(await database(), sinks, async (load) => {
        await load.edit(500, 2)
        return spread(await load.edit(500, seconds))
      })
    acks.push({ none: await measure(0), five: await measure(5) })
  }
  const proving = await withRelay(await database(), 1, async (load, url, http) => {
    await load.fill(proved)
    await arrived(url, proved)
    await load.edit(500, 2)
    const without = spread(await load.edit(500, seconds))
    let proofs = 0
    let isOver = false
    const prove = async (): Promise<void> => {
      while (!isOver) {
        const answer = await fetch(`${http}/v1/sinks/warehouse/verify`, {
          method: 'POST',
          headers: { 'content-type': 'application/json' },
          body: '{"proofs":["rows","projection"]}',
        })
        if (!answer.ok) throw new Error(`verify: ${answer.status} ${await answer.text()}`)
        await answer.text()
        proofs++
      }
    }
    const proved_ = prove()
    const during = spread(await load.edit(500, seconds))
    isOver = true
    await proved_
    return { rows: proved + DOCUMENTS * PETS, without, during, proofs }
  })
  return { visible, acks, proving }
}

interface Load {
  /** Edits so often, and gives how long each acknowledgement took, in ms. */
  edit(perSecond: number, seconds: number): Promise<readonly number[]>
  /** Adds so many records, a thousand to a document. */
  fill(records: number): Promise<void>
}

async function withRelay<T>(url: string, sinks: number, measure: (load: Load, url: string, http: string) => Promise<T>): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), 'rejoin-bench-'))
  mkdirSync(join(folder, 'data'))
  const port = await freePort()
  const child = spawn(
    process.execPath,
    [
      file('../../packages/server/dist/cli.js'),
      'serve',
      '--config',
      file('forward.config.ts'),
      '--port',
      String(port),
      '--data',
      join(folder, 'data'),
      '--log-level',
      'error',
    ],
    { stdio: ['ignore', 'pipe', 'inherit'], env: { ...process.env, BENCH_FOLDER: folder, BENCH_URL: url, BENCH_SINKS: String(sinks) } },
  )
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()))
  const clients: Client[] = []
  try {
    await within(START_MS, 'the start of the relay', listening(child.stdout, ended))
    const http = `http://127.0.0.1:${port}`
    const replicas = await openReplicas(http, clients)
    return await measure({ edit: (rate, seconds) => edit(replicas, rate, seconds), fill: (count) => fill(clients[0], count) }, url, http)
  } finally {
    await Promise.all(clients.map((client) => client.close()))
    child.kill('SIGTERM')
    await within(START_MS, 'the end of the relay', ended).catch(() => child.kill('SIGKILL'))
    rmSync(folder, { recursive: true, force: true, maxRetries: 5 })
  }
}

function listening(out: NodeJS.ReadableStream, ended: Promise<void>): Promise<void> {
  return new Promise((resolve, reject) => {
    out.on('data', (text: Buffer) => {
      if (text.includes('listening')) resolve()
    })
    void ended.then(() => reject(new Error('the relay ended before it listened')))
  })
}

/** Documents of many clients, filled with pets. */
async function openReplicas(url: string, clients: Client[]): Promise<readonly Replica[]> {
  const replicas: Replica[] = []
  for (let i = 0; i < CLIENTS; i++) {
    const client = createClient({ url, store: memory() })
    clients.push(client)
    for (let d = i; d < DOCUMENTS; d += CLIENTS) replicas.push(client.open(`clinic-${d}`))
  }
  await Promise.all(replicas.map((replica) => replica.whenSynced()))
  await Promise.all(replicas.map((replica) => addPets(replica, PETS)))
  return replicas
}

async function addPets(replica: Replica, count: number): Promise<void> {
  const made = replica.edit(() => {
    const pets = replica.ydoc.getMap<Y.Map<unknown>>('pets')
    // The client's own Yjs: this folder has another.
    const YMap = pets.constructor as typeof Y.Map
    for (let i = 0; i < count; i++)
      pets.set(
        `pet-${i}`,
        new YMap<unknown>([
          ['name', `Rex ${i}`],
          ['kind', 'dog'],
          ['sentAt', 0],
        ]),
      )
  })
  await made.wait({ to: 'relay' })
}

async function fill(client: Client | undefined, records: number): Promise<void> {
  for (let i = 0; i < records / 1_000; i++) {
    const replica = client?.open(`shelter-${i}`)
    if (replica === undefined) return
    await replica.whenSynced()
    await addPets(replica, 1_000)
    replica.close()
  }
}

async function edit(replicas: readonly Replica[], perSecond: number, seconds: number): Promise<readonly number[]> {
  const took: number[] = []
  const waits: Promise<unknown>[] = []
  const began = performance.now()
  const total = perSecond * seconds
  for (let made = 0; made < total;) {
    const due = Math.min(total, ((performance.now() - began) / 1000) * perSecond)
    for (; made < due; made++) {
      const replica = replicas[made % replicas.length]
      if (replica === undefined) continue
      const id = `pet-${Math.floor(made / replicas.length) % PETS}`
      const sentAt = performance.now()
      const { wait } = replica.edit(() => (replica.ydoc.getMap('pets').get(id) as Y.Map<unknown>).set('sentAt', sentAt))
      waits.push(wait({ to: 'relay' }).then(() => took.push(performance.now() - sentAt)))
    }
    await pause(1)
  }
  await Promise.all(waits)
  return took
}

/** When the rows of edits are seen, in ms after the edit, by somebody who looks again and again. */
async function watch(url: string, seconds: number): Promise<readonly number[]> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    await client.query('CREATE INDEX IF NOT EXISTS by_version ON bench.pets (rejoin_version)')
    const seen: number[] = []
    const first = await client.query<{ max: string }>('SELECT max(rejoin_version) FROM bench.pets')
    let after = first.rows[0]?.max ?? '0'
    const end = performance.now() + seconds * 1000
    while (performance.now() < end) {
      const { rows } = await client.query<{ sentAt: number; rejoin_version: string }>({
        name: 'look',
        text: 'SELECT "sentAt", rejoin_version FROM bench.pets WHERE rejoin_version > $1 ORDER BY rejoin_version',
        values: [after],
      })
      const now = performance.now()
      for (const row of rows) seen.push(now - row.sentAt)
      after = rows.at(-1)?.rejoin_version ?? after
      await pause(1)
    }
    return seen
  } finally {
    await client.end()
  }
}

async function arrived(url: string, rows: number): Promise<void> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    for (;;) {
      // The sink makes its table when it begins.
      const { rows: made } = await client.query("SELECT 1 WHERE to_regclass('bench.pets') IS NOT NULL")
      const found = made.length === 0 ? [] : (await client.query<{ count: string }>('SELECT count(*) FROM bench.pets')).rows
      if (Number(found[0]?.count ?? 0) >= rows) return
      await pause(250)
    }
  } finally {
    await client.end()
  }
}

function spread(values: readonly number[]): Spread {
  return { p50: quantile(values, 0.5), p99: quantile(values, 0.99) }
}

function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const probe = createServer().listen(0, '127.0.0.1', () => {
      const address = probe.address()
      probe.close(() => resolve(typeof address === 'object' && address !== null ? address.port : 0))
    })
  })
}
