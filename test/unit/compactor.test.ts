/**
 * When documents are folded and what is trimmed, with the work done in this process and in threads.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import * as Y from 'yjs'
import type { DocumentId, Position } from '@rejoin/shared'
import { systemClock } from '@rejoin/shared'
import { startCompactionWork } from '#server/compaction/start.js'
import { canonical } from '#server/log/canonical.js'
import type { CompactionWork, Compactor } from '#server/log/compactor.js'
import { createCompactor, isDue } from '#server/log/compactor.js'
import type { DocumentHead, Log } from '#server/log/log.js'
import { createCompactionWork } from '#server/log/work.js'
import { absorbTrusted, createAdmission, encodeAdmission } from '#server/relay/admission.js'
import { createMemoryDisk } from '#server/storage/memory-disk.js'
import { createMemoryLog } from '#server/storage/memory.js'
import { openSqliteLog } from '#server/storage/sqlite.js'
import { crowdUpdate } from '../support/forged-updates.ts'
import { makeHistory, seeded } from '../support/histories.ts'
import { doc, makeAppend, refusal, seq } from '../support/log.ts'
import { until } from '../support/until.ts'
import { createVirtualClock } from '../support/virtual-clock.ts'

function admissionOf(update: Uint8Array): Uint8Array {
  const admission = createAdmission()
  absorbTrusted(admission, update)
  return encodeAdmission(admission)
}

function read(...updates: readonly Uint8Array[]): Buffer {
  const whole = new Y.Doc({ gc: false })
  whole.on('beforeObserverCalls', (transaction: Y.Transaction) => {
    transaction.local = true
  })
  for (const update of updates) Y.applyUpdate(whole, update)
  return Buffer.from(canonical(whole))
}

async function appendUpdates(log: Log, document: DocumentId, updates: readonly Uint8Array[], from = 0): Promise<void> {
  await log.append(updates.map((update, i) => makeAppend(document, from + i + 1, { update })))
}

async function headOf(log: Log, document: DocumentId): Promise<DocumentHead> {
  const head = await log.head(document)
  if (head === undefined) throw new Error('no head')
  return head
}

const ALWAYS = { bytes: 0, entries: 0, share: 0, bytesPerEntry: Infinity }

for (const [name, make] of [
  ['in this process', () => Promise.resolve(inProcess())],
  ['in threads', () => inThreads()],
] as const) {
  describe(`compaction ${name}`, () => {
    let log: Log
    let work: CompactionWork
    let compactor: Compactor
    let dispose: () => void
    const { updates } = makeHistory(seeded(5), 3, 120)

    beforeEach(async () => {
      ;({ log, work, dispose } = await make())
      compactor = createCompactor({ log, work, clock: systemClock, retain: Infinity, thresholds: ALWAYS })
      await log.open(doc('a'))
      await appendUpdates(log, doc('a'), updates)
    })
    afterEach(async () => {
      await compactor.close()
      await log.close()
      dispose()
    })

    it('folds a document, and again behind the fold', async () => {
      await compactor.consider(await headOf(log, doc('a')))
      const folded = await headOf(log, doc('a'))
      expect(folded).toMatchObject({ tailEntries: 0, snapshot: { seq: updates.length } })
      const snapshot = await log.snapshot(doc('a'), folded.snapshot.seq, 0, folded.snapshot.bytes)
      expect(read(snapshot ?? new Uint8Array()).equals(read(...updates))).toBe(true)
      expect(folded.snapshot.admission).toEqual(admissionOf(snapshot ?? new Uint8Array()))
      const more = new Y.Doc()
      more.getText('text').insert(0, 'and then')
      await appendUpdates(log, doc('a'), [Y.encodeStateAsUpdate(more)], updates.length)
      await compactor.consider(await headOf(log, doc('a')))
      const again = await headOf(log, doc('a'))
      expect(again.snapshot.seq).toBe(updates.length + 1)
      const whole = await log.snapshot(doc('a'), again.snapshot.seq, 0, again.snapshot.bytes)
      expect(read(whole ?? new Uint8Array()).equals(read(...updates, Y.encodeStateAsUpdate(more)))).toBe(true)
    })

    it('gives the state of a document, whole or from a state vector, as it grows', async () => {
      expect(await compactor.state(doc('nobody knows'))).toBeUndefined()
      const half = updates.slice(0, 60)
      const replica = new Y.Doc()
      for (const update of half) Y.applyUpdate(replica, update)
      const lacking = await compactor.state(doc('a'), Y.encodeStateVector(replica))
      const whole = await compactor.state(doc('a'))
      expect(whole).toMatchObject({ seq: updates.length, hash: (await headOf(log, doc('a'))).hash })
      expect(read(...half, lacking?.update ?? new Uint8Array()).equals(read(...updates))).toBe(true)
      expect(read(whole?.update ?? new Uint8Array()).equals(read(...updates))).toBe(true)
      const more = new Y.Doc()
      more.getMap('map').set('later', 1)
      await appendUpdates(log, doc('a'), [Y.encodeStateAsUpdate(more)], updates.length)
      await compactor.consider(await headOf(log, doc('a')))
      const later = await compactor.state(doc('a'))
      expect(later).toMatchObject({ seq: updates.length + 1 })
      expect(read(later?.update ?? new Uint8Array()).equals(read(...updates, Y.encodeStateAsUpdate(more)))).toBe(true)
    })

    it('leaves a document alone whose bytes are no updates, until it has grown to twice its tail', async () => {
      await log.open(doc('bad'))
      await appendUpdates(log, doc('bad'), [Uint8Array.of(9, 9, 9)])
      await expect(compactor.consider(await headOf(log, doc('bad')))).rejects.toThrow()
      expect(compactor.consider(await headOf(log, doc('bad')))).toBeUndefined()
      await appendUpdates(log, doc('bad'), [Uint8Array.of(9, 9, 9)], 1)
      await expect(compactor.consider(await headOf(log, doc('bad')))).rejects.toThrow()
      expect(await headOf(log, doc('bad'))).toMatchObject({ seq: 2, snapshot: { seq: 0 } })
      await compactor.consider(await headOf(log, doc('a')))
    })
  })
}

function inProcess(): { log: Log; work: CompactionWork; dispose: () => void } {
  const log = createMemoryLog()
  return { log, work: createCompactionWork({ reader: log, admissionOf }), dispose: () => undefined }
}

async function inThreads(): Promise<{ log: Log; work: CompactionWork; dispose: () => void }> {
  const directory = mkdtempSync(join(tmpdir(), 'rejoin-compaction-'))
  const log = await openSqliteLog({ directory })
  return { log, work: startCompactionWork({ directory, clock: systemClock }), dispose: () => rmSync(directory, { recursive: true }) }
}

describe('a compaction thread', () => {
  it('that takes too long is ended, and the next question starts another', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'rejoin-compaction-'))
    const log = await openSqliteLog({ directory })
    const work = startCompactionWork({ directory, clock: systemClock, timeout: 0 })
    expect(await refusal(work.state(doc('a')))).toBe('overloaded')
    expect(await refusal(work.state(doc('a')))).toBe('overloaded')
    await work.close()
    expect(await refusal(work.state(doc('a')))).toBe('failed')
    await log.close()
    rmSync(directory, { recursive: true })
  })
})

describe('a document that takes too long to fold', () => {
  it('is given up and refused for a while; those that wait behind it are not', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'rejoin-compaction-'))
    const log = await openSqliteLog({ directory })
    const work = startCompactionWork({ directory, clock: systemClock, timeout: 1_500 })
    for (const name of ['crowd', 'a']) await log.open(doc(name))
    await appendUpdates(log, doc('crowd'), [crowdUpdate(60_000)])
    await appendUpdates(log, doc('a'), makeHistory(seeded(5), 3, 20).updates)
    const [crowd, a] = await Promise.all([refusal(work.fold(doc('crowd'))), work.fold(doc('a'))])
    expect(crowd).toBe('overloaded')
    expect(a).toMatchObject({ document: 'a' })
    const begun = performance.now()
    expect(await refusal(work.fold(doc('crowd')))).toBe('overloaded')
    expect(performance.now() - begun).toBeLessThan(500)
    expect(await work.state(doc('a'))).toMatchObject({ seq: a?.seq })
    await work.close()
    await log.close()
    rmSync(directory, { recursive: true })
  }, 20_000)
})

describe('the compactor', () => {
  const head = (fields: { tailBytes?: number; tailEntries?: number; snapshot?: number }): DocumentHead =>
    ({ tailBytes: 0, tailEntries: 0, ...fields, snapshot: { bytes: fields.snapshot ?? 0 } }) as unknown as DocumentHead

  it('folds by bytes and by entries, and less often the larger the snapshot: its work per edit stays the same', () => {
    expect(isDue(head({ tailBytes: 65_536, tailEntries: 1_000 }))).toBe(false)
    expect(isDue(head({ tailBytes: 65_537 }))).toBe(true)
    expect(isDue(head({ tailEntries: 1_001 }))).toBe(true)
    expect(isDue(head({ tailBytes: 499_999, tailEntries: 9_999, snapshot: 1_000_000 }))).toBe(false)
    expect(isDue(head({ tailBytes: 500_001, snapshot: 1_000_000 }))).toBe(true)
    expect(isDue(head({ tailEntries: 10_001, snapshot: 1_000_000 }))).toBe(true)
  })

  it('lets four times as much gather behind a document that is growing: the cores are wanted for its edits', async () => {
    const log = createMemoryLog()
    const asked: DocumentId[] = []
    const work = {
      fold: (document: DocumentId) => (asked.push(document), Promise.resolve(undefined)),
      state: () => Promise.resolve(undefined),
      close: () => Promise.resolve(),
    }
    const compactor = createCompactor({ log, work, clock: systemClock, retain: Infinity })
    expect(compactor.consider({ ...head({ tailEntries: 4_000, tailBytes: 262_144 }), document: doc('a') }, true)).toBeUndefined()
    await compactor.consider({ ...head({ tailEntries: 4_001 }), document: doc('b') }, true)
    await compactor.consider({ ...head({ tailBytes: 262_145 }), document: doc('c') }, true)
    await compactor.consider({ ...head({ tailEntries: 1_001 }), document: doc('d') })
    expect(asked).toEqual(['b', 'c', 'd'])
    await compactor.close()
  })

  it('works on one document at a time, on each once, and drops what waits when it closes', async () => {
    const log = createMemoryLog()
    const asked: string[] = []
    let release = (): void => undefined
    const work: CompactionWork = {
      fold: async (document) => {
        asked.push(document)
        await new Promise<void>((resolve) => (release = resolve))
        return undefined
      },
      state: () => Promise.resolve(undefined),
      close: () => Promise.resolve(release()),
    }
    const compactor = createCompactor({ log, work, clock: systemClock, retain: Infinity, thresholds: ALWAYS })
    const due = (document: string): Promise<void> | undefined =>
      compactor.consider({ ...head({ tailEntries: 1 }), document: doc(document) })
    const first = due('a')
    expect(due('a')).toBe(first)
    const second = due('b')
    await until(() => asked.length === 1)
    release()
    await first
    await until(() => asked.length === 2)
    const third = due('c')
    await compactor.close()
    await Promise.all([second, third])
    expect(asked).toEqual(['a', 'b'])
    expect(due('d')).toBeUndefined()
  })

  it('trims what is folded and older than the retention, but nothing that a reader has yet to see', async () => {
    const clock = createVirtualClock()
    const log = createMemoryLog(createMemoryDisk())
    let projected = 2
    const compactor = createCompactor({
      log,
      work: createCompactionWork({ reader: log, admissionOf }),
      clock,
      retain: 60_000,
      keepAfter: () => projected as Position,
      thresholds: ALWAYS,
    })
    const { lineage } = await log.open(doc('a'))
    await log.append([1, 2, 3, 4].map((n) => makeAppend(doc('a'), n, { at: clock.now() })))
    await log.fold({ document: doc('a'), lineage, seq: seq(4), update: new Uint8Array(1), admission: new Uint8Array(1) })
    const oldest = async (): Promise<number> => (await headOf(log, doc('a'))).oldest
    await clock.advance(50_000)
    expect(await oldest()).toBe(1)
    await clock.advance(20_000)
    await until(async () => (await oldest()) === 3)
    projected = 4
    await clock.advance(20_000)
    await until(async () => (await oldest()) === 5)
    await compactor.close()
  })
})
