/**
 * The logs, held to their contract.
 */
import { cpSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { systemClock } from '@rejoin/shared'
import type { Log } from '#server/log/log.js'
import { createMemoryDisk } from '#server/storage/memory-disk.js'
import { createMemoryLog } from '#server/storage/memory.js'
import { openSqliteLog } from '#server/storage/sqlite.js'
import type { LogUnderTest } from '../support/log.ts'
import { describeLog } from './log.contract.ts'

function inMemory(disk = createMemoryDisk()): Promise<LogUnderTest> {
  return Promise.resolve({
    open: () => Promise.resolve(createMemoryLog(disk)),
    crash: () => Promise.resolve(disk.crash()),
    dispose: () => Promise.resolve(),
  })
}

describeLog('in memory', () => inMemory())
describeLog('in memory, on a disk that takes its time', () => inMemory(createMemoryDisk({ clock: systemClock, flush: 2, seek: 1 })))

describeLog('SQLite', () => {
  const root = mkdtempSync(join(tmpdir(), 'rejoin-log-'))
  const dying: Log[] = []
  let life = 0
  return Promise.resolve({
    open: () => openSqliteLog({ directory: join(root, `${life}`) }),
    // What a killed process leaves are its files as they are at that moment. The process itself is killed in scenarios/crash.test.ts.
    crash: (log) => {
      const from = join(root, `${life}`)
      const to = join(root, `${++life}`)
      for (const file of readdirSync(from)
        .filter((name) => !name.endsWith('-shm'))
        .toSorted())
        cpSync(join(from, file), join(to, file))
      dying.push(log)
      return Promise.resolve()
    },
    dispose: async () => {
      for (const log of dying) await log.close()
      rmSync(root, { recursive: true })
    },
  })
})
