/**
 * How the tests run: against the built packages, which Node loads by itself, so that what is tested is what is shipped.
 */
import { availableParallelism } from 'node:os'
import { defineConfig } from 'vitest/config'
import { ClosingReporter } from './test/support/reporter.ts'

const shared = {
  pool: 'forks' as const,
  environment: 'node',
  server: { deps: { external: [/\/packages\/[^/]+\/dist\//u, /\/node_modules\//u] } },
}

function project(name: string, include: string[], timeout: number) {
  return { test: { ...shared, name, include, testTimeout: timeout, hookTimeout: timeout, teardownTimeout: 10_000 } }
}

export default defineConfig({
  test: {
    // Two of the suites are bound by waiting, not by the processor: two workers fit two cores.
    maxWorkers: Math.min(4, Math.max(2, availableParallelism())),
    reporters: [new ClosingReporter()],
    projects: [
      project('architecture', ['test/architecture.test.ts'], 30_000),
      project('unit', ['test/{unit,contracts,types}/**/*.test.ts'], 20_000),
      project('conformance', ['test/conformance/**/*.test.ts'], 90_000),
      project('convergence', ['test/convergence/**/*.test.ts'], 120_000),
      project('scenarios', ['test/scenarios/**/*.test.ts'], 60_000),
      project('consumer', ['test/consumer/**/*.test.ts'], 180_000),
    ],
  },
})
