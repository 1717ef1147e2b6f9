/**
 * A projection with real files and threads, its functions on this one: the owner's city on 10,000 rows, all of it in one commit; a function that fails, and mends; a reference into another document.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { DocumentId, IncarnationId, Seq } from '@rejoin/shared'
import { collection, defineSchema, newIncarnationId, string } from '@rejoin/shared'
import Database from 'better-sqlite3'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import * as Y from 'yjs'
import { defineProjection, ref } from '@rejoin/server'
import { sqlite } from '@rejoin/server/sinks/sqlite'
import type { Forwarding } from '#server/forwarding/start.js'
import { startForwarding } from '#server/forwarding/start.js'
import type { Log } from '#server/log/log.js'
import { openSqliteLog } from '#server/storage/sqlite.js'
import { until } from '../support/until.ts'

const CLINIC = defineSchema({
  pets: collection({ name: string(), ownerId: string() }),
  owners: collection({ city: string(), friendOf: string() }),
})
const card = defineProjection(CLINIC, {
  from: 'pets',
  to: 'cards',
  join: { owner: ref('ownerId', 'owners') },
  fields: { name: string(), city: string() },
  revision: 1,
  where: ({ pet }) => pet.name !== 'hidden',
  select: ({ pet, owner }) => {
    if (pet.name === 'bad') throw new Error('a bad name')
    return { name: pet.name, city: owner?.city ?? null }
  },
})
const friend = defineProjection(CLINIC, {
  from: 'owners',
  to: 'friends',
  join: { pet: ref('friendOf', 'pets', { document: 'north' }) },
  fields: { pet: string() },
  revision: 1,
  select: ({ pet }) => (pet === undefined ? null : { pet: pet.name }),
})

type Records = (collection: string) => Y.Map<Y.Map<unknown>>

describe('a projection in a mirror', () => {
  let folder: string
  let log: Log
  let forwarding: Forwarding
  const devices = new Map<string, { doc: Y.Doc; incarnation: IncarnationId; n: number }>()

  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), 'rejoin-projection-'))
    devices.clear()
    log = await openSqliteLog({ directory: folder })
    forwarding = startForwarding({
      logDirectory: folder,
      viewPath: join(folder, 'view.db'),
      schema: CLINIC,
      sinks: { mirror: sqlite({ path: join(folder, 'mirror.db'), projection: [card, friend] }) },
    })
  })
  afterEach(async () => {
    await forwarding.close()
    await log.close()
    rmSync(folder, { recursive: true })
  })

  /** One edit, durable in the log. */
  const edit = async (name: string, change: (records: Records) => void): Promise<void> => {
    const document = name as DocumentId
    const device = devices.get(name) ?? { doc: new Y.Doc(), incarnation: newIncarnationId(), n: 0 }
    devices.set(name, device)
    const before = Y.encodeStateVector(device.doc)
    device.doc.transact(() => change((collection) => device.doc.getMap(collection)))
    const { seq } = await log.open(document)
    const n = ++device.n
    const fields = { incarnation: device.incarnation, lo: n, hi: n, covers: [], actor: 'alice', at: Date.now() }
    await log.append([{ document, seq: (seq + 1) as Seq, ...fields, update: Y.encodeStateAsUpdate(device.doc, before) }])
    forwarding.poke()
  }
  const put = (name: string, collection: string, id: string, value: object): Promise<void> =>
    edit(name, (records) => void records(collection).set(id, new Y.Map(Object.entries(value))))
  const ask = (sql: string): readonly unknown[] => {
    try {
      const db = new Database(join(folder, 'mirror.db'), { readonly: true, fileMustExist: true })
      try {
        return db.prepare(sql).all()
      } finally {
        db.close()
      }
    } catch {
      // Not made yet.
      return []
    }
  }
  const shows = (sql: string, rows: readonly unknown[]): Promise<unknown> =>
    until(() => JSON.stringify(ask(sql)) === JSON.stringify(rows), `${JSON.stringify(rows)} of ${sql}`)

  it("the owner's city: one owner, 10,000 pets, at no moment two cities", async () => {
    const cities = 'SELECT city, count(*) AS pets FROM cards GROUP BY city'
    await edit('north', (records) => {
      records('owners').set('jill', new Y.Map([['city', 'Ulm']]))
      for (let i = 0; i < 10_000; i++) records('pets').set(String(i), new Y.Map(Object.entries({ name: `pet ${i}`, ownerId: 'jill' })))
    })
    await shows(cities, [{ city: 'Ulm', pets: 10_000 }])
    const seen = new Set<string>()
    const looked = () => {
      const found = JSON.stringify(ask(cities))
      seen.add(found)
      return found === JSON.stringify([{ city: 'Bonn', pets: 10_000 }])
    }
    await edit('north', (records) => void records('owners').get('jill')?.set('city', 'Bonn'))
    await until(looked, 'Bonn')
    expect([...seen].sort()).toEqual(['Bonn', 'Ulm'].map((city) => JSON.stringify([{ city, pets: 10_000 }])))
    await edit('north', (records) => void records('owners').delete('jill'))
    await shows(cities, [{ city: null, pets: 10_000 }])
  })

  it('a record that select fails on keeps its row, is listed with the cause, and comes back by itself', async () => {
    await put('north', 'pets', '1', { name: 'Rex' })
    await put('south', 'pets', '1', { name: 'Tom' })
    const rows = 'SELECT document, id, name FROM cards ORDER BY document'
    await shows(rows, [
      { document: 'north', id: '1', name: 'Rex' },
      { document: 'south', id: '1', name: 'Tom' },
    ])
    const parked = async () => (await forwarding.status()).detail?.sinks['mirror']?.parked
    await put('north', 'pets', '1', { name: 'bad' })
    await put('south', 'pets', '1', { name: 'hidden' })
    await shows(rows, [{ document: 'north', id: '1', name: 'Rex' }])
    await until(async () => (await parked())?.total === 1, 'it is listed')
    expect((await parked())?.first[0]).toMatchObject({
      key: { collection: 'cards', document: 'north', id: '1' },
      reason: expect.stringContaining('a bad name'),
    })
    await put('north', 'pets', '1', { name: 'Max' })
    await shows(rows, [{ document: 'north', id: '1', name: 'Max' }])
    await until(async () => (await parked())?.total === 0, 'it is listed no more')
  })

  it('a record of another document is followed there', async () => {
    await put('south', 'owners', 'jack', { friendOf: '7' })
    await put('south', 'pets', '7', { name: 'the wrong one' })
    await put('north', 'pets', '7', { name: 'Rex' })
    const rows = 'SELECT document, id, pet FROM friends'
    await shows(rows, [{ document: 'south', id: 'jack', pet: 'Rex' }])
    await put('north', 'pets', '7', { name: 'Max' })
    await shows(rows, [{ document: 'south', id: 'jack', pet: 'Max' }])
    await edit('north', (records) => void records('pets').delete('7'))
    await shows(rows, [])
  })
})
