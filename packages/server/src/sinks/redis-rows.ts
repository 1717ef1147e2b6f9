/**
 * Rows in Redis, a hash or a JSON text each, with their proof: written by one script with fence and guard, listed by a sorted set per target, read back field by field.
 */
import type { JsonValue, RecordValue } from '@rejoin/shared'
import { SyncError, canonicalJson } from '@rejoin/shared'
import { createConnection } from './connection.ts'
import type { Delivery, Refusal } from './delivery.ts'
import { BUCKETS, bucketOf, hashText } from './digest.ts'
import { addressOf } from './message.ts'
import type { CursorContext, Link, Names } from './redis-link.ts'
import { createHeldCursor, fieldsOf, listOf, namesOf, readPlace } from './redis-link.ts'
import { WRITE } from './redis-scripts.ts'
import type { FoundRow, Key, SinkContext, SinkProof, SinkRow } from './sink.ts'

export interface RowsOptions {
  readonly as: 'hash' | 'json'
  readonly prefix: string
  /** ms; 0 for ever. */
  readonly ttl: number
}

/** The version of the view at which the row was last written. */
export const STAMP = 'rejoin_version'

/** The longest address in a key's name, in characters. */
const MAX_ADDRESS = 1024
/** Of one script: rows, and characters of them. It holds up everybody else on the server. */
const MAX_ROWS = 250
const MAX_TEXT = 512 << 10
const PAGE = 1000
/** Between document and id in the index, where it sorts before everything: document ids have no control characters. */
const NUL = '\0'

/** The delivery. `connect` is asked for a new link at each begin. */
export function createRedisRows(
  { as, prefix, ttl }: RowsOptions,
  context: CursorContext & Pick<SinkContext, 'collections'>,
  connect: () => Promise<Link>,
): Delivery {
  const names = namesOf(prefix, context.name)
  const targets = Object.keys(context.collections).toSorted()
  const rowKey = (key: Key): string => `${prefix}${key.collection}:${addressOf(key, MAX_ADDRESS)}`
  const place = { names, targets, rowKey, as }
  const link = createConnection(connect)
  // Also opened to be read only, without a fence.
  const open = (): Promise<Link> => link.open()
  const cursor = createHeldCursor(open, names, context, canonicalJson({ as, prefix, ttl, collections: context.collections }))
  return {
    begin: async () => {
      await link.renew()
      return cursor.begin()
    },
    deliver: async (rows, { to, force = false }, signal) => {
      const [fit, refused] = sorted(rows)
      for (const part of partsOf(fit, (row) => textsOf(row, to.version, as))) {
        signal.throwIfAborted()
        const keys = part.flatMap(({ row: { key } }) => [rowKey(key), names.index(key.collection)])
        const given = [...cursor.known(), `${to.version}`, force ? '1' : '', `${ttl}`, as, ...part.flatMap(({ texts }) => texts)]
        const answer = await (await open()).run(WRITE, [names.cursor, names.graves, ...keys], given)
        if (answer === 'fenced' || answer === 'lost') return answer
      }
      return refused
    },
    moved: (to) => cursor.moved(to),
    check: () => cursor.check(),
    keys: async (limit, from) => {
      const keys: Key[] = []
      for (const target of targets) {
        if (keys.length === limit) break
        if (from !== undefined && target < from.collection) continue
        keys.push(...(await keysOf(await open(), names, target, limit - keys.length, from?.collection === target ? from : undefined)))
      }
      return keys
    },
    // What expires is missing by itself: nothing to prove.
    proof: ttl > 0 ? undefined : proofOf(open, place),
    plan: async () => {
      const isThere = (await (await open()).command('EXISTS', names.cursor)) === 1
      return isThere
        ? []
        : targets.map((target) => `a ${as === 'hash' ? 'hash' : 'JSON text'} ${prefix}${target}:<document>/<id> for every row`)
    },
    drop: async () => {
      for await (const page of pagesOf(await open(), place)) await (await open()).command('UNLINK', ...page.map(rowKey))
      await (await open()).command('UNLINK', names.cursor, names.graves, names.recent, ...targets.map((target) => names.index(target)))
    },
    close: () => link.close(),
  }
}

interface Where {
  readonly names: Names
  readonly targets: readonly string[]
  readonly rowKey: (key: Key) => string
  readonly as: 'hash' | 'json'
}

async function keysOf(link: Link, names: Names, target: string, limit: number, from: Key | undefined): Promise<readonly Key[]> {
  const behind = from === undefined ? '-' : `(${memberOf(from)}`
  const members = listOf(await link.command('ZRANGEBYLEX', names.index(target), behind, '+', 'LIMIT', '0', `${limit}`))
  return members.map((member) => {
    const [document, ...id] = String(member).split(NUL)
    return { collection: target, document: document as Key['document'], id: id.join(NUL) }
  })
}

async function* pagesOf(link: Link, { names, targets }: Where): AsyncGenerator<readonly Key[]> {
  for (const target of targets) {
    for (let from: Key | undefined; ;) {
      const page = await keysOf(link, names, target, PAGE, from)
      if (page.length > 0) yield page
      if (page.length < PAGE) break
      from = page.at(-1)
    }
  }
}

function memberOf({ document, id }: Key): string {
  return `${document}${NUL}${id}`
}

