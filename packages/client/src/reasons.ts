/**
 * Why a replica does not do what it is asked, in words (steps 1 to 5 of the path).
 */
import { SyncError } from '@rejoin/shared'
import type { DocumentId, ErrorCode } from '@rejoin/shared'
import type { OutboxRow } from './stores/store.ts'

/** Who asks comes too late. */
export function closedError(document: DocumentId): SyncError {
  return new SyncError('closed', `the replica of "${document}" is closed`)
}

/** Why edit `n` will not reach the relay: it was refused, or waits behind one that was. */
export function refusedError({ refused, incarnation, n }: OutboxRow, wanted: number): SyncError {
  const which = n === wanted ? 'it was refused' : `the edit waits behind ${incarnation}/${n}, which was refused`
  return new SyncError((refused?.code ?? 'internal') as ErrorCode, `${which}: ${refused?.message ?? ''}`)
}

/** What is in the document is more than Yjs can work on. Loading it again leads to the same; its edits stay in the store. */
export function brokenError(document: DocumentId): SyncError {
  return new SyncError('internal', `the replica of "${document}" has ended: Yjs failed, on depth or in an event handler`)
}
