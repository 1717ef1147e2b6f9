/**
 * The durable head of an open document as the relay knows it (beside step 5): read from the log once, and carried on by what is committed.
 */
import type { DocumentId } from '@rejoin/shared'
import { SyncError } from '@rejoin/shared'
import type { DocumentHead, Log } from '../log/log.ts'
import type { Admission } from './admission.ts'
import { absorbTrusted, createAdmission } from './admission.ts'
import type { Committed } from './attach.ts'

/** Read at a time, in bytes. */
const READ_BYTES = 1024 * 1024
/** The snapshot may be replaced, and entries trimmed, while they are read. */
const ATTEMPTS = 5

/** Reads the head, and what admission must know at it. Rejects as the log does, or with `SyncError('internal')` when the log is not what was admitted. */
export async function readHead(log: Log, document: DocumentId): Promise<{ readonly head: DocumentHead; readonly admission: Admission }> {
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    // A document that is there is only read, which a full disk does not prevent.
    const head = (await log.head(document)) ?? (await log.open(document))
    const admission = createAdmission(head.snapshot.admission)
    if (await absorbTail(log, head, admission)) return { head, admission }
  }
  throw new SyncError('internal', 'the document was folded again and again while it was read')
}

/** Absorbs the entries behind the snapshot; false when they are no longer retained because another snapshot has taken its place. */
async function absorbTail(log: Log, { document, snapshot, seq }: DocumentHead, admission: Admission): Promise<boolean> {
  for (let after = snapshot.seq; after < seq;) {
    const entries = await log.read({ document, after }, READ_BYTES)
    if (entries === 'trimmed') return false
    for (const entry of entries) if (entry.seq <= seq) absorbTrusted(admission, entry.update)
    const last = entries.at(-1)
    if (last === undefined) throw new SyncError('internal', `the log has no entry ${after + 1}, its head is ${seq}`)
    after = last.seq
  }
  return true
}

/** The head behind these entries. */
export function headBehind(head: DocumentHead, entries: readonly Committed[]): DocumentHead {
  const last = entries.at(-1)
  if (last === undefined) return head
  let bytes = 0
  for (const { update } of entries) bytes += update.length
  return { ...head, seq: last.seq, hash: last.hash, tailBytes: head.tailBytes + bytes, tailEntries: head.tailEntries + entries.length }
}

/** The same head with the snapshot, tail and retention that the log has now. */
export function headOver(head: DocumentHead, read: DocumentHead | undefined): DocumentHead {
  if (read === undefined || read.lineage !== head.lineage || read.snapshot.seq < head.snapshot.seq) return head
  // The log may be ahead of what the relay knows to be durable; or behind it, where it was read before the last batch.
  return { ...read, seq: head.seq, hash: head.hash, tailEntries: Math.max(0, read.tailEntries - (read.seq - head.seq)) }
}
