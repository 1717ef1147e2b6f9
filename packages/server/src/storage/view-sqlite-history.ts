/**
 * What the view in SQLite knows of its versions, and which records refer to which as of one (step 7 of the path).
 */
import type { DocumentId, Seq } from '@rejoin/shared'
import type Database from 'better-sqlite3'
import type { Key, RecordDifference, RefField, VersionChanges, VersionEntry, ViewStore } from '../view/view.ts'
import type { Versions } from './view-sqlite-read.ts'

interface HistoryParts {
  readonly versions: Versions
  readonly head: () => number | undefined
  readonly oldest: () => number
}

type History = Pick<ViewStore, 'mark' | 'entries' | 'changes' | 'lag' | 'versionOf' | 'versionAt'>

type EntryRow = Omit<VersionEntry, 'keys' | 'settled'> & { readonly settled: number; readonly through: number }

type ChangeRow = readonly [number, string, DocumentId, string, value?: string | null, before?: string | null]

export function createHistory(db: Database.Database, { versions, head, oldest }: HistoryParts): History {
  const mark = db.prepare('SELECT mark FROM entries WHERE version <= ? ORDER BY version DESC LIMIT 1').pluck()
  const page = db.prepare(
    'SELECT version, partition, position, epoch, seq, document, actor, at, settled, through FROM entries WHERE version > ? AND version <= ? ORDER BY version LIMIT ?',
  )
  const changes = db.prepare('SELECT version, collection, document, id FROM changes WHERE n > ? AND n <= ? ORDER BY n').raw()
  const differences = db
    .prepare(
      `SELECT version, collection, document, id, value,
        (SELECT value FROM changes AS b WHERE b.collection = c.collection AND b.document = c.document AND b.id = c.id AND b.n < c.n ORDER BY b.n DESC LIMIT 1)
      FROM changes AS c NOT INDEXED WHERE n > ? AND n <= ? ORDER BY n`,
    )
    .raw()
  const next = db
    .prepare('SELECT at FROM (SELECT at FROM entries WHERE version > ? AND version <= ? ORDER BY version LIMIT 1000) WHERE at > 0 LIMIT 1')
    .pluck()
  const state = db.prepare('SELECT seq, parked FROM documents WHERE document = ?')
  const exact = db.prepare('SELECT max(version) FROM entries WHERE document = ? AND seq = ?').pluck()
  const last = db.prepare('SELECT max(version) FROM entries WHERE document = ?').pluck()
  const later = db.prepare('SELECT version FROM entries WHERE at > ? ORDER BY version LIMIT 1').pluck()
  const before = db.prepare('SELECT max(version) FROM entries WHERE version < ?').pluck()
  const read = (after: number, upTo: number, limit: number, found: Database.Statement): (VersionEntry & Partial<VersionChanges>)[] => {
    const rows = page.all(after, Math.min(upTo, head() ?? 0), limit) as EntryRow[]
    const byVersion = new Map<number, { readonly keys: Key[]; readonly changes: RecordDifference[] }>()
    for (const { version } of rows) byVersion.set(version, { keys: [], changes: [] })
    for (const row of found.all(versions.at(after)?.through ?? 0, rows.at(-1)?.through ?? 0) as ChangeRow[]) {
      const [version, collection, document, id, now, before] = row
      const into = byVersion.get(version)
      const key = { collection, document, id }
      into?.keys.push(key)
      if (now !== undefined && before !== undefined) into?.changes.push({ key, before, after: now })
    }
    return rows.map((row) => {
      const { version, partition, position, epoch, seq, document, actor, at } = row
      const { keys = [], changes = [] } = byVersion.get(version) ?? {}
      const entry = { version, partition, position, epoch, seq, document, actor, at, settled: row.settled === 1, keys }
      return found === differences ? { ...entry, changes } : entry
    })
  }
  return {
    mark: (version) => (mark.get(version) as string | undefined) ?? '',
    entries: (after, upTo, limit) => read(after, upTo, limit, changes),
    changes: (after, upTo, limit) => read(after, upTo, limit, differences) as readonly VersionChanges[],
    lag: (version) => {
      const upTo = head() ?? 0
      const [from, to] = [versions.at(version), versions.at(upTo)]
      if (to === undefined || version >= upTo) return { entries: 0, bytes: 0, at: undefined }
      const [nth, bytes] = [from?.nth ?? 0, from?.bytes ?? 0]
      return { entries: to.nth - nth, bytes: to.bytes - bytes, at: next.get(version, upTo) as number | undefined }
    },
    versionOf: (document: DocumentId, seq: Seq) => {
      const known = state.get(document) as { readonly seq: Seq; readonly parked: string | null } | undefined
      if (known === undefined || known.parked !== null || known.seq < seq) return undefined
      // Without an entry of its own it was read with the whole document, at the document's last version or without any difference to it.
      return Number(exact.get(document, seq) ?? Math.max(oldest(), Number(last.get(document) ?? 0)))
    },
    versionAt: (time) => {
      const first = later.get(time) as number | undefined
      if (first === undefined) return head()
      return first <= oldest() ? undefined : Math.max(oldest(), Number(before.get(first) ?? 0))
    },
  }
}

