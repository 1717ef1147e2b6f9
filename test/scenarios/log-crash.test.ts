/**
 * P1 and P16 on real files: a process that is killed loses nothing it acknowledged, one folder has one owner, and bytes that changed on the disk are not served.
 */
import type { ChildProcess } from 'node:child_process'
import { spawn } from 'node:child_process'
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Position } from '@rejoin/shared'
import { fromHex } from '@rejoin/shared'
import { LogError } from '#server/log/log.js'
import { openSqliteLog } from '#server/storage/sqlite.js'
import { chain, doc, makeAppend, position, readAll, refusal, seq } from '../support/log.ts'
import { until } from '../support/until.ts'

const LOOP = fileURLToPath(new URL('../support/append-loop.js', import.meta.url))

let root: string
let directory: string
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'rejoin-crash-'))
  directory = join(root, 'data')
})
afterEach(() => {
  rmSync(root, { recursive: true })
})

interface Loop {
  readonly child: ChildProcess
  readonly lines: string[]
  readonly closed: Promise<unknown>
}

function startLoop(count: number, width: number): Loop {
  const child = spawn(process.execPath, [LOOP, directory, 'FULL', `${count}`, `${width}`, '200'], { stdio: ['ignore', 'pipe', 'inherit'] })
  const lines: string[] = []
  let rest = ''
  child.stdout.on('data', (data) => {
    const parts = (rest + String(data)).split('\n')
    rest = parts.pop() ?? ''
    lines.push(...parts)
  })
  return { child, lines, closed: new Promise((resolve) => child.on('close', resolve)) }
}

describe('kill -9', () => {
  it('in the middle of appending, five times: every acknowledged edit is there', { timeout: 60_000 }, async () => {
    const acknowledged = new Set<number>()
    for (let cycle = 0; cycle < 5; cycle++) {
      const { child, lines, closed } = startLoop(1_000_000, 16)
      await until(() => lines.length > 100 + cycle * 37, 'acks')
      child.kill('SIGKILL')
      await closed
      for (const line of lines) if (line.startsWith('ack ')) acknowledged.add(Number(line.slice(4)))
    }
    const log = await openSqliteLog({ directory })
    const head = await log.open(doc('loop'))
    const entries = []
    while (entries.length < head.seq) entries.push(...(await readAll(log, doc('loop'), entries.length)))
    await log.close()
    const texts = new Map(entries.map((entry) => [entry.seq as number, Buffer.from(entry.update).toString().slice(0, 13)]))
    expect(acknowledged.size).toBeGreaterThan(500)
    expect([...acknowledged].filter((n) => texts.get(n) !== `<edit ${String(n).padStart(6, '0')}>`)).toEqual([])
    expect(entries.map((entry) => entry.hash)).toEqual(chain(head, entries).slice(1))
    expect(entries.map((entry) => entry.position as number)).toEqual(entries.map((_, i) => i + 1))
  })
})

describe('the data folder', () => {
  it('has one owner: another process, and this one, are refused while it lives, and not after kill -9', async () => {
    const { child, lines, closed } = startLoop(1_000_000, 1)
    await until(() => lines.length > 1)
    await expect(openSqliteLog({ directory })).rejects.toMatchObject({ code: 'store_in_use' })
    const second = startLoop(1, 1)
    await second.closed
    expect(second.lines).toEqual(['refused store_in_use'])
    child.kill('SIGKILL')
    await closed
    const log = await openSqliteLog({ directory })
    await expect(openSqliteLog({ directory })).rejects.toMatchObject({
      code: 'store_in_use',
      message: expect.stringContaining(directory) as unknown,
    })
    await log.close()
    await (await openSqliteLog({ directory })).close()
  })

  it('is closed to other users', async () => {
    mkdirSync(directory, { mode: 0o755 })
    chmodSync(directory, 0o755)
    await (await openSqliteLog({ directory })).close()
    expect(statSync(directory).mode & 0o777).toBe(0o700)
    await (await openSqliteLog({ directory: join(root, 'a', 'b') })).close()
    expect(statSync(join(root, 'a', 'b')).mode & 0o777).toBe(0o700)
  })

  it('with a file that is not a log of ours is refused, and the file is left as it was', async () => {
    mkdirSync(directory)
    writeFileSync(join(directory, 'log.db'), 'something else entirely'.repeat(100))
    const before = readFileSync(join(directory, 'log.db'))
    await expect(openSqliteLog({ directory })).rejects.toMatchObject({ name: 'SyncError', code: 'storage_failed' })
    expect(readFileSync(join(directory, 'log.db')).equals(before)).toBe(true)
  })
})

