/**
 * How a Y.Doc reads, as bytes: equal for two documents exactly when an application, a state vector and a delete set see the same in both (P7, P10).
 * Runs in worker threads and tests only: it needs a Y.Doc.
 */
import { createEncoder, length, toUint8Array, writeAny, writeVarString, writeVarUint, writeVarUint8Array } from 'lib0/encoding'
import type { Encoder } from 'lib0/encoding'
import * as Y from 'yjs'

/** A type of any kind: what is read here is what all have. */
type AnyType = Y.Doc['share'] extends Map<string, infer T> ? T : never

/** Items of a sequence or map are compared by content, not by how Yjs happens to have cut them. */
const TAG = { end: 0, key: 1, text: 2, any: 3, json: 4, type: 5, other: 6 } as const

/** What can be read of `doc`, its state vector and its delete set. Iterative, so that no nesting is too deep. */
export function canonical(doc: Y.Doc): Uint8Array {
  const to = createEncoder()
  const types: AnyType[] = []
  for (const [name, type] of [...doc.share].sort(([a], [b]) => (a < b ? -1 : 1))) {
    if (!isVisible(type)) continue
    writeVarString(to, name)
    types.push(type)
  }
  for (let i = 0; i < types.length; i++) {
    const type = types[i]
    if (type !== undefined) writeType(to, type, types)
  }
  writeVarUint8Array(to, Y.encodeStateVector(doc))
  writeDeletes(to, doc)
  return toUint8Array(to)
}

/** A root that holds nothing reads as one that was never named. */
function isVisible({ _map, _start }: AnyType): boolean {
  for (const item of _map.values()) if (!item.deleted) return true
  for (let item = _start; item !== null; item = item.right) if (!item.deleted) return true
  return false
}

/** Types inside are written later, in the order in which they are met. */
function writeType(to: Encoder, { _map, _start }: AnyType, types: AnyType[]): void {
  for (const key of [..._map.keys()].sort()) {
    const item = _map.get(key)
    if (item === undefined || item.deleted) continue
    writeVarUint(to, TAG.key)
    writeVarString(to, key)
    writeContent(to, item.content, types)
  }
  let text: string[] = []
  const flush = (): void => {
    if (text.length === 0) return
    writeVarUint(to, TAG.text)
    writeVarString(to, text.join(''))
    text = []
  }
  for (let item = _start; item !== null; item = item.right) {
    if (item.deleted) continue
    if (item.content instanceof Y.ContentString) {
      text.push(item.content.str)
      continue
    }
    flush()
    writeContent(to, item.content, types)
  }
  flush()
  writeVarUint(to, TAG.end)
}

function writeContent(to: Encoder, content: Y.Item['content'], types: AnyType[]): void {
  if (content instanceof Y.ContentAny) {
    for (const value of content.arr) {
      writeVarUint(to, TAG.any)
      writeAny(to, value)
    }
  } else if (content instanceof Y.ContentJSON) {
    for (const value of content.arr) {
      writeVarUint(to, TAG.json)
      writeVarString(to, value === undefined ? 'undefined' : JSON.stringify(value))
    }
  } else {
    writeVarUint(to, content instanceof Y.ContentType ? TAG.type : TAG.other)
    const encoder = new Y.UpdateEncoderV1()
    content.write(encoder, 0)
    writeVarUint8Array(to, encoder.toUint8Array())
    if (content instanceof Y.ContentType) types.push(content.type)
  }
}

function writeDeletes(to: Encoder, doc: Y.Doc): void {
  const { clients } = Y.createDeleteSetFromStructStore(doc.store)
  writeVarUint(to, clients.size)
  for (const client of [...clients.keys()].sort((a, b) => a - b)) {
    const ranges = clients.get(client) ?? []
    writeVarUint(to, client)
    writeVarUint(to, ranges.length)
    for (const { clock, len } of ranges) {
      writeVarUint(to, clock)
      writeVarUint(to, len)
    }
  }
  // A trailing length, so that no document's bytes are another's beginning.
  writeVarUint(to, length(to))
}
