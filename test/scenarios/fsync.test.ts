/**
 * P1 and P17 as the kernel sees them: no ack before the fsync that covers it, and none after an fsync that failed.
 */
import { spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { openSqliteLog } from '#server/storage/sqlite.js'
import { doc, readAll } from '../support/log.ts'
import { program, requires } from '../support/requires.ts'
import { acks, readStrace, uncovered } from '../support/strace.ts'

const LOOP = fileURLToPath(new URL('../support/append-loop.js', import.meta.url))

interface Run {
  readonly directory: string
  readonly lines: readonly string[]
  readonly code: number | null
  readonly trace: string
}

requires('strace', program('strace'))('fsync', () => {
  let root: string
  let runs = 0
  beforeAll(() => {
    root = mkdtempSync(join(tmpdir(), 'rejoin-fsync-'))
  })
  afterAll(() => {
    rmSync(root, { recursive: true })
  })

  async function trace(strace: (directory: string) => readonly string[], ...loop: readonly string[]): Promise<Run> {
    const directory = join(root, `log-${++runs}`)
    const output = join(root, `trace-${runs}`)
    // Paths that are traced must be there when strace starts.
    await (await openSqliteLog({ directory })).close()
    const child = spawn(
      'strace',
      ['-f', '-y', '-s', '5000', '-o', output, ...strace(directory), process.execPath, LOOP, directory, ...loop],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    )
    let said = ''
    child.stdout.on('data', (data) => (said += String(data)))
    const code = await new Promise<number | null>((resolve) => child.on('close', resolve))
    return { directory, lines: said.trimEnd().split('\n'), code, trace: readFileSync(output, 'utf8') }
  }

  const everything = (): readonly string[] => ['-e', 'trace=fsync,fdatasync,pwrite64,write']
  const failing =
    (file: string, from: number) =>
    (directory: string): readonly string[] => [
      '-P',
      join(directory, file),
      '-e',
      'trace=fsync,fdatasync',
      '-e',
      `inject=fsync,fdatasync:error=EIO:when=${from}+`,
    ]

  it('comes before every ack, one edit at a time and many at a time', async () => {
    for (const width of ['1', '20']) {
      const calls = readStrace((await trace(everything, 'FULL', '60', width, '30')).trace)
      expect(acks(calls)).toBe(60)
      expect(uncovered(calls)).toEqual([])
    }
  })

  it('is missed by this very test where synchronous=NORMAL is planted', async () => {
    const calls = readStrace((await trace(everything, 'NORMAL', '20', '1', '30')).trace)
    expect(acks(calls)).toBe(20)
    expect(uncovered(calls)).toEqual(Array.from({ length: 20 }, (_, i) => i + 1))
  })

  it('that fails in a commit ends all acks, tells the process, and loses nothing that was acknowledged', async () => {
    const { directory, lines, code } = await trace(failing('log.db-wal', 12), 'FULL', '1000', '3', '30')
    expect(code).toBe(4)
    expect(lines.at(-1)).toMatch(/^failed /u)
    const acknowledged = lines.filter((line) => line.startsWith('ack ')).length
    expect(acknowledged).toBeGreaterThan(0)
    expect(acknowledged).toBeLessThan(60)
    const log = await openSqliteLog({ directory })
    expect((await readAll(log, doc('loop'))).length).toBeGreaterThanOrEqual(acknowledged)
    await log.close()
  })

  it('that fails in a checkpoint ends all acks too', async () => {
    const { lines, code } = await trace(failing('log.db', 1), 'FULL', '400', '1', '262144')
    expect(code).toBe(4)
    expect(lines.at(-1)).toMatch(/^failed /u)
    expect(lines.filter((line) => line.startsWith('ack ')).length).toBeGreaterThan(0)
  })
})
