/**
 * What only Node's store promises: one process at a time by the kernel's lock, whole transactions across kill -9, and honest words about files that are broken or not ours.
 */
import type { ChildProcess } from 'node:child_process'
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import Database from 'better-sqlite3'
import { afterAll, afterEach, describe, expect, it } from 'vitest'
import { sqlite } from '#client/stores/sqlite.js'
import { A, bytes, cursor, document, rejects, row, same } from '../support/store-values.ts'
import { root } from '../support/sources.ts'
import { until } from '../support/until.ts'

const folder = mkdtempSync(join(tmpdir(), 'rejoin-sqlite-'))
const children: ChildProcess[] = []
let files = 0

afterEach(async () => {
  await Promise.all(children.splice(0).map(kill))
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

describe("Node's store", () => {
  it('belongs to one process: a second gets store_in_use, and kill -9 of the first frees it at once', async () => {
    const path = newPath()
    const child = start(path, 'hold')
    await child.until((lines) => lines.includes('open'))
    await rejects(sqlite({ path }).open(), 'store_in_use')
    await kill(child.process)
    const store = await sqlite({ path }).open()
    const second = start(path, 'hold')
    await second.until((lines) => lines.includes('store_in_use'))
    await store.close()
    const third = start(path, 'hold')
    await third.until((lines) => lines.includes('open'))
  })

  it('belongs to one client of a process, and a second client does not cost the first its lock', async () => {
    const path = newPath()
    const store = await sqlite({ path }).open()
    await rejects(sqlite({ path }).open(), 'store_in_use')
    // POSIX drops every lock that a process has on a file when it closes any descriptor of it.
    const child = start(path, 'hold')
    await child.until((lines) => lines.includes('store_in_use'))
    await store.close()
    await (await sqlite({ path }).open()).close()
  })

  it('has each edit with its outbox row or neither, without a gap, after kill -9 in the middle, again and again', async () => {
    const path = newPath()
    for (let cycle = 0; cycle < 5; cycle++) {
      const child = start(path)
      const enough = 20 + cycle * 37
      await child.until((lines) => lines.length > enough)
      await kill(child.process)
      const told = Math.max(0, ...child.lines.map(Number).filter((n) => !Number.isNaN(n)))
      const store = await sqlite({ path }).open()
      const { updates, outbox } = await (await store.open(document('loop'))).load()
      same(
        outbox.map(({ n }) => n),
        Array.from({ length: outbox.length }, (_, i) => i + 1),
      )
      same(
        outbox.map(({ update }) => numberIn(update)),
        updates.map(numberIn),
      )
      expect(outbox.length).toBeGreaterThanOrEqual(told)
      await store.close()
    }
  })

  it('rejects and writes nothing more after an I/O error, and holds a prefix', async () => {
    const path = newPath()
    // A limit on the size of a file stands in for the broken disk: 512 KiB, in blocks of 1 KiB for bash and of 512 bytes for dash.
    const child = start(path, undefined, 'trap "" XFSZ; ulimit -f 1024;')
    await child.until((lines) => lines.includes('store_failed'))
    await kill(child.process)
    const told = Math.max(...child.lines.map(Number).filter((n) => !Number.isNaN(n)))
    const store = await sqlite({ path }).open()
    const { updates, outbox } = await (await store.open(document('loop'))).load()
    same(
      outbox.map(({ update }) => numberIn(update)),
      updates.map(numberIn),
    )
    same(
      outbox.map(({ n }) => n),
      Array.from({ length: outbox.length }, (_, i) => i + 1),
    )
    expect(outbox.length).toBeGreaterThanOrEqual(told)
    await store.close()
  })

  it('is readable by its owner only, the WAL too', async () => {
    const path = join(folder, 'new', 'folder', 'store.sqlite')
    const store = await sqlite({ path }).open()
    await (await store.open(document('d'))).commit({ updates: [bytes(1)] })
    for (const file of [path, `${path}-wal`]) expect(statSync(file).mode & 0o777, file).toBe(0o600)
    await store.close()
  })

  it('folds the WAL into the file as it grows', async () => {
    const path = newPath()
    const store = await sqlite({ path }).open()
    const rows = await store.open(document('d'))
    for (let i = 0; i < 24; i++) await rows.commit({ updates: [new Uint8Array(1024 * 1024)] })
    expect(statSync(`${path}-wal`).size).toBeLessThan(8 * 1024 * 1024)
    await store.close()
  })

  it('does not trust the cursor when a row rotted, and keeps the row aside', async () => {
    const path = newPath()
    await write(path, async (rows) => rows.commit({ updates: [bytes(1), bytes(2)], put: [row(A, 1)], cursor: cursor(4) }))
    tamper(path, "UPDATE updates SET bytes = x'0102' WHERE id = 1")
    await write(path, async (rows) => {
      const loaded = await rows.load()
      same([loaded.foreign, loaded.cursor, loaded.updates], [true, undefined, [bytes(2), row(A, 1).update]])
      await rows.commit({ cursor: cursor(4), relayUpdates: [bytes(5)] })
      const settled = await rows.load()
      same([settled.foreign, settled.cursor], [false, cursor(4)])
      same(settled.updates, [bytes(2), row(A, 1).update, bytes(5)])
    })
    const db = new Database(path)
    same(db.prepare('SELECT hex(bytes) AS bytes FROM updates WHERE aside = 1').all(), [{ bytes: '0102' }])
    db.close()
  })

  it('finds a row that is no update when asked to verify', async () => {
    const path = newPath()
    await write(path, async (rows) => {
      await rows.commit({ updates: [new Uint8Array([7, 7])], cursor: cursor(4) })
      same((await rows.load()).foreign, false)
      same((await rows.load({ verify: true })).foreign, true)
    })
  })

  it('shows an outbox row that rotted as refused', async () => {
    const path = newPath()
    await write(path, async (rows) => rows.commit({ put: [row(A, 1), row(A, 2)] }))
    tamper(path, "UPDATE outbox SET bytes = x'01' WHERE n = 1")
    await write(path, async (rows) => {
      const outbox = await rows.outbox()
      same(
        outbox.map(({ n, refused }) => [n, refused?.code]),
        [
          [1, 'store_failed'],
          [2, undefined],
        ],
      )
    })
  })

  it('leaves files alone that are not its own', async () => {
    const path = newPath()
    const db = new Database(path)
    db.exec('CREATE TABLE recipes (id)')
    db.close()
    expect((await rejects(sqlite({ path }).open(), 'store_failed')).message).toContain('another program')
    const text = newPath()
    writeFileSync(text, 'not a database, and long enough not to look like the beginning of one'.repeat(20))
    await rejects(sqlite({ path: text }).open(), 'store_failed')
    const later = newPath()
    await write(later, async () => {})
    tamper(later, 'PRAGMA user_version = 99')
    expect((await rejects(sqlite({ path: later }).open(), 'store_failed')).message).toContain('later version')
    await rejects(sqlite({ path: '/dev/null/store.sqlite' }).open(), 'store_failed')
  })
})

type Rows = Awaited<ReturnType<Awaited<ReturnType<ReturnType<typeof sqlite>['open']>>['open']>>

async function write(path: string, run: (rows: Rows) => Promise<void>): Promise<void> {
  const store = await sqlite({ path }).open()
  await run(await store.open(document('d')))
  await store.close()
}

/** The number that the child wrote into its bytes. */
function numberIn(update: Uint8Array): number {
  return Number(new TextDecoder().decode(update).split(' ')[1])
}

function tamper(path: string, sql: string): void {
  const db = new Database(path)
  db.exec(sql)
  db.close()
}

function newPath(): string {
  return join(folder, `${++files}.sqlite`)
}

interface Child {
  readonly process: ChildProcess
  readonly lines: readonly string[]
  until(condition: (lines: readonly string[]) => boolean): Promise<unknown>
}

function start(path: string, hold?: string, before = ''): Child {
  const child = spawn(
    '/bin/sh',
    [
      '-c',
      `${before} exec "$0" "$@"`,
      process.execPath,
      join(root, 'test/support/store-loop.js'),
      path,
      ...(hold === undefined ? [] : [hold]),
    ],
    {
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  )
  children.push(child)
  const lines: string[] = []
  createInterface({ input: child.stdout }).on('line', (line) => lines.push(line))
  return {
    process: child,
    lines,
    until: (condition) => until(() => condition(lines) || undefined, `the child, which said ${lines.at(-1)}`),
  }
}

/** Resolves when the process is gone and its output was read. */
async function kill(child: ChildProcess): Promise<void> {
  const closed = new Promise((resolve) => child.once('close', resolve))
  if (child.exitCode !== null || child.signalCode !== null) return
  child.kill('SIGKILL')
  await closed
}
