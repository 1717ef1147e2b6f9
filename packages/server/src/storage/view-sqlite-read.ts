/**
 * Reading the view in SQLite as of a version (step 7 of the path).
 */
import type { DocumentId, RecordValue } from '@rejoin/shared'
import type Database from 'better-sqlite3'
import type { CutLimits, DocumentState, Key, Misfit, RecordChange, ViewStore } from '../view/view.ts'

type Row = Record<string, unknown>
/** A row of `entries`, as far as reading needs it. */
export interface VersionRow {
  readonly version: number
  readonly settled: number
  readonly through: number
  readonly bytes: number
  readonly nth: number
  readonly mark: string
}

/** Versions and what adds up over them. */
export interface Versions {
  /** The last entry with a version ≤ `version`. */
  at(version: number): VersionRow | undefined
  settledAt(version: number): VersionRow | undefined
  settledAfter(version: number): VersionRow | undefined
  /** The highest version in [after, upTo] with no more than `limits` since `after`. */
  within(after: number, upTo: number, limits: CutLimits): number
}

export function createVersions(db: Database.Database): Versions {
  const columns = 'SELECT version, settled, through, bytes, nth, mark FROM entries'
  const at = db.prepare(`${columns} WHERE version <= ? ORDER BY version DESC LIMIT 1`)
  const settledAt = db.prepare(`${columns} WHERE version <= ? AND settled ORDER BY version DESC LIMIT 1`)
  const settledAfter = db.prepare(`${columns} WHERE version > ? AND settled ORDER BY version LIMIT 1`)
  const find = (version: number): VersionRow | undefined => at.get(version) as VersionRow | undefined
  return {
    at: find,
    settledAt: (version) => settledAt.get(version) as VersionRow | undefined,
    settledAfter: (version) => settledAfter.get(version) as VersionRow | undefined,
    within: (after, upTo, limits) => {
      const from = find(after)
      const fits = (version: number): boolean => {
        const row = find(version)
        return row === undefined || (row.through - (from?.through ?? 0) <= limits.items && row.bytes - (from?.bytes ?? 0) <= limits.bytes)
      }
      // Both sums only grow with the version: halve the range.
      let [low, high] = [after, upTo]
      while (low < high) {
        const middle = Math.ceil((low + high) / 2)
        if (fits(middle)) low = middle
        else high = middle - 1
      }
      return low
    },
  }
}

interface Pages {
  readonly first: Database.Statement
  readonly next: Database.Statement
}

type PageRow = readonly [collection: string, document: DocumentId, id: string, text: string | null]

type Readers = Pick<ViewStore, 'dirty' | 'differences' | 'get' | 'keys' | 'page' | 'records'> & {
  /** To be called after each commit. */
  forget(): void
}

