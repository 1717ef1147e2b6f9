/**
 * The mirror with real files, threads and fsyncs: rows appear, and come back whatever is killed, deleted or changed under them.
 */
import { existsSync, mkdtempSync, renameSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { DocumentId, IncarnationId, RecordValue, Schema, Seq } from '@rejoin/shared'
import { collection, defineSchema, newIncarnationId, number, string } from '@rejoin/shared'
import Database from 'better-sqlite3'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import * as Y from 'yjs'
import type { Forwarding, WorkerEvent } from '#server/forwarding/start.js'
import { startForwarding } from '#server/forwarding/start.js'
import type { Log } from '#server/log/log.js'
import type { SinkSpec } from '#server/sinks/sink.js'
import { sqlite } from '#server/sinks/sqlite.js'
import { openSqliteLog } from '#server/storage/sqlite.js'
import { crowdUpdate } from '../support/forged-updates.ts'
import { mirrorRows } from '../support/mirror.ts'
import { until } from '../support/until.ts'

const PETS = defineSchema({ pets: collection({ name: string(), age: number() }) })

describe('the mirror', () => {
  let folder: string
  let mirror: string
  let log: Log
  let running: Forwarding[]
  const events: WorkerEvent[] = []
  const devices = new Map<string, { doc: Y.Doc; incarnation: IncarnationId; n: number }>()

  const start = (
    schema: Schema = PETS,
    sinks: Record<string, SinkSpec> = { mirror: sqlite({ path: mirror }) },
    patience?: number,
  ): Forwarding => {
    const forwarding = startForwarding({
      logDirectory: folder,
      viewPath: join(folder, 'view.db'),
      schema,
      sinks,
      patience,
      onWorker: (event) => events.push(event),
    })
    running.push(forwarding)
    return forwarding
  }
  /** One edit, durable in the log. */
  const edit = async (name: string, change: (pets: Y.Map<Y.Map<unknown>>) => void): Promise<void> => {
    const document = name as DocumentId
    const device = devices.get(name) ?? { doc: new Y.Doc(), incarnation: newIncarnationId(), n: 0 }
    devices.set(name, device)
    const before = Y.encodeStateVector(device.doc)
    device.doc.transact(() => change(device.doc.getMap('pets')))
    const { seq } = await log.open(document)
    const n = ++device.n
    await log.append([
      {
        document,
        seq: (seq + 1) as Seq,
        incarnation: device.incarnation,
        lo: n,
        hi: n,
        covers: [],
        actor: 'alice',
        at: Date.now(),
        update: Y.encodeStateAsUpdate(device.doc, before),
      },
    ])
    for (const forwarding of running) forwarding.poke()
  }
  /** An update that no client of ours would write, durable in the log. */
  const forge = async (name: string, update: Uint8Array): Promise<void> => {
    const { seq } = await log.open(name as DocumentId)
    const fields = { incarnation: newIncarnationId(), lo: 1, hi: 1, covers: [], actor: 'mallory', at: 0 }
    await log.append([{ document: name as DocumentId, seq: (seq + 1) as Seq, ...fields, update }])
    for (const forwarding of running) forwarding.poke()
  }
  const put = (name: string, id: string, value: RecordValue): Promise<void> =>
    edit(name, (pets) => {
      pets.set(id, new Y.Map(Object.entries(value)))
    })
  /** id → name. */
  const names = (schema = PETS): Record<string, unknown> =>
    existsSync(mirror)
      ? Object.fromEntries(mirrorRows(mirror, schema).map(({ key, value }) => [`${key.document}/${key.id}`, value['name']]))
      : {}
  const shows = (expected: Record<string, unknown>): Promise<true> =>
    until(() => JSON.stringify(names()) === JSON.stringify(expected), `rows ${JSON.stringify(expected)}`)

  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), 'rejoin-mirror-'))
    mirror = join(folder, 'mirror.db')
    log = await openSqliteLog({ directory: folder })
    running = []
    events.length = 0
    devices.clear()
  })
  afterEach(async () => {
    for (const forwarding of running) await forwarding.close()
    await log.close()
    rmSync(folder, { recursive: true })
  })

  it('shows records as rows, changes them, and drops what was deleted', async () => {
    await put('a', '1', { name: 'Rex', age: 3 })
    const forwarding = start()
    await shows({ 'a/1': 'Rex' })
    await put('b', '1', { name: 'Mia', age: 1 })
    await shows({ 'a/1': 'Rex', 'b/1': 'Mia' })
    await edit('a', (pets) => void pets.get('1')?.set('name', 'Max'))
    await shows({ 'a/1': 'Max', 'b/1': 'Mia' })
    await edit('a', (pets) => {
      pets.delete('1')
    })
    await shows({ 'b/1': 'Mia' })
    const { worker, detail } = await until(async () => {
      const status = await forwarding.status()
      return status.detail?.sinks['mirror']?.state === 'current' && status
    })
    expect(worker).toBe('running')
    expect(detail).toMatchObject({
      view: { state: 'current', version: 4, positions: { 0: 4 }, parked: { total: 0 }, misfits: { total: 0 } },
      sinks: { mirror: { cursor: 4, lag: { entries: 0 } } },
    })
  })

  it('is written anew after it was deleted while nothing ran', async () => {
    await put('a', '1', { name: 'Rex', age: 3 })
    await start()
      .close()
      .then(() => running.splice(0))
    start()
    await shows({ 'a/1': 'Rex' })
    await running.splice(0)[0]?.close()
    for (const suffix of ['', '-wal', '-shm']) rmSync(mirror + suffix, { force: true })
    start()
    await shows({ 'a/1': 'Rex' })
  })

  it('is written anew after it was deleted, or moved away, while it was being written', async () => {
    start()
    await put('a', '1', { name: 'Rex', age: 3 })
    await shows({ 'a/1': 'Rex' })
    for (const suffix of ['', '-wal', '-shm']) rmSync(mirror + suffix, { force: true })
    await put('a', '2', { name: 'Mia', age: 3 })
    await shows({ 'a/1': 'Rex', 'a/2': 'Mia' })
    renameSync(mirror, join(folder, 'elsewhere.db'))
    // No edit comes: it finds out by itself.
    await shows({ 'a/1': 'Rex', 'a/2': 'Mia' })
  })

  it('comes back when one of its tables is dropped', async () => {
    start()
    await put('a', '1', { name: 'Rex', age: 3 })
    await shows({ 'a/1': 'Rex' })
    const db = new Database(mirror)
    db.exec('DROP TABLE pets')
    db.close()
    await put('a', '2', { name: 'Mia', age: 3 })
    await until(() => JSON.stringify(names()) === JSON.stringify({ 'a/1': 'Rex', 'a/2': 'Mia' }), 'both rows')
  })

  it('waits out somebody who holds the file', async () => {
    const forwarding = start()
    await put('a', '1', { name: 'Rex', age: 3 })
    await shows({ 'a/1': 'Rex' })
    const db = new Database(mirror)
    db.exec('BEGIN IMMEDIATE')
    await put('a', '2', { name: 'Mia', age: 3 })
    await until(async () => (await forwarding.status()).detail?.sinks['mirror']?.state === 'failing')
    db.exec('ROLLBACK')
    db.close()
    await shows({ 'a/1': 'Rex', 'a/2': 'Mia' })
  })

  it('survives the loss of the view: versions go on above the stamps', async () => {
    const stamps = (): number[] => {
      const db = new Database(mirror, { readonly: true })
      const found = db.prepare('SELECT rejoin_version FROM pets').pluck().all() as number[]
      db.close()
      return found
    }
    start()
    await put('a', '1', { name: 'Rex', age: 1 })
    await shows({ 'a/1': 'Rex' })
    for (const age of [2, 3, 4, 5]) await put('a', '1', { name: `Rex ${age}`, age })
    await put('a', 'gone', { name: 'Gone', age: 1 })
    await shows({ 'a/1': 'Rex 5', 'a/gone': 'Gone' })
    const before = Math.max(...stamps())
    expect(before).toBeGreaterThan(3)
    await running.splice(0)[0]?.close()
    for (const suffix of ['', '-wal', '-shm']) rmSync(join(folder, `view.db${suffix}`), { force: true })
    // While there is no view a record goes: nothing but the destination itself remembers that it was there.
    await edit('a', (pets) => {
      pets.delete('gone')
    })
    await edit('a', (pets) => void pets.get('1')?.set('name', 'Max'))
    start()
    await shows({ 'a/1': 'Max' })
    expect(Math.min(...stamps())).toBeGreaterThan(before)
  })

  it('takes a wider schema, with the values that were there already', async () => {
    start()
    await put('a', '1', { name: 'Rex', age: 3, weight: 20 })
    await shows({ 'a/1': 'Rex' })
    await running.splice(0)[0]?.close()
    const wider = defineSchema({
      pets: collection({ name: string(), age: number(), weight: number() }),
      owners: collection({ name: string() }),
    })
    start(wider)
    await until(() => mirrorRows(mirror, wider)[0]?.value['weight'] === 20, 'the new column')
    // And back: the column stays and is no longer written.
    await running.splice(0)[0]?.close()
    start()
    await put('a', '1', { name: 'Max', age: 4, weight: 30 })
    await shows({ 'a/1': 'Max' })
  })

  it('is refused by the forwarder of another log, which says so and touches nothing', async () => {
    await put('a', '1', { name: 'Rex', age: 3 })
    start()
    await shows({ 'a/1': 'Rex' })
    await running.splice(0)[0]?.close()
    const other = mkdtempSync(join(tmpdir(), 'rejoin-other-'))
    const otherLog = await openSqliteLog({ directory: other })
    const forwarding = startForwarding({
      logDirectory: other,
      viewPath: join(other, 'view.db'),
      schema: PETS,
      sinks: { mirror: sqlite({ path: mirror }) },
    })
    const status = await until(async () => {
      const { detail } = await forwarding.status()
      return detail?.sinks['mirror']?.state === 'failing' && detail
    })
    expect(status.sinks['mirror']?.error).toMatch(/mirrors the log .* delete that file, name another, or adopt it/u)
    expect(names()).toEqual({ 'a/1': 'Rex' })
    await forwarding.close()
    await otherLog.close()
    rmSync(other, { recursive: true })
  })

  it('goes on when its worker dies: another one is started and reported', async () => {
    // A second sink that ends the whole thread, twice, the second time in the middle of everything.
    const flag = join(folder, 'deaths')
    const deadly = `
      import { appendFileSync, existsSync, readFileSync } from 'node:fs'
      export async function openSink() {
        const deaths = existsSync(${JSON.stringify(flag)}) ? readFileSync(${JSON.stringify(flag)}).length : 0
        if (deaths < 2) { appendFileSync(${JSON.stringify(flag)}, 'x'); process.exit(1) }
        return { begin: async () => ({ place: undefined, stamp: 0, parked: [] }), commit: async () => ({ type: 'committed', parked: [] }), keys: async () => [], close: async () => {} }
      }`
    await put('a', '1', { name: 'Rex', age: 3 })
    const forwarding = start(PETS, {
      mirror: sqlite({ path: mirror }),
      deadly: { ...sqlite({ path: mirror }), module: `data:text/javascript,${encodeURIComponent(deadly)}`, options: {} },
    })
    await put('a', '2', { name: 'Mia', age: 3 })
    await shows({ 'a/1': 'Rex', 'a/2': 'Mia' })
    const status = await until(async () => {
      const now = await forwarding.status()
      return now.restarts >= 2 && now.detail?.sinks['mirror']?.state === 'current' && now
    })
    // Once, of some 300 runs, a start in between failed with an error of SQLite, why is not known: it has to be one more death, told with its reason like the others.
    const told = events.map((event) => (event.type === 'died' ? event.error : event.type))
    expect([told[0], told.at(-1), told.filter((each) => each === 'it ended by itself')]).toEqual([
      'running',
      'running',
      ['it ended by itself', 'it ended by itself'],
    ])
    expect(status.restarts).toBe(events.filter(({ type }) => type === 'died').length)
    expect(told).not.toContain('[object Object]')
  })

  it('parks a document whose bytes are no update, shows why, and goes on with the others', async () => {
    const forwarding = start()
    const broken = 'broken' as DocumentId
    await log.open(broken)
    await log.append([
      {
        document: broken,
        seq: 1 as Seq,
        incarnation: newIncarnationId(),
        lo: 1,
        hi: 1,
        covers: [],
        actor: 'mallory',
        at: 0,
        update: new Uint8Array([255, 255, 255, 1]),
      },
    ])
    await put('a', '1', { name: 'Rex', age: 3 })
    await shows({ 'a/1': 'Rex' })
    const { detail } = await forwarding.status()
    expect(detail?.view.parked).toMatchObject({ total: 1, first: [{ document: 'broken', seq: 1 }] })
  })

  it('ends a document that keeps it from all others, goes on without it, and remembers that when it is started again', async () => {
    const mirrored = { mirror: sqlite({ path: mirror }) }
    const first = start(PETS, mirrored, 1_000)
    await forge('crowd', crowdUpdate(60_000))
    await put('a', '1', { name: 'Rex', age: 3 })
    await shows({ 'a/1': 'Rex' })
    const parked = { total: 1, first: [{ document: 'crowd', seq: 1, parked: expect.stringMatching(/^took too long/u) }] }
    await until(async () => (await first.status()).detail?.sinks['mirror']?.state === 'current')
    expect((await first.status()).detail?.view.parked).toMatchObject(parked)
    const slow = (): readonly WorkerEvent[] => events.filter(({ type }) => type === 'slow')
    expect(slow()).toMatchObject([{ document: 'crowd' }])
    // It changes, but is hardly larger: nobody has to wait for it once more, not even behind a restart.
    await forge('crowd', crowdUpdate(1))
    await put('a', '2', { name: 'Mia', age: 3 })
    await shows({ 'a/1': 'Rex', 'a/2': 'Mia' })
    await running.splice(0)[0]?.close()
    const second = start(PETS, mirrored, 1_000)
    await forge('crowd', crowdUpdate(1))
    await put('a', '3', { name: 'Max', age: 3 })
    await shows({ 'a/1': 'Rex', 'a/2': 'Mia', 'a/3': 'Max' })
    expect((await second.status()).detail?.view.parked).toMatchObject({ total: 1, first: [{ document: 'crowd' }] })
    expect(slow()).toHaveLength(1)
  }, 30_000)

  it('lists what does not fit the schema and keeps it out of the rows', async () => {
    const forwarding = start()
    await edit(
      'a',
      (pets) =>
        void pets.set(
          '1',
          new Y.Map<unknown>([
            ['name', 'Rex'],
            ['age', 'old'],
          ]),
        ),
    )
    await edit('a', (pets) => void (pets as Y.Map<unknown>).set('2', 'not a record'))
    await shows({ 'a/1': 'Rex' })
    const misfits = await until(async () => {
      const { detail } = await forwarding.status()
      return detail?.view.misfits.total === 2 && detail.view.misfits.first
    })
    expect(misfits.map(({ id, field }) => [id, field])).toEqual([
      ['1', 'age'],
      ['2', undefined],
    ])
    expect(mirrorRows(mirror, PETS)[0]?.value['age']).toBe(null)
  })

  it('projects what was already folded and trimmed away, and ten thousand entries, in order', async () => {
    const document = 'big' as DocumentId
    const doc = new Y.Doc()
    const updates: Uint8Array[] = []
    doc.on('update', (update: Uint8Array) => updates.push(update))
    const pets = doc.getMap<Y.Map<unknown>>('pets')
    for (let i = 0; i < 100; i++)
      pets.set(
        String(i),
        new Y.Map<unknown>([
          ['name', 'n'],
          ['age', 0],
        ]),
      )
    for (let i = 0; i < 9_900; i++) pets.get(String(i % 100))?.set('age', i)
    await log.open(document)
    const incarnation = newIncarnationId()
    const appends = updates.map((update, i) => ({
      document,
      seq: (i + 1) as Seq,
      incarnation,
      lo: i + 1,
      hi: i + 1,
      covers: [],
      actor: 'alice',
      at: 0,
      update,
    }))
    await log.append(appends.slice(0, 5_000))
    const head = await log.open(document)
    const half = new Y.Doc()
    for (const update of updates.slice(0, 5_000)) Y.applyUpdate(half, update)
    await log.fold({ document, lineage: head.lineage, seq: head.seq, update: Y.encodeStateAsUpdate(half), admission: new Uint8Array(1) })
    await log.trim(1)
    await log.append(appends.slice(5_000))
    const begun = performance.now()
    start()
    await until(
      () => existsSync(mirror) && mirrorRows(mirror, PETS).filter(({ value }) => Number(value['age']) >= 9_800).length === 100,
      'the last ages',
    )
    process.stdout.write(`projected and mirrored 5,000 entries on a snapshot of 5,000 in ${Math.round(performance.now() - begun)} ms\n`)
  })
})
