/**
 * Runs inside a page of a real browser: the store contract, and the browser's store beside the real y-indexeddb, called by name from the test.
 */
import { IndexeddbPersistence, storeState } from 'y-indexeddb'
import * as Y from 'yjs'
import type { DocumentStore, Store } from '#client/stores/store.js'
import { indexeddb } from '#client/stores/indexeddb.js'
import { storeCases } from '../contracts/store.contract.ts'
import { A, bytes, cursor, document, row, textOf } from './store-values.ts'

let store: Store | undefined
let ours: DocumentStore | undefined
let theirs: IndexeddbPersistence | undefined
const told: string[] = []

/** What the test calls. Everything in and out is JSON. */
export const actions = {
  runCase: async (name: string): Promise<void> => {
    const one = storeCases.find((each) => each.name === name)
    if (one === undefined) throw new Error(`there is no case "${name}"`)
    const prefix = `${name} `
    await one.run({ tab: () => indexeddb({ prefix }) })
  },

  openOurs: async (name: string): Promise<string> => {
    store = await indexeddb().open()
    store.watch((notice) => told.push(`${notice.document}: ${notice.updates.length}`))
    ours = await store.open(document(name))
    await ours.load()
    return store.durability
  },
  hold: async (): Promise<void> => void (await opened().hold(A, new AbortController().signal)),
  put: (n: number): Promise<void> => opened().commit({ updates: [row(A, n).update], put: [row(A, n)] }),
  /** Commits without end, so that the browser can be killed in the middle; `count` tells how far it is. */
  putForEver: async (): Promise<void> => {
    for (let n = 1; ; n++) {
      await Promise.all(Array.from({ length: 4 }, () => opened().commit({ updates: [row(A, n).update], put: [row(A, n)] })))
      count = n
    }
  },
  count: async (): Promise<number> => count,
  outbox: async (): Promise<readonly number[]> => (await opened().outbox()).map(({ n }) => n),
  updates: async (): Promise<number> => (await opened().load()).updates.length,
  pending: async (): Promise<unknown> => store?.pending(),
  told: async (): Promise<readonly string[]> => told,
  cursor: (seq: number): Promise<void> => opened().commit({ cursor: cursor(seq), relayUpdates: [bytes(seq)] }),
  trim: (): Promise<void> => opened().trim(Y.mergeUpdates, 2),
  /** The text that ours reads, and whether it says that somebody else wrote too. */
  read: async (): Promise<{ text: string; foreign: boolean; cursor: boolean }> => {
    const loaded = await opened().load()
    return { text: textOf(loaded), foreign: loaded.foreign, cursor: loaded.cursor !== undefined }
  },
  writeOurs: async (text: string): Promise<void> => {
    const doc = new Y.Doc()
    for (const update of (await opened().load()).updates) Y.applyUpdate(doc, update)
    const commits: Promise<void>[] = []
    doc.on('update', (update: Uint8Array) => commits.push(opened().commit({ updates: [update] })))
    doc.getText().insert(0, text)
    await Promise.all(commits)
  },
  closeOurs: async (): Promise<void> => store?.close(),
  /** Milliseconds of one durable commit, and of a hundred that are made at once, with the transactions that those took. */
  measure: async (): Promise<{ one: number; hundred: number; transactions: number }> => {
    const times: number[] = []
    for (let i = 0; i < 30; i++) times.push(await timed(() => opened().commit({ updates: [bytes(i)], put: [row(A, i + 1)] })))
    const { prototype } = IDBDatabase
    const { transaction } = prototype
    let transactions = 0
    prototype.transaction = function counted(...args) {
      transactions++
      return transaction.apply(this, args)
    }
    const hundred = await timed(() =>
      Promise.all(Array.from({ length: 100 }, (_, i) => opened().commit({ updates: [bytes(i)], put: [row(A, 100 + i)] }))),
    )
    prototype.transaction = transaction
    return { one: times.toSorted((a, b) => a - b)[15] ?? 0, hundred, transactions }
  },

  openTheirs: async (name: string): Promise<void> => {
    theirs = new IndexeddbPersistence(name, new Y.Doc())
    await theirs.whenSynced
  },
  writeTheirs: async (text: string): Promise<void> => {
    theirs?.doc.getText().insert(0, text)
    // Its transactions on one database run in order: when this one answers, the write is done.
    await theirs?.set('after', text)
    if (theirs !== undefined) await settled(theirs)
  },
  trimTheirs: async (): Promise<void> => {
    if (theirs === undefined) return
    await storeState(theirs)
    await settled(theirs)
  },
  readTheirs: async (): Promise<string> => theirs?.doc.getText().toJSON() ?? '',
}

let count = 0

declare global {
  var actions: Readonly<Record<string, (...args: never[]) => Promise<unknown>>>
}
globalThis.actions = actions

function opened(): DocumentStore {
  if (ours === undefined) throw new Error('ours is not open')
  return ours
}

/** A transaction on `updates` behind those of y-indexeddb. */
function settled({ db }: IndexeddbPersistence): Promise<void> {
  return new Promise((resolve) => {
    const transaction = db?.transaction('updates', 'readwrite')
    transaction?.addEventListener('complete', () => resolve())
  })
}

async function timed(run: () => Promise<unknown>): Promise<number> {
  const start = performance.now()
  await run()
  return performance.now() - start
}
