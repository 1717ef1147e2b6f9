/**
 * What the forwarding worker works on now, a document or a record, in memory that the relay's thread can read while the worker is busy (steps 7 and 8 of the path).
 */
import type { Clock } from '@rejoin/shared'
import { MAX_DOCUMENT_ID_BYTES } from '@rejoin/shared'

/** The worker's side: what it begins, by name, and how big that is. */
export interface TurnTeller {
  begin(name: string, bytes: number): void
  end(): void
}

/** A turn that took too long. */
export interface Overrun {
  readonly name: string
  readonly bytes: number
  readonly at: number
}

/** [turns begun and ended: odd while one is on, length of the name, bytes of what it names], and behind them the name. */
const FIELDS = 3
const COUNT = 0
const LENGTH = 1
const BYTES = 2
/** Looks within the time a turn may take. Looks are counted, not milliseconds: a machine that slept has not worked. */
const LOOKS = 8

/** The memory, for names of at most so many bytes. One for each worker. */
export function createTurnMemory(nameBytes: number = MAX_DOCUMENT_ID_BYTES): SharedArrayBuffer {
  return new SharedArrayBuffer(FIELDS * Int32Array.BYTES_PER_ELEMENT + nameBytes)
}

/** The worker's side. */
export function tellTurns(memory: SharedArrayBuffer): TurnTeller {
  const { fields, name } = viewsOf(memory)
  const encoder = new TextEncoder()
  // encodeInto does not take shared memory everywhere.
  const scratch = new Uint8Array(name.length)
  return {
    begin: (what, bytes) => {
      const { written } = encoder.encodeInto(what, scratch)
      name.set(scratch.subarray(0, written))
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
  { clock, patience, overrun }: { readonly clock: Clock; readonly patience: number; readonly overrun: (slow: Overrun) => void },
): () => void {
  const { fields, name } = viewsOf(memory)
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
    overrun({ name: new TextDecoder().decode(name.slice(0, fields[LENGTH])), bytes: fields[BYTES] ?? 0, at: clock.now() })
  }
  return () => {
    cancel()
  }
}

function viewsOf(memory: SharedArrayBuffer): { readonly fields: Int32Array; readonly name: Uint8Array } {
  return { fields: new Int32Array(memory, 0, FIELDS), name: new Uint8Array(memory, FIELDS * Int32Array.BYTES_PER_ELEMENT) }
}
