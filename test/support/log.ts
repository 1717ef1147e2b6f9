/**
 * What the tests of logs share: short names, appends with the usual fields, and the hash chain written down a second time.
 */
import { createHash } from 'node:crypto'
import type { DocumentId, IncarnationId, Position, Seq } from '@rejoin/shared'
import { fromHex, newIncarnationId, toHex } from '@rejoin/shared'
import type { Append, DocumentHead, Entry, Log } from '#server/log/log.js'
import { LogError } from '#server/log/log.js'

/** What an adapter gives to be tested. */
export interface LogUnderTest {
  /** Opens the log on the storage of this test, anew or again. */
  open(): Promise<Log>
  /** The process that holds the log dies; what was acknowledged must be there at the next `open`. */
  crash(log: Log): Promise<void>
  /** Called once at the end. */
  dispose(): Promise<void>
}

export const doc = (name: string): DocumentId => name as DocumentId
export const seq = (n: number): Seq => n as Seq
export const position = (n: number): Position => n as Position
export const bytes = (...values: number[]): Uint8Array<ArrayBuffer> => Uint8Array.from(values)
export const ALICE: IncarnationId = newIncarnationId()
export const BOB: IncarnationId = newIncarnationId()

/** An append with what a test does not care about filled in. */
export function makeAppend(document: DocumentId, at: number, fields: Partial<Append> = {}): Append {
  return {
    document,
    seq: seq(at),
    incarnation: ALICE,
    lo: at,
    hi: at,
    covers: [],
    actor: 'alice',
    at: 1_000 + at,
    update: bytes(1, at),
    ...fields,
  }
}

export async function appendMany(log: Log, document: DocumentId, from: number, to: number, size = 10): Promise<void> {
  const batch = Array.from({ length: to - from + 1 }, (_, i) =>
    makeAppend(document, from + i, { update: new Uint8Array(size).fill(from + i) }),
  )
  await log.append(batch)
}

export async function readAll(log: Log, document: DocumentId, after = 0): Promise<readonly Entry[]> {
  const entries = await log.read({ document, after: seq(after) }, 1 << 20)
  if (entries === 'trimmed') throw new Error('trimmed')
  return entries
}

/** How the log refused, or 'none'. */
export const refusal = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => 'none',
    (error: unknown) => (error instanceof LogError ? error.failure : String(error)),
  )

/** Hashes 0 … of a document's entries by PROTOCOL.md §2. */
export function chain(
  head: Pick<DocumentHead, 'lineage'>,
  entries: readonly Pick<Entry, 'incarnation' | 'lo' | 'hi' | 'update'>[],
): string[] {
  const sha = (...parts: Uint8Array[]): Buffer => {
    const hash = createHash('sha256')
    for (const part of parts) hash.update(part)
    return hash.digest().subarray(0, 16)
  }
  const u64 = (n: number): Uint8Array => {
    const number = Buffer.alloc(8)
    number.writeBigUInt64BE(BigInt(n))
    return number
  }
  const hashes = [sha(fromHex(head.lineage))]
  for (const { incarnation, lo, hi, update } of entries)
    hashes.push(sha(hashes.at(-1) ?? bytes(), fromHex(incarnation), u64(lo), u64(hi), update))
  return hashes.map((hash) => toHex(hash))
}

export async function readPartition(log: Log, after: number): Promise<readonly Entry[]> {
  const entries = await log.read({ partition: 0, after: position(after) }, 1 << 20)
  if (entries === 'trimmed') throw new Error('trimmed')
  return entries
}
