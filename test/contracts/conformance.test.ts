/**
 * The conformance kit held to itself: a sink that breaks one promise fails the case that is about it; and the docs' table is what was recorded.
 */
import { readFileSync } from 'node:fs'
import { CONFORMANCE_CASES, conformance } from '@rejoin/server/testing'
import type { Conformance, Destination } from '@rejoin/server/testing'
import { describe, expect, it } from 'vitest'
import type { Sink, SinkCommit, SinkOutcome } from '#server/sinks/sink.js'
import { open } from '../conformance/memory.ts'
import { SINKS_PAGE, readResults, withTable } from '../conformance/table.ts'

/** The memory sink, broken. */
async function broken(sinkOf: (sink: Sink, destination: Destination) => Sink): Promise<Conformance> {
  const { under } = await open()
  return {
    ...under,
    destination: async () => {
      const destination = await under.destination()
      return { ...destination, open: async (context) => sinkOf(await destination.open(context), destination) }
    },
  }
}

const committing = (commit: (sink: Sink, given: SinkCommit) => Promise<SinkOutcome>) => (sink: Sink) => ({
  ...sink,
  commit: (given: SinkCommit) => commit(sink, given),
})

/** What each does wrong, and the cases of which at least one must notice. */
const MISTAKES: readonly (readonly [what: string, cases: readonly string[], sinkOf: Parameters<typeof broken>[0]])[] = [
  [
    'says that it wrote what it did not',
    ['duplicates', 'partial bulk failure', 'server restarted', 'ambiguous timeout and a change back'],
    committing((sink, given) => sink.commit({ ...given, rows: given.rows.slice(1) })),
  ],
  [
    'leaves deleted rows',
    ['any order', 'duplicates'],
    committing((sink, given) => sink.commit({ ...given, rows: given.rows.filter(({ value }) => value !== null) })),
  ],
  [
    'has no fence',
    ['frozen forwarder', 'any order', 'delete, then a late insert during a refresh'],
    (sink, { open: _open }) => ({
      ...sink,
      commit: async (given) => {
        const outcome = await sink.commit(given)
        if (outcome.type !== 'fenced') return outcome
        // Takes the fence and the place it needs, and writes all the same.
        const { place } = await sink.begin()
        return sink.commit({ ...given, from: place, force: true })
      },
    }),
  ],
  [
    'does not know its log',
    ["another log's config"],
    (sink) => ({ ...sink, begin: () => sink.begin().catch(() => ({ place: undefined, stamp: 0, parked: [] })) }),
  ],
  [
    'parks in silence',
    ['partial bulk failure', 'poison row'],
    committing(async (sink, given) => {
      const outcome = await sink.commit(given)
      return outcome.type === 'committed' ? { ...outcome, parked: [] } : outcome
    }),
  ],
  [
    'refuses all where one is refused',
    ['partial bulk failure', 'poison row'],
    committing(async (sink, given) => {
      const outcome = await sink.commit({ ...given, whole: true })
      return outcome.type !== 'refused' ? outcome : { type: 'committed', parked: given.rows.map(({ key }) => ({ key, reason: 'no' })) }
    }),
  ],
  [
    'does not notice that it was put back to a copy',
    ['destination restored from backup'],
    (sink) => {
      let mine: SinkCommit['to'] | undefined
      return {
        ...sink,
        commit: async (given) => {
          if (given.rows.length === 0 && mine !== undefined && given.from?.version === mine.version)
            return { type: 'committed', parked: [] }
          const outcome = await sink.commit(given)
          if (outcome.type === 'committed') mine = given.to
          return outcome
        },
      }
    },
  ],
]

describe('the kit', () => {
  it.each(MISTAKES)('fails a sink that %s', { timeout: 60_000 }, async (_what, cases, sinkOf) => {
    const under = await broken(sinkOf)
    const failed: string[] = []
    for (const each of conformance({ ...under, patience: 250 })) {
      if (cases.includes(each.name)) await each.run().catch(() => failed.push(each.name))
    }
    expect(failed).not.toEqual([])
  })

  it('fails a case whose destination fails, and says so', async () => {
    const { under } = await open()
    const [first] = conformance({ ...under, destination: () => Promise.reject(new Error('no server')) })
    await expect(first?.run()).rejects.toThrow('no server')
  })

  it('leaves no case out without a reason', async () => {
    const { under } = await open()
    const powers = { fence: 'no fence here', guard: 'no guard here', identity: 'no identity here', cursor: 'no cursor here' }
    const bare = async (): Promise<Destination> => {
      const { open: openSink, rows, close } = await under.destination()
      return { open: openSink, rows, close }
    }
    const reasons: string[] = []
    for (const each of conformance({ ...under, powers, destination: bare })) {
      const outcome = await each.run()
      if (outcome.type === 'not applicable') reasons.push(outcome.reason)
    }
    expect(reasons).toHaveLength(11)
    expect(reasons.every((reason) => /no (fence|guard|identity|cursor) here|gives no way to/u.test(reason))).toBe(true)
  })
})

describe('what was recorded', () => {
  const results = readResults()

  it('is there', () => {
    expect(results.map(({ sink }) => sink)).toEqual(expect.arrayContaining(['memory', 'sqlite']))
  })

  it.each(results.map((result) => [result.sink, result] as const))(
    'of %s has every case, none of them failed',
    (_sink, { cases, server }) => {
      expect(Object.keys(cases)).toEqual(CONFORMANCE_CASES.map(({ name }) => name))
      expect(Object.values(cases).filter((outcome) => outcome.startsWith('failed'))).toEqual([])
      expect(server).toMatch(/\d/u)
    },
  )

  it('is what the docs show', () => {
    const page = readFileSync(SINKS_PAGE, 'utf8')
    expect(page).toBe(withTable(page, results))
  })
})
