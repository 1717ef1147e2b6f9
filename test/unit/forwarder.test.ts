/**
 * The forwarder: what it does when it is not alone, not wanted, or too late; and what its status says then.
 */
import type { DocumentId, Position, Seq } from '@rejoin/shared'
import { collection, defineSchema, string } from '@rejoin/shared'
import { describe, expect, it } from 'vitest'
import type { Forwarder } from '#server/forwarding/forwarder.js'
import { startForwarder } from '#server/forwarding/forwarder.js'
import { compileTransform } from '#server/projection/transform.js'
import { forwardOf } from '#server/sinks/spec.js'
import { createMemoryNotes } from '#server/storage/notes-memory.js'
import { createMemoryView } from '#server/storage/view-memory.js'
import type { RecordChange, ViewCommit } from '#server/view/view.js'
import type { MemoryDestination } from '../support/memory-sink.ts'
import { sinkContext } from '../support/sink-context.ts'
import { createMemoryDestination, openMemorySink, rowsOf } from '../support/memory-sink.ts'
import { createVirtualClock } from '../support/virtual-clock.ts'

const PETS = defineSchema({ pets: collection({ name: string() }) })
const TRAITS = { transactional: true, strategies: ['state', 'actions'], readable: true } as const
const NOTHING: ViewCommit = { entries: [], documents: [], places: [], misfits: [] }

function makeWorld() {
  const notes = createMemoryNotes()
  const forward = forwardOf('memory', TRAITS, {})
  const clock = createVirtualClock()
  const view = createMemoryView('v')
  const destination = createMemoryDestination()
  view.commit({ ...NOTHING, source: { log: 'log', schema: '' } })
  return {
    clock,
    view,
    destination,
    /** One entry; null deletes. */
    write: (names: Record<string, string | null>): void => {
      const version = view.standing().version + 1
      const changes: RecordChange[] = Object.entries(names).map(([id, name]) => ({
        collection: 'pets',
        id,
        value: name === null ? null : { name },
      }))
      const entry = {
        version,
        partition: 0,
        position: version as Position,
        epoch: 1,
        seq: version as Seq,
        document: 'd' as DocumentId,
        actor: '',
        at: 0,
        changes,
        settled: true,
      }
      view.commit({ ...NOTHING, entries: [entry] })
    },
    start: (to: MemoryDestination = destination, log = 'log', linger = 0): Forwarder =>
      startForwarder({
        view,
        transform: compileTransform(PETS, []),
        forward,
        log,
        notes,
        clock,
        random: () => 0.5,
        linger,
        open: async ({ adopt }) =>
          openMemorySink(to, sinkContext({ name: 'sink', collections: PETS.collections, log, adopt, forward, notes })),
      }),
  }
}

const names = (destination: MemoryDestination): string[] => [...rowsOf(destination).values()].map(({ name }) => String(name)).sort()