export function createReaders(db: Database.Database, versions: Versions): Readers {
  const dirty = db.prepare(
    'SELECT DISTINCT collection, document, id FROM changes NOT INDEXED WHERE n > ? AND n <= ? ORDER BY collection, document, id',
  )
  // The changes lie in one run of rows; only what was there before them is looked for.
  const differences = db
    .prepare(
      `SELECT r.collection, r.document, r.id,
        (SELECT value FROM changes AS b WHERE b.collection = r.collection AND b.document = r.document AND b.id = r.id AND b.n <= @after ORDER BY b.n DESC LIMIT 1),
        (SELECT value FROM changes AS a WHERE a.n = r.last)
      FROM (SELECT collection, document, id, max(n) AS last FROM changes NOT INDEXED WHERE n > @after AND n <= @upTo GROUP BY collection, document, id) AS r
      ORDER BY r.collection, r.document, r.id`,
    )
    .raw()
  const get = db
    .prepare('SELECT value FROM changes WHERE collection = ? AND document = ? AND id = ? AND n <= ? ORDER BY n DESC LIMIT 1')
    .pluck()
  // With max(n) the other columns are those of that change.
  const behind = (what: string): Pages => {
    const columns = `SELECT collection, document, id, ${what}, max(n) FROM changes WHERE`
    const groups = 'GROUP BY collection, document, id ORDER BY collection, document, id LIMIT ?'
    return {
      first: db.prepare(`${columns} n <= ? ${groups}`).raw(),
      next: db.prepare(`${columns} (collection, document, id) > (?, ?, ?) AND n <= ? ${groups}`).raw(),
    }
  }
  const [keys, values] = [behind("CASE WHEN value IS NOT NULL THEN '' END"), behind('value')]
  const collection = db.prepare('SELECT collection FROM changes WHERE collection > ? ORDER BY collection LIMIT 1').pluck()
  const firstCollection = db.prepare('SELECT collection FROM changes ORDER BY collection LIMIT 1').pluck()
  const records = db.prepare(
    'SELECT collection, id, value, max(n) FROM changes WHERE collection = ? AND document = ? GROUP BY id ORDER BY id',
  )
  // A thousand records are read as of one version.
  let memo: { readonly version: number; readonly n: number } | undefined
  const through = (version: number): number => {
    if (memo?.version !== version) memo = { version, n: versions.at(version)?.through ?? 0 }
    return memo.n
  }
  const read = (
    { first, next }: Pages,
    version: number,
    limit: number,
    from?: Key,
  ): readonly { readonly key: Key; readonly text: string }[] => {
    const n = through(version)
    const found: { readonly key: Key; readonly text: string }[] = []
    for (let last = from; found.length < limit;) {
      const rows = (last === undefined ? first.all(n, limit) : next.all(last.collection, last.document, last.id, n, limit)) as PageRow[]
      for (const [collection, document, id, text] of rows) if (text !== null) found.push({ key: { collection, document, id }, text })
      const end = rows.at(-1)
      last = end && { collection: end[0], document: end[1], id: end[2] }
      if (rows.length < limit) break
    }
    return found.slice(0, limit)
  }

  return {
    forget: () => {
      memo = undefined
    },
    dirty: (after, upTo) => dirty.all(through(after), through(upTo)) as Key[],
    differences: (after, upTo, limit) => {
      const [from, to] = [through(after), through(upTo)]
      if (to - from > limit) return undefined
      const rows = differences.all({ after: from, upTo: to }) as [string, DocumentId, string, string | null, string | null][]
      return rows.map(([name, document, id, before, now]) => ({ key: { collection: name, document, id }, before, after: now }))
    },
    get: (key, version) => parse(get.get(key.collection, key.document, key.id, through(version))),
    keys: (version, limit, from) => read(keys, version, limit, from).map(({ key }) => key),
    page: (version, limit, from) => read(values, version, limit, from),
    records: (document) => {
      const found: RecordChange[] = []
      for (let name = firstCollection.get(); name !== undefined; name = collection.get(name)) {
        for (const row of records.all(name, document) as Row[]) {
          if (row['value'] !== null)
            found.push({ collection: String(row['collection']), id: String(row['id']), value: parse(row['value']) })
        }
      }
      return found
    },
  }
}

type DocumentStates = Pick<ViewStore, 'document' | 'documents' | 'misfits' | 'parked'>

export function createDocumentStates(db: Database.Database): DocumentStates {
  const columns = 'SELECT document, partition, lineage, seq, parked FROM documents'
  const one = db.prepare(`${columns} WHERE document = ?`)
  const page = db.prepare(`${columns} WHERE document > ? ORDER BY document LIMIT ?`)
  const parked = db.prepare(`${columns} WHERE parked IS NOT NULL ORDER BY document LIMIT ?`)
  const parkedCount = db.prepare('SELECT count(*) FROM documents WHERE parked IS NOT NULL').pluck()
  const misfits = db.prepare(
    'SELECT collection, document, id, field, message FROM misfits ORDER BY collection, document, id, rowid LIMIT ?',
  )
  const misfitCount = db.prepare('SELECT count(*) FROM misfits').pluck()
  const state = (row: unknown): DocumentState => ({
    ...(row as DocumentState),
    parked: (row as { parked: string | null }).parked ?? undefined,
  })
  return {
    document: (document) => {
      const row = one.get(document)
      return row === undefined ? undefined : state(row)
    },
    // Document ids are not empty.
    documents: (limit, from) => page.all(from ?? '', limit).map(state),
    misfits: (limit) => ({
      total: Number(misfitCount.get()),
      first: (misfits.all(limit) as (Misfit & { field: string | null })[]).map((row) => ({ ...row, field: row.field ?? undefined })),
    }),
    parked: (limit) => ({ total: Number(parkedCount.get()), first: parked.all(limit).map(state) }),
  }
}

function parse(text: unknown): RecordValue | null {
  return typeof text === 'string' ? (JSON.parse(text) as RecordValue) : null
}
