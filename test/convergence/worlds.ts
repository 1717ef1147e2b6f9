/**
 * Runs worlds as tests, a share of the seeds a file, so that test workers divide them.
 *
 * Some fifty faults were planted in the shipped code, one at a time. What these worlds do not notice, and why:
 * - A client that sends behind a hole in its numbers, or a relay that takes that: each is caught by the other, and both by admission, which misses the structs.
 * - What a client does with `expected` below the push it answers, or with bytes that do not fit: no relay here says or sends that. The unit tests do.
 * - Formatting marks that a reader tidies: they are edits like others, late. The replica's unit tests know that nobody made them.
 */
import { describe, expect, it } from 'vitest'
import type { Sights } from './wire.ts'
import { runWorld } from './world.ts'

const SEEDS = Number(process.env['REJOIN_SEEDS'] ?? 1000)
const FIRST = Number(process.env['REJOIN_FIRST_SEED'] ?? 1)
const ONLY = process.env['REJOIN_SEED']
/** Seeds a test, so that a failure is told early. */
const SLICE = 50
/** Worlds that together meet everything there is to meet. */
const MANY = 200

/** What happens somewhere in many worlds. A world that never sees a thing proves nothing about it. */
const EXPECTED = [
  'a push',
  'a merged push',
  'a push in parts',
  'a state push',
  'an ack without a hash',
  'an entry in pieces',
  'a first state',
  'a state in between',
  'opened resumed',
  'opened full',
  'opened full in spite of a cursor',
  'nack gap',
  'nack storage_full',
  'nack bad_key',
  'refused forbidden',
  'grant read',
  'grant none',
  'grant write',
  'authenticate',
  'goaway draining',
  'goaway timeout',
]

/** Share `part` (from 1) of `parts`. */
export function describeWorlds(part: number, parts: number): void {
  describe('worlds of devices, tabs, one relay and a hostile network', () => {
    if (ONLY !== undefined) {
      it.runIf(part === 1)(`seed ${ONLY} keeps every promise`, () => run(Number(ONLY)).then(() => undefined), 600_000)
      return
    }
    const share = (to: number): number => FIRST + Math.floor((SEEDS * to) / parts)
    const [first, end] = [share(part - 1), share(part)]
    const sights: Sights = new Map()
    for (let from = first; from < end; from += SLICE) {
      const to = Math.min(from + SLICE, end)
      it(`seeds ${from} to ${to - 1} keep every promise`, async () => {
        for (let seed = from; seed < to; seed++) {
          for (const [what, times] of await run(seed)) sights.set(what, (sights.get(what) ?? 0) + times)
        }
      }, 600_000)
    }
    it.runIf(end - first >= MANY)('has seen in them everything that there is to see', () => {
      expect(EXPECTED.filter((what) => !sights.has(what))).toEqual([])
    })
  })
}

async function run(seed: number): Promise<Sights> {
  const trace: string[] = []
  try {
    const { sights } = await runWorld(seed, { trace: (line) => trace.push(line) })
    return sights
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error)
    const story = trace.slice(-60).join('\n')
    throw new Error(`seed ${seed}: ${why}\n${story}\nAgain: REJOIN_SEED=${seed} npx vitest run test/convergence`, { cause: error })
  }
}
