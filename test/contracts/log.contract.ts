/**
 * What every log must do, run by each adapter.
 */
import type { IncarnationId } from '@rejoin/shared'
import { newIncarnationId } from '@rejoin/shared'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Log } from '#server/log/log.js'
import type { LogUnderTest } from '../support/log.ts'
import { ALICE, BOB, appendMany, bytes, chain, doc, makeAppend, position, readAll, readPartition, refusal, seq } from '../support/log.ts'
import { describeFolding } from './log-folding.contract.ts'

/** The suite. */
export function describeLog(name: string, make: () => Promise<LogUnderTest>): void {
  describe(`the log: ${name}`, () => {
    let under: LogUnderTest
    let log: Log

    beforeEach(async () => {
      under = await make()
      log = await under.open()
    })
    afterEach(async () => {
      await log.close()
      await under.dispose()
    })

    const reopen = async (how: 'close' | 'crash'): Promise<void> => {
      if (how === 'close') await log.close()
      else await under.crash(log)
      log = await under.open()
    }

    describe('documents', () => {
      it('are unknown until they are opened, and reading does not create them', async () => {
        expect(await log.head(doc('a'))).toBeUndefined()
        expect(await log.read({ document: doc('a'), after: seq(0) }, 100)).toEqual([])
        expect(await log.find(doc('a'), { incarnation: ALICE, seq: seq(1) })).toMatchObject({})
        expect(await log.snapshot(doc('a'), seq(1), 0, 10)).toBeUndefined()
        expect(await log.head(doc('a'))).toBeUndefined()
      })

      it('begin empty, with a lineage of their own that stays', async () => {
        const head = await log.open(doc('a'))
        expect(head).toMatchObject({
          document: 'a',
          partition: 0,
          epoch: 1,
          seq: 0,
          oldest: 1,
          tailBytes: 0,
          tailEntries: 0,
          hash: chain(head, [])[0],
        })
        expect(head.snapshot).toMatchObject({ seq: 0, bytes: 0, hash: head.hash })
        expect(head.snapshot.admission).toHaveLength(0)
        expect((await log.open(doc('b'))).lineage).not.toBe(head.lineage)
        expect(await log.open(doc('a'))).toEqual(head)
        await reopen('crash')
        expect(await log.open(doc('a'))).toEqual(head)
      })

      it('opened many at a time, and twice at a time, are each created once', async () => {
        const names = Array.from({ length: 50 }, (_, i) => doc(`many-${i % 25}`))
        const heads = await Promise.all(names.map((one) => log.open(one)))
        expect(new Set(heads.map((head) => head.lineage)).size).toBe(25)
      })

      it('may have any name that is an id', async () => {
        for (const one of ['🐈/ü%20', 'a\'b"c', 'x'.repeat(256)]) {
          await log.open(doc(one))
          await log.append([makeAppend(doc(one), 1)])
          expect((await readAll(log, doc(one)))[0]?.document).toBe(one)
        }
      })
    })

    describe('appending', () => {
      it('gives gap-free positions over all documents and the chain hash of each entry', async () => {
        const heads = [await log.open(doc('a')), await log.open(doc('b'))]
        const batches = [[makeAppend(doc('a'), 1), makeAppend(doc('b'), 1), makeAppend(doc('a'), 2)], [makeAppend(doc('b'), 2)]]
        const appended = (await Promise.all(batches.map((batch) => log.append(batch)))).flat()
        expect(appended.map((one) => one.position)).toEqual([1, 2, 3, 4])
        const entries = [await readAll(log, doc('a')), await readAll(log, doc('b'))]
        heads.forEach((head, i) => {
          expect(entries[i]?.map((entry) => entry.hash)).toEqual(chain(head, entries[i] ?? []).slice(1))
        })
        expect(appended.map((one) => one.hash)).toEqual(
          [entries[0]?.[0], entries[1]?.[0], entries[0]?.[1], entries[1]?.[1]].map((entry) => entry?.hash),
        )
      })

      it('keeps every field', async () => {
        const { lineage } = await log.open(doc('a'))
        const update = Uint8Array.from({ length: 300 }, (_, i) => i)
        await log.append([makeAppend(doc('a'), 1, { incarnation: BOB, lo: 1, hi: 2 ** 40, actor: 'böb', at: 1_763_673_600_000, update })])
        const [entry] = await readAll(log, doc('a'))
        expect(entry).toEqual({
          document: 'a',
          partition: 0,
          position: 1,
          epoch: 1,
          lineage,
          seq: 1,
          hash: entry?.hash,
          incarnation: BOB,
          lo: 1,
          hi: 2 ** 40,
          actor: 'böb',
          at: 1_763_673_600_000,
          update,
        })
        const head = await log.head(doc('a'))
        expect(head).toMatchObject({ seq: 1, hash: entry?.hash, oldest: 1, tailEntries: 1, tailBytes: 300 })
      })

      it('does not keep the caller’s bytes: they may be reused once the call has resolved', async () => {
        await log.open(doc('a'))
        const update = bytes(1, 2, 3)
        await log.append([makeAppend(doc('a'), 1, { update })])
        update.fill(9)
        expect((await readAll(log, doc('a')))[0]?.update).toEqual(bytes(1, 2, 3))
      })

      it('an empty batch, and an empty update, are taken', async () => {
        await log.open(doc('a'))
        expect(await log.append([])).toEqual([])
        await log.append([makeAppend(doc('a'), 1, { update: bytes() })])
        expect((await readAll(log, doc('a')))[0]?.update).toEqual(bytes())
      })

      it('resolves in the order of the calls', async () => {
        await log.open(doc('a'))
        const order: number[] = []
        const calls = Array.from({ length: 100 }, async (_, i) => {
          await log.append([makeAppend(doc('a'), i + 1)])
          order.push(i)
        })
        await Promise.all(calls)
        expect(order).toEqual(order.map((_, i) => i))
        expect((await readAll(log, doc('a'))).map((entry) => entry.seq)).toEqual(order.map((i) => i + 1))
      })

      it('refuses a seq that is not the next, with the whole of its batch and nothing of another', async () => {
        await log.open(doc('a'))
        await log.open(doc('b'))
        const outcomes = await Promise.all([
          refusal(log.append([makeAppend(doc('a'), 1)])),
          refusal(log.append([makeAppend(doc('b'), 1), makeAppend(doc('a'), 3, { lo: 2, hi: 2 })])),
          refusal(log.append([makeAppend(doc('a'), 2)])),
          refusal(log.append([makeAppend(doc('a'), 2, { lo: 3, hi: 3 })])),
          refusal(log.append([makeAppend(doc('b'), 1)])),
          refusal(log.append([makeAppend(doc('never opened'), 1)])),
        ])
        expect(outcomes).toEqual(['none', 'conflict', 'none', 'conflict', 'none', 'conflict'])
        expect(await log.head(doc('a'))).toMatchObject({ seq: 2 })
        expect(await log.head(doc('b'))).toMatchObject({ seq: 1 })
        expect((await readPartition(log, 0)).map((entry) => entry.position)).toEqual([1, 2, 3])
      })
    })

    describe('acked', () => {
      const acked = async (incarnation: IncarnationId): Promise<unknown> => (await log.find(doc('a'), { incarnation })).acked

      beforeEach(async () => {
        await log.open(doc('a'))
      })

      it('moves with the entry, per incarnation, and survives a crash', async () => {
        expect(await acked(ALICE)).toBeUndefined()
        await log.append([makeAppend(doc('a'), 1, { lo: 1, hi: 3 }), makeAppend(doc('a'), 2, { incarnation: BOB, lo: 1, hi: 1 })])
        await log.append([makeAppend(doc('a'), 3, { lo: 4, hi: 4 })])
        await reopen('crash')
        expect(await acked(ALICE)).toEqual({ n: 4, seq: 3 })
        expect(await acked(BOB)).toEqual({ n: 1, seq: 2 })
      })

      it('takes a push that begins in what is acked and ends behind it', async () => {
        await log.append([makeAppend(doc('a'), 1, { lo: 1, hi: 3 })])
        await log.append([makeAppend(doc('a'), 2, { lo: 2, hi: 5 })])
        expect(await acked(ALICE)).toEqual({ n: 5, seq: 2 })
      })

      it('refuses edits behind a gap, and edits that are acked already: none takes effect twice', async () => {
        await log.append([makeAppend(doc('a'), 1, { lo: 1, hi: 3 })])
        expect(await refusal(log.append([makeAppend(doc('a'), 2, { lo: 5, hi: 5 })]))).toBe('conflict')
        expect(await refusal(log.append([makeAppend(doc('a'), 2, { lo: 1, hi: 3 })]))).toBe('conflict')
        expect(await refusal(log.append([makeAppend(doc('a'), 2, { lo: 4, hi: 4 }), makeAppend(doc('a'), 3, { lo: 4, hi: 4 })]))).toBe(
          'conflict',
        )
        await reopen('close')
        expect(await refusal(log.append([makeAppend(doc('a'), 2, { lo: 1, hi: 3 })]))).toBe('conflict')
        expect(await acked(ALICE)).toEqual({ n: 3, seq: 1 })
        expect(await log.head(doc('a'))).toMatchObject({ seq: 1 })
        await log.append([makeAppend(doc('a'), 2, { lo: 4, hi: 4 })])
        expect(await acked(ALICE)).toEqual({ n: 4, seq: 2 })
      })

      it('moves without an entry for an edit that adds nothing', async () => {
        const [first] = await log.append([makeAppend(doc('a'), 1)])
        const [nothing] = await log.append([makeAppend(doc('a'), 1, { lo: 2, hi: 2, update: undefined })])
        expect(nothing).toEqual({ position: undefined, hash: first?.hash })
        expect(await acked(ALICE)).toEqual({ n: 2, seq: 1 })
        expect(await refusal(log.append([makeAppend(doc('a'), 2, { lo: 3, hi: 3, update: undefined })]))).toBe('conflict')
        expect(await readAll(log, doc('a'))).toHaveLength(1)
      })

      it('covers others at least up to n', async () => {
        const state = newIncarnationId()
        await log.append([makeAppend(doc('a'), 1, { incarnation: BOB, lo: 1, hi: 5 })])
        await log.append([
          makeAppend(doc('a'), 2, {
            incarnation: state,
            lo: 1,
            hi: 1,
            covers: [
              { incarnation: ALICE, n: 7 },
              { incarnation: BOB, n: 3 },
            ],
          }),
          makeAppend(doc('a'), 3, { lo: 8, hi: 8 }),
        ])
        expect(await acked(state)).toEqual({ n: 1, seq: 2 })
        expect(await acked(ALICE)).toEqual({ n: 8, seq: 3 })
        expect(await acked(BOB)).toEqual({ n: 5, seq: 1 })
      })

      it('is of one document', async () => {
        await log.open(doc('b'))
        await log.append([makeAppend(doc('a'), 1), makeAppend(doc('b'), 1)])
        expect(await refusal(log.append([makeAppend(doc('b'), 2, { lo: 3, hi: 3 })]))).toBe('conflict')
      })
    })

    describe('reading', () => {
      it('pages through a document by bytes, at least one entry at a time', async () => {
        await log.open(doc('a'))
        await appendMany(log, doc('a'), 1, 10, 100)
        const page = async (after: number, maxBytes: number): Promise<unknown> => {
          const entries = await log.read({ document: doc('a'), after: seq(after) }, maxBytes)
          return entries === 'trimmed' ? entries : entries.map((entry) => entry.seq)
        }
        expect(await page(0, 350)).toEqual([1, 2, 3])
        expect(await page(3, 1)).toEqual([4])
        expect(await page(8, 1000)).toEqual([9, 10])
        expect(await page(10, 1000)).toEqual([])
        expect(await page(11, 1000)).toEqual([])
      })

      it('pages through a partition by position', async () => {
        await log.open(doc('a'))
        await log.open(doc('b'))
        for (let i = 1; i <= 5; i++) await log.append([makeAppend(doc('a'), i), makeAppend(doc('b'), i)])
        const all = await readPartition(log, 0)
        expect(all.map((entry) => `${entry.position} ${entry.document} ${entry.seq}`)).toEqual(
          Array.from({ length: 10 }, (_, i) => `${i + 1} ${i % 2 === 0 ? 'a' : 'b'} ${Math.floor(i / 2) + 1}`),
        )
        expect((await readPartition(log, 7)).map((entry) => entry.position)).toEqual([8, 9, 10])
        expect(await log.read({ partition: 0, after: position(3) }, 1)).toHaveLength(1)
      })

      it('finds its way in a long document from any cursor, among other documents, reopened and trimmed', async () => {
        const { lineage } = await log.open(doc('a'))
        await log.open(doc('b'))
        const all = 1_030
        for (let at = 1; at <= all; at += 103) {
          const batch = Array.from({ length: 103 }, (_, i) => at + i).flatMap((n) => [makeAppend(doc('a'), n), makeAppend(doc('b'), n)])
          await log.append(batch)
          if (at === 516) await reopen('close')
        }
        const hashes = (await readAll(log, doc('a'))).map((entry) => entry.hash)
        expect(hashes).toHaveLength(all)
        const check = async (oldest: number): Promise<void> => {
          for (let after = oldest - 1; after < all; after += 37) {
            const entries = await log.read({ document: doc('a'), after: seq(after) }, 40)
            expect(entries !== 'trimmed' && entries.map((entry) => entry.hash)).toEqual(hashes.slice(after, after + 20))
            expect((await log.find(doc('a'), { seq: seq(after + 1) })).hash).toBe(hashes[after])
          }
        }
        await check(1)
        await log.fold({ document: doc('a'), lineage, seq: seq(1_000), update: bytes(1), admission: bytes(1) })
        expect(await log.trim(1_000 + 700)).toBe(699)
        await reopen('close')
        await check(700)
        await log.append([makeAppend(doc('a'), all + 1)])
        expect(await readAll(log, doc('a'), all)).toHaveLength(1)
      })

      it('tells the hash at any seq it still has', async () => {
        const head = await log.open(doc('a'))
        await appendMany(log, doc('a'), 1, 3)
        const hashes = chain(head, await readAll(log, doc('a')))
        for (const at of [0, 1, 2, 3]) expect((await log.find(doc('a'), { seq: seq(at) })).hash).toBe(hashes[at])
        expect((await log.find(doc('a'), { seq: seq(4) })).hash).toBeUndefined()
      })
    })

    describeFolding({ log: () => log, reopen })

    describe('the end of a process', () => {
      it('leaves the log as it was: id, heads, entries', async () => {
        const { id } = log
        await log.open(doc('a'))
        await appendMany(log, doc('a'), 1, 5)
        const [head, entries] = [await log.head(doc('a')), await readAll(log, doc('a'))]
        for (const how of ['close', 'crash'] as const) {
          await reopen(how)
          expect(log.id).toBe(id)
          expect(await log.head(doc('a'))).toEqual(head)
          expect(await readAll(log, doc('a'))).toEqual(entries)
        }
        await appendMany(log, doc('a'), 6, 6)
        expect(await readAll(log, doc('a'))).toHaveLength(6)
      })

      it('in the middle of appending loses nothing that was acknowledged, and leaves no half of a batch', async () => {
        await log.open(doc('a'))
        let acknowledged = 0
        for (let i = 0; i < 20; i++) {
          const batch = [1, 2, 3].map((k) => makeAppend(doc('a'), i * 3 + k))
          const done = log.append(batch).then(
            () => (acknowledged = (i + 1) * 3),
            () => undefined,
          )
          if (i % 5 !== 0) await done
        }
        await reopen('crash')
        const head = await log.open(doc('a'))
        const entries = await readAll(log, doc('a'))
        expect(entries.length).toBeGreaterThanOrEqual(acknowledged)
        expect(entries.length % 3).toBe(0)
        expect(entries.map((entry) => entry.hash)).toEqual(chain(head, entries).slice(1))
        expect(head).toMatchObject({ seq: entries.length, tailEntries: entries.length })
        expect((await log.find(doc('a'), { incarnation: ALICE })).acked).toEqual({ n: entries.length, seq: entries.length })
      })

      it('by close waits for what is under way, and refuses what comes after', async () => {
        await log.open(doc('a'))
        const done = log.append([makeAppend(doc('a'), 1)])
        await log.close()
        expect(await done).toHaveLength(1)
        expect(await refusal(log.append([makeAppend(doc('a'), 2)]))).toBe('failed')
        log = await under.open()
        expect(await log.head(doc('a'))).toMatchObject({ seq: 1 })
      })
    })
  })
}
