/**
 * Admission (step 4 of the path): whether a Yjs update integrates into a document, decided on its bytes, the document's state vector and its delete set.
 * No Y.Doc, no content. What is admitted leaves nothing pending in a document that holds what was admitted before it; what it repeats is cut out of it.
 *
 * Three things cannot be seen from here, and are left to whoever builds documents: how deep types are nested across updates, which items are values of a
 * map key, and what Yjs deletes by itself while it integrates (a losing map value, the children of a deleted type): the delete set kept here has only what
 * updates said.
 */
import { SyncError } from '@rejoin/shared'
import { ByteReader, ByteWriter } from '@rejoin/shared/wire'
import { canIntegrate } from './order.ts'
import { append, createRanges, insertAll } from './ranges.ts'
import { trimUpdate } from './trim.ts'
import type { Client, UpdateLimits, UpdateScan } from './update.ts'
import { MAX_CLOCK, beginUpdate, readUpdate } from './update.ts'

/** What a document is known to hold. Changed by `absorb` only. */
export interface Admission {
  readonly clients: Map<number, Client>
  /** Rises with every change, so that a verdict is not used on another state than it was reached on. */
  revision: number
}

/** What is said of an update. */
export type Verdict = Admitted | Nothing | Refused

/** It integrates, and all of it is here. */
export interface Nothing {
  readonly type: 'nothing'
}

const NOTHING: Nothing = { type: 'nothing' }

/** It integrates and adds something. `absorb` makes it count. */
export interface Admitted {
  readonly type: 'admitted'
  /** What it adds: the same object as was given when all of it is new. This is what goes into the log. */
  readonly update: Uint8Array
  /** Yjs client ids that it writes new structs under. */
  readonly clients: readonly number[]
  readonly change: Change
}

/** Not taken. `gap`: what it leans on is missing, and may come. Everything else is for good. */
export interface Refused {
  readonly type: 'refused'
  readonly code: 'gap' | 'bad_bytes' | 'bad_key' | 'limit' | 'too_large'
  readonly message: string
}

/** What an admitted update does to the state. Triples of client, start, end, except `clocks`: pairs of client and new clock. */
interface Change {
  readonly revision: number
  readonly clocks: readonly number[]
  readonly gone: readonly number[]
  readonly deletes: readonly number[]
}

/** An update above this is admitted in slices (`beginAdmitting`). */
export const SLICE_BYTES: number = 128 * 1024

const FORMAT = 1
const GAP: Verdict = { type: 'refused', code: 'gap', message: 'the update leans on edits that are not here' }
/** What the log holds was judged when it came in, perhaps by other limits. */
const NO_LIMITS: UpdateLimits = {
  edit: Infinity,
  structs: Infinity,
  clients: Infinity,
  documentClients: Infinity,
  depth: 1000,
  key: Infinity,
}

/** Judges an update whole, for what is at most SLICE_BYTES. Changes nothing. */
export function admit(state: Admission, update: Uint8Array, limits: UpdateLimits): Verdict {
  if (update.length > limits.edit) return tooLarge(update, limits)
  const scan = beginUpdate(update, state.clients, limits)
  readUpdate(scan, Infinity)
  return conclude(state, scan)
}

/** A judgement that takes several steps. Nothing else may be absorbed into that state until it is reached. */
export interface Admitting {
  /** Goes on for about a millisecond; returns the verdict once there is one. */
  step(): Verdict | undefined
}

/** Judges a large update in slices, so that other documents go on in between. */
export function beginAdmitting(state: Admission, update: Uint8Array, limits: UpdateLimits): Admitting {
  if (update.length > limits.edit) return { step: () => tooLarge(update, limits) }
  const scan = beginUpdate(update, state.clients, limits)
  return { step: () => (readUpdate(scan, scan.pos + SLICE_BYTES) ? conclude(state, scan) : undefined) }
}

/** Makes an admitted update part of the state. Throws `SyncError('internal')` when the state has changed since the verdict. */
export function absorb(state: Admission, { change }: Admitted): void {
  if (change.revision !== state.revision) throw new SyncError('internal', 'a verdict was used after the document had changed')
  state.revision++
  const { clocks, gone, deletes } = change
  for (let i = 0; i < clocks.length; i += 2) {
    const known = state.clients.get(clocks[i] as number)
    if (known === undefined) state.clients.set(clocks[i] as number, { clock: clocks[i + 1] as number, deleted: undefined })
    else known.clock = clocks[i + 1] as number
  }
  if (gone.length > 0) addDeletes(state, gone)
  if (deletes.length > 0) addDeletes(state, deletes)
}

