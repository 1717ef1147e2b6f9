/**
 * What the load generator types: real Yjs updates, one per keystroke, made once and used for every document.
 */
import { readFileSync } from 'node:fs'
import { gunzipSync } from 'node:zlib'
import * as Y from 'yjs'

/** Root text that everybody types into. */
const TEXT = 'text'
/** Yjs client ids of the two typists of a document: as long on the wire as real ones; they differ in their first byte. */
export const TYPISTS: readonly number[] = [4_000_000_001, 4_000_000_002]
const TRACE_AUTHOR = 4_000_000_003

/** One keystroke an update, for each of the two typists, independent of each other; on top of `base` when it is given. */
export function typing(keystrokes: number, base?: Uint8Array): readonly (readonly Uint8Array[])[] {
  return TYPISTS.map((clientID) => {
    const doc = new Y.Doc()
    if (base !== undefined) Y.applyUpdate(doc, base)
    doc.clientID = clientID
    const updates: Uint8Array[] = []
    doc.on('update', (update: Uint8Array) => updates.push(update))
    const text = doc.getText(TEXT)
    const from = text.length >> 1
    for (let i = 0; i < keystrokes; i++) text.insert(from + i, String.fromCharCode(97 + (i % 26)))
    doc.destroy()
    return updates
  })
}

/** The whole editing trace (data/README.md) as one Yjs update. */
export function trace(): Uint8Array {
  const file = new URL('data/automerge-paper.json.gz', import.meta.url)
  const { txns } = JSON.parse(gunzipSync(readFileSync(file)).toString()) as { txns: { patches: [number, number, string][] }[] }
  const doc = new Y.Doc()
  doc.clientID = TRACE_AUTHOR
  const text = doc.getText(TEXT)
  doc.transact(() => {
    for (const { patches } of txns) {
      for (const [at, deleted, inserted] of patches) {
        if (deleted > 0) text.delete(at, deleted)
        if (inserted !== '') text.insert(at, inserted)
      }
    }
  })
  const update = Y.encodeStateAsUpdate(doc)
  doc.destroy()
  return update
}

/** How many keystrokes of each typist an update carries: a server may merge several. Every update of `typing` is one struct. */
export function keystrokesIn(update: Uint8Array): readonly number[] {
  // One client, fewer than 128 structs: two counts of one byte each, then the client id, which the typists' first bytes tell apart.
  if (update[0] === 1 && (update[1] ?? 0) < 128) return FIRST_BYTES.map((byte) => (update[2] === byte ? (update[1] ?? 0) : 0))
  const counts = TYPISTS.map(() => 0)
  for (const { id, length } of Y.decodeUpdate(update).structs) {
    const typist = TYPISTS.indexOf(id.client)
    if (typist >= 0) counts[typist] = (counts[typist] ?? 0) + length
  }
  return counts
}
const FIRST_BYTES = TYPISTS.map((id) => (id & 0x7f) | 0x80)
