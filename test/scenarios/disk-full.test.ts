/**
 * A full disk: appends are refused, nothing that was acknowledged is lost, and the log goes on without a restart once there is space.
 */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, rmdirSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, it } from 'vitest'
import type { Log } from '#server/log/log.js'
import { LogError } from '#server/log/log.js'
import { openSqliteLog } from '#server/storage/sqlite.js'
import { doc, makeAppend, readAll, refusal, seq } from '../support/log.ts'
import { requires } from '../support/requires.ts'
import { until } from '../support/until.ts'

const mountTmpfs = (path: string): void => {
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=2m', 'tmpfs', path], { stdio: 'ignore' })
}
const unmount = (path: string): void => {
  execFileSync('umount', [path], { stdio: 'ignore' })
  rmdirSync(path)
}

function probe(): string | undefined {
  const path = mkdtempSync(join(tmpdir(), 'rejoin-mount-'))
  try {
    mountTmpfs(path)
  } catch {
    rmdirSync(path)
    return 'a tmpfs cannot be mounted by this user'
  }
  unmount(path)
  return undefined
}

requires('tmpfs', probe)('a full disk', () => {
  let disk: string
  let log: Log
  let head = 0

  beforeEach(async () => {
    disk = mkdtempSync(join(tmpdir(), 'rejoin-full-'))
    mountTmpfs(disk)
    log = await openSqliteLog({ directory: join(disk, 'data') })
    await log.open(doc('a'))
    head = 0
  })
  afterEach(async () => {
    await log.close()
    unmount(disk)
  })

  const appendOne = (size = 2_000): Promise<string> =>
    refusal(log.append([makeAppend(doc('a'), head + 1, { update: new Uint8Array(size).fill(head + 1) })]))

  async function fill(): Promise<void> {
    for (;;) {
      const outcome = await appendOne()
      if (outcome === 'full') return
      expect(outcome).toBe('none')
      head++
    }
  }

  async function checkAll(): Promise<void> {
    const entries = await readAll(log, doc('a'))
    expect(entries.map((entry) => entry.seq)).toEqual(Array.from({ length: head }, (_, i) => i + 1))
    expect(entries.every((entry) => entry.update.every((byte) => byte === entry.seq % 256))).toBe(true)
    expect(await log.head(doc('a'))).toMatchObject({ seq: head, tailEntries: head })
  }

  it('refuses appends and new documents, is read as before, and takes appends again when others free space', async () => {
    const hog = join(disk, 'hog')
    writeFileSync(hog, new Uint8Array(600_000).fill(1))
    await fill()
    expect(head).toBeGreaterThan(10)
    await checkAll()
    const before = head
    for (let i = 0; i < 50; i++) expect(await appendOne()).toBe('full')
    await expect(log.open(doc('new'))).rejects.toThrow(LogError)
    expect(head).toBe(before)
    rmSync(hog)
    await until(async () => (await appendOne()) === 'none', 'an append')
    head++
    for (let i = 0; i < 20; i++) {
      expect(await appendOne()).toBe('none')
      head++
    }
    await log.open(doc('new'))
    await checkAll()
    await log.close()
    log = await openSqliteLog({ directory: join(disk, 'data') })
    await checkAll()
  })

  it('makes room by itself: folding and trimming go on in the space held for them', async () => {
    await fill()
    const full = head
    const { lineage } = await log.open(doc('a'))
    await log.fold({ document: doc('a'), lineage, seq: seq(full), update: new Uint8Array(1_000), admission: new Uint8Array(3) })
    expect(await log.trim(Infinity)).toBe(full)
    await until(async () => (await appendOne()) === 'none', 'an append')
    expect(await log.head(doc('a'))).toMatchObject({ seq: full + 1, oldest: full + 1, tailEntries: 1 })
  })

  it('does not stop the process that is on it', async () => {
    await fill()
    const failed = log.failed.then(() => 'failed')
    expect(await Promise.race([failed, appendOne()])).toBe('full')
  })
})
