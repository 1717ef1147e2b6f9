/** The forwarder between a view and a destination, without a relay: rows a second beside the bare scripts, commits a second, and proofs of many rows. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { DocumentId, Position, RecordValue, Seq } from '@rejoin/shared'
import { collection, defineSchema, number, string, systemClock } from '@rejoin/shared'
import { defineProjection, ref } from '@rejoin/server'
import type { Projection, SinkSpec } from '@rejoin/server'
import { postgres, openSink as openPostgres } from '@rejoin/server/sinks/postgres'
import { openSink as openSqlite, sqlite } from '@rejoin/server/sinks/sqlite'
import { startForwarder } from '../../packages/server/dist/forwarding/forwarder.js'
import type { Forwarder } from '../../packages/server/dist/forwarding/forwarder.js'
import { createProver } from '../../packages/server/dist/forwarding/prover.js'
import { compileTransform } from '../../packages/server/dist/projection/transform.js'
import type { OpenSink, Sink } from '../../packages/server/dist/sinks/sink.js'
import { createMemoryNotes } from '../../packages/server/dist/storage/notes-memory.js'
import { openSqliteView } from '../../packages/server/dist/storage/view-sqlite.js'
import type { ProjectedEntry, ViewStore } from '../../packages/server/dist/view/view.js'
import type { Bare, BareRow } from './forward-bare.ts'
import { bareCopy, bareSqlite, bareUpdates } from './forward-bare.ts'
import { median } from './report.ts'

const SCHEMA = defineSchema({
  owners: collection({ name: string(), city: string() }),
  pets: collection({ name: string(), kind: string(), age: number(), ownerId: string(), note: string() }),
})
const CARDS = defineProjection(SCHEMA, {
  from: 'pets',
  to: 'cards',
  join: { owner: ref('ownerId', 'owners') },
  fields: { name: string(), kind: string(), age: number(), city: string(), note: string() },
  revision: 1,
  select: ({ pet, owner }) => ({ name: pet.name, kind: pet.kind, age: pet.age, city: owner?.city ?? null, note: pet.note }),
})
const COLUMNS = { name: 'text', kind: 'text', age: 'double precision', ownerId: 'text', note: 'text' }
const DOCUMENTS = 200
const OWNERS_EACH = 50
const LOG = 'be'.repeat(16)
/** Rows of one transaction, by hand as by Rejoin. */
const BATCH = 5_000

/** Rates of one lane: ours and the script's, one for each round. */
export interface Lane {
  readonly name: string
  readonly ours: number[]
  readonly bare: number[]
}

export interface EngineFigures {
  readonly lanes: readonly Lane[]
  /** Commits a second with consistency 'every', and durable updates a second of one row. */
  readonly every: Lane | undefined
  readonly proofs: { readonly rows: number; readonly rowsMs: number; readonly projectionMs: number } | undefined
}

export interface EngineSettings {
  readonly url: string
  /** Rows changed in each round. */
  readonly changes: number
  readonly rounds: number
  readonly commits: number
  /** 0 leaves the proofs out. */
  readonly proved: number
  /** Whether a lane is to run. */
  readonly wanted: (name: string) => boolean
}

