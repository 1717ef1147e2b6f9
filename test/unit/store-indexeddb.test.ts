/**
 * What only the browser's store promises: a list of what is pending that is never short, databases apart by owner, and honest words when the browser takes something away.
 */
import 'fake-indexeddb/auto'
import { IDBDatabase as FakeDatabase, IDBFactory, IDBObjectStore as FakeObjectStore } from 'fake-indexeddb'
import { afterEach, describe, expect, it, vi } from 'vitest'
import type { Clock } from '@rejoin/shared'
import type { IndexeddbOptions } from '#client/stores/indexeddb.js'
import { indexeddb } from '#client/stores/indexeddb.js'
import type { IndexeddbPlatform, Locks } from '#client/stores/indexeddb-platform.js'
import type { Store } from '#client/stores/store.js'
import { A, B, bytes, cursor, document, rejects, row, same } from '../support/store-values.ts'
import { createLocks } from '../support/browser-locks.ts'

const ID = document('d')
const opened: Store[] = []

afterEach(async () => {
  vi.restoreAllMocks()
  await Promise.allSettled(opened.splice(0).map((store) => store.close()))
})

describe("the browser's store", () => {
  it('puts many commits into few transactions', async () => {
    const { open } = createBrowser()
    const rows = await (await open()).open(ID)
    const transactions = vi.spyOn(FakeDatabase.prototype, 'transaction')
    await Promise.all(Array.from({ length: 300 }, (_, n) => rows.commit({ updates: [bytes(n % 200)], put: [row(A, n + 1)] })))
    expect(transactions.mock.calls.filter(([names]) => [names].flat().length === 2).length).toBeLessThanOrEqual(2)
    expect(transactions.mock.calls.every(([, , options]) => options?.durability === 'strict')).toBe(true)
  })

  it('rejects what the quota has no room for, tries it once, keeps what there was, and goes on when there is room', async () => {
    const { open } = createBrowser()
    const rows = await (await open()).open(ID)
    await rows.commit({ updates: [bytes(1)], put: [row(A, 1)] })
    const full = vi.spyOn(FakeObjectStore.prototype, 'add').mockImplementation(() => {
      throw new DOMException('no room', 'QuotaExceededError')
    })
    const lost = [2, 3].map((n) => rows.commit({ updates: [bytes(n)], put: [row(A, n)] }))
    for (const commit of lost) expect(((await rejects(commit, 'store_failed')).cause as DOMException).name).toBe('QuotaExceededError')
    expect(full).toHaveBeenCalledTimes(1)
    full.mockRestore()
    const { updates, outbox } = await rows.load()
    same([updates.length, outbox.length], [1, 1])
    await rows.commit({ updates: [bytes(2)], put: [row(A, 2)] })
    same((await rows.load()).outbox.length, 2)
  })

  it('connects again, once, when the browser closed the connection under it', async () => {
    const { open, connections } = createBrowser()
    const rows = await (await open()).open(ID)
    for (let round = 1; round <= 3; round++) {
      for (const db of connections()) db.close()
      await Promise.all([rows.load(), rows.commit({ updates: [bytes(round)], put: [row(A, round)] }), rows.outbox()])
    }
    same((await rows.load()).outbox.length, 3)
    vi.spyOn(FakeDatabase.prototype, 'transaction').mockImplementation(() => {
      throw new DOMException('closed', 'InvalidStateError')
    })
    await rejects(rows.commit({ updates: [bytes(4)] }), 'store_failed')
  })

  it('lets the database be deleted, says so, and does not make it anew', async () => {
    const { open, factory } = createBrowser()
    const rows = await (await open()).open(ID)
    await rows.commit({ updates: [bytes(1)], cursor: cursor(1) })
    await remove(factory, ID)
    expect((await rejects(rows.commit({ updates: [bytes(2)], cursor: cursor(2) }), 'store_failed')).message).toContain('deleted')
    same(
      (await factory.databases()).map(({ name }) => name),
      ['rejoin:registry'],
    )
    // Somebody made another one: the cursor would speak of rows that are not in it.
    const again = await (await open()).open(ID)
    await again.commit({ updates: [bytes(3)] })
    expect((await rejects(rows.commit({ updates: [bytes(2)], cursor: cursor(2) }), 'store_failed')).message).toContain('anew')
    same((await again.load()).updates, [bytes(3)])
  })

  it('leaves a database of another layout alone', async () => {
    const { open, factory } = createBrowser()
    await new Promise((resolve) => {
      const request = factory.open(ID, 7)
      request.addEventListener('upgradeneeded', () => void request.result.createObjectStore('photos'))
      request.addEventListener('success', () => resolve(request.result.close()))
    })
    await rejects((await open()).open(ID), 'store_failed')
  })

  it('writes no outbox row before its document is listed as pending', async () => {
    const { open } = createBrowser()
    const rows = await (await open()).open(ID)
    const put = vi.spyOn(FakeObjectStore.prototype, 'put').mockImplementation(function refuse(this: IDBObjectStore) {
      throw new DOMException(this.name, 'QuotaExceededError')
    })
    const { cause } = await rejects(rows.commit({ updates: [bytes(1)], put: [row(A, 1)] }), 'store_failed')
    expect((cause as DOMException).message).toBe('documents')
    put.mockRestore()
    same(await rows.outbox(), [])
  })

  it('keeps a living tab on the list of pending documents, and sweeps what a dead one left', async () => {
    const { open, list } = createBrowser()
    const dead = createLocks()
    const rows = await (await open({}, dead)).open(ID)
    await rows.commit({ put: [row(A, 1)] })
    const [living, other] = [await open(), await open()]
    const writing = await living.open(ID)
    await writing.commit({ put: [row(B, 1)] })
    await writing.commit({ acked: [A, B].map((incarnation) => ({ incarnation, through: 1 })) })
    // The tab behind `dead` holds its lock in another browser as it were: for `other` it is gone.
    same(await other.pending(), [])
    same((await list()).length, 1)
    await writing.commit({ put: [row(B, 2)] })
    same(await other.pending(), [{ document: ID, rows: 1, refused: 0 }])
    await writing.close()
    same((await list()).length, 1)
    const adopting = await other.open(ID)
    await adopting.commit({ acked: [{ incarnation: B, through: 2 }] })
    await adopting.close()
    await living.close()
    same(await other.pending(), [])
    same((await list()).length, 0)
  })

  it('lists a document again that is opened while its last handle closes', async () => {
    const { open } = createBrowser()
    const store = await open()
    for (let i = 1; i < 20; i++) {
      const first = await store.open(ID)
      await first.commit({ put: [row(A, i)] })
      await first.commit({ acked: [{ incarnation: A, through: i }] })
      const closing = first.close()
      const second = await store.open(ID)
      await second.commit({ put: [row(A, i)] })
      await closing
      same((await store.pending()).length, 1)
      await second.close()
    }
  })

  it('gives every owner a database, the first one that which was there', async () => {
    const { open, names } = createBrowser()
    const nobody = await (await open()).open(ID)
    await nobody.commit({ put: [row(A, 1)] })
    await nobody.close()
    const alice = await open({ owner: 'alice' })
    same((await alice.pending()).length, 1)
    const hers = await alice.open(ID)
    same((await hers.outbox()).length, 1)
    const bob = await open({ owner: 'bob' })
    same(await bob.pending(), [])
    const his = await bob.open(ID)
    same((await his.load()).outbox, [])
    await his.commit({ put: [row(B, 1), row(B, 2)] })
    await Promise.all([hers.close(), his.close()])
    same(
      (await alice.pending()).map(({ rows }) => rows),
      [1],
    )
    same(
      (await bob.pending()).map(({ rows }) => rows),
      [2],
    )
    same(
      (await (await (await open({ owner: 'alice' })).open(ID)).outbox()).map(({ incarnation }) => incarnation),
      [A],
    )
    same((await (await open({ prefix: 'app/', owner: 'alice' })).pending()).length, 0)
    same(await names(), ['d', 'd\u001fbob', 'rejoin:registry'])
  })

  it('tells notices to tabs of the same owner only', async () => {
    const { open } = createBrowser()
    const [alice, again, bob] = [await open({ owner: 'alice' }), await open({ owner: 'alice' }), await open({ owner: 'bob' })]
    const heard: string[] = []
    bob.watch(() => heard.push('bob'))
    const told = new Promise((resolve) => again.watch(resolve))
    await (await alice.open(ID)).commit({ updates: [bytes(1)] })
    await told
    same(heard, [])
  })

  it('says what the browser promises about eviction, without waiting for a prompt', async () => {
    const { open } = createBrowser()
    const never = new Promise<boolean>(() => {})
    const impatient: Clock = { now: () => 0, after: (_, run) => (setImmediate(run), () => {}) }
    const durability = async (storage: IndexeddbPlatform['storage'], options: IndexeddbOptions = {}): Promise<string> =>
      (await open({ ...options, platform: { storage, clock: impatient } })).durability
    expect(await durability({ persisted: yes, persist: no })).toBe('durable')
    expect(await durability({ persisted: no, persist: yes })).toBe('durable')
    expect(await durability({ persisted: no, persist: yes }, { persist: false })).toBe('ephemeral')
    expect(await durability({ persisted: no, persist: () => never })).toBe('ephemeral')
    expect(await durability({ persisted: () => Promise.reject(new TypeError('no')), persist: yes })).toBe('ephemeral')
  })

  it('fails to open, and says why, where the browser gives no IndexedDB or no locks', async () => {
    expect((await rejects(indexeddb().open(), 'store_failed')).message).toContain('Web Locks')
    const broken = {
      open: () => {
        throw new DOMException('The operation is insecure.', 'SecurityError')
      },
    } as unknown as IDBFactory
    expect((await rejects(indexeddb({ platform: { indexedDB: broken, locks: createLocks() } }).open(), 'store_failed')).message).toContain(
      'insecure',
    )
  })
})

