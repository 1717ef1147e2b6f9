/**
 * Proofs and repairs of a SQLite mirror beside the real forwarder, while documents go on changing: no difference is seen that is none, and none that is one is missed.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { DocumentId } from '@rejoin/shared'
import { residentClock } from '@rejoin/shared'
import Database from 'better-sqlite3'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import * as Y from 'yjs'
import type { Forwarder } from '#server/forwarding/control.js'
import { startForwarder } from '#server/forwarding/forwarder.js'
import { createProver } from '#server/forwarding/prover.js'
import { openSink, sqlite } from '#server/sinks/sqlite.js'
import { createProofScene } from '../support/proofs.ts'
import { sinkContext } from '../support/sink-context.ts'
import { until } from '../support/until.ts'

let folder: string
let path: string
let ends: (() => Promise<void>)[]

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'rejoin-proof-'))
  path = join(folder, 'mirror.db')
  ends = []
})
afterEach(async () => {
  for (const end of ends.reverse()) await end()
  rmSync(folder, { recursive: true })
})

async function start() {
  const scene = await createProofScene()
  const { view, transform, forward, notes } = scene.parts
  const context = sinkContext({ name: 'mirror', collections: transform.targets, log: 'l', forward, notes })
  const open = () => openSink(sqlite({ path }).options, context)
  const forwarder: Forwarder = startForwarder({
    view,
    transform,
    forward,
    log: 'l',
    notes,
    open,
    clock: residentClock,
    random: Math.random,
    idle: 50,
  })
  ends.push(() => forwarder.stop())
  const prover = createProver({ ...scene.parts, forwarder, open, clock: residentClock })
  ends.push(() => prover.stop())
  const edit: typeof scene.edit = (...args) => {
    scene.edit(...args)
    forwarder.poke()
  }
  const settle = () => until(() => forwarder.status().state === 'current' && forwarder.cursor() === view.head(), 'the mirror at the head')
  return { ...scene, edit, forwarder, prover, settle }
}

const sql = (statement: string): void => {
  const db = new Database(path)
  try {
    db.exec(statement)
  } finally {
    db.close()
  }
}
const setPets = (from: number, to: number, name: string) => (pets: Y.Map<Y.Map<unknown>>) => {
  for (let i = from; i < to; i++) pets.set(`p${i}`, new Y.Map(Object.entries({ name, age: i })))
}

describe('a mirror beside its forwarder', () => {
  it('is equal at every version while documents change; the human who edits the destination is found among the changes, and mended', async () => {
    const { edit, prover, settle, view, forwarder } = await start()
    edit(setPets(0, 800, 'first'))
    await settle()
    let [i, stopped] = [0, false]
    const load = (async () => {
      while (!stopped) {
        edit(
          (pets) => {
            const id = `p${(i * 7) % 800}`
            if (i % 5 === 0) pets.delete(id)
            else pets.set(id, new Y.Map(Object.entries({ name: `n${i}`, age: i })))
          },
          i % 2 === 0 ? undefined : ('zoo' as DocumentId),
        )
        i++
        await new Promise((resolve) => residentClock.after(1, () => resolve(undefined)))
      }
    })()
    const versions: number[] = []
    for (let round = 0; round < 3; round++) {
      const result = await prover.verify({ proofs: ['rows', 'projection'] })
      expect(result).toMatchObject({ proofs: { rows: 'equal', projection: 'equal' }, differences: { total: 0, first: [] } })
      versions.push(result.version)
    }
    expect(versions).toEqual([...new Set(versions)].sort((a, b) => a - b))
    // A pet that the load never touches again.
    edit(setPets(9_000, 9_001, 'kept'))
    const kept = view.head() ?? 0
    await until(() => (forwarder.cursor() ?? 0) >= kept, 'the kept pet in the mirror')
    sql("UPDATE pets SET name = 'by hand' WHERE id = 'p9000'")
    const found = await prover.verify({ proofs: ['rows'] })
    expect(found.differences).toMatchObject({ total: 1, first: [{ what: 'differs', key: { id: 'p9000' } }] })
    const { after } = await prover.repair({ proofs: ['rows', 'projection'] })
    expect(after.proofs).toEqual({ rows: 'equal', projection: 'equal', view: 'not asked' })
    stopped = true
    await load
    await settle()
    expect(await prover.verify()).toMatchObject({ equal: true, parked: { total: 0 } })
  })

  it('is mended whatever was done to it, stamps included', async () => {
    const { edit, prover, settle } = await start()
    edit(setPets(0, 50, 'first'))
    await settle()
    sql("UPDATE pets SET age = -1 WHERE id = 'p1'")
    sql("UPDATE pets SET name = 'x', rejoin_version = 999999 WHERE id = 'p2'")
    sql("UPDATE pets SET rejoin_version = 'soon', name = 'y' WHERE id = 'p3'")
    sql("DELETE FROM pets WHERE id IN ('p4', 'p5')")
    sql("INSERT INTO pets (document, id, name) VALUES ('clinic', 'intruder', 'me')")
    sql("UPDATE pets SET id = 'p6b' WHERE id = 'p6'")
    sql("UPDATE pets SET name = x'00ff' WHERE id = 'p7'")
    const { repaired, before, after } = await prover.repair()
    const found = Object.fromEntries(before.differences.first.map(({ key, what }) => [key?.id, what]))
    expect(found).toEqual({
      p1: 'differs',
      p2: 'differs',
      p3: 'differs',
      p4: 'missing',
      p5: 'missing',
      p6: 'missing',
      p6b: 'surplus',
      p7: 'differs',
      intruder: 'stranger',
    })
    expect(repaired).toBe(8)
    // The intruder is told, and left alone: `strangers` is 'report'.
    expect(after.differences).toMatchObject({ total: 1, first: [{ what: 'stranger' }] })
    sql("DELETE FROM pets WHERE id = 'intruder'")
    expect(await prover.verify()).toMatchObject({ equal: true, rows: 50 })
    // What was mended follows the documents again.
    edit(setPets(0, 50, 'second'))
    await settle()
    expect(await prover.verify()).toMatchObject({ equal: true, rows: 50 })
  })

  it('can be proved while its forwarder is paused, and is repaired once it goes on', async () => {
    const { edit, prover, settle, forwarder } = await start()
    edit(setPets(0, 20, 'first'))
    await settle()
    await forwarder.pause()
    edit(setPets(0, 20, 'second'))
    expect(await prover.verify()).toMatchObject({ equal: true, rows: 20 })
    sql("DELETE FROM pets WHERE id = 'p4'")
    expect((await prover.verify()).differences).toMatchObject({ total: 1 })
    await expect(prover.repair()).rejects.toThrow(/sink_paused/u)
    await forwarder.resume()
    await settle()
    expect((await prover.repair()).after).toMatchObject({ equal: true, rows: 20 })
  })
})
