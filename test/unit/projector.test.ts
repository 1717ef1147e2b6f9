/**
 * The projector where the log is not what the view remembers, and where documents cannot be read.
 */
import type { DocumentId, IncarnationId, Position, Schema, Seq } from '@rejoin/shared'
import { collection, defineSchema, newIncarnationId, number, string } from '@rejoin/shared'
import { describe, expect, it } from 'vitest'
import * as Y from 'yjs'
import type { Entry, Log } from '#server/log/log.js'
import { LogError } from '#server/log/log.js'
import { createMemoryDisk } from '#server/storage/memory-disk.js'
import { createMemoryLog } from '#server/storage/memory.js'
import { createMemoryView } from '#server/storage/view-memory.js'
import { startProjector } from '#server/view/projector.js'
import type { LogSource } from '#server/view/source.js'
import { createLogSource } from '#server/view/source.js'
import { refuseSlow, withSlow } from '#server/view/turns.js'
import type { ViewStore } from '#server/view/view.js'
import { deepUpdate } from '../support/forged-updates.ts'
import { seeded } from '../support/histories.ts'
import { createVirtualClock } from '../support/virtual-clock.ts'

const PETS = defineSchema({ pets: collection({ name: string() }) })
const INCARNATION: IncarnationId = newIncarnationId()

/** A log whose ids and lineages depend on the seed only: two of them with one seed are a log and its copy. */
function makeLog(seed = 1) {
  const chance = seeded(seed)
  const disk = createMemoryDisk({ randomBytes: (length) => Uint8Array.from({ length }, () => Math.floor(chance() * 256)) })
  const log: Log = createMemoryLog(disk)
  const docs = new Map<string, Y.Doc>()
  const append = async (document: DocumentId, update: Uint8Array): Promise<void> => {
    const { seq } = await log.open(document)
    const next = seq + 1
    await log.append([
      { document, seq: next as Seq, incarnation: INCARNATION, lo: next, hi: next, covers: [], actor: 'alice', at: 1, update },
    ])
  }
  const source = createLogSource(log, {
    id: log.id,
    ends: async () => new Map([[0, disk.image.position as Position]]),
    documents: async (limit, from) =>
      [...disk.image.documents.keys()]
        .sort()
        .filter((id) => from === undefined || id > from)
        .slice(0, limit),
  })
  return {
    log,
    source,
    append,
    put: async (document: string, id: string, name: string): Promise<void> => {
      const doc = docs.get(document) ?? new Y.Doc()
      // Copies of a log hold the same updates only when their devices have the same ids.
      doc.clientID = 1
      docs.set(document, doc)
      const before = Y.encodeStateVector(doc)
      doc.getMap('pets').set(
        id,
        new Y.Map<unknown>([
          ['name', name],
          ['age', name.length],
        ]),
      )
      await append(document as DocumentId, Y.encodeStateAsUpdate(doc, before))
    },
  }
}

async function run(log: LogSource, view: ViewStore, schema: Schema = PETS, ms = 1_000): Promise<void> {
  const clock = createVirtualClock()
  const pump = startProjector({ log, view, schema, clock, random: () => 0.5 })
  await clock.advance(ms)
  expect(pump.state).toEqual({ name: 'idle' })
  await pump.stop()
}

const shown = (view: ViewStore): Record<string, unknown> => {
  const head = view.head() ?? 0
  return Object.fromEntries(view.keys(head, 100).map((key) => [`${key.document}/${key.id}`, view.get(key, head)?.['name']]))
}