type Refs = Pick<ViewStore, 'dependents' | 'prepareRefs'>

/** Names of the schema: nothing else may become part of a statement. */
const NAME = /^[A-Za-z]\w{0,62}$/u

/** One partial index on an expression for each reference. */
export function createRefs(db: Database.Database, versions: Versions): Refs {
  const known = new Map<string, { readonly within: Database.Statement; readonly anywhere: Database.Statement }>()
  const prepare = ({ collection, field }: RefField): { readonly within: Database.Statement; readonly anywhere: Database.Statement } => {
    const index = indexName({ collection, field })
    const there = known.get(index)
    if (there !== undefined) return there
    const column = `value ->> '$.${field}'`
    db.exec(
      `CREATE INDEX IF NOT EXISTS ${index} ON changes (${column}, document, id, n) WHERE collection = '${collection}' AND ${column} IS NOT NULL`,
    )
    // The change that is in force at ?: none of the same record lies between.
    const find = (where: string): Database.Statement =>
      db.prepare(`SELECT '${collection}' AS collection, document, id FROM changes AS c INDEXED BY ${index}
        WHERE collection = '${collection}' AND ${column} = @id ${where} AND n <= @n AND NOT EXISTS (
          SELECT 1 FROM changes AS d WHERE d.collection = '${collection}' AND d.document = c.document AND d.id = c.id AND d.n > c.n AND d.n <= @n)
        ORDER BY document, id`)
    const made = { within: find('AND document = @document'), anywhere: find('') }
    known.set(index, made)
    return made
  }
  return {
    dependents: (ref, id, document, version) => {
      const n = versions.at(version)?.through ?? 0
      const { within, anywhere } = prepare(ref)
      return (document === undefined ? anywhere.all({ id, n }) : within.all({ id, n, document })) as Key[]
    },
    prepareRefs: (refs) => {
      const wanted = new Set(refs.map(indexName))
      const there = db
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'index' AND name LIKE 'ref\\_%' ESCAPE '\\'")
        .pluck()
        .all() as string[]
      for (const index of there) {
        if (wanted.has(index)) continue
        known.delete(index)
        db.exec(`DROP INDEX ${index}`)
      }
      for (const ref of refs) prepare(ref)
    },
  }
}

/** SQLite does not tell names apart by case, no more than a schema has two that differ by it only. */
function indexName({ collection, field }: RefField): string {
  if (!NAME.test(collection) || !NAME.test(field)) throw new Error(`no reference: ${JSON.stringify([collection, field])}`)
  return `ref_${collection.length}_${collection}_${field}`
}
