/**
 * What every log must do about snapshots and retention; a part of its contract.
 */
import { beforeEach, describe, expect, it } from 'vitest'
import type { DocumentHead, Log } from '#server/log/log.js'
import { appendMany, bytes, chain, doc, makeAppend, position, readAll, readPartition, refusal, seq } from '../support/log.ts'

/** The suite, on the log of `describeLog`. */
export function describeFolding({
  log,
  reopen,
}: {
  readonly log: () => Log
  readonly reopen: (how: 'close' | 'crash') => Promise<void>
}): void {
  describe('folding', () => {
    const admission = bytes(7, 7, 7)
    const state = Uint8Array.from({ length: 600_000 }, (_, i) => i * 7)
    let head: DocumentHead

    const fold = (at: number, update: Uint8Array = state): Promise<void> =>
      log().fold({ document: doc('a'), lineage: head.lineage, seq: seq(at), update, admission })

    beforeEach(async () => {
      head = await log().open(doc('a'))
      await appendMany(log(), doc('a'), 1, 10)
    })

    it('puts a snapshot in place and leaves the entries, so that cursors go on resuming', async () => {
      const before = await log().head(doc('a'))
      await fold(6)
      const after = await log().head(doc('a'))
      const hashes = chain(head, await readAll(log(), doc('a')))
      expect(after).toEqual({
        ...before,
        tailEntries: 4,
        tailBytes: 40,
        snapshot: { seq: 6, hash: hashes[6], bytes: state.length, admission },
      })
      expect(await readAll(log(), doc('a'), 2)).toHaveLength(8)
    })

    it('gives the snapshot in any fragments, until another takes its place', async () => {
      await fold(6)
      for (const size of [64_000, 262_144, 500_000, 1_000_000]) {
        const parts: Uint8Array[] = []
        for (let offset = 0; offset < state.length; offset += size)
          parts.push((await log().snapshot(doc('a'), seq(6), offset, size)) ?? bytes())
        expect(Buffer.concat(parts).equals(state)).toBe(true)
      }
      expect(await log().snapshot(doc('a'), seq(6), state.length, 10)).toEqual(bytes())
      expect(await log().snapshot(doc('a'), seq(5), 0, 10)).toBeUndefined()
      await fold(8, bytes(1, 2, 3))
      expect(await log().snapshot(doc('a'), seq(6), 0, 10)).toBeUndefined()
      expect(await log().snapshot(doc('a'), seq(8), 1, 10)).toEqual(bytes(2, 3))
      await reopen('crash')
      expect(await log().snapshot(doc('a'), seq(8), 0, 10)).toEqual(bytes(1, 2, 3))
    })

    it('goes on appending behind it', async () => {
      await Promise.all([fold(10), appendMany(log(), doc('a'), 11, 12)])
      await appendMany(log(), doc('a'), 13, 14)
      const entries = await readAll(log(), doc('a'))
      expect(entries.map((entry) => entry.hash)).toEqual(chain(head, entries).slice(1))
      expect(await log().head(doc('a'))).toMatchObject({ seq: 14, tailEntries: 4, tailBytes: 40, snapshot: { seq: 10 } })
    })

    it('ignores a snapshot that is not newer, and refuses one of another history', async () => {
      await fold(6)
      await fold(5, bytes(1))
      await fold(6, bytes(1))
      expect(await log().head(doc('a'))).toMatchObject({ snapshot: { seq: 6, bytes: state.length } })
      expect(await refusal(fold(11))).toBe('conflict')
      const other = await log().open(doc('b'))
      expect(await refusal(log().fold({ document: doc('a'), lineage: other.lineage, seq: seq(7), update: state, admission }))).toBe(
        'conflict',
      )
    })

    it('drops entries that are folded, old enough and read by all, and nothing else', async () => {
      const page = async (after: number): Promise<unknown> => {
        const entries = await log().read({ document: doc('a'), after: seq(after) }, 1 << 20)
        return entries === 'trimmed' ? entries : entries.map((entry) => entry.seq)
      }
      expect(await log().trim(Infinity)).toBe(0)
      await fold(6)
      expect(await log().trim(1_003)).toBe(2)
      expect(await log().head(doc('a'))).toMatchObject({ oldest: 3, tailEntries: 4 })
      expect(await page(1)).toBe('trimmed')
      expect(await page(2)).toEqual([3, 4, 5, 6, 7, 8, 9, 10])
      expect(await log().trim(2_000, position(3))).toBe(1)
      expect(await page(2)).toBe('trimmed')
      expect(await log().trim(2_000)).toBe(3)
      expect(await page(6)).toEqual([7, 8, 9, 10])
      expect(await log().trim(2_000)).toBe(0)
      expect((await log().find(doc('a'), { seq: seq(6) })).hash).toBeDefined()
      expect((await log().find(doc('a'), { seq: seq(3) })).hash).toBeUndefined()
    })

    it('tells a reader of the partition that something it has not read is gone', async () => {
      await log().open(doc('b'))
      await appendMany(log(), doc('b'), 1, 2)
      await fold(6)
      await log().trim(2_000)
      expect(await log().read({ partition: 0, after: position(5) }, 1 << 20)).toBe('trimmed')
      expect((await readPartition(log(), 6)).map((entry) => entry.position)).toEqual([7, 8, 9, 10, 11, 12])
    })

    it('never gives a position twice, though everything was trimmed', async () => {
      await fold(10)
      expect(await log().trim(2_000)).toBe(10)
      await reopen('close')
      const [next] = await log().append([makeAppend(doc('a'), 11)])
      expect(next?.position).toBe(11)
    })
  })
}