describe('the projector', () => {
  it('gives each entry a version and goes on where it stopped', async () => {
    const { put, source } = makeLog()
    const view = createMemoryView('v')
    await run(source, view)
    expect(view.head()).toBe(0)
    await put('a', '1', 'Rex')
    await put('b', '1', 'Mia')
    await run(source, view)
    expect(view.head()).toBe(2)
    await put('a', '1', 'Max')
    await run(source, view)
    expect([1, 2, 3].map((version) => view.keys(version, 9).map((key) => view.get(key, version)?.['name']))).toEqual([
      ['Rex'],
      ['Rex', 'Mia'],
      ['Max', 'Mia'],
    ])
    expect(view.dirty(2, 3).map(({ document }) => document)).toEqual(['a'])
  })

  it('throws away what is of another log, counts on, and shows nothing until it is whole', async () => {
    const [first, second] = [makeLog(1), makeLog(2)]
    const view = createMemoryView('v')
    for (const name of ['Rex', 'Max', 'Ada']) await first.put('a', '1', name)
    await first.put('gone', '1', 'Zoe')
    await run(first.source, view)
    const before = view.head() ?? 0
    await second.put('a', '1', 'Mia')
    const clock = createVirtualClock()
    const stuck = startProjector({
      log: { ...second.source, documents: () => new Promise(() => {}) },
      view,
      schema: PETS,
      clock,
      random: () => 0.5,
    })
    await clock.advance(10)
    expect(view.head(), 'records of the first log are not shown as the second one’s').toBeUndefined()
    void stuck.stop()
    await run(second.source, view)
    expect(shown(view)).toEqual({ 'a/1': 'Mia' })
    expect(view.head()).toBeGreaterThan(before)
  })

  it('follows a log that was restored from an older copy, shorter or gone on differently', async () => {
    for (const later of [[], ['Ivy', 'Eve', 'Joe']]) {
      const [log, copy] = [makeLog(7), makeLog(7)]
      const view = createMemoryView('v')
      for (const each of [log, copy]) await each.put('a', '1', 'Rex')
      for (const name of ['Max', 'Ada']) await log.put('a', '2', name)
      await log.put('lost', '1', 'Zoe')
      await run(log.source, view)
      const before = view.head() ?? 0
      for (const name of later) await copy.put('a', '3', name)
      expect(copy.log.id).toBe(log.log.id)
      await run(copy.source, view)
      expect(shown(view)).toEqual(later.length === 0 ? { 'a/1': 'Rex' } : { 'a/1': 'Rex', 'a/3': 'Joe' })
      expect(view.head()).toBeGreaterThan(before)
      // A reader at the old head sees the difference as changes: no refresh is needed.
      expect(view.dirty(before, view.head() ?? 0).map(({ document, id }) => `${document}/${id}`)).toEqual([
        'a/2',
        ...(later.length === 0 ? [] : ['a/3']),
        'lost/1',
      ])
    }
  })

  it('reads everything again with another schema, and shows the old records meanwhile', async () => {
    const { put, source } = makeLog()
    const view = createMemoryView('v')
    await put('a', '1', 'Rex')
    await run(source, view)
    const wider = defineSchema({ pets: collection({ name: string(), age: number() }) })
    const clock = createVirtualClock()
    const stuck = startProjector({
      log: { ...source, documents: () => new Promise(() => {}) },
      view,
      schema: wider,
      clock,
      random: () => 0.5,
    })
    await clock.advance(10)
    expect(shown(view)).toEqual({ 'a/1': 'Rex' })
    void stuck.stop()
    await run(source, view, wider)
    expect(view.get({ collection: 'pets', document: 'a' as DocumentId, id: '1' }, view.head() ?? 0)).toEqual({ age: 3, name: 'Rex' })
    const none = defineSchema({ owners: collection({ name: string() }) })
    await run(source, view, none)
    expect(shown(view)).toEqual({})
  })

  it('catches up by snapshots when the entries it had not read are gone', async () => {
    const { put, log, source } = makeLog()
    const view = createMemoryView('v')
    await put('a', '1', 'Rex')
    await run(source, view)
    const doc = new Y.Doc()
    for (const name of ['Max', 'Ada']) await put('a', '2', name)
    for (const entry of (await log.read({ document: 'a' as DocumentId, after: 0 as Seq }, 1e6)) as Entry[]) Y.applyUpdate(doc, entry.update)
    const { lineage, seq } = await log.open('a' as DocumentId)
    await log.fold({ document: 'a' as DocumentId, lineage, seq, update: Y.encodeStateAsUpdate(doc), admission: new Uint8Array(1) })
    await log.trim(Number.MAX_SAFE_INTEGER)
    await put('b', '1', 'Mia')
    await run(source, view)
    expect(shown(view)).toEqual({ 'a/1': 'Rex', 'a/2': 'Ada', 'b/1': 'Mia' })
  })

  it('parks a document that cannot be integrated, goes on with others, and tries again when it changes', async () => {
    const { put, append, source } = makeLog()
    const view = createMemoryView('v')
    await put('a', '1', 'Rex')
    const doc = new Y.Doc()
    doc.getMap('pets').set('1', new Y.Map([['name', 'Max']]))
    const first = Y.encodeStateAsUpdate(doc)
    const before = Y.encodeStateVector(doc)
    doc.getMap('pets').set('2', new Y.Map([['name', 'Ada']]))
    // The second entry lies before the first: a log that no relay of ours writes.
    await append('odd' as DocumentId, Y.encodeStateAsUpdate(doc, before))
    await put('b', '1', 'Mia')
    await run(source, view)
    expect(shown(view)).toEqual({ 'a/1': 'Rex', 'b/1': 'Mia' })
    expect(view.parked(9)).toMatchObject({ total: 1, first: [{ document: 'odd', parked: expect.stringMatching(/gap/u) as string }] })
    await append('odd' as DocumentId, first)
    await run(source, view)
    expect(view.parked(9).total).toBe(0)
    expect(shown(view)).toEqual({ 'a/1': 'Rex', 'b/1': 'Mia', 'odd/1': 'Max', 'odd/2': 'Ada' })
  })

  it('parks the document of an entry whose bytes are damaged and goes on behind it', async () => {
    const { put, source } = makeLog()
    const view = createMemoryView('v')
    await put('a', '1', 'Rex')
    await put('bad', '1', 'Max')
    await put('b', '1', 'Mia')
    await put('bad', '2', 'Ada')
    const damaged = (): LogError =>
      new LogError('corrupt', 'entry 1 of document bad fails its checksum', { document: 'bad' as DocumentId, position: 2 as Position })
    const log: LogSource = {
      ...source,
      // As the log in SQLite does: entries up to the damaged one, then the failure.
      read: async (partition, after, maxBytes) => {
        const entries = await source.read(partition, after, maxBytes)
        if (entries === 'trimmed' || !entries.some(({ position }) => position === 2)) return entries
        const sound = entries.filter(({ position }) => position < 2)
        if (sound.length === 0) throw damaged()
        return sound
      },
      load: (document, upTo) => (document === 'bad' ? Promise.reject(damaged()) : source.load(document, upTo)),
    }
    await run(log, view)
    expect(shown(view)).toEqual({ 'a/1': 'Rex', 'b/1': 'Mia' })
    expect(view.parked(9)).toMatchObject({ total: 1, first: [{ document: 'bad' }] })
    expect(view.standing().places[0]?.position).toBe(4)
  })
})

