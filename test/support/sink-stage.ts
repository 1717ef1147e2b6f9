/**
 * One view written by hand, one sink on a memory destination or a delivery, and a clock that a test moves: for examples of what the forwarder does.
 */
import type { DocumentId, Position, Seq } from '@rejoin/shared'
import { collection, defineSchema, string } from '@rejoin/shared'
import type { Forwarder } from '#server/forwarding/control.js'
import { startForwarder } from '#server/forwarding/forwarder.js'
import { compileTransform } from '#server/projection/transform.js'
import type { Delivery } from '#server/sinks/delivery.js'
import { deliverySink } from '#server/sinks/delivery.js'
import type { Projection, Sink, SinkCommit, SinkRow } from '#server/sinks/sink.js'
import type { ForwardOptions } from '#server/sinks/spec.js'
import { forwardOf } from '#server/sinks/spec.js'
import { createMemoryNotes } from '#server/storage/notes-memory.js'
import { createMemoryView } from '#server/storage/view-memory.js'
import type { RecordChange, ViewCommit } from '#server/view/view.js'
import { createMemoryDestination, openMemorySink, rowsOf } from './memory-sink.ts'
import { sinkContext } from './sink-context.ts'
import { createVirtualClock } from './virtual-clock.ts'

export const PETS = defineSchema({ pets: collection({ name: string() }) })
const NOTHING: ViewCommit = { entries: [], documents: [], places: [], misfits: [] }

/** A stage with nothing on it yet. */
export function makeStage() {
  const clock = createVirtualClock()
  const notes = createMemoryNotes()
  const view = createMemoryView('v')
  const destination = createMemoryDestination()
  const commits: SinkCommit[] = []
  view.commit({ ...NOTHING, source: { log: 'log', schema: '' } })

  const start = (
    options: ForwardOptions = {},
    more: { readonly delivery?: Delivery; readonly ceiling?: () => number | undefined; readonly maxParked?: number } = {},
  ): Forwarder => {
    const traits = { transactional: more.delivery === undefined, strategies: ['state', 'actions'], readable: true } as const
    const forward = forwardOf('memory', traits, options)
    const transform = compileTransform(PETS, forward.projections)
    return startForwarder({
      view,
      transform,
      forward,
      log: 'log',
      notes,
      clock,
      random: () => 0.5,
      ceiling: more.ceiling,
      maxParked: more.maxParked,
      open: async ({ adopt }) => {
        const context = sinkContext({ name: 'sink', collections: transform.targets, log: 'log', adopt, forward, notes })
        const sink = more.delivery === undefined ? openMemorySink(destination, context) : deliverySink(more.delivery, context, clock)
        return recorded(sink, commits)
      },
    })
  }
  return {
    clock,
    notes,
    view,
    destination,
    /** That wrote something. */
    commits,
    start,
    /** One entry; null deletes. */
    write: (names: Record<string, string | null>): void => {
      const version = view.standing().version + 1
      const changes: RecordChange[] = Object.entries(names).map(([id, name]) => ({
        collection: 'pets',
        id,
        value: name === null ? null : { name },
      }))
      const place = { partition: 0, position: version as Position, epoch: 1, seq: version as Seq }
      view.commit({
        ...NOTHING,
        entries: [{ version, ...place, document: 'd' as DocumentId, actor: '', at: clock.now(), changes, settled: true }],
      })
    },
    /** What lies in the memory destination, by id. */
    names: (): Record<string, unknown> =>
      Object.fromEntries([...destination.rows.values()].flatMap(({ key, value }) => (value === null ? [] : [[key.id, value['name']]]))),
    count: (): number => rowsOf(destination).size,
  }
}

function recorded(sink: Sink, commits: SinkCommit[]): Sink {
  return {
    ...sink,
    commit: async (commit) => {
      const outcome = await sink.commit(commit)
      if (outcome.type === 'committed' && commit.rows.length > 0) commits.push(commit)
      return outcome
    },
  }
}

/** Names of the rows, in the order in which they were written. */
export function namesIn(rows: readonly SinkRow[]): readonly string[] {
  return rows.map(({ key, value }) => `${key.id} ${value === null ? 'gone' : String(value['name'])}`)
}

/** A projection that upper-cases names; throws on `bad`. */
export function shout(revision: number, source = 'a', bad: () => string = () => ''): Projection {
  return {
    to: 'pets',
    from: 'pets',
    as: 'pet',
    join: {},
    fields: { name: string() },
    revision,
    parts: false,
    source,
    select: ({ pet }) => {
      const { name } = pet as { readonly name: string }
      if (name === bad()) throw new Error('select says no')
      return { name: `${name.toUpperCase()}${revision}` }
    },
  }
}