/** Takes in what the log holds. Throws `SyncError('internal')` when it does not fit: then the log is not what was admitted. */
export function absorbTrusted(state: Admission, update: Uint8Array): void {
  const verdict = admit(state, update, NO_LIMITS)
  if (verdict.type === 'refused') throw new SyncError('internal', `an entry of the log does not integrate: ${verdict.message}`)
  if (verdict.type === 'admitted') absorb(state, verdict)
}

/** The state of a document from what `encodeAdmission` gave; of an empty document without it. Throws `SyncError('internal')` when these are other bytes. */
export function createAdmission(encoded?: Uint8Array): Admission {
  const state: Admission = { clients: new Map(), revision: 0 }
  if (encoded === undefined || encoded.length === 0) return state
  const reader = new ByteReader(encoded)
  if (reader.byte() !== FORMAT) reader.fail('not an admission state of this format')
  for (let left = reader.varUint(); left > 0 && reader.fault === undefined; left--) {
    const id = reader.varUint()
    const clock = reader.upTo(MAX_CLOCK, 'the clock')
    const client: Client = { clock, deleted: undefined }
    let at = 0
    for (let ranges = reader.varUint(); ranges > 0 && reader.fault === undefined; ranges--) {
      const start = at + reader.varUint()
      at = start + reader.varUint()
      if (at > clock) reader.fail('a deleted clock that is not there')
      else append((client.deleted ??= createRanges(Math.min(ranges, reader.left))), start, at)
    }
    state.clients.set(id, client)
  }
  if (reader.fault !== undefined || reader.left > 0)
    throw new SyncError('internal', `the stored admission state cannot be read: ${reader.fault ?? 'it goes on behind its end'}`)
  return state
}

/** Bytes that `createAdmission` reads; equal for equal states. */
export function encodeAdmission(state: Admission): Uint8Array {
  const writer = new ByteWriter()
  writer.byte(FORMAT)
  writer.varUint(state.clients.size)
  for (const [id, { clock, deleted }] of sorted(state)) {
    writer.varUint(id)
    writer.varUint(clock)
    writer.varUint(deleted?.count ?? 0)
    let at = 0
    for (let i = 0; i < (deleted?.count ?? 0) * 2; i++) {
      const edge = deleted?.pairs[i] as number
      writer.varUint(edge - at)
      at = edge
    }
  }
  return writer.take()
}

/** The state vector as Yjs encodes it. */
export function stateVectorOf(state: Admission): Uint8Array {
  const writer = new ByteWriter()
  writer.varUint(state.clients.size)
  for (const [id, { clock }] of sorted(state)) {
    writer.varUint(id)
    writer.varUint(clock)
  }
  return writer.take()
}

/** Yjs writes the highest client id first. */
function sorted(state: Admission): [number, Client][] {
  return [...state.clients].toSorted(([a], [b]) => b - a)
}

function tooLarge(update: Uint8Array, limits: UpdateLimits): Verdict {
  return { type: 'refused', code: 'too_large', message: `an update of ${update.length} bytes, at most ${limits.edit}` }
}

function conclude(state: Admission, scan: UpdateScan): Verdict {
  if (scan.fault !== undefined) return { type: 'refused', ...scan.fault }
  if (scan.gap || !canIntegrate(scan.blocks, scan.needs, scan.index)) return GAP
  const clocks: number[] = []
  const clients: number[] = []
  let size = state.clients.size
  for (const block of scan.blocks) {
    if (block.fresh === 0) continue
    clocks.push(block.client, block.end)
    clients.push(block.client)
    if (!state.clients.has(block.client)) size++
  }
  const { documentClients } = scan.limits
  if (size > documentClients && size > state.clients.size)
    return { type: 'refused', code: 'limit', message: `the document would be above ${documentClients} Yjs client ids` }
  if (clients.length === 0 && scan.deletes.length === 0) return NOTHING
  const update = scan.stale ? trimUpdate(scan) : scan.bytes
  return { type: 'admitted', update, clients, change: { revision: state.revision, clocks, gone: scan.gone, deletes: scan.deletes } }
}

/** Adds triples whose clients are all there, in runs of one client with ascending starts. */
function addDeletes(state: Admission, triples: readonly number[]): void {
  let from = 0
  while (from < triples.length) {
    const id = triples[from] as number
    let to = from + 3
    while (to < triples.length && triples[to] === id && (triples[to - 2] as number) <= (triples[to + 1] as number)) to += 3
    const client = state.clients.get(id)
    if (client !== undefined) insertAll((client.deleted ??= createRanges()), triples, from, to)
    from = to
  }
}
