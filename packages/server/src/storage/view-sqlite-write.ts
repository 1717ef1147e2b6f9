/**
 * Writing the view in SQLite: commits of the projector, and trimming (step 7 of the path).
 */
import type Database from 'better-sqlite3'
import { nextMark } from '../view/mark.ts'
import type { Key, ViewCommit } from '../view/view.ts'
import type { Versions } from './view-sqlite-read.ts'

/** Named values of the file. */
export interface Meta {
  get(name: string): string | undefined
  set(name: string, value: string): void
}

/** Prepares access to them. */
export function createMeta(db: Database.Database): Meta {
  const get = db.prepare('SELECT value FROM meta WHERE name = ?').pluck()
  const set = db.prepare('INSERT INTO meta VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value')
  return {
    get: (name) => get.get(name) as string | undefined,
    set: (name, value) => {
      set.run(name, value)
    },
  }
}

interface WriterParts {
  readonly last: () => number
  readonly versions: Versions
  readonly meta: Meta
}

/** Prepares a commit. */
export function createWriter(db: Database.Database, { last, versions, meta }: WriterParts): (commit: ViewCommit) => void {
  const change = db.prepare('INSERT INTO changes VALUES (?, ?, ?, ?, ?, ?)')
  const entry = db.prepare('INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)')
  const settle = db.prepare('UPDATE entries SET settled = 1 WHERE version = (SELECT max(version) FROM entries)')
  const document = db.prepare('INSERT OR REPLACE INTO documents VALUES (?, ?, ?, ?, ?)')
  const place = db.prepare('INSERT OR REPLACE INTO places VALUES (?, ?, ?, ?)')
  const clear = db.prepare('DELETE FROM misfits WHERE collection = ? AND document = ? AND id = ?')
  const add = db.prepare('INSERT INTO misfits VALUES (?, ?, ?, ?, ?)')
  const forget = ['documents', 'misfits'].map((table) => db.prepare(`DELETE FROM ${table} WHERE document = ?`))

  const writeEntries = (entries: ViewCommit['entries']): void => {
    let { through: n, bytes, nth, mark } = versions.at(Number.MAX_SAFE_INTEGER) ?? { through: 0, bytes: 0, nth: 0, mark: '' }
    let version = last()
    for (const one of entries) {
      if (one.version <= version) throw new Error(`version ${one.version} was given before`)
      version = one.version
      const texts = one.changes.map(({ value }) => (value === null ? null : JSON.stringify(value)))
      for (const [i, { collection, id }] of one.changes.entries()) {
        const text = texts[i] ?? null
        bytes += text?.length ?? 0
        change.run(++n, version, collection, one.document, id, text)
      }
      mark = nextMark(mark, one, texts)
      const { partition, position, epoch, seq, document, actor, at, settled } = one
      entry.run(version, partition, position, epoch, seq, document, actor, at, Number(settled), n, bytes, ++nth, mark)
    }
  }

  const run = db.transaction((commit: ViewCommit) => {
    writeEntries(commit.entries)
    for (const one of commit.documents) document.run(one.document, one.partition, one.lineage, one.seq, one.parked ?? null)
    for (const one of commit.gone ?? []) for (const statement of forget) statement.run(one)
    for (const one of commit.places) place.run(one.partition, one.position, one.hash ?? null, one.ahead)
    for (const { key, found } of commit.misfits) {
      clear.run(key.collection, key.document, key.id)
      for (const one of found) add.run(key.collection, key.document, key.id, one.field ?? null, one.message)
    }
    if (commit.source !== undefined) meta.set('source', commit.source === null ? '' : JSON.stringify(commit.source))
    if (commit.settled === true) settle.run()
  })
  return (commit) => {
    run.immediate(commit)
  }
}

interface TrimmerParts {
  readonly versions: Versions
  readonly meta: Meta
  readonly oldest: () => number
  readonly head: () => number | undefined
}

/** A value is garbage once its successor is at or below the version trimmed to; a deletion, once it is itself. */
export function createTrimmer(
  db: Database.Database,
  { versions, meta, oldest, head }: TrimmerParts,
): (version: number, maxRows: number) => number {
  const passed = db.prepare('SELECT n, collection, document, id, value IS NULL AS gone FROM changes WHERE n > ? AND n <= ? ORDER BY n')
  const older = db.prepare('DELETE FROM changes WHERE collection = ? AND document = ? AND id = ? AND n < ?')
  const itself = db.prepare('DELETE FROM changes WHERE n = ?')
  // The entry that stands at `oldest` stays: it tells the n there, and the last one up to where numbers were given.
  const entries = db.prepare('DELETE FROM entries WHERE version < (SELECT max(version) FROM entries WHERE version <= ?)')
  const run = db.transaction((version: number, maxRows: number) => {
    const from = oldest()
    const target = Math.min(version, head() ?? 0)
    if (target <= from) return 0
    // In slices, so that no transaction is long: up to the version that holds about maxRows changes, one version at least.
    const slice = versions.within(from, target, { items: maxRows, bytes: Number.MAX_SAFE_INTEGER })
    const to = slice > from ? slice : (db.prepare('SELECT min(version) FROM entries WHERE version > ?').pluck().get(from) as number)
    let rows = 0
    for (const row of passed.all(versions.at(from)?.through ?? 0, versions.at(to)?.through ?? 0) as (Key & { n: number; gone: number })[]) {
      rows += older.run(row.collection, row.document, row.id, row.n).changes
      if (row.gone === 1) rows += itself.run(row.n).changes
    }
    rows += entries.run(to).changes
    meta.set('oldest', String(to))
    return rows
  })
  return (version, maxRows) => run.immediate(version, maxRows)
}
