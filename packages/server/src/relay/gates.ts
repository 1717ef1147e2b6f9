/**
 * Behind a nack (PROTOCOL.md §5, step 4): until an author goes on where it was told, what it sends of that incarnation is passed over.
 */
import type { IncarnationId } from '@rejoin/shared'
import type { Author, Push } from './attach.ts'

/** Incarnations of one author that may wait behind a nack. */
const GATES = 1000

/** Whether the push stands behind one that was nacked. One that does not opens its gate. Gates beyond `atMost` wait for what comes too late and do not count. */
export function isGated({ gates }: Author, { incarnation, lo }: Push, atMost: number = Infinity): boolean {
  if (gates === undefined || gates.size === 0) return false
  const expected = gates.get(incarnation)
  if (expected === undefined || expected > atMost) return false
  if (lo > expected) return true
  gates.delete(incarnation)
  return false
}

/** The author is told to go on with edit `expected`. */
export function closeGate({ gates }: Author, incarnation: IncarnationId, expected: number): void {
  if (gates === undefined) return
  gates.set(incarnation, expected)
  if (gates.size <= GATES) return
  // Whoever is forgotten is nacked once more, which does no harm.
  for (const oldest of gates.keys()) {
    gates.delete(oldest)
    return
  }
}
