/**
 * Entries as messages of the wire (step 6 of the path): encoded once, shared by every native peer that gets them.
 */
import type { Lineage } from '@rejoin/shared'
import type { FrameWriter } from '@rejoin/shared/wire'
import { WIRE_LIMITS, createFrameWriter } from '@rejoin/shared/wire'
import type { Given } from './attach.ts'

/** What frames about a document name. */
export interface Addressed {
  readonly number: number
  readonly lineage: Lineage
  readonly epoch: number
}

const writer: FrameWriter = createFrameWriter()

/** Messages of at most `fragment` bytes and a frame's head: `entries` frames, and `state` fragments in the place of an entry that is larger than one. */
export function encodeEntries(to: Addressed, entries: readonly Given[], fragment: number): Uint8Array[] {
  const messages: Uint8Array[] = []
  let from = 0
  let bytes = 0
  for (let i = 0; i < entries.length; i++) {
    const length = entries[i]?.update.length ?? 0
    if (i > from && (bytes + length > fragment || i - from >= WIRE_LIMITS.entries)) {
      messages.push(encodeRun(to, entries.slice(from, i)))
      from = i
      bytes = 0
    }
    const entry = entries[i]
    if (entry !== undefined && length > fragment) {
      for (const message of encodeLarge(to, entry, fragment)) messages.push(message)
      from = i + 1
    } else {
      bytes += length
    }
  }
  if (from < entries.length) messages.push(encodeRun(to, from === 0 ? entries : entries.slice(from)))
  return messages
}

function encodeRun(to: Addressed, run: readonly Given[]): Uint8Array {
  const [first] = run
  const last = run.at(-1)
  if (first === undefined || last === undefined) return new Uint8Array(0)
  writer.write({ type: 'entries', handle: to.number, first: first.seq, hash: last.hash, updates: run.map(({ update }) => update) })
  return writer.take()
}

/** One message a fragment, so that a slow line carries other frames between them. */
function encodeLarge(to: Addressed, { seq, hash, update }: Given, fragment: number): Uint8Array[] {
  const messages: Uint8Array[] = []
  for (let offset = 0; offset < update.length; offset += fragment) {
    writer.write({
      type: 'state',
      handle: to.number,
      lineage: to.lineage,
      epoch: to.epoch,
      seq,
      hash,
      total: update.length,
      offset,
      update: update.subarray(offset, offset + fragment),
    })
    messages.push(writer.take())
  }
  return messages
}
