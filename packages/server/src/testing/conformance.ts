/**
 * The conformance kit (beside the path): the same hostile cases for every sink, run with the real forwarder against a real destination, by whatever test runner one likes.
 */
import type { Conformance } from './destination.ts'
import { PLACE_CASES } from './place-cases.ts'
import { WAY_CASES } from './way-cases.ts'

export { CONFORMANCE_SCHEMA, POISON } from './destination.ts'
export type { Conformance, Destination, Powers, StoredRow } from './destination.ts'
export { createMemoryDestination, openMemorySink } from '../sinks/memory.ts'
export type { MemoryDestination } from '../sinks/memory.ts'

/** A case of the kit. */
export interface ConformanceCase {
  readonly name: string
  /** What holds when it passes, in a sentence. */
  readonly guarantee: string
  /** Rejects when the sink does not hold it. */
  run(): Promise<CaseOutcome>
}

/** How a case ended that did not reject: 'passed' after `ms` milliseconds, or 'not applicable' to what this sink says it can do, and why. */
export type CaseOutcome = { readonly type: 'passed'; readonly ms: number } | { readonly type: 'not applicable'; readonly reason: string }

const CASES = [...WAY_CASES, ...PLACE_CASES]

/** Names and guarantees of all of them, the same for every sink. */
export const CONFORMANCE_CASES: readonly Pick<ConformanceCase, 'name' | 'guarantee'>[] = CASES.map(({ name, guarantee }) => ({
  name,
  guarantee,
}))

/** The cases, each with a destination of its own. */
export function conformance(under: Conformance): readonly ConformanceCase[] {
  return CASES.map(({ name, guarantee, run }) => ({
    name,
    guarantee,
    run: async () => {
      const began = performance.now()
      const outcome = await run(under)
      return outcome === undefined
        ? { type: 'passed', ms: Math.round(performance.now() - began) }
        : { type: 'not applicable', reason: outcome }
    },
  }))
}
