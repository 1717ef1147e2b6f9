/**
 * Cuts out of an update what the document has already (step 4 of the path), so that an entry holds what is new and nothing else.
 * Yjs would read known structs again, split its items at the origins they name, and rest the new part of a half-known item on whatever stands there.
 */
import { ByteWriter } from '@rejoin/shared/wire'
import { readUint } from './scan.ts'
import type { Block, UpdateScan } from './update.ts'
import { ANY, DELETED, GC, HAS_ORIGIN, HAS_RIGHT, STRING, readHeader } from './update.ts'
import { openContainer, skipValues } from './values.ts'

/** The new part of the update that was read without fault or gap. Written as Yjs's `diffUpdate` writes. */
export function trimUpdate(scan: UpdateScan): Uint8Array {
  const writer = new ByteWriter()
  const blocks = scan.blocks.filter((block) => block.fresh > 0)
  writer.varUint(blocks.length)
  for (const block of blocks) {
    writer.varUint(block.fresh)
    writer.varUint(block.client)
    writer.varUint(Math.max(block.clock, block.known))
    const rest = block.clock < block.known ? writeSecondHalf(scan, block, writer) : block.pos
    writer.raw(scan.bytes.subarray(rest, block.endPos))
  }
  writeDeletes(scan.deletes, writer)
  return writer.take()
}

/** Writes the head of a struct of which the first clocks are known; returns the place from which the bytes go on as they are. */
function writeSecondHalf(scan: UpdateScan, block: Block, writer: ByteWriter): number {
  const known = block.known - block.clock
  scan.pos = block.pos
  readHeader(scan)
  const kind = scan.info & 31
  if (kind === GC) {
    writer.byte(GC)
    writer.varUint(readUint(scan) - known)
    return scan.pos
  }
  const hasRight = scan.rightClient >= 0
  writer.byte(kind | HAS_ORIGIN | (hasRight ? HAS_RIGHT : 0))
  writer.varUint(block.client)
  writer.varUint(block.known - 1)
  if (hasRight) {
    writer.varUint(scan.rightClient)
    writer.varUint(scan.rightClock)
  }
  const length = readUint(scan)
  if (kind === STRING) writeTail(scan, length, known, writer)
  else {
    writer.varUint(length - known)
    if (kind !== DELETED) skipContents(scan, kind, known)
  }
  return scan.pos
}

/** The string without its first `units` UTF-16 units. Half a surrogate pair becomes U+FFFD, as when Yjs splits there. */
function writeTail(scan: UpdateScan, length: number, units: number, writer: ByteWriter): void {
  const end = scan.pos + length
  let left = units
  while (left > 0) {
    const byte = scan.bytes[scan.pos] as number
    left -= byte < 0xf0 ? 1 : 2
    scan.pos += byte < 0x80 ? 1 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4
  }
  const tail = scan.bytes.subarray(scan.pos, end)
  writer.varUint(tail.length + (left < 0 ? REPLACEMENT.length : 0))
  if (left < 0) writer.raw(REPLACEMENT)
  writer.raw(tail)
  scan.pos = end
}

const REPLACEMENT = Uint8Array.of(0xef, 0xbf, 0xbd)

function skipContents(scan: UpdateScan, kind: number, count: number): void {
  if (kind === ANY) {
    openContainer(scan, 0, count, false)
    skipValues(scan, scan.end, false)
    return
  }
  for (let i = 0; i < count; i++) {
    const length = readUint(scan)
    scan.pos += length
  }
}

/** `deletes` are triples of client, start, end, all of one client together. */
function writeDeletes(deletes: readonly number[], writer: ByteWriter): void {
  const groups: number[] = []
  for (let i = 0; i < deletes.length; i += 3) if (i === 0 || deletes[i] !== deletes[i - 3]) groups.push(i)
  writer.varUint(groups.length)
  groups.forEach((from, nth) => {
    const to = groups[nth + 1] ?? deletes.length
    writer.varUint(deletes[from] as number)
    writer.varUint((to - from) / 3)
    for (let i = from; i < to; i += 3) {
      writer.varUint(deletes[i + 1] as number)
      writer.varUint((deletes[i + 2] as number) - (deletes[i + 1] as number))
    }
  })
}
