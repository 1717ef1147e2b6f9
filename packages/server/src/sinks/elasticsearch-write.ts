/**
 * Rows on their way into Elasticsearch (step 8 of the path): one bulk of documents with our version as theirs, and what each of its items says.
 */
import type { RecordValue } from '@rejoin/shared'
import { SyncError } from '@rejoin/shared'
import type { Delivered, Refusal } from './delivery.ts'
import type { Ask, Body } from './elasticsearch-http.ts'
import { causeOf, listOf, objectOf } from './elasticsearch-http.ts'
import type { Target } from './elasticsearch-index.ts'
import { DELETED, STAMP } from './elasticsearch-index.ts'
import { addressOf } from './message.ts'
import type { Key, SinkCommit, SinkRow } from './sink.ts'

/** An `_id` has at most 512 bytes. */
const MAX_ID_BYTES = 512
/** Of document and id each: what the cluster can sort by. */
const MAX_KEY_BYTES = 32_766
/** How often a document is written again that somebody else writes at the same time. */
const TRIES = 4

/** One document. */
interface Item {
  readonly row: SinkRow
  readonly write: string
  readonly id: string
  readonly stamp: number
  readonly source: Body
  /** How it is guarded: by our version, or by what was found there. */
  readonly guard: Body
}

export interface Writing {
  readonly ask: Ask
  readonly targets: ReadonlyMap<string, Target>
  /** Resolve when readers see it. */
  readonly visible: boolean
}

/** Writes rows. Rejects when the cluster cannot take them now. */
export async function writeRows(
  writing: Writing,
  rows: readonly SinkRow[],
  { to, force = false }: Pick<SinkCommit, 'to' | 'force'>,
  signal: AbortSignal,
): Promise<Delivered> {
  const refused: Refusal[] = []
  const items: Item[] = []
  for (const row of rows) {
    const item = itemOf(writing, row, row.event?.version ?? to.version)
    if (typeof item === 'string') refused.push({ row, reason: item })
    else items.push(item)
  }
  // By force the guard is what lies there now, whatever its stamp is.
  let [open, conflicts] = force ? [[] as readonly Item[], items as readonly Item[]] : [items, []]
  for (let round = 0; open.length > 0 || conflicts.length > 0; round++) {
    if (round > TRIES)
      throw new SyncError(
        'overloaded',
        `somebody else writes ${conflicts[0]?.row.key.id ?? ''} of ${conflicts[0]?.write ?? ''} all the time`,
      )
    open = [...open, ...(await look(writing, conflicts, force, signal))]
    const outcome = await send(writing, open, signal)
    if (outcome === 'lost') return 'lost'
    refused.push(...outcome.refused)
    ;[open, conflicts] = [[], outcome.conflicts]
  }
  return refused
}

function itemOf({ targets }: Writing, row: SinkRow, stamp: number): Item | string {
  const { key, value } = row
  const target = targets.get(key.collection)
  if (target === undefined) return `there is no index for ${key.collection}`
  if (Math.max(Buffer.byteLength(key.document), Buffer.byteLength(key.id)) > MAX_KEY_BYTES)
    return `its key has more than ${MAX_KEY_BYTES} bytes, which Elasticsearch cannot sort by`
  const own = value === null ? undefined : ownField(value)
  if (own !== undefined) return `its field ${own} is Rejoin's own in every document; name it otherwise`
  return {
    row,
    stamp,
    write: target.write,
    id: addressIn(key),
    source: sourceOf(key, value, stamp),
    guard: { version: stamp, version_type: 'external_gte' },
  }
}

/** `_id` of a key's document. What somebody else put there under an `_id` that is no key of ours has the document ''. */
export function addressIn(key: Pick<Key, 'document' | 'id'>): string {
  return key.document === ('' as Key['document']) ? key.id : addressOf(key, MAX_ID_BYTES)
}

function ownField(value: RecordValue): string | undefined {
  return ['document', 'id', STAMP, DELETED].find((field) => Object.hasOwn(value, field))
}

