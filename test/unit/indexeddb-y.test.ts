/**
 * The browser's store and the real y-indexeddb on one database, both ways: what one writes the other reads, live and after either has trimmed.
 */
import 'fake-indexeddb/auto'
import { afterEach, describe, expect, it } from 'vitest'
import { IndexeddbPersistence, storeState } from 'y-indexeddb'
import * as Y from 'yjs'
import type { DocumentId } from '@rejoin/shared'
import { indexeddb } from '#client/stores/indexeddb.js'
import type { DocumentStore, Store } from '#client/stores/store.js'
import { A, bytes, cursor, document, row, same, textOf } from '../support/store-values.ts'
import { createLocks } from '../support/browser-locks.ts'
import { until } from '../support/until.ts'

const locks = createLocks()
const ends: (() => Promise<unknown>)[] = []
let count = 0

afterEach(async () => {
  for (const end of ends.splice(0).toReversed()) await end()
})

describe("y-indexeddb and the browser's store on one database", () => {
  it('theirs reads what ours wrote', async () => {
    const { ours, id } = await open()
    const doc = recorded(ours)
    for (let i = 0; i < 20; i++) doc.getText().insert(0, `${i} `)
    await ours.commit({ put: [row(A, 1)], cursor: cursor(4), relayUpdates: [bytes(1)] })
    const theirs = await openTheirs(id)
    expect(theirs.doc.getText().toJSON()).toBe(textOf(await ours.load()))
  })

  it('theirs opened and changed nothing: the cursor is still good', async () => {
    const { ours, id } = await open()
    await ours.commit({ updates: [bytes(1)], cursor: cursor(4) })
    await (await openTheirs(id)).destroy()
    const loaded = await ours.load()
    same([loaded.foreign, loaded.cursor], [false, cursor(4)])
  })

  it('ours reads what theirs wrote, says that it is foreign, and has no cursor until one is committed', async () => {
    const id = nextId()
    const theirs = await openTheirs(id)
    theirs.doc.getText().insert(0, 'theirs')
    await written(theirs)
    await theirs.destroy()
    const { ours } = await open(id)
    const loaded = await ours.load()
    same([textOf(loaded), loaded.foreign, loaded.cursor], ['theirs', true, undefined])
    await ours.commit({ updates: [bytes(1)], put: [row(A, 1)] })
    expect((await ours.load()).foreign).toBe(true)
    await ours.commit({ cursor: cursor(4), relayUpdates: [bytes(2)] })
    const settled = await ours.load()
    same([settled.foreign, settled.cursor], [false, cursor(4)])
  })

  it('makes the very database that theirs makes', async () => {
    const theirs = await openTheirs(nextId())
    const { id } = await open()
    expect(await layoutOf(id)).toEqual(await layoutOf(theirs.name))
  })

  it('both write in turn and read the same in the end, and what theirs wrote after our load is not covered by our cursor', async () => {
    const { ours, id } = await open()
    await ours.load()
    const theirs = await openTheirs(id)
    const doc = recorded(ours)
    for (let i = 0; i < 30; i++) {
      doc.getText().insert(0, `o${i} `)
      theirs.doc.getText().insert(0, `t${i} `)
      if (i % 10 === 0) await ours.commit({ cursor: cursor(i + 1), put: [row(A, i + 1)] })
    }
    await ours.commit({})
    await written(theirs)
    const loaded = await ours.load()
    same([loaded.foreign, loaded.cursor, loaded.outbox.length], [true, undefined, 3])
    const reopened = await openTheirs(id)
    expect(reopened.doc.getText().toJSON()).toBe(textOf(loaded))
    for (let i = 0; i < 30; i++) expect(textOf(loaded)).toMatch(new RegExp(`o${i} .*t${i} |t${i} .*o${i} `, 'u'))
  })

  it('theirs trims: outbox stays, nothing is lost, and the cursor waits for a full exchange', async () => {
    const { ours, id } = await open()
    const doc = recorded(ours)
    for (let i = 0; i < 40; i++) doc.getText().insert(0, `${i} `)
    await ours.commit({ updates: [row(A, 1).update, row(A, 2).update], put: [row(A, 1), row(A, 2)], cursor: cursor(9) })
    const before = textOf(await ours.load())
    const theirs = await openTheirs(id)
    await storeState(theirs)
    await until(async () => (await ours.load()).updates.length < 5, 'its trim')
    const after = await ours.load()
    same([textOf(after), after.outbox, after.foreign, after.cursor], [before, [row(A, 1), row(A, 2)], true, undefined])
    doc.getText().insert(0, 'after ')
    await ours.commit({ acked: [{ incarnation: A, through: 1 }], cursor: cursor(9), relayUpdates: [bytes(200)] })
    const settled = await ours.load()
    same([settled.foreign, settled.cursor, settled.outbox.length], [false, cursor(9), 1])
    expect(textOf(settled)).toContain(doc.getText().toJSON())
    // What was gone may have been what the cursor speaks of: the relay's bytes are kept although the cursor was there already.
    expect(settled.updates).toContainEqual(bytes(200))
  })

  it('ours trims: what theirs wrote stays foreign, and its open tab works on', async () => {
    const { ours, id } = await open()
    const doc = recorded(ours)
    const theirs = await openTheirs(id)
    theirs.doc.getText().insert(0, 'theirs ')
    await written(theirs)
    for (let i = 0; i < 10; i++) doc.getText().insert(0, `${i} `)
    await ours.commit({ cursor: cursor(9) })
    const before = textOf(await ours.load())
    await ours.trim(Y.mergeUpdates, 5)
    const after = await ours.load()
    same([textOf(after), after.foreign], [before, true])
    expect(after.updates.length).toBeLessThan(5)
    theirs.doc.getText().insert(0, 'more ')
    await written(theirs)
    await storeState(theirs)
    await until(async () => (await ours.load()).updates.length === 1, 'its trim')
    const last = textOf(await ours.load())
    for (const part of ['more theirs ', '9 8 7 6 5 4 3 2 1 0 ']) expect(last).toContain(part)
  })

  it('an unreadable row takes the cursor away, and is set aside once the relay has all the others', async () => {
    const { ours, id } = await open()
    await ours.commit({ updates: [bytes(1)], put: [row(A, 1)], cursor: cursor(4) })
    await plant(id, new Uint8Array([1, 2, 3]))
    await plant(id, 'not bytes')
    const loaded = await ours.load()
    same([loaded.foreign, loaded.cursor, loaded.updates.length], [true, undefined, 2])
    await ours.trim(Y.mergeUpdates, 2)
    await ours.commit({ acked: [{ incarnation: A, through: 1 }], cursor: cursor(4), relayUpdates: [bytes(5)] })
    const settled = await ours.load()
    same([settled.foreign, settled.cursor], [false, cursor(4)])
    // The outbox row's own bytes and the relay's are among the rows now: either may have been what cannot be read.
    for (const update of [bytes(1), bytes(5)]) expect(settled.updates).toContainEqual(update)
    expect(await asideOf(id)).toEqual([new Uint8Array([1, 2, 3]), 'not bytes'])
  })

  it('a row of ours that rotted is found when asked to verify', async () => {
    const { ours, id } = await open()
    await ours.commit({ updates: [bytes(1), bytes(2)], cursor: cursor(4) })
    await plant(id, new Uint8Array([9, 9, 9]), 2)
    expect((await ours.load()).foreign).toBe(false)
    const loaded = await ours.load({ verify: true })
    same([loaded.foreign, loaded.cursor, loaded.updates], [true, undefined, [bytes(1)]])
  })

  it('rows that vanished take the cursor away', async () => {
    const { ours, id } = await open()
    await ours.commit({ updates: [bytes(1), bytes(2), bytes(3)], cursor: cursor(4) })
    await raw(id, 'updates', (store) => store.delete(2))
    const loaded = await ours.load()
    same([loaded.foreign, loaded.cursor, loaded.updates.length], [true, undefined, 2])
  })
})

