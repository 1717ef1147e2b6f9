/** What a person would write by hand: the same rows into the same kind of tables with the same guard and a cursor in the same transaction, and nothing else. The measure of forwarding. */
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import Database from 'better-sqlite3'
import pg from 'pg'
import { from as copyFrom } from 'pg-copy-streams'

/** A row to write: document, id, and the values of the columns. */
export type BareRow = readonly (string | number | null)[]

/** A script that writes. */
export interface Bare {
  /** One transaction, cursor included. */
  write(rows: readonly BareRow[], version: number): Promise<void>
  close(): Promise<void>
}

/** COPY into a temporary table and INSERT … ON CONFLICT. `columns`: name → type. */
export async function bareCopy(url: string, table: string, columns: Readonly<Record<string, string>>): Promise<Bare> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  const names = Object.keys(columns)
  const declared = names.map((name) => `${name} ${columns[name]}`).join(', ')
  await client.query(
    `CREATE TABLE ${table} (document text COLLATE "C", id text COLLATE "C", ${declared}, version bigint NOT NULL DEFAULT 0, PRIMARY KEY (document, id));
     CREATE TABLE ${table}_cursor (name text PRIMARY KEY, version bigint) WITH (fillfactor = 10);
     INSERT INTO ${table}_cursor VALUES ('bare', 0);
     CREATE TEMP TABLE ${table}_in (document text, id text, ${declared}) ON COMMIT DELETE ROWS`,
  )
  const set = [...names, 'version'].map((name) => `${name} = excluded.${name}`).join(', ')
  const upsert = `INSERT INTO ${table} AS t SELECT k.*, $1 FROM ${table}_in k ON CONFLICT (document, id) DO UPDATE SET ${set} WHERE t.version <= excluded.version`
  return {
    write: async (rows, version) => {
      await client.query('BEGIN')
      await client.query(`UPDATE ${table}_cursor SET version = $1 WHERE name = 'bare'`, [version])
      await pipeline(Readable.from(chunks(rows)), client.query(copyFrom(`COPY ${table}_in FROM STDIN`)))
      await client.query(upsert, [version])
      await client.query('COMMIT')
    },
    close: () => client.end(),
  }
}

function* chunks(rows: readonly BareRow[]): Generator<string> {
  for (let i = 0; i < rows.length; i += 1_000) {
    yield rows
      .slice(i, i + 1_000)
      .map(
        (row) =>
          `${row.map((cell) => (cell === null ? '\\N' : String(cell).replaceAll(/[\\\t\n\r]/gu, (found) => `\\${found}`))).join('\t')}\n`,
      )
      .join('')
  }
}

/** One prepared statement for each row, a transaction for each batch, fsynced. */
export function bareSqlite(path: string, columns: Readonly<Record<string, string>>): Bare {
  const db = new Database(path)
  db.pragma('journal_mode = WAL')
  db.pragma('synchronous = FULL')
  const names = Object.keys(columns)
  db.exec(
    `CREATE TABLE pets (document TEXT NOT NULL, id TEXT NOT NULL, ${names.map((name) => `${name} ${columns[name]}`).join(', ')}, version INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (document, id));
     CREATE TABLE cursor (name TEXT PRIMARY KEY, version INTEGER); INSERT INTO cursor VALUES ('bare', 0)`,
  )
  const set = [...names, 'version'].map((name) => `${name} = excluded.${name}`).join(', ')
  const put = db.prepare(
    `INSERT INTO pets VALUES (${[...names, 1, 2, 3].map(() => '?').join(', ')}) ON CONFLICT (document, id) DO UPDATE SET ${set} WHERE version <= excluded.version`,
  )
  const move = db.prepare('UPDATE cursor SET version = ?')
  const write = db.transaction((rows: readonly BareRow[], version: number) => {
    move.run(version)
    for (const row of rows) put.run(...row, version)
  })
  return { write: async (rows, version) => write.immediate(rows, version), close: async () => void db.close() }
}

/** One durable update after the other: what a commit costs this disk and this server. */
export async function bareUpdates(url: string, count: number): Promise<number> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    await client.query('CREATE TABLE IF NOT EXISTS bare_one (id int PRIMARY KEY, version bigint) WITH (fillfactor = 10)')
    await client.query('INSERT INTO bare_one VALUES (1, 0) ON CONFLICT DO NOTHING')
    const began = performance.now()
    for (let i = 0; i < count; i++) await client.query({ name: 'one', text: 'UPDATE bare_one SET version = $1 WHERE id = 1', values: [i] })
    return (count / (performance.now() - began)) * 1000
  } finally {
    await client.end()
  }
}
