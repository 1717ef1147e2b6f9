/**
 * A quarter of the worlds, each from one seed. More of them: `REJOIN_SEEDS=100000 npx vitest run test/convergence`; one of them: `REJOIN_SEED=17`.
 */
import { describeWorlds } from './worlds.ts'

describeWorlds(1, 4)
