/**
 * Updates that no Yjs client would write: bytes changed at random, and structs put together at random around the clocks a document has.
 */
import { ByteWriter } from '#shared/bytes.js'
import type { Chance } from './histories.ts'
import { below, pick } from './histories.ts'

/** A few bytes of `update` changed, dropped, doubled or swapped. */
export function mutateBytes(chance: Chance, update: Uint8Array): Uint8Array {
  const bytes = [...update]
  for (let n = 1 + below(chance, 3); n > 0; n--) {
    const at = below(chance, bytes.length)
    const roll = below(chance, 6)
    if (roll < 2) bytes[at] = below(chance, 256)
    else if (roll < 3) bytes[at] = (bytes[at] ?? 0) ^ (1 << below(chance, 8))
    else if (roll < 4) bytes.splice(at, 1)
    else if (roll < 5) bytes.splice(at, 0, pick(chance, [0, 1, 127, 128, 255, below(chance, 256)]))
    else bytes.push(...bytes.splice(at, 1 + below(chance, 8)))
  }
  return Uint8Array.from(bytes)
}

/** Structs and deletes around the clocks of `known`, most of them inside what is there, so that many integrate. */
export function forgeUpdate(chance: Chance, known: ReadonlyMap<number, number>): Uint8Array {
  const writer = new ByteWriter()
  const clients = [...known.keys(), 5, 6].toSorted(() => chance() - 0.5).slice(0, 1 + below(chance, 3))
  writer.varUint(clients.length)
  const reach = new Map(known)
  for (const client of clients) {
    const clock = known.get(client) ?? 0
    const start = Math.max(0, clock - pick(chance, [0, 0, 0, 0, 1, 2, 5]))
    const structs = 1 + below(chance, 4)
    writer.varUint(structs)
    writer.varUint(client)
    writer.varUint(start)
    let end = start
    for (let n = 0; n < structs; n++) {
      end += forgeStruct(chance, writer, reach, client, end)
      reach.set(client, Math.max(end, clock))
    }
  }
  const groups = [...reach].filter(() => chance() < 0.4)
  writer.varUint(groups.length)
  for (const [client, clock] of groups) {
    const ranges = 1 + below(chance, 3)
    writer.varUint(client)
    writer.varUint(ranges)
    for (let n = 0; n < ranges; n++) {
      const start = below(chance, Math.max(1, clock))
      writer.varUint(start)
      writer.varUint(Math.max(1, below(chance, Math.max(1, Math.min(6, clock - start + (chance() < 0.05 ? 2 : 0))))))
    }
  }
  return writer.take()
}

function forgeStruct(chance: Chance, writer: ByteWriter, reach: ReadonlyMap<number, number>, client: number, clock: number): number {
  const kind = pick(chance, [0, 1, 2, 3, 4, 4, 4, 5, 6, 7, 7, 8, 8, 9])
  if (kind === 0) {
    writer.byte(0)
    return length(chance, writer)
  }
  const lean = (): void => {
    const [other, top] = pick(chance, [...reach, [client, clock] as const])
    writer.varUint(other)
    writer.varUint(below(chance, Math.max(1, other === client ? clock : top)))
  }
  const hasOrigin = chance() < 0.5
  const hasRight = chance() < 0.3
  const hasKey = chance() < 0.3
  writer.byte(kind | (hasOrigin ? 128 : 0) | (hasRight ? 64 : 0) | (hasKey ? 32 : 0))
  if (hasOrigin) lean()
  if (hasRight) lean()
  if (!hasOrigin && !hasRight) {
    if (chance() < 0.6) {
      writer.varUint(1)
      text(writer, pick(chance, ['text', 'map', 'list', 'xml']))
    } else {
      writer.varUint(0)
      lean()
    }
    if (hasKey) text(writer, pick(chance, ['a', 'b', '__proto__x', '']))
  }
  return forgeContent(chance, writer, kind)
}

function forgeContent(chance: Chance, writer: ByteWriter, kind: number): number {
  if (kind === 1) return length(chance, writer)
  if (kind === 4) {
    const string = pick(chance, ['a', 'bcd', '😀', 'x😀y'])
    text(writer, string)
    return string.length
  }
  if (kind === 2) {
    const count = length(chance, writer)
    for (let n = 0; n < count; n++) text(writer, pick(chance, ['1', '"x"', '{"a":[null]}', 'undefined']))
    return count
  }
  if (kind === 8) {
    const count = length(chance, writer)
    for (let n = 0; n < count; n++) writer.byte(pick(chance, [127, 126, 121, 120]))
    return count
  }
  if (kind === 3) writer.blob(Uint8Array.of(1, 2))
  else if (kind === 5) text(writer, '{"e":1}')
  else if (kind === 6) {
    text(writer, pick(chance, ['bold', 'link']))
    text(writer, pick(chance, ['true', 'null']))
  } else if (kind === 7) {
    const type = below(chance, 7)
    writer.varUint(type)
    if (type === 3 || type === 5) text(writer, 'p')
  } else {
    text(writer, 'guid')
    writer.byte(118)
    writer.varUint(0)
  }
  return 1
}

function length(chance: Chance, writer: ByteWriter): number {
  const value = 1 + below(chance, 3)
  writer.varUint(value)
  return value
}

const utf8 = new TextEncoder()

function text(writer: ByteWriter, value: string): void {
  writer.blob(utf8.encode(value))
}

/** As many clients as `n`, each with one item at the same place, forced behind the one before: a small update that costs Yjs time in proportion to n². */
export function crowdUpdate(n: number): Uint8Array {
  const writer = new ByteWriter()
  const client = (k: number): number => 2 ** 31 + k
  writer.varUint(n)
  for (let k = n - 1; k >= 0; k--) {
    for (const value of [2, client(k), 0]) writer.varUint(value)
    writer.byte(4)
    if (k === 0) {
      writer.varUint(1)
      writer.blob(new TextEncoder().encode('z'))
    } else for (const value of [0, client(k - 1), 1]) writer.varUint(value)
    writer.blob(new TextEncoder().encode('a'))
    writer.byte(7)
    writer.varUint(1)
    writer.blob(new TextEncoder().encode('t'))
    writer.varUint(2)
  }
  writer.varUint(0)
  return writer.take()
}

/** Maps nested in one another, `depth` deep, the outermost a record of the collection `root`: what goes through it by recursion overflows. */
export function deepUpdate(root: string, depth: number): Uint8Array {
  const writer = new ByteWriter()
  const text = (value: string): void => writer.blob(new TextEncoder().encode(value))
  for (const value of [1, depth, 77, 0]) writer.varUint(value)
  for (let k = 0; k < depth; k++) {
    writer.byte(7 | 32)
    if (k === 0) {
      writer.varUint(1)
      text(root)
    } else for (const value of [0, 77, k - 1]) writer.varUint(value)
    text('k')
    writer.varUint(1)
  }
  writer.varUint(0)
  return writer.take()
}
