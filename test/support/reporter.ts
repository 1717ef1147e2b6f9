/**
 * The last words of a test run: which suites did not run and what each lacks, then one plain line to read or to parse.
 */
import type { SerializedError } from 'vitest'
import type { TestModule, TestRunEndReason } from 'vitest/node'
import { DefaultReporter } from 'vitest/node'

/** Vitest's own report, and below it the suites that did not run and `N passed, N failed`. */
export class ClosingReporter extends DefaultReporter {
  override onTestRunEnd(modules: readonly TestModule[], errors: readonly SerializedError[], reason: TestRunEndReason): void {
    super.onTestRunEnd(modules, errors, reason)
    const absent = modules.flatMap((module) => suitesNotRun(module))
    const lines =
      absent.length === 0 ? ['Every suite ran.'] : ['Suites that did not run, and what each lacks:', ...absent.map((line) => `  ${line}`)]
    const { passed, failed } = count(modules)
    this.log(`\n${lines.join('\n')}\n\n${passed} passed, ${failed + errors.length} failed`)
  }
}

function suitesNotRun(module: TestModule): string[] {
  const lines: string[] = []
  for (const test of module.children.allTests()) {
    const reason = test.meta().notRun
    if (reason === undefined) continue
    const suite = test.parent.type === 'suite' ? test.parent.fullName : ''
    lines.push(`${module.relativeModuleId} › ${suite}: lacks ${reason}`)
  }
  return lines
}

/** A file that could not be collected, or a suite whose hook threw, counts as one failure. */
function count(modules: readonly TestModule[]): { passed: number; failed: number } {
  let passed = 0
  let failed = 0
  for (const module of modules) {
    failed += module.errors().length
    for (const suite of module.children.allSuites()) failed += suite.errors().length
    for (const test of module.children.allTests()) {
      const { state } = test.result()
      if (state === 'passed') passed++
      if (state === 'failed') failed++
    }
  }
  return { passed, failed }
}