/** Rows that may be written, and those with a field of the stamp's name: it would stand in the stamp's place, and hold off or let through what it likes. */
function sorted(rows: readonly SinkRow[]): readonly [SinkRow[], Refusal[]] {
  const fit: SinkRow[] = []
  const refused: Refusal[] = []
  for (const row of rows) {
    if (row.value === null || !Object.hasOwn(row.value, STAMP)) fit.push(row)
    else refused.push({ row, reason: `its field ${STAMP} is Rejoin's own in every row; name it otherwise` })
  }
  return [fit, refused]
}

/** Of a row what the script is given: member, stamp, count, texts. */
function textsOf({ key, value, event }: SinkRow, version: number, as: 'hash' | 'json'): readonly string[] {
  const stamp = `${event?.version ?? version}`
  if (value === null) return [memberOf(key), stamp, '-1']
  const texts = as === 'json' ? [jsonText(value, stamp)] : [STAMP, stamp, ...columnsOf(value).flat()]
  return [memberOf(key), stamp, `${texts.length}`, ...texts]
}

/** The stamp stands first, where the script finds it without parsing. */
function jsonText(value: RecordValue, stamp: string): string {
  const text = canonicalJson(value)
  return `{"${STAMP}":${stamp}${text === '{}' ? '' : ','}${text.slice(1)}`
}

/** Fields of a hash: texts as they are, null left out, everything else as JSON. */
function columnsOf(value: RecordValue): readonly (readonly [string, string])[] {
  return Object.entries(value)
    .flatMap(([field, each]): [string, string][] => (each === null ? [] : [[field, textOf(each)]]))
    .sort(([a], [b]) => (a < b ? -1 : 1))
}

function textOf(value: JsonValue): string {
  return typeof value === 'string' ? value : canonicalJson(value)
}

function* partsOf<T>(
  rows: readonly T[],
  texts: (row: T) => readonly string[],
): Generator<readonly { readonly row: T; readonly texts: readonly string[] }[]> {
  let part: { readonly row: T; readonly texts: readonly string[] }[] = []
  let size = 0
  for (const row of rows) {
    const made = { row, texts: texts(row) }
    const length = made.texts.reduce((sum, text) => sum + text.length, 0)
    if (part.length > 0 && (part.length >= MAX_ROWS || size + length > MAX_TEXT)) {
      yield part
      part = []
      size = 0
    }
    part.push(made)
    size += length
  }
  if (part.length > 0) yield part
}

function proofOf(open: () => Promise<Link>, where: Where): SinkProof {
  const { as, names, rowKey } = where
  const identity = ({ collection, document, id }: Key): readonly string[] => [collection, document, id]
  const hashColumns = (key: Key, columns: unknown): bigint => hashText(canonicalJson([...identity(key), columns]))
  const found = async (keys: readonly Key[]): Promise<readonly FoundRow[]> => {
    const link = await open()
    const replies = await link.commands(keys.map((key) => [as === 'hash' ? 'HGETALL' : 'GET', rowKey(key)])).catch((error: unknown) => {
      // Somebody made something else of a row: those are looked at one by one.
      if (error instanceof SyncError && error.reason.includes('WRONGTYPE')) return undefined
      throw error
    })
    const rows: FoundRow[] = []
    for (const [i, key] of keys.entries()) {
      const reply = replies === undefined ? await readOne(link, rowKey(key), as) : replies[i]
      const row = as === 'hash' ? columnsRead(fieldsOf(reply)) : jsonRead(reply)
      // It stands in the index, so it was ours, whatever became of its stamp.
      if (row !== undefined) rows.push({ key, hash: hashColumns(key, row.columns), stamp: Math.max(1, row.stamp) })
    }
    return rows
  }
  return {
    hash: (key, value) => hashColumns(key, as === 'hash' ? columnsOf(value) : value),
    survey: async ({ breathe }) => {
      const buckets = new BigUint64Array(BUCKETS)
      let rows = 0
      for await (const page of pagesOf(await open(), where)) {
        for (const { key, hash } of await found(page)) {
          const bucket = bucketOf(key)
          buckets[bucket] = (buckets[bucket] ?? 0n) + hash
          rows += 1
        }
        await breathe?.()
      }
      return { place: await readPlace(await open(), names), rows, buckets }
    },
    rows: async function* (wanted, breathe) {
      const buckets = new Set(wanted)
      for await (const page of pagesOf(await open(), where)) {
        const keys = page.filter((key) => buckets.has(bucketOf(key)))
        if (keys.length > 0) yield await found(keys)
        await breathe?.()
      }
    },
  }
}

async function readOne(link: Link, key: string, as: 'hash' | 'json'): Promise<string | number | null | readonly (string | number)[]> {
  const type = await link.command('TYPE', key)
  if (as === 'hash') return type === 'hash' ? ((await link.command('HGETALL', key)) as readonly string[]) : ['type', String(type)]
  return type === 'string' ? ((await link.command('GET', key)) as string) : `a ${String(type)}`
}

interface Row {
  readonly columns: unknown
  readonly stamp: number
}

function columnsRead(fields: ReadonlyMap<string, string>): Row | undefined {
  if (fields.size === 0) return undefined
  const columns = [...fields].filter(([field]) => field !== STAMP).sort(([a], [b]) => (a < b ? -1 : 1))
  return { columns, stamp: Number(fields.get(STAMP)) || 0 }
}

function jsonRead(reply: unknown): Row | undefined {
  if (typeof reply !== 'string') return undefined
  try {
    const { [STAMP]: stamp, ...columns } = JSON.parse(reply) as Readonly<Record<string, unknown>>
    return { columns, stamp: Number(stamp) || 0 }
  } catch {
    return { columns: `not JSON: ${reply}`, stamp: 0 }
  }
}
