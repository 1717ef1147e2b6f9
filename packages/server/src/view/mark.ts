/**
 * The running hash over a view (step 7 of the path): two views that have the same mark at a version had the same entries up to there, with the same effects.
 */
import { hash } from 'node:crypto'
import type { ProjectedEntry } from './view.ts'

/** `texts` are the canonical JSON of the entry's changes, null for a record that went, in their order. */
export function nextMark(previous: string, entry: ProjectedEntry, texts: readonly (string | null)[]): string {
  const { version, partition, position, epoch, seq, document, actor, at, changes } = entry
  const origin = JSON.stringify([previous, version, partition, position, epoch, seq, document, actor, at])
  const content = changes.map(({ collection, id }, i) => JSON.stringify([collection, id, texts[i] ?? null]))
  return hash('md5', [origin, ...content].join('\n'), 'hex')
}
