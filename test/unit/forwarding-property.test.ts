/**
 * The property of forwarding: whatever fails, wherever it stops, at its cursor a destination equals T of the documents on every key that is not parked; over strategies, consistencies and kinds of destinations.
 *
 * `REJOIN_RUNS` says how many histories are lived through (5,000 unless said); a failure names its seed.
 */
import fc from 'fast-check'
import { describe, it } from 'vitest'
import type { ForwardOptions } from '#server/sinks/spec.js'
import { PROJECTIONS, WITHOUT_JOINS } from '../support/projections.ts'
import type { Case } from '../support/sink-life.ts'
import { live } from '../support/sink-life.ts'
import type { ModelName } from '../support/sink-models.ts'

const RUNS = Number(process.env['REJOIN_RUNS'] ?? 5_000)
/** With 'every' a record on which select throws stops the sink for good. */
const GOOD = PROJECTIONS.slice(0, 4)

const state = (model: ModelName, options: ForwardOptions): fc.Arbitrary<Case> =>
  fc.record({
    seed: fc.nat(2 ** 31),
    model: fc.constant(model),
    options: fc
      .record({ projection: fc.constantFrom(...(options.consistency === 'every' ? GOOD : PROJECTIONS)) })
      .map((each) => ({ ...options, ...each })),
  })
const actions = (model: ModelName, options: ForwardOptions): fc.Arbitrary<Case> =>
  fc.record({
    seed: fc.nat(2 ** 31),
    model: fc.constant(model),
    options: fc
      .record({ projection: fc.constantFrom(...(options.consistency === 'every' ? WITHOUT_JOINS.slice(0, 1) : WITHOUT_JOINS)) })
      .map((each) => ({ strategy: 'actions' as const, from: 'beginning' as const, ...options, ...each })),
  })

const CASES: Readonly<Record<string, fc.Arbitrary<Case>>> = {
  'state, latest, with transactions': state('transactional', { consistency: 'latest' }),
  'state, every, with transactions': state('transactional', { consistency: 'every' }),
  'state, key, upserts with external versions': state('upsert', { lanes: 3 }),
  'state, every, upserts with external versions': state('upsert', { consistency: 'every' }),
  'state, key, an append-only channel': state('channel', { lanes: 2 }),
  'actions, latest, with transactions': actions('transactional', { consistency: 'latest' }),
  'actions, every, with transactions': actions('transactional', { consistency: 'every' }),
  'actions, key, an append-only channel': actions('channel', { lanes: 2 }),
}

describe('at its cursor a destination equals T of the documents, but for what is parked', () => {
  const runs = Math.ceil(RUNS / Object.keys(CASES).length)
  for (const [name, cases] of Object.entries(CASES)) {
    it(`${name}: ${runs} histories`, async () => {
      await fc.assert(
        fc.asyncProperty(cases, (each) => live(each)),
        { numRuns: runs, endOnFailure: true },
      )
    }, 120_000)
  }
})
