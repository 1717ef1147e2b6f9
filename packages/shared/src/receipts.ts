/**
 * Receipts: which entries an edit became, as text that an application may hand to its backend (PROTOCOL.md has none of it: they never travel on the wire).
 *
 * `r1.` and base64url of JSON `{ "<document>": ["<lineage>", seq] }`. Opaque to applications, which only merge and pass them on.
 */
import { SyncError } from './errors.ts'
import type { DocumentId, Lineage, Seq } from './ids.ts'
import { documentIdProblem } from './ids.ts'

/** Document → the entry up to which it is to be seen. */
export type ReceiptEntries = ReadonlyMap<DocumentId, { readonly lineage: Lineage; readonly seq: Seq }>

/** Longest receipt that is read, in characters; and the most documents in one. */
const MAX_RECEIPT = 65_536
const MAX_DOCUMENTS = 1000
const PREFIX = 'r1.'

/** Writes a receipt. */
export function encodeReceipt(entries: ReceiptEntries): string {
  const plain = JSON.stringify([...entries].map(([document, { lineage, seq }]) => [document, lineage, seq]))
  const binary = Array.from(new TextEncoder().encode(plain), (byte) => String.fromCharCode(byte)).join('')
  return PREFIX + btoa(binary).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '')
}

/** Reads a receipt. Throws `bad_option` for what is none. */
export function decodeReceipt(text: string): ReceiptEntries {
  const wrong = (cause?: unknown): SyncError => new SyncError('bad_option', 'this is not a receipt; take edit.receipt as it is', { cause })
  if (text.length > MAX_RECEIPT || !text.startsWith(PREFIX)) throw wrong()
  let rows: unknown
  try {
    const binary = atob(text.slice(PREFIX.length).replaceAll('-', '+').replaceAll('_', '/'))
    rows = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(Uint8Array.from(binary, (character) => character.charCodeAt(0))))
  } catch (cause) {
    throw wrong(cause)
  }
  if (!Array.isArray(rows) || rows.length > MAX_DOCUMENTS) throw wrong()
  const entries = new Map<DocumentId, { readonly lineage: Lineage; readonly seq: Seq }>()
  for (const row of rows as unknown[]) {
    if (!Array.isArray(row)) throw wrong()
    const [document, lineage, seq] = row as unknown[]
    if (typeof document !== 'string' || documentIdProblem(document) !== undefined) throw wrong()
    if (typeof lineage !== 'string' || !/^[0-9a-f]{32}$/u.test(lineage) || !Number.isSafeInteger(seq) || Number(seq) < 0) throw wrong()
    entries.set(document as DocumentId, { lineage: lineage as Lineage, seq: seq as Seq })
  }
  return entries
}

/** One receipt for all: of each document the latest entry. Of two lineages of a document the later receipt's stands. */
export function mergeReceipts(...receipts: readonly string[]): string {
  const merged = new Map<DocumentId, { readonly lineage: Lineage; readonly seq: Seq }>()
  for (const receipt of receipts) {
    for (const [document, entry] of decodeReceipt(receipt)) {
      const before = merged.get(document)
      if (before?.lineage !== entry.lineage || before.seq < entry.seq) merged.set(document, entry)
    }
  }
  return encodeReceipt(merged)
}
