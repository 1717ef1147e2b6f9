/**
 * The disk in memory that the convergence world crashes: whatever is committed is whole, and what a dead tab held is free.
 */
import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { createMemoryDisk, memory } from '#client/stores/memory.js'
import type { Notice } from '#client/stores/store.js'
import { A, B, bytes, document, rejects, row, same } from '../support/store-values.ts'
import { createVirtualClock } from '../support/virtual-clock.ts'

const ID = document('d')

describe('the disk in memory', () => {
  it('keeps an edit and its outbox row together or neither, in order, whenever a tab or the device dies', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.infiniteStream(fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true })),
        fc.nat({ max: 300 }),
        fc.boolean(),
        async (draws, deathAt, device) => {
          const clock = createVirtualClock()
          const disk = createMemoryDisk({ clock, random: () => draws.next().value as number })
          const tab = disk.tab()
          const opening = tab.open().then((store) => store.open(ID))
          await clock.advance(50)
          const rows = await opening
          let told = 0
          for (let n = 1; n <= 20; n++) {
            void rows.commit({ updates: [bytes(n)], put: [row(A, n)] }).then(() => (told = n))
            await clock.advance(5)
            if (n * 5 >= deathAt) break
          }
          if (device) disk.crash()
          else tab.crash()
          const toldAtDeath = told
          await clock.advance(500)
          const { updates, outbox } = disk.read(ID)
          same(
            outbox.map(({ n }) => n),
            Array.from({ length: outbox.length }, (_, i) => i + 1),
          )
          same(
            outbox.map(({ update }) => update),
            updates,
          )
          expect(outbox.length).toBeGreaterThanOrEqual(toldAtDeath)
          // A dead tab is told nothing.
          expect(told).toBe(toldAtDeath)
        },
      ),
      { numRuns: 100 },
    )
  })

  it('frees what a dead tab held, and grants nothing to one that died waiting', async () => {
    const disk = createMemoryDisk()
    const [one, two, three] = [disk.tab(), disk.tab(), disk.tab()]
    const [a, b, c] = await Promise.all([one, two, three].map(async (tab) => (await tab.open()).open(ID)))
    await a?.hold(A, AbortSignal.timeout(60_000))
    let second = false
    void b?.hold(A, AbortSignal.timeout(60_000)).then(() => (second = true))
    const third = c?.hold(A, AbortSignal.timeout(60_000))
    two.crash()
    one.crash()
    await third
    expect(second).toBe(false)
  })

  it('refuses writes when told to, keeps what there was, and recovers', async () => {
    let failure: Error | undefined
    const rows = await (
      await createMemoryDisk({ failure: () => failure })
        .tab()
        .open()
    ).open(ID)
    await rows.commit({ put: [row(A, 1)] })
    failure = new Error('no space')
    const lost = [rows.commit({ put: [row(A, 2)] }), rows.commit({ put: [row(A, 3)] })]
    for (const commit of lost) expect((await rejects(commit, 'store_failed')).cause).toBe(failure)
    failure = undefined
    await rows.commit({ put: [row(A, 2)] })
    same(
      (await rows.outbox()).map(({ n }) => n),
      [1, 2],
    )
  })

  it('brings the notices of one tab to another in the order sent, whatever the latencies', async () => {
    let draw = 0
    const clock = createVirtualClock()
    // Slow and fast in turn: a fast notice would overtake the slow one before it.
    const disk = createMemoryDisk({ clock, random: () => (draw++ % 3) / 3 })
    const opened = Promise.all([disk.tab().open(), disk.tab().open()])
    await clock.advance(100)
    const [one, other] = await opened
    const opening = one.open(ID)
    await clock.advance(100)
    const rows = await opening
    const heard: Notice[] = []
    other.watch((notice) => heard.push(notice))
    for (let n = 1; n <= 20; n++) {
      void rows.commit({ put: [row(n % 2 === 0 ? A : B, n)], updates: [bytes(n)] })
      await clock.advance(7)
    }
    await clock.advance(500)
    same(
      heard.flatMap(({ updates }) => updates),
      Array.from({ length: 20 }, (_, i) => bytes(i + 1)),
    )
  })

  it('is shared by the clients that are given one factory, and by no others', async () => {
    const factory = memory()
    const rows = await (await factory.open()).open(ID)
    await rows.commit({ put: [row(A, 1)] })
    same((await (await factory.open()).pending()).length, 1)
    same((await (await memory().open()).pending()).length, 0)
  })
})
