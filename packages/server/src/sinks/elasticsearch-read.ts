/**
 * Reading Elasticsearch back (step 8 of the path): keys in their order by search_after, and every document of an index as of one moment by a scroll, which Elasticsearch and OpenSearch have alike.
 */
import type { JsonValue, RecordValue } from '@rejoin/shared'
import { canonicalJson } from '@rejoin/shared'
import { BUCKETS, bucketOf, hashText } from './digest.ts'
import type { CursorDocument } from './elasticsearch-cursor.ts'
import type { Ask, Body } from './elasticsearch-http.ts'
import { listOf, objectOf, textOf } from './elasticsearch-http.ts'
import type { Target } from './elasticsearch-index.ts'
import { DELETED, STAMP } from './elasticsearch-index.ts'
import { addressIn } from './elasticsearch-write.ts'
import type { Breathe, FoundRow, Key, SinkProof } from './sink.ts'

/** Documents that one answer holds. */
const PAGE = 1_000
/** The most that a search gives. */
const MAX_PAGE = 10_000
/** How often a survey is made again because the place moved while it was made. */
const TRIES = 3

const GONE = { term: { [DELETED]: true } }

/** Keys of one target, in their order, behind `from`. `all`: also of rows that others wrote. */
export async function keysOf(
  ask: Ask,
  { name, write }: Target,
  limit: number,
  from: Key | undefined,
  all: boolean,
): Promise<readonly Key[]> {
  const exists = (field: string): Body => ({ exists: { field } })
  const { body } = await ask({
    method: 'POST',
    path: `/${write}/_search`,
    body: {
      size: Math.min(limit, MAX_PAGE),
      _source: false,
      query: { bool: { must_not: GONE, filter: [exists('document'), exists('id'), ...(all ? [] : [exists(STAMP)])] } },
      sort: [{ document: 'asc' }, { id: 'asc' }],
      ...(from === undefined ? {} : { search_after: [from.document, from.id] }),
    },
  })
  return hitsOf(body).map(({ sort }) => {
    const [document, id] = sort as [Key['document'], string]
    return { collection: name, document, id }
  })
}

/** The highest stamp in these indices. */
export async function highestStamp(ask: Ask, targets: readonly Target[]): Promise<number> {
  const indices = targets.map(({ write }) => write).join(',')
  await ask({ method: 'POST', path: `/${indices}/_refresh` })
  const { body } = await ask({ method: 'POST', path: `/${indices}/_search`, body: { size: 0, aggs: { stamp: { max: { field: STAMP } } } } })
  const { value } = objectOf(objectOf(body['aggregations'])['stamp'])
  return typeof value === 'number' && Number.isSafeInteger(value) ? value : 0
}

const giveWay: Breathe = () => new Promise((resolve) => setImmediate(resolve))

export function createProof(ask: Ask, targets: readonly Target[], cursor: CursorDocument): SinkProof {
  const fields = new Map(targets.map((target) => [target.name, Object.keys(target.fields ?? {})]))
  const hash = (key: Key, value: RecordValue): bigint =>
    hashText(canonicalJson([key.collection, key.document, key.id, filled(value, fields.get(key.collection) ?? [])]))
  const read = async function* (breathe: Breathe): AsyncGenerator<readonly FoundRow[]> {
    for (const target of targets) {
      for await (const hits of scroll(ask, target)) {
        yield hits.map((hit) => rowOf(target, hit, hash))
        await breathe()
      }
    }
  }
  const survey = async (strangers: boolean, breathe: Breathe): Promise<{ readonly rows: number; readonly buckets: BigUint64Array }> => {
    const buckets = new BigUint64Array(BUCKETS)
    let rows = 0
    for await (const page of read(breathe)) {
      for (const row of page) {
        if (row.stamp === 0 && !strangers) continue
        rows++
        buckets[bucketOf(row.key)] = (buckets[bucketOf(row.key)] ?? 0n) + row.hash
      }
    }
    return { rows, buckets }
  }
  return {
    hash,
    survey: async ({ strangers, breathe = giveWay }) => {
      // There is no snapshot over the place and the rows: what was the same before and after is as good as one.
      for (let i = 1; ; i++) {
        const before = (await cursor.read())?.place
        const found = await survey(strangers, breathe)
        const after = (await cursor.read())?.place
        if (i === TRIES || canonicalJson(before ?? null) === canonicalJson(after ?? null)) return { place: after, ...found }
      }
    },
    rows: async function* (wanted, breathe = giveWay) {
      const buckets = new Set(wanted)
      for await (const page of read(breathe)) yield page.filter(({ key }) => buckets.has(bucketOf(key)))
    },
  }
}

/** Every document that is not deleted, as of the moment of the first page. */
async function* scroll(ask: Ask, { write }: Target): AsyncGenerator<readonly Body[]> {
  const refreshed = await ask({ method: 'POST', path: `/${write}/_refresh`, expect: [404] })
  if (refreshed.status === 404) return
  let { body } = await ask({
    method: 'POST',
    path: `/${write}/_search?scroll=1m`,
    body: { size: PAGE, query: { bool: { must_not: GONE } }, sort: ['_doc'] },
  })
  try {
    for (let hits = hitsOf(body); hits.length > 0; hits = hitsOf(body)) {
      yield hits
      ;({ body } = await ask({ method: 'POST', path: '/_search/scroll', body: { scroll: '1m', scroll_id: body['_scroll_id'] } }))
    }
  } finally {
    await ask({ method: 'DELETE', path: '/_search/scroll', body: { scroll_id: body['_scroll_id'] }, expect: [404] })
  }
}

function rowOf(target: Target, hit: Body, hash: SinkProof['hash']): FoundRow {
  const address = textOf(hit['_id'])
  const { document, id, [STAMP]: stamp, ...value } = objectOf(hit['_source'])
  const key = { collection: target.name, document: document as Key['document'], id: id as string }
  if (typeof document === 'string' && typeof id === 'string' && document !== '' && addressIn(key) === address)
    return { key, hash: hash(key, value), stamp: typeof stamp === 'number' && Number.isSafeInteger(stamp) ? stamp : 0 }
  const stranger = { collection: target.name, document: '' as Key['document'], id: address }
  return { key: stranger, hash: hash(stranger, value), stamp: 0 }
}

/** A field that is not there is null, as whoever searches would say. */
function filled(value: RecordValue, fields: readonly string[]): RecordValue {
  const whole: Record<string, JsonValue> = { ...value }
  for (const field of fields) whole[field] ??= null
  return whole
}

function hitsOf(body: Body): readonly Body[] {
  return listOf(objectOf(body['hits'])['hits'])
}
