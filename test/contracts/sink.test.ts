/**
 * The sinks, held to their contract; and what only a file can do to one.
 */
import { existsSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { DocumentId, RecordValue, Schema } from '@rejoin/shared'
import { collection, defineSchema, number, string } from '@rejoin/shared'
import Database from 'better-sqlite3'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Sink, SinkPlace } from '#server/sinks/sink.js'
import { openSink, sqlite } from '#server/sinks/sqlite.js'
import { createMemoryDestination, openMemorySink } from '../support/memory-sink.ts'
import { mirrorRows } from '../support/mirror.ts'
import { sinkContext } from '../support/sink-context.ts'
import type { SinkUnderTest } from './sink.contract.ts'
import { SCHEMA, contextOf, describeSink } from './sink.contract.ts'
import { describePowers } from './sink-powers.contract.ts'
import { compareKeys, keyText } from '#server/view/view.js'

const LOG = 'a'.repeat(32)

const inMemory = (): SinkUnderTest => {
  const destination = createMemoryDestination()
  return {
    open: async (schema, options) => openMemorySink(destination, contextOf('memory', schema, options)),
    rows: () =>
      [...destination.rows.values()]
        .flatMap(({ key, value }) => (value === null ? [] : [{ key, value }]))
        .sort((a, b) => compareKeys(a.key, b.key)),
    wipe: () => void Object.assign(destination, { ...createMemoryDestination() }),
    dispose: () => {},
    tamper: (key, field, value) => {
      const row = destination.rows.get(keyText(key))
      if (row?.value === undefined || row.value === null) throw new Error('no such row')
      destination.rows.set(keyText(key), { ...row, value: value === undefined ? null : { ...row.value, [field]: value } })
    },
    poison: (name) => {
      destination.hook = (_at, value) => (value?.['name'] === name ? `${name} is not allowed` : undefined)
    },
    intrude: (key, name) => void destination.rows.set(keyText(key), { key, value: { name }, stamp: 0 }),
  }
}

const inSqlite = (): SinkUnderTest => {
  const folder = mkdtempSync(join(tmpdir(), 'rejoin-sink-'))
  const path = join(folder, 'deep', 'mirror.db')
  return {
    open: (schema, options) => openSink(sqlite({ path }).options, contextOf('mirror', schema, options)),
    rows: (schema) => mirrorRows(path, schema),
    wipe: () => {
      for (const suffix of ['', '-wal', '-shm']) rmSync(path + suffix, { force: true })
    },
    dispose: () => rmSync(folder, { recursive: true }),
    tamper: ({ collection: table, document, id }, field, value) => {
      const change = value === undefined ? `DELETE FROM "${table}"` : `UPDATE "${table}" SET "${field}" = @value`
      inFile(path, (db) => db.prepare(`${change} WHERE document = @document AND id = @id`).run({ document, id, value }))
    },
    intrude: ({ collection: table, document, id }, name) => {
      inFile(path, (db) => db.prepare(`INSERT INTO "${table}" (document, id, name) VALUES (?, ?, ?)`).run(document, id, name))
    },
    poison: (name) => {
      const trigger = (on: string): string =>
        `CREATE TRIGGER refuse_${on} BEFORE ${on} ON pets WHEN new.name = '${name}' BEGIN SELECT RAISE(ABORT, 'not allowed'); END;`
      inFile(path, (db) => void db.exec(trigger('INSERT') + trigger('UPDATE')))
    },
    unique: (table, field) => inFile(path, (db) => void db.exec(`CREATE UNIQUE INDEX mine ON "${table}" ("${field}")`)),
    refer: () => inFile(path, makeReference),
  }
}

/** SQLite adds no constraint to a table: it is made anew with one, and what was in it is put back. */
function makeReference(db: Database.Database, when = ''): void {
  const ddl = String(db.prepare("SELECT sql FROM sqlite_schema WHERE name = 'pets'").pluck().get())
  db.pragma('foreign_keys = OFF')
  db.exec('CREATE UNIQUE INDEX owner_ids ON owners (id)')
  db.exec(
    `ALTER TABLE pets RENAME TO old; ${ddl.replace(/\)$/u, `, FOREIGN KEY (name) REFERENCES owners (id) ${when})`)}; INSERT INTO pets SELECT * FROM old; DROP TABLE old`,
  )
}

function inFile<T>(path: string, run: (db: Database.Database) => T): T {
  const db = new Database(path)
  try {
    return run(db)
  } finally {
    db.close()
  }
}

for (const [name, make] of [
  ['in memory', inMemory],
  ['in SQLite', inSqlite],
] as const) {
  describeSink(name, make)
  describePowers(name, make)
}

