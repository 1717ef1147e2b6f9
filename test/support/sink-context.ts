/**
 * What a sink is told when a test opens it: defaults for all that the test does not care about.
 */
import type { SinkContext } from '#server/sinks/sink.js'
import { forwardOf } from '#server/sinks/spec.js'
import { createMemoryNotes } from '#server/storage/notes-memory.js'

const TRAITS = { transactional: true, strategies: ['state', 'actions'], readable: true } as const

/** A context with these properties. */
export function sinkContext(given: Partial<SinkContext> & Pick<SinkContext, 'name' | 'collections' | 'log'>): SinkContext {
  return { untyped: [], adopt: false, forward: forwardOf('test', TRAITS, {}), notes: createMemoryNotes(), functions: {}, ...given }
}
