/**
 * The store contract, run by every adapter that Node can run: memory, SQLite by each driver that is there, and IndexedDB in memory.
 */
import 'fake-indexeddb/auto'
import { mkdtempSync, rmSync } from 'node:fs'
import { isBuiltin } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { IDBFactory } from 'fake-indexeddb'
import { afterAll, describe, it } from 'vitest'
import { indexeddb } from '#client/stores/indexeddb.js'
import { createMemoryDisk } from '#client/stores/memory.js'
import { sqlite } from '#client/stores/sqlite.js'
import { systemClock } from '@rejoin/shared'
import { createLocks } from '../support/browser-locks.ts'
import type { Device } from './store.contract.ts'
import { storeCases } from './store.contract.ts'

const folder = mkdtempSync(join(tmpdir(), 'rejoin-store-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

contract('memory', () => createMemoryDisk())
contract('memory, as slow as a disk', () => createMemoryDisk({ clock: systemClock, random: Math.random, latency: 1 }))
contract('indexeddb', () => {
  const [indexedDB, locks] = [new IDBFactory(), createLocks()]
  return { tab: () => indexeddb({ platform: { indexedDB, locks } }) }
})

let files = 0
for (const driver of ['better-sqlite3', ...(isBuiltin('node:sqlite') ? (['node:sqlite'] as const) : [])] as const) {
  contract(
    `sqlite by ${driver}`,
    () => {
      const path = join(folder, `${++files}.sqlite`)
      return { tab: () => sqlite({ path, driver }) }
    },
    false,
  )
}

function contract(name: string, device: () => Device, tabs = true): void {
  describe(`the store ${name}`, () => {
    for (const one of storeCases) if (tabs || !one.tabs) it(one.name, () => one.run(device()))
  })
}