const yes = (): Promise<boolean> => Promise.resolve(true)
const no = (): Promise<boolean> => Promise.resolve(false)

interface Browser {
  readonly open: (options?: IndexeddbOptions, locks?: Locks) => Promise<Store>
  readonly factory: IDBFactory
  readonly connections: () => readonly IDBDatabase[]
  readonly names: () => Promise<unknown>
  /** Entries of the registry. */
  readonly list: () => Promise<readonly unknown[]>
}

function createBrowser(): Browser {
  const factory = new IDBFactory()
  const shared = createLocks()
  const dbs: IDBDatabase[] = []
  const indexedDB = {
    open: (name: string) => {
      const request = factory.open(name)
      request.addEventListener('success', () => dbs.push(request.result))
      return request
    },
  } as unknown as IDBFactory
  return {
    factory,
    connections: () => dbs,
    open: async (options = {}, locks = shared) => {
      const store = await indexeddb({ ...options, platform: { indexedDB, locks, ...options.platform } }).open()
      opened.push(store)
      return store
    },
    names: async () => (await factory.databases()).map(({ name }) => name ?? '').toSorted(),
    list: () =>
      new Promise((resolve) => {
        const request = factory.open('rejoin:registry')
        request.addEventListener('success', () => {
          const all = request.result.transaction('documents').objectStore('documents').getAll()
          all.addEventListener('success', () => {
            request.result.close()
            resolve(all.result)
          })
        })
      }),
  }
}

function remove(factory: IDBFactory, name: string): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const request = factory.deleteDatabase(name)
    request.addEventListener('success', resolve)
    request.addEventListener('blocked', () => reject(new Error('the deletion is blocked')))
  })
}