describe('a document nested deeper than the stack', () => {
  it('is parked alone, for as long as it throws', async () => {
    const { source, append, put } = makeLog()
    const view = createMemoryView('0'.repeat(32))
    await append('deep' as DocumentId, deepUpdate('pets', 20_000))
    // Yjs deletes by recursion.
    await append('deep' as DocumentId, Uint8Array.of(0, 1, 77, 1, 0, 1))
    await put('a', '1', 'Rex')
    await run(source, view)
    expect(shown(view)).toMatchObject({ 'a/1': 'Rex' })
    expect(view.parked(9)).toMatchObject({ total: 1, first: [{ document: 'deep', parked: expect.stringMatching(/call stack/u) }] })
    await put('a', '1', 'Max')
    await run(source, view)
    expect(shown(view)).toMatchObject({ 'a/1': 'Max' })
    expect(view.parked(9).total).toBe(1)
  })
})

describe('a document that took too long once', () => {
  it('is refused until it has doubled or an hour has passed, and another is not', () => {
    const clock = createVirtualClock()
    const tried: string[] = []
    const slow = { document: 'slow' as DocumentId, bytes: 100, at: clock.now() }
    const turns = refuseSlow(withSlow([{ ...slow, bytes: 1 }], slow), clock, { begin: (document) => tried.push(document), end: () => {} })
    expect(() => turns.begin(slow.document, 199)).toThrow(/took too long/u)
    turns.begin('other' as DocumentId, 1)
    turns.begin(slow.document, 200)
    expect(tried).toEqual(['other', 'slow'])
    const later = { ...clock, now: () => slow.at + 3_600_000 }
    refuseSlow([slow], later, turns).begin('other' as DocumentId, 1)
    expect(() => refuseSlow([slow], later, { begin: () => {}, end: () => {} }).begin(slow.document, 100)).not.toThrow()
  })
})