function nextId(): DocumentId {
  return document(`y-${++count}`)
}

async function open(id = nextId()): Promise<{ readonly id: DocumentId; readonly store: Store; readonly ours: DocumentStore }> {
  const store = await indexeddb({ platform: { locks } }).open()
  ends.push(() => store.close())
  return { id, store, ours: await store.open(id) }
}

async function openTheirs(id: string): Promise<IndexeddbPersistence> {
  const theirs = new IndexeddbPersistence(id, new Y.Doc())
  ends.push(() => theirs.destroy())
  await theirs.whenSynced
  return theirs
}

/** y-indexeddb does not tell when a write is done: transactions on one object store run in order, so one more tells. */
function written(theirs: IndexeddbPersistence): Promise<unknown> {
  return raw(theirs.name, 'updates', (store) => store.count())
}

/** A document whose edits ours stores. */
function recorded(ours: DocumentStore): Y.Doc {
  const doc = new Y.Doc()
  doc.on('update', (update: Uint8Array) => void ours.commit({ updates: [update] }))
  return doc
}

async function plant(id: string, value: unknown, key?: number): Promise<void> {
  await raw(id, 'updates', (store) => store.put(value, key))
}

function asideOf(id: string): Promise<unknown> {
  return raw(id, 'custom', (store) => store.getAll(IDBKeyRange.bound(['rejoin', 'aside'], ['rejoin', 'aside', []])))
}

/** Version, object stores and their ways of making keys. */
async function layoutOf(id: string): Promise<unknown> {
  const db = await openRaw(id)
  const transaction = db.transaction([...db.objectStoreNames])
  const stores = [...db.objectStoreNames].map((name) => {
    const { autoIncrement, keyPath, indexNames } = transaction.objectStore(name)
    return { name, autoIncrement, keyPath, indexes: [...indexNames] }
  })
  db.close()
  return { version: db.version, stores }
}

/** One request on a connection of its own; resolves when its transaction has completed. */
async function raw<T>(id: string, name: string, ask: (store: IDBObjectStore) => IDBRequest<T>): Promise<T> {
  const db = await openRaw(id)
  const transaction = db.transaction(name, 'readwrite')
  const request = ask(transaction.objectStore(name))
  await new Promise((resolve, reject) => {
    transaction.addEventListener('complete', resolve)
    transaction.addEventListener('abort', () => reject(transaction.error ?? new Error('aborted')))
  })
  db.close()
  return request.result
}

function openRaw(id: string): Promise<IDBDatabase> {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(id)
    request.addEventListener('success', () => resolve(request.result))
    request.addEventListener('error', () => reject(request.error ?? new Error('not opened')))
  })
}