/** Runs all lanes, interleaved. */
export async function runEngine({ url, changes, rounds, commits, proved, wanted }: EngineSettings): Promise<EngineFigures> {
  const folder = mkdtempSync(join(tmpdir(), 'rejoin-bench-'))
  try {
    const all: Readonly<Record<string, () => ReturnType<typeof openLane>>> = {
      postgres: async () =>
        openLane('postgres', folder, [], postgres({ url, schema: 'bench' }), openPostgres, await bareCopy(url, 'bare_pets', COLUMNS)),
      'postgres, with a join': async () =>
        openLane(
          'postgres, with a join',
          folder,
          [CARDS],
          postgres({ url, schema: 'bench_join' }),
          openPostgres,
          await bareCopy(url, 'bare_cards', COLUMNS),
        ),
      sqlite: async () =>
        openLane(
          'sqlite',
          folder,
          [],
          sqlite({ path: join(folder, 'mirror.db') }),
          openSqlite,
          bareSqlite(join(folder, 'bare.db'), { ...COLUMNS, age: 'NUMERIC' }),
        ),
    }
    const lanes = []
    for (const [name, open] of Object.entries(all)) if (wanted(name)) lanes.push(await open())
    for (let round = 0; round < rounds + 1; round++) for (const lane of lanes) await lane.measure(round, changes)
    for (const lane of lanes) await lane.close()
    const every = wanted('every') ? await measureEvery(url, folder, rounds, commits) : undefined
    return {
      lanes: lanes.map(({ lane }) => lane),
      every,
      proofs: proved === 0 || !wanted('proofs') ? undefined : await measureProofs(url, folder, proved),
    }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

async function openLane(name: string, folder: string, projections: readonly Projection[], spec: SinkSpec, open: OpenSink, bare: Bare) {
  const source = createSource(join(folder, `${name.replaceAll(/\W/gu, '')}.db`))
  const lane: Lane = { name, ours: [], bare: [] }
  source.fill(1_000, 0)
  const running = forward(source.view, projections, spec, open)
  await running.settled()
  return {
    lane,
    measure: async (round: number, changes: number) => {
      const rows = source.fill(changes, round)
      const began = performance.now()
      running.forwarder.poke()
      await running.settled()
      const ours = performance.now() - began
      const version = source.view.head() ?? 0
      const again = performance.now()
      for (let i = 0; i < rows.length; i += BATCH) await bare.write(rows.slice(i, i + BATCH), version)
      const theirs = performance.now() - again
      // The first round inserts, and warms the compilers.
      if (round === 0) return
      lane.ours.push((changes / ours) * 1000)
      lane.bare.push((changes / theirs) * 1000)
    },
    close: async () => {
      await running.forwarder.stop()
      await bare.close()
      source.view.close()
    },
  }
}

/** A view on disk that grows by entries of one record each, as people's edits do. */
function createSource(path: string) {
  const view = openSqliteView(path)
  let version = 0
  const commit = (entries: readonly ProjectedEntry[]): void =>
    view.commit({ entries, documents: [], places: [], misfits: [], source: { log: LOG, schema: '' }, settled: true })
  const write = (
    all: readonly { readonly collection: string; readonly document: string; readonly id: string; readonly value: RecordValue }[],
  ): void => {
    for (let i = 0; i < all.length; i += BATCH)
      commit(
        all.slice(i, i + BATCH).map(({ collection: name, document, id, value }) => ({
          version: ++version,
          partition: 0,
          position: version as Position,
          epoch: 1,
          seq: version as Seq,
          document: document as DocumentId,
          actor: 'bench',
          at: Date.now(),
          changes: [{ collection: name, id, value }],
          settled: true,
        })),
      )
  }
  const owners = Array.from({ length: DOCUMENTS * OWNERS_EACH }, (_, i) => ({
    collection: 'owners',
    document: `clinic-${i % DOCUMENTS}`,
    id: `owner-${Math.floor(i / DOCUMENTS)}`,
    value: { city: `City ${i % 40}`, name: `Owner ${i}` },
  }))
  write(owners)
  return {
    view,
    /** Changes so many pets, each once, and gives them as a script by hand would have them. */
    fill: (count: number, round: number): readonly BareRow[] => {
      const pets = Array.from({ length: count }, (_, i) => ({
        collection: 'pets',
        document: `clinic-${i % DOCUMENTS}`,
        id: `pet-${i}`,
        value: {
          age: (i + round) / 4,
          kind: 'dog',
          name: `Rex ${round}`,
          note: `${'likes long walks '.repeat(6)}${i}`,
          ownerId: `owner-${i % OWNERS_EACH}`,
        },
      }))
      write(pets)
      return pets.map(({ document, id, value }) => [document, id, value.name, value.kind, value.age, value.ownerId, value.note])
    },
  }
}

/** Starts a forwarder, as the worker of a relay does. */
function forward(view: ViewStore, projections: readonly Projection[], spec: SinkSpec, open: OpenSink) {
  const transform = compileTransform(SCHEMA, projections)
  const notes = createMemoryNotes()
  const openIt = ({ adopt }: { readonly adopt: boolean }): Promise<Sink> =>
    open(spec.options, {
      name: 'bench',
      collections: transform.targets,
      untyped: [],
      log: LOG,
      adopt,
      forward: spec.forward,
      notes,
      functions: {},
    })
  let told = (): void => {}
  const forwarder: Forwarder = startForwarder({
    view,
    transform,
    forward: { ...spec.forward, projections },
    log: LOG,
    notes,
    open: openIt,
    clock: systemClock,
    random: Math.random,
    onCommit: () => told(),
  })
  // Timers of the background keep no process alive; the bench itself does.
  const awake = setInterval(() => told(), 1_000)
  return {
    forwarder: { ...forwarder, stop: () => forwarder.stop().finally(() => clearInterval(awake)) },
    transform,
    notes,
    open: () => openIt({ adopt: false }),
    settled: async () => {
      const head = view.head()
      for (let looked = performance.now(); forwarder.cursor() !== head;) {
        if (performance.now() - looked > 1_000) {
          looked = performance.now()
          const { state, error } = forwarder.status()
          if (state === 'failing' || state === 'fenced') throw new Error(`the sink is ${state}: ${error}`)
        }
        await new Promise<void>((resolve) => (told = resolve))
      }
    },
  }
}

async function measureEvery(url: string, folder: string, rounds: number, commits: number): Promise<Lane> {
  const lane: Lane = { name: "commits with consistency 'every'", ours: [], bare: [] }
  const source = createSource(join(folder, 'every.db'))
  const running = forward(source.view, [], postgres({ url, schema: 'bench_every', consistency: 'every' }), openPostgres)
  await running.settled()
  for (let round = 0; round < rounds + 1; round++) {
    source.fill(commits, round)
    const began = performance.now()
    running.forwarder.poke()
    await running.settled()
    const rate = (commits / (performance.now() - began)) * 1000
    const bare = await bareUpdates(url, commits)
    if (round === 0) continue
    lane.ours.push(rate)
    lane.bare.push(bare)
  }
  await running.forwarder.stop()
  source.view.close()
  return lane
}

/** `verify` of that many rows, as the worker makes it. */
async function measureProofs(url: string, folder: string, rows: number): Promise<EngineFigures['proofs']> {
  const source = createSource(join(folder, 'proofs.db'))
  source.fill(rows, 0)
  const spec = postgres({ url, schema: 'bench_proofs' })
  const running = forward(source.view, [], spec, openPostgres)
  await running.settled()
  const nothing = { documents: () => [], head: () => undefined, load: () => undefined } as never
  const prover = createProver({
    ...running,
    name: 'bench',
    schema: SCHEMA,
    forward: spec.forward,
    log: nothing,
    view: source.view,
    clock: systemClock,
    hold: () => () => undefined,
  })
  const times = { rows: [] as number[], projection: [] as number[] }
  while (running.forwarder.digestAt(source.view.head() ?? 0) === undefined) await new Promise((resolve) => setTimeout(resolve, 50))
  for (let i = 0; i < 3; i++) {
    for (const proof of ['rows', 'projection'] as const) {
      const began = performance.now()
      const { proofs, reasons } = await prover.verify({ proofs: [proof] })
      times[proof].push(performance.now() - began)
      if (proofs[proof] !== 'equal') throw new Error(`${proof}: ${proofs[proof]} ${reasons.join('; ')}`)
    }
  }
  await prover.stop()
  await running.forwarder.stop()
  source.view.close()
  return { rows: rows + DOCUMENTS * OWNERS_EACH, rowsMs: median(times.rows), projectionMs: median(times.projection) }
}
