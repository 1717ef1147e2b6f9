/**
 * From the log to a destination, under trouble: at its cursor the destination always equals the full projection at that version, and in the end at the head.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { canonicalJson } from '@rejoin/shared'
import { describe, expect, it } from 'vitest'
import { openSqliteView } from '#server/storage/view-sqlite.js'
import type { WorldOptions } from '../support/forwarding-world.ts'
import { createForwardingWorld } from '../support/forwarding-world.ts'
import { below, seeded } from '../support/histories.ts'
import { shownOf } from '../support/projections.ts'

const SEEDS = Number(process.env['REJOIN_SEEDS'] ?? 40)

/** One history; rejects with what was wrong. */
async function live(seed: number, makeView?: WorldOptions['makeView']): Promise<void> {
  const chance = seeded(seed)
  const world = createForwardingWorld({ chance, ...(makeView === undefined ? {} : { makeView }) })
  world.trouble.level = below(chance, 3) * 0.1
  for (let step = 0; step < 60; step++) {
    const roll = below(chance, 40)
    if (roll < 24) await world.edit()
    else if (roll < 27) await world.compact()
    else if (roll === 27) await world.stop()
    else if (roll === 28) world.kill()
    else if (roll === 29) world.model.wipe?.()
    else if (roll === 30) {
      await world.stop()
      world.loseView()
    } else if (roll < 34) world.trim()
    else world.start()
    if (chance() < 0.6) await world.clock.advance(below(chance, 200))
  }
  world.trouble.level = 0
  world.start()
  await world.clock.advance(70_000)
  expect(world.problems, `seed ${seed}`).toEqual([])
  const rows = [...world.model.rows().values()].map(({ key, value }) => ({ key, text: canonicalJson(value) }))
  expect(shownOf(rows, new Set()), `seed ${seed}`).toEqual(shownOf(world.expected().rows.values(), new Set()))
  expect(world.forwarder?.status(), `seed ${seed}`).toMatchObject({ state: 'current', lag: { entries: 0 }, parked: { total: 0 } })
  await world.stop()
}

describe('forwarding', () => {
  it(`keeps the destination equal to the documents at every cursor, in ${SEEDS} histories of crashes, wipes and compaction`, async () => {
    for (let seed = 1; seed <= SEEDS; seed++) await live(seed)
  }, 60_000)

  it('does so with the view in SQLite', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'rejoin-forwarding-'))
    const views: { close(): void }[] = []
    for (let seed = 10_001; seed <= 10_006; seed++) {
      await live(seed, (id) => {
        // The id is the file's own here; only where it lies is chosen.
        const view = openSqliteView(join(folder, `${seed}-${id}.db`))
        views.push(view)
        return view
      })
    }
    for (const view of views) view.close()
    rmSync(folder, { recursive: true })
  }, 60_000)
})
