/**
 * The race that `packages/server/docs/dual-writes.md` describes: every order of two people's writes to two places, as applications do it, and as it is done here.
 */
import type { ChainHash, DocumentId, Lineage, Position, RecordValue, Seq } from '@rejoin/shared'
import { collection, defineSchema, string } from '@rejoin/shared'
import { expect, it } from 'vitest'
import { deriveState } from '#server/forwarding/derive.js'
import { compileTransform } from '#server/projection/transform.js'
import { createMemoryDestination, openMemorySink, rowsOf } from '#server/sinks/memory.js'
import { createMemoryView } from '#server/storage/view-memory.js'
import type { View } from '#server/view/view.js'
import { sinkContext } from '../support/sink-context.ts'

const SCHEMA = defineSchema({ pets: collection({ name: string() }) })
const T = compileTransform(SCHEMA, [])
const LOG = 'a'.repeat(32)

it('two writes to two places end apart in two of six orders', () => {
  const apart = orders(['Jill writes', 'Jill tells'], ['Jack writes', 'Jack tells']).filter((order) => {
    const [database, index] = ['writes', 'tells'].map((step) => order.findLast((each) => each.endsWith(step))?.split(' ')[0])
    return database !== index
  })
  expect(apart).toHaveLength(2)
})

it('one log and two forwarders of it, in any order, twice, and with old work in hand, end with what was written last', async () => {
  const view = viewOf('Rex', 'Max')
  for (const order of orders(['one takes', 'one writes', 'one writes'], ['other takes', 'other writes', 'other writes'])) {
    const destination = createMemoryDestination()
    const forwarders = { one: worker(view, destination), other: worker(view, destination) }
    for (const step of order) {
      const forwarder = step.startsWith('one') ? forwarders.one : forwarders.other
      if (step.endsWith('takes')) await forwarder.take()
      else await forwarder.write()
    }
    // Whoever is still allowed to write goes on until nothing is left, as a forwarder does.
    await forwarders.one.finish()
    await forwarders.other.finish()
    expect([...rowsOf(destination).values()], order.join(', ')).toEqual([{ name: 'Max' }])
  }
})

/** A forwarder taken apart: what it read lies in its hand until it writes, however long that takes. */
function worker(view: View, destination: ReturnType<typeof createMemoryDestination>) {
  const sink = openMemorySink(destination, sinkContext({ name: 'index', collections: SCHEMA.collections, log: LOG }))
  let at: Awaited<ReturnType<typeof sink.begin>>['place']
  let hand: { readonly to: number; readonly rows: Awaited<ReturnType<typeof deriveState>>['rows'] } | undefined
  const read = async (to: number): Promise<void> => {
    hand = { to, rows: (await deriveState(view, T, { from: at?.version ?? 0, to })).rows }
  }
  const write = async (): Promise<'fenced' | 'done'> => {
    if (hand === undefined) return 'done'
    const to = { view: view.id, version: hand.to }
    const outcome = await sink.commit({ rows: hand.rows, from: at, to })
    if (outcome.type === 'committed') at = to
    return outcome.type === 'fenced' ? 'fenced' : 'done'
  }
  return {
    take: async () => {
      at = (await sink.begin()).place
      await read(Math.min((at?.version ?? 0) + 1, view.head() ?? 0))
    },
    write,
    finish: async () => {
      while ((await write()) !== 'fenced' && (at?.version ?? 0) < (view.head() ?? 0)) await read((at?.version ?? 0) + 1)
    },
  }
}

/** A view in which one pet was given these names, one after the other. */
function viewOf(...names: readonly string[]): View {
  const view = createMemoryView('v'.repeat(32))
  const document = 'clinic' as DocumentId
  view.commit({
    source: { log: LOG, schema: '' },
    documents: [],
    places: [{ partition: 0, position: names.length as Position, hash: undefined as ChainHash | undefined, ahead: 0 as Position }],
    misfits: [],
    entries: names.map((name, i) => ({
      version: i + 1,
      partition: 0,
      position: (i + 1) as Position,
      epoch: 1,
      seq: (i + 1) as Seq,
      lineage: '' as Lineage,
      document,
      actor: name === 'Rex' ? 'Jill' : 'Jack',
      at: i,
      settled: true,
      changes: [{ collection: 'pets', id: '1', value: { name } satisfies RecordValue }],
    })),
  })
  return view
}

/** Every order of two sequences that keeps the order of each. */
function orders(a: readonly string[], b: readonly string[]): readonly (readonly string[])[] {
  const [first, ...rest] = a
  const [other, ...others] = b
  if (first === undefined || other === undefined) return [[...a, ...b]]
  return [...orders(rest, b).map((order) => [first, ...order]), ...orders(a, others).map((order) => [other, ...order])]
}
