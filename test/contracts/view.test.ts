/**
 * The views, held to their contract.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { createMemoryView } from '#server/storage/view-memory.js'
import { openSqliteView } from '#server/storage/view-sqlite.js'
import type { ViewUnderTest } from './view.contract.ts'
import { describeView } from './view.contract.ts'

describeView('in memory', () => ({ view: createMemoryView('0'.repeat(32)), dispose: () => {} }))

describeView('in SQLite', (): ViewUnderTest => {
  const folder = mkdtempSync(join(tmpdir(), 'rejoin-view-'))
  let view = openSqliteView(join(folder, 'view.db'))
  return {
    view,
    reopen: () => {
      view.close()
      view = openSqliteView(join(folder, 'view.db'))
      return view
    },
    dispose: () => {
      view.close()
      rmSync(folder, { recursive: true })
    },
  }
})

it('a view in SQLite keeps its id, and a file that is no database is made anew', () => {
  const folder = mkdtempSync(join(tmpdir(), 'rejoin-view-'))
  const path = join(folder, 'view.db')
  const first = openSqliteView(path)
  first.close()
  const again = openSqliteView(path)
  expect(again.id).toBe(first.id)
  again.close()
  writeFileSync(path, 'not a database, and long enough not to look like an empty one'.repeat(20))
  const anew = openSqliteView(path)
  expect(anew.id).not.toBe(first.id)
  expect(anew.head()).toBeUndefined()
  anew.close()
  rmSync(folder, { recursive: true })
})

it('a view in SQLite lets nothing but names become part of a statement', () => {
  const folder = mkdtempSync(join(tmpdir(), 'rejoin-view-'))
  const view = openSqliteView(join(folder, 'view.db'))
  for (const name of ["x') OR ('1", 'a b', '', 'x'.repeat(64)]) {
    expect(() => view.dependents({ collection: 'pets', field: name }, 'x', undefined, 3)).toThrow(/no reference/u)
    expect(() => view.prepareRefs([{ collection: name, field: 'owner' }])).toThrow(/no reference/u)
  }
  view.close()
  rmSync(folder, { recursive: true })
})
