/**
 * The cases of the conformance kit (beside the path).
 */
import type { Conformance } from './destination.ts'

/** One case. Resolves with undefined when the sink holds it, with a reason when it does not apply; rejects otherwise. */
export interface Case {
  readonly name: string
  readonly guarantee: string
  readonly run: (under: Conformance) => Promise<string | undefined>
}

export const CASES: readonly Case[] = []