describe('the forwarder', () => {
  it('coalesces what changed up to a cut into one commit', async () => {
    const { clock, destination, write, start } = makeWorld()
    let commits = 0
    destination.hook = (at) => {
      if (at === 'before commit') commits++
    }
    for (let i = 0; i < 100; i++) write({ a: `Rex ${i}`, b: i % 2 === 0 ? 'Mia' : null })
    const forwarder = start()
    await clock.advance(10)
    expect(names(destination)).toEqual(['Rex 99'])
    expect(commits, 'the refresh').toBe(1)
    for (let i = 100; i < 200; i++) write({ a: `Rex ${i}` })
    forwarder.poke()
    await clock.advance(10)
    expect(names(destination)).toEqual(['Rex 199'])
    expect(commits).toBe(2)
    expect(forwarder.status()).toMatchObject({
      state: 'current',
      cursor: 200,
      lag: { entries: 0, bytes: 0 },
      parked: { total: 0, first: [] },
      commits: 2,
      error: undefined,
    })
    await forwarder.stop()
    expect(forwarder.status().state).toBe('stopped')
  })

  it('gathers what comes after a small commit, and sends the first after a rest at once', async () => {
    const { clock, destination, write, start } = makeWorld()
    let commits = 0
    destination.hook = (at) => {
      if (at === 'before commit') commits++
    }
    const forwarder = start(destination, 'log', 10)
    await clock.advance(100)
    const before = commits
    for (let i = 0; i < 40; i++) {
      write({ a: `Rex ${i}` })
      forwarder.poke()
      await clock.advance(1)
      if (i === 0) expect(names(destination)).toEqual(['Rex 0'])
    }
    expect(commits - before).toBe(5)
    await clock.advance(10)
    expect(names(destination)).toEqual(['Rex 39'])
    await forwarder.stop()
  })

  it('stays still for good when another one has taken over', async () => {
    const { clock, destination, write, start } = makeWorld()
    write({ a: 'Rex' })
    const first = start()
    await clock.advance(10)
    const second = start()
    await clock.advance(10)
    write({ a: 'Max' })
    first.poke()
    second.poke()
    await clock.advance(100_000)
    expect(first.status().state).toBe('fenced')
    expect(second.status().state).toBe('current')
    expect(destination.fence, 'they do not take it from each other in turn').toBe(2)
    await second.stop()
  })

  it('notices by itself that it was fenced, or that the destination was emptied', async () => {
    const { clock, destination, write, start } = makeWorld()
    write({ a: 'Rex' })
    const forwarder = start()
    await clock.advance(10)
    const { hook } = destination
    Object.assign(destination, createMemoryDestination(), { hook })
    await clock.advance(5_000)
    expect(names(destination)).toEqual(['Rex'])
    destination.fence = 99
    await clock.advance(5_000)
    expect(forwarder.status().state).toBe('fenced')
  })

  it('is refreshed when it comes too late: what it had not read was dropped', async () => {
    const { clock, view, destination, write, start } = makeWorld()
    write({ a: 'Rex', b: 'Mia' })
    const first = start()
    await clock.advance(10)
    await first.stop()
    write({ a: null })
    write({ c: 'Ada' })
    view.trim(3, 1_000)
    const late = start()
    await clock.advance(10)
    expect(names(destination)).toEqual(['Ada', 'Mia'])
    expect(late.status()).toMatchObject({ state: 'current', cursor: 3 })
    await late.stop()
  })

  it('says why it fails and tries again', async () => {
    const { clock, destination, write, start } = makeWorld()
    write({ a: 'Rex' })
    destination.log = 'another'
    const forwarder = start()
    await forwarder.begun
    await clock.advance(60_000)
    expect(forwarder.status()).toMatchObject({ state: 'failing', cursor: 0, lag: { entries: 1 } })
    expect(forwarder.status().error).toMatch(/mirrors the log another/u)
    destination.log = undefined
    await clock.advance(60_000)
    expect(forwarder.status()).toMatchObject({ state: 'current', error: undefined })
    await forwarder.stop()
  })

  it('counts what is parked until it is written', async () => {
    const { clock, destination, write, start } = makeWorld()
    destination.hook = (at) => (typeof at === 'object' && at.id === 'bad' && destination.log === 'log' ? 'no' : undefined)
    write({ a: 'Rex', bad: 'Max' })
    const forwarder = start()
    await clock.advance(10)
    expect(forwarder.status().parked).toEqual({
      total: 1,
      first: [{ key: { collection: 'pets', document: 'd', id: 'bad' }, reason: 'no' }],
    })
    await forwarder.stop()
    const again = start()
    await clock.advance(10)
    expect(again.status().parked.total, 'the destination remembers').toBe(1)
    destination.hook = () => {}
    write({ bad: 'Ada' })
    again.poke()
    await clock.advance(10)
    expect(again.status().parked.total).toBe(0)
    expect(names(destination)).toEqual(['Ada', 'Rex'])
    await again.stop()
  })

  it('waits for the view, and never shows a destination a view that is not whole', async () => {
    const { clock, view, destination, write, start } = makeWorld()
    write({ a: 'Rex' })
    const first = start()
    await clock.advance(10)
    await first.stop()
    view.commit({ ...NOTHING, source: null })
    write({ a: null })
    const forwarder = start()
    await clock.advance(5_000)
    expect(forwarder.status().state).toBe('starting')
    expect(names(destination)).toEqual(['Rex'])
    view.commit({ ...NOTHING, source: { log: 'log', schema: '' } })
    forwarder.poke()
    await clock.advance(10)
    expect(names(destination)).toEqual([])
    await forwarder.stop()
  })
})
