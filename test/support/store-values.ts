/**
 * What tests of device stores are made of: rows and cursors, a model of the port, and comparisons that work in a browser's page too.
 */
import * as fc from 'fast-check'
import * as Y from 'yjs'
import type { ChainHash, Cursor, DocumentId, IncarnationId, Lineage, Seq } from '@rejoin/shared'
import { SyncError } from '@rejoin/shared'
import type { Commit, Loaded, OutboxRow } from '#client/stores/store.js'

export const A = 'a'.repeat(32) as IncarnationId
export const B = 'b'.repeat(32) as IncarnationId
export const C = 'c'.repeat(32) as IncarnationId

export function document(name: string): DocumentId {
  return name as DocumentId
}

/** An update of its own: the client `of` writes one character. */
export function bytes(of: number): Uint8Array {
  const doc = new Y.Doc()
  doc.clientID = of + 1
  doc.getText().insert(0, 'x')
  return Y.encodeStateAsUpdate(doc)
}

export function row(incarnation: IncarnationId, n: number): OutboxRow {
  return { incarnation, n, update: bytes(n % 250) }
}

export function cursor(seq: number, epoch = 0, lineage = '1'): Cursor {
  return { lineage: lineage.repeat(32) as Lineage, epoch, seq: seq as Seq, hash: seq.toString(16).padStart(32, '0') as ChainHash }
}

export function textOf({ updates }: Loaded): string {
  const doc = new Y.Doc()
  for (const update of updates) Y.applyUpdate(doc, update)
  return doc.getText().toJSON()
}

export async function rejects(promise: Promise<unknown>, code: string): Promise<SyncError> {
  const thrown: unknown = await promise.then(
    () => undefined,
    (error: unknown) => error,
  )
  if (!(thrown instanceof SyncError)) throw new Error(`rejects with ${code}, not ${String(thrown)}`, { cause: thrown })
  same(thrown.code, code)
  return thrown
}

/** Deep equality by a canonical text; properties that are undefined count as absent. */
export function same(found: unknown, expected: unknown): void {
  const [is, shall] = [print(found), print(expected)]
  if (is === shall) return
  let at = 0
  while (is[at] === shall[at]) at++
  const around = (text: string): string => text.slice(Math.max(0, at - 200), at + 200)
  throw new Error(`they differ at character ${at}:\nis    ${around(is)}\nnot   ${around(shall)}`)
}

/** Updates are a set with repetitions: the port gives them in any order. */
export function sameLoaded(found: Loaded, expected: Loaded): void {
  same({ ...found, updates: found.updates.map(print).toSorted() }, { ...expected, updates: expected.updates.map(print).toSorted() })
}

function print(value: unknown): string {
  return JSON.stringify(value, (_, inner: unknown) => {
    if (inner instanceof Uint8Array) return [...inner].join(' ')
    if (typeof inner !== 'object' || inner === null || Array.isArray(inner)) return inner
    return Object.fromEntries(Object.entries(inner).toSorted(([a], [b]) => (a < b ? -1 : 1)))
  })
}

/** The port in words of a map and an array, to compare stores with. */
export function createModel(): { commit(commit: Commit): void; loaded(): Loaded } {
  const updates: Uint8Array[] = []
  let outbox: readonly OutboxRow[] = []
  let at: Cursor | undefined
  const remove = (gone: (row: OutboxRow) => boolean): void => {
    outbox = outbox.filter((one) => !gone(one))
  }
  return {
    commit: (commit) => {
      updates.push(...(commit.updates ?? []))
      for (const put of commit.put ?? []) {
        remove(({ incarnation, n }) => incarnation === put.incarnation && n === put.n)
        outbox = [...outbox, put]
      }
      for (const { incarnation, through } of commit.acked ?? [])
        remove((one) => one.incarnation === incarnation && one.n <= through && one.refused === undefined)
      const next = commit.cursor
      if (
        next !== undefined &&
        at !== undefined &&
        next.lineage === at.lineage &&
        next.epoch === at.epoch &&
        next.seq === at.seq &&
        next.hash === at.hash
      )
        return
      updates.push(...(commit.relayUpdates ?? []))
      at = next ?? at
    },
    loaded: () => ({
      updates,
      cursor: at,
      outbox: outbox.toSorted((a, b) => a.incarnation.localeCompare(b.incarnation) || a.n - b.n),
      foreign: false,
    }),
  }
}

export function arbitraryCommit(): fc.Arbitrary<Commit> {
  const update = fc.nat({ max: 200 }).map(bytes)
  const incarnation = fc.constantFrom(A, B, C)
  const n = fc.integer({ min: 1, max: 12 })
  const refused = fc.option(fc.record({ code: fc.constant('limit'), message: fc.string(), at: fc.nat() }), { nil: undefined, freq: 4 })
  const rows = fc
    .record({ incarnation, n, update, refused })
    .map((made) => (made.refused === undefined ? { incarnation: made.incarnation, n: made.n, update: made.update } : made))
  return fc.record(
    {
      updates: fc.array(update, { maxLength: 3 }),
      put: fc.array(rows, { maxLength: 4 }),
      acked: fc.array(fc.record({ incarnation, through: fc.nat({ max: 12 }) }), { maxLength: 2 }),
      cursor: fc
        .tuple(fc.nat({ max: 9 }), fc.nat({ max: 1 }), fc.constantFrom('1', '2'))
        .map(([seq, epoch, lineage]) => cursor(seq, epoch, lineage)),
      relayUpdates: fc.array(update, { maxLength: 3 }),
    },
    { requiredKeys: [] },
  )
}