describe('the SQLite mirror', () => {
  let folder: string
  let path: string
  let sinks: Sink[]
  const pets = (fields: Schema['collections'][string]['fields']): Schema => defineSchema({ pets: collection(fields) })
  const open = async (schema: Schema, file = path): Promise<Sink> => {
    const sink = await openSink(sqlite({ path: file }).options, sinkContext({ name: 'mirror', collections: schema.collections, log: LOG }))
    sinks.push(sink)
    return sink
  }
  const place = (version: number): SinkPlace => ({ view: 'v', version })
  const row = (id: string, value: RecordValue | null) => ({ key: { collection: 'pets', document: 'd' as DocumentId, id }, value })
  const sql = <T>(run: (db: Database.Database) => T, file = path): T => inFile(file, run)

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'rejoin-mirror-'))
    path = join(folder, 'mirror.db')
    sinks = []
  })
  afterEach(async () => {
    for (const sink of sinks) await sink.close()
    rmSync(folder, { recursive: true })
  })

  it('shows plain rows to whoever selects them', async () => {
    const sink = await open(pets({ name: string(), age: number() }))
    await sink.begin()
    await sink.commit({ rows: [row('1', { name: 'Rex', age: 3 }), row('2', { name: 'Mia', age: 1.5 })], from: undefined, to: place(4) })
    expect(sql((db) => db.prepare('SELECT * FROM pets ORDER BY id').all())).toEqual([
      { document: 'd', id: '1', name: 'Rex', age: 3, rejoin_version: 4 },
      { document: 'd', id: '2', name: 'Mia', age: 1.5, rejoin_version: 4 },
    ])
    expect(sql((db) => db.prepare('SELECT typeof(age) FROM pets ORDER BY id').pluck().all())).toEqual(['integer', 'real'])
  })

  it('is refused for a path that is none', () => {
    expect(() => sqlite({ path: '' })).toThrow(/bad_option/u)
    expect(() => sqlite({ path: ':memory:' })).toThrow(/bad_option/u)
    expect(() => sqlite({ path: 3 as unknown as string })).toThrow(/bad_option/u)
  })

  it('has everything to be written when a table was dropped, and finds it by itself', async () => {
    const sink = await open(SCHEMA)
    await sink.begin()
    await sink.commit({ rows: [], from: undefined, to: place(4) })
    sql((db) => db.exec('DROP TABLE owners'))
    expect(await sink.commit({ rows: [], from: place(4), to: place(4) })).toEqual({ type: 'lost' })
    expect(await sink.begin()).toMatchObject({ place: undefined, stamp: 4 })
  })

  it('goes on when somebody adds an index of his own', async () => {
    const sink = await open(SCHEMA)
    await sink.begin()
    await sink.commit({ rows: [], from: undefined, to: place(4) })
    sql((db) => db.exec('CREATE INDEX mine ON pets (name)'))
    expect(await sink.commit({ rows: [row('1', {})], from: place(4), to: place(5) })).toEqual({ type: 'lost' })
    expect(await sink.begin()).toMatchObject({ place: place(4) })
    expect(await sink.commit({ rows: [row('1', {})], from: place(4), to: place(5) })).toMatchObject({ type: 'committed' })
  })

  it('leaves columns and tables that the schema no longer has', async () => {
    const sink = await open(pets({ name: string(), age: number() }))
    await sink.begin()
    await sink.commit({ rows: [row('1', { name: 'Rex', age: 3 })], from: undefined, to: place(1) })
    const later = await open(pets({ name: string() }))
    await later.begin()
    await later.commit({ rows: [row('1', { name: 'Max' })], from: undefined, to: place(2) })
    expect(sql((db) => db.prepare('SELECT name, age FROM pets').all())).toEqual([{ name: 'Max', age: 3 }])
  })

  it('refuses a column of another type, a table of somebody else, and a name SQLite keeps', async () => {
    await (await open(pets({ age: string() }))).begin()
    await expect((await open(pets({ age: number() }))).begin()).rejects.toThrow(/pets\.age is TEXT there/u)
    sql((db) => db.exec('DROP TABLE pets; CREATE TABLE pets (id INTEGER PRIMARY KEY, name TEXT)'))
    await expect((await open(pets({ name: string() }))).begin()).rejects.toThrow(/not a mirror/u)
    await expect((await open(defineSchema({ sqlite_x: collection({ a: string() }) }))).begin()).rejects.toThrow(/sqlite_/u)
  })

  it('finds the row that broke a reference which is only looked at when all is done', async () => {
    const sink = await open(SCHEMA)
    await sink.begin()
    sql((db) => makeReference(db, 'DEFERRABLE INITIALLY DEFERRED'))
    const owner = (id: string, name: string | null) => ({
      key: { collection: 'owners', document: 'd' as DocumentId, id },
      value: name === null ? null : { name },
    })
    await sink.begin()
    const rows = [row('1', { name: 'ann' }), owner('ann', 'Ann'), row('2', { name: 'bob' })]
    expect(await sink.commit({ rows, from: undefined, to: place(1) })).toMatchObject({
      type: 'committed',
      parked: [{ key: row('2', null).key }],
    })
    expect(await sink.commit({ rows: [owner('ann', null)], from: place(1), to: place(2) })).toMatchObject({
      parked: [{ key: owner('ann', null).key }],
    })
    expect(await sink.commit({ rows: [owner('bob', 'Bob')], from: place(2), to: place(3) })).toMatchObject({
      parked: [],
      landed: [row('2', null).key],
    })
    expect(mirrorRows(path, SCHEMA).map(({ key }) => key.id)).toEqual(['ann', 'bob', '1', '2'])
  })

  it('refuses fields that would be one column, and targets that declare none', async () => {
    const raw = (fields: Schema['collections'][string]['fields']): Schema => ({
      ...pets({ name: string() }),
      collections: { pets: collection(fields) },
    })
    await expect((await open(raw({ Id: string() }))).begin()).rejects.toThrow(/pets\.Id/u)
    await expect((await open(raw({ name: string(), Name: string() }))).begin()).rejects.toThrow(/pets\.Name/u)
    const context = { ...sinkContext({ name: 'mirror', collections: pets({ name: string() }).collections, log: LOG }), untyped: ['pets'] }
    await expect(openSink(sqlite({ path }).options, context)).rejects.toThrow(/pets declares none/u)
  })

  it('says so when the file is no database', async () => {
    writeFileSync(path, 'something else entirely, long enough to be looked at'.repeat(20))
    await expect((await open(pets({ name: string() }))).begin()).rejects.toThrow(/not a database/u)
  })

  it('parks a row that its owner refuses, writes the others, and lets it in when it fits', async () => {
    const schema = pets({ name: string(), age: number() })
    const sink = await open(schema)
    await sink.begin()
    sql((db) => db.exec("CREATE TRIGGER young BEFORE INSERT ON pets WHEN new.age < 0 BEGIN SELECT RAISE(ABORT, 'not born yet'); END"))
    await sink.begin()
    const outcome = await sink.commit({
      rows: [row('1', { name: 'A', age: 1 }), row('2', { name: 'B', age: -1 }), row('3', { name: 'C', age: 1 })],
      from: undefined,
      to: place(1),
    })
    expect(outcome).toEqual({ type: 'committed', parked: [{ key: row('2', null).key, reason: 'not born yet' }] })
    expect(sql((db) => db.prepare('SELECT id FROM pets').pluck().all())).toEqual(['1', '3'])
    const again = await open(schema)
    expect((await again.begin()).parked).toEqual([{ key: row('2', null).key, reason: 'not born yet' }])
    expect(await again.commit({ rows: [row('2', { name: 'B', age: 0 })], from: place(1), to: place(2) })).toEqual({
      type: 'committed',
      parked: [],
    })
    expect((await (await open(schema)).begin()).parked).toEqual([])
  })

  it('writes nothing at all when a commit fails on the way: rows and place are one transaction', async () => {
    const schema = pets({ name: string() })
    const sink = await open(schema)
    await sink.begin()
    await sink.commit({ rows: [row('1', { name: 'A' })], from: undefined, to: place(1) })
    // The effect is there and the cursor is about to move: whatever goes wrong now takes the effect back.
    sql((db) =>
      db.exec(
        "CREATE TRIGGER crash BEFORE UPDATE OF version ON rejoin_cursor WHEN new.version = 2 BEGIN SELECT RAISE(ROLLBACK, 'crashed'); END",
      ),
    )
    await sink.begin()
    await expect(sink.commit({ rows: [row('1', { name: 'B' }), row('2', { name: 'C' })], from: place(1), to: place(2) })).rejects.toThrow(
      'crashed',
    )
    expect(sql((db) => db.prepare('SELECT id, name FROM pets').all())).toEqual([{ id: '1', name: 'A' }])
    expect((await (await open(schema)).begin()).place).toEqual(place(1))
  })

  it('does not write on into a file that was deleted or moved away', async () => {
    const schema = pets({ name: string() })
    const sink = await open(schema)
    await sink.begin()
    await sink.commit({ rows: [row('1', { name: 'A' })], from: undefined, to: place(1) })
    renameSync(path, join(folder, 'moved.db'))
    expect(await sink.commit({ rows: [row('1', { name: 'B' })], from: place(1), to: place(2) })).toEqual({ type: 'lost' })
    expect(existsSync(path)).toBe(false)
    expect(await sink.begin()).toMatchObject({ place: undefined, stamp: 0 })
    expect(existsSync(path)).toBe(true)
  })
})