function sourceOf({ document, id }: Key, value: RecordValue | null, stamp: number): Body {
  return { ...value, document, id, [STAMP]: stamp, ...(value === null ? { [DELETED]: true } : {}) }
}

/**
 * A conflict says that a higher version lies there: ours, and then it is newer and stays, or somebody's who changed the document by hand, which raised its version.
 * Gives what has to be written even so, on the condition that nobody does anything in between.
 */
async function look({ ask }: Writing, items: readonly Item[], force: boolean, signal: AbortSignal): Promise<readonly Item[]> {
  if (items.length === 0) return []
  const docs = items.map(({ write, id }) => ({ _index: write, _id: id, _source: [STAMP] }))
  const { status, body } = await ask({ method: 'POST', path: '/_mget', body: { docs }, signal, expect: [404] })
  const found = status === 404 ? [] : listOf(body['docs'])
  return items.flatMap((item, i): Item[] => {
    const there = found[i] ?? {}
    if (there['found'] !== true) return [{ ...item, guard: { op_type: 'create' } }]
    const stamp = objectOf(there['_source'])[STAMP]
    if (!force && typeof stamp === 'number' && stamp > item.stamp) return []
    return [{ ...item, guard: { if_seq_no: Number(there['_seq_no']), if_primary_term: Number(there['_primary_term']) } }]
  })
}

interface Sent {
  readonly refused: readonly Refusal[]
  readonly conflicts: readonly Item[]
}

async function send(writing: Writing, items: readonly Item[], signal: AbortSignal): Promise<Sent | 'lost'> {
  if (items.length === 0) return { refused: [], conflicts: [] }
  const { ask, visible } = writing
  const body = items.map(lines).join('')
  // An index that is not there must not come to be by itself, without its mapping.
  const path = `/_bulk?require_alias=true${visible ? '&refresh=wait_for' : ''}`
  const answer = await ask({ method: 'POST', path, body, signal, expect: [413] })
  if (answer.status === 413) return halves(writing, items, signal)
  const found = listOf(answer.body['items'])
  const refused: Refusal[] = []
  const conflicts: Item[] = []
  for (const [i, item] of items.entries()) {
    const said = objectOf(Object.values(found[i] ?? {})[0])
    const status = Number(said['status'])
    if (status === 409) conflicts.push(item)
    else if (status === 404) return 'lost'
    else if ((status >= 400 && status < 500 && !NOT_OF_THE_DOCUMENT.includes(status)) || isFailed(said))
      refused.push({ row: item.row, reason: causeOf(said) ?? `it answered ${status}` })
    else if (!(status >= 200 && status < 300))
      throw new SyncError('overloaded', `it did not take ${item.write}: ${causeOf(said) ?? `status ${status}`}`)
  }
  return { refused, conflicts }
}

/** A pipeline of the index's owner says no to the document, as a 500. */
function isFailed({ error }: Body): boolean {
  return objectOf(error)['type'] === 'fail_processor_exception'
}

/** 4xx that say something of the cluster: no rights, a full disk, too much at once. */
const NOT_OF_THE_DOCUMENT = [401, 403, 408, 429]

/** More than the cluster takes in one request. */
async function halves(writing: Writing, items: readonly Item[], signal: AbortSignal): Promise<Sent | 'lost'> {
  const [first] = items
  if (first !== undefined && items.length === 1)
    return { refused: [{ row: first.row, reason: 'it is larger than what the cluster takes in one request' }], conflicts: [] }
  const middle = items.length >> 1
  const sent: Sent[] = []
  for (const part of [items.slice(0, middle), items.slice(middle)]) {
    const outcome = await send(writing, part, signal)
    if (outcome === 'lost') return 'lost'
    sent.push(outcome)
  }
  return { refused: sent.flatMap(({ refused }) => refused), conflicts: sent.flatMap(({ conflicts }) => conflicts) }
}

function lines({ write, id, guard, source }: Item): string {
  const { op_type: create, ...rest } = guard
  return `${JSON.stringify({ [create === undefined ? 'index' : 'create']: { _index: write, _id: id, ...rest } })}\n${JSON.stringify(source)}\n`
}
