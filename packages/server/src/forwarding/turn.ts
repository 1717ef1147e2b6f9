/**
 * Which document the forwarding worker works on now, in memory that the relay's thread can read while the worker is busy (step 7 of the path).
 */
import type { Clock, DocumentId } from '@rejoin/shared'
import { MAX_DOCUMENT_ID_BYTES } from '@rejoin/shared'
import type { SlowDocument, Turns } from '../view/turns.ts'

/** [turns begun and ended: odd while one is on, length of the id, bytes of the document], and behind them the id. */
const FIELDS = 3
const COUNT = 0
const LENGTH = 1
const BYTES = 2
/** Looks within the time a turn may take. Looks are counted, not milliseconds: a machine that slept has not worked. */
const LOOKS = 8

/** The memory. One for each worker. */
export function createTurnMemory(): SharedArrayBuffer {
  return new SharedArrayBuffer(FIELDS * Int32Array.BYTES_PER_ELEMENT + MAX_DOCUMENT_ID_BYTES)
}

/** The worker's side. */
export function tellTurns(memory: SharedArrayBuffer): Turns {
  const { fields, id } = viewsOf(memory)
  const encoder = new TextEncoder()
  // encodeInto does not take shared memory everywhere.
  const scratch = new Uint8Array(MAX_DOCUMENT_ID_BYTES)
  return {
    begin: (document, bytes) => {
      const { written } = encoder.encodeInto(document, scratch)
      id.set(scratch)
      fields[LENGTH] = written
      fields[BYTES] = Math.min(bytes, 0x7fffffff)
      Atomics.add(fields, COUNT, 1)
    },
    end: () => {
      // A turn that was refused never began.
      if (Atomics.load(fields, COUNT) % 2 !== 0) Atomics.add(fields, COUNT, 1)
    },
  }
}

/** The other side: calls `overrun` once, when one turn takes longer than `patience` ms. Returns the end of the watch. */
export function watchTurns(
  memory: SharedArrayBuffer,
  { clock, patience, overrun }: { readonly clock: Clock; readonly patience: number; readonly overrun: (slow: SlowDocument) => void },
): () => void {
  const { fields, id } = viewsOf(memory)
  let last = 0
  let looks = 0
  let cancel = clock.after(patience / LOOKS, look)
  function look(): void {
    const count = Atomics.load(fields, COUNT)
    looks = count === last && count % 2 !== 0 ? looks + 1 : 0
    last = count
    if (looks < LOOKS) {
      cancel = clock.after(patience / LOOKS, look)
      return
    }
    const document = new TextDecoder().decode(id.slice(0, fields[LENGTH])) as DocumentId
    overrun({ document, bytes: fields[BYTES] ?? 0, at: clock.now() })
  }
  return () => {
    cancel()
  }
}

function viewsOf(memory: SharedArrayBuffer): { readonly fields: Int32Array; readonly id: Uint8Array } {
  return { fields: new Int32Array(memory, 0, FIELDS), id: new Uint8Array(memory, FIELDS * Int32Array.BYTES_PER_ELEMENT) }
}