describe('bytes that changed on the disk', () => {
  const text = (label: string): Uint8Array => new TextEncoder().encode(`<${label}>`.repeat(40))

  /** Changes one bit of what stands in the file, as a disk may. */
  function damage(what: string | Uint8Array): void {
    const path = join(directory, 'log.db')
    const bytes = readFileSync(path)
    const at = bytes.indexOf(typeof what === 'string' ? `<${what}>` : what)
    expect(at).toBeGreaterThan(0)
    bytes[at + 5] = (bytes[at + 5] ?? 0) ^ 0x10
    writeFileSync(path, bytes)
  }

  it('are not served: their document says so, others go on, and a reader of the partition may step over them', async () => {
    const log = await openSqliteLog({ directory })
    for (const name of ['a', 'b']) await log.open(doc(name))
    await log.append([1, 2, 3].flatMap((n) => ['a', 'b'].map((name) => makeAppend(doc(name), n, { update: text(`${name}-entry-${n}`) }))))
    await log.close()
    damage('a-entry-2')
    const again = await openSqliteLog({ directory })
    expect((await readAll(again, doc('a'))).map((entry) => entry.seq)).toEqual([1])
    expect(await refusal(readAll(again, doc('a'), 1))).toBe('corrupt')
    expect(await refusal(again.find(doc('a'), { seq: seq(2) }))).toBe('corrupt')
    expect((await readAll(again, doc('b'))).length).toBe(3)
    const seen: number[] = []
    let after = position(0)
    for (let pages = 0; pages < 10; pages++) {
      try {
        const entries = await again.read({ partition: 0, after }, 1 << 20)
        if (entries === 'trimmed' || entries.length === 0) break
        seen.push(...entries.map((entry) => entry.position))
        after = seen.at(-1) as Position
      } catch (error) {
        if (!(error instanceof LogError) || error.position === undefined) throw error
        expect(error).toMatchObject({ failure: 'corrupt', document: 'a' })
        after = error.position
      }
    }
    expect(seen).toEqual([1, 2, 4, 5, 6])
    await again.append([makeAppend(doc('b'), 4)])
    await again.close()
  })

  it('of a snapshot are not served', async () => {
    const log = await openSqliteLog({ directory })
    const { lineage } = await log.open(doc('a'))
    await log.append([makeAppend(doc('a'), 1)])
    await log.fold({ document: doc('a'), lineage, seq: seq(1), update: text('the-snapshot'), admission: text('admission') })
    await log.close()
    damage('the-snapshot')
    const again = await openSqliteLog({ directory })
    expect(await again.head(doc('a'))).toMatchObject({ seq: 1 })
    expect(await refusal(again.snapshot(doc('a'), seq(1), 0, 10))).toBe('corrupt')
    await again.close()
    damage('admission')
    const third = await openSqliteLog({ directory })
    expect(await refusal(third.head(doc('a')))).toBe('corrupt')
    await third.close()
  })

  it('of a document’s row stop that document only, in reading and in appending', async () => {
    const log = await openSqliteLog({ directory })
    const { lineage } = await log.open(doc('a'))
    await log.open(doc('b'))
    await log.close()
    damage(fromHex(lineage))
    const again = await openSqliteLog({ directory })
    expect(await refusal(again.head(doc('a')))).toBe('corrupt')
    expect(await refusal(again.append([makeAppend(doc('a'), 1)]))).toBe('corrupt')
    expect(await refusal(again.append([makeAppend(doc('b'), 1)]))).toBe('none')
    await again.close()
  })
})
