/**
 * Many worlds, each from one seed. More of them: `REJOIN_SEEDS=100000 npx vitest run test/convergence`; one of them: `REJOIN_SEED=17`.
 */
import { describe, expect, it } from 'vitest'
import { runWorld } from './world.ts'

const SEEDS = Number(process.env['REJOIN_SEEDS'] ?? 1000)
const FIRST = Number(process.env['REJOIN_FIRST_SEED'] ?? 1)
const ONLY = process.env['REJOIN_SEED']
/** Seeds a test, so that a failure is told early and tests spread over workers stay short. */
const SLICE = 100

async function run(seed: number): Promise<void> {
  const trace: string[] = []
  try {
    await runWorld(seed, { trace: (line) => trace.push(line) })
  } catch (error) {
    const story = trace.slice(-60).join('\n')
    throw new Error(`seed ${seed}: ${error instanceof Error ? error.message : String(error)}\n${story}\nAgain: REJOIN_SEED=${seed} npx vitest run test/convergence`, { cause: error })
  }
}

describe('worlds of devices, tabs, one relay and a hostile network', () => {
  if (ONLY !== undefined) {
    it(`seed ${ONLY} keeps every promise`, () => run(Number(ONLY)), 600_000)
    return
  }
  for (let from = FIRST; from < FIRST + SEEDS; from += SLICE) {
    const to = Math.min(from + SLICE, FIRST + SEEDS)
    it(
      `seeds ${from} to ${to - 1} keep every promise`,
      async () => {
        for (let seed = from; seed < to; seed++) await run(seed)
        expect(to).toBeGreaterThan(from)
      },
      600_000,
    )
  }
})
