/**
 * The notes' contract, by the adapters there are; and what only a file can get wrong.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import type { SinkNotes } from '#server/sinks/notes.js'
import { createMemoryNotes } from '#server/storage/notes-memory.js'
import { openSqliteNotes } from '#server/storage/notes-sqlite.js'
import { describeNotes } from './notes.contract.ts'

describeNotes('in memory', () => {
  const made = new Map<string, SinkNotes>()
  return {
    of: (sink) => {
      const notes = made.get(sink) ?? createMemoryNotes()
      made.set(sink, notes)
      return notes
    },
    dispose: () => {},
  }
})

describeNotes('in SQLite', () => {
  const folder = mkdtempSync(join(tmpdir(), 'rejoin-notes-'))
  let store = openSqliteNotes(join(folder, 'sinks.db'))
  return {
    of: (sink) => store.of(sink),
    reopen: () => {
      store.close()
      store = openSqliteNotes(join(folder, 'sinks.db'))
    },
    dispose: () => {
      store.close()
      rmSync(folder, { recursive: true })
    },
  }
})

it('notes in SQLite know their sinks, forget one, and refuse a file that is none of theirs', () => {
  const folder = mkdtempSync(join(tmpdir(), 'rejoin-notes-'))
  const store = openSqliteNotes(join(folder, 'sinks.db'))
  store.of('b').write({ values: { n: 1 } })
  store.of('a').write({ values: { n: 1 } })
  expect(store.sinks()).toEqual(['a', 'b'])
  store.drop('a')
  expect([store.sinks(), store.of('a').get('n')]).toEqual([['b'], undefined])
  store.close()
  writeFileSync(join(folder, 'broken.db'), 'not a database, but long enough to be looked at as one '.repeat(40))
  expect(() => openSqliteNotes(join(folder, 'broken.db'))).toThrow(/store_failed/u)
  rmSync(folder, { recursive: true })
})
