/**
 * What every device store owes its callers, as cases without a test runner, so that the same run in Node and inside a browser's page.
 */
import * as fc from 'fast-check'
import * as Y from 'yjs'
import type { DocumentId } from '@rejoin/shared'
import type { DocumentStore, Notice, Store, StoreFactory } from '#client/stores/store.js'
import {
  A,
  B,
  C,
  arbitraryCommit,
  bytes,
  createModel,
  cursor,
  document,
  rejects,
  row,
  same,
  sameLoaded,
  textOf,
} from '../support/store-values.ts'

/** One device, empty at first. */
export interface Device {
  /** A tab; for a store of one process, the next process. */
  tab(): StoreFactory
}

export interface StoreCase {
  readonly name: string
  /** Needs tabs that have the store open at the same time. */
  readonly tabs: boolean
  run(device: Device): Promise<void>
}

export const storeCases: readonly StoreCase[] = [
  single('has nothing of a document that was never stored', async (store) => {
    const rows = await store.open(document('new'))
    same(await rows.load(), { updates: [], outbox: [], foreign: false })
    same(await rows.outbox(), [])
    same(await store.pending(), [])
  }),

  reopened('gives back what was committed, whatever it was, also after it was closed and opened again', async (device) => {
    let round = 0
    await fc.assert(
      fc.asyncProperty(fc.array(arbitraryCommit(), { maxLength: 12 }), fc.nat({ max: 12 }), async (commits, cut) => {
        const id = document(`round-${round++}`)
        const model = createModel()
        await use(device, id, (rows) => all(commits.slice(0, cut).map((commit) => rows.commit(commit))))
        for (const commit of commits.slice(0, cut)) model.commit(commit)
        await use(device, id, async (rows) => {
          sameLoaded(await rows.load(), model.loaded())
          await all(commits.slice(cut).map((commit) => rows.commit(commit)))
          for (const commit of commits.slice(cut)) model.commit(commit)
          sameLoaded(await rows.load(), model.loaded())
          same(await rows.outbox(), model.loaded().outbox)
        })
        await use(device, id, async (rows) => sameLoaded(await rows.load(), model.loaded()))
      }),
      { numRuns: 25 },
    )
  }),

  single('orders outbox rows by incarnation and number, not by when they were written', async (store) => {
    const rows = await store.open(document('order'))
    await rows.commit({ put: [row(B, 2), row(A, 10)] })
    await rows.commit({ put: [row(A, 9), row(B, 1), row(A, 1)] })
    same(
      (await rows.outbox()).map(({ incarnation, n }) => [incarnation, n]),
      [
        [A, 1],
        [A, 9],
        [A, 10],
        [B, 1],
        [B, 2],
      ],
    )
  }),

  single('keeps a document to itself', async (store) => {
    const [one, other] = [await store.open(document('a')), await store.open(document('a '))]
    await one.commit({ updates: [bytes(1)], put: [row(A, 1)], cursor: cursor(1) })
    same(await other.load(), { updates: [], outbox: [], foreign: false })
    await other.commit({ put: [row(A, 1), row(A, 2)], acked: [{ incarnation: A, through: 1 }] })
    same((await one.outbox()).length, 1)
    same((await other.outbox()).length, 1)
  }),

  single('leaves out what another tab has stored up to the very same cursor, and nothing else', async (store) => {
    const rows = await store.open(document('cursor'))
    await rows.commit({ cursor: cursor(5), relayUpdates: [bytes(5)] })
    await rows.commit({ cursor: cursor(5), relayUpdates: [bytes(90)], updates: [bytes(6)] })
    sameLoaded(await rows.load(), { updates: [bytes(5), bytes(6)], cursor: cursor(5), outbox: [], foreign: false })
    // A cursor that is less far may be of another history: its bytes are kept, and it stands.
    await rows.commit({ cursor: cursor(4), relayUpdates: [bytes(91)] })
    sameLoaded(await rows.load(), { updates: [bytes(5), bytes(6), bytes(91)], cursor: cursor(4), outbox: [], foreign: false })
    await rows.commit({ cursor: cursor(2, 1), relayUpdates: [bytes(7)] })
    same((await rows.load()).cursor, cursor(2, 1))
    await rows.commit({ cursor: cursor(1, 1, '2'), relayUpdates: [bytes(8)] })
    same((await rows.load()).cursor, cursor(1, 1, '2'))
    same((await rows.load()).updates.length, 5)
  }),

  single('keeps what was refused until it was sent again and acknowledged', async (store) => {
    const rows = await store.open(document('refused'))
    const refused = { ...row(A, 2), refused: { code: 'too_large', message: 'too large', at: 1234.5 } }
    await rows.commit({ put: [row(A, 1), row(A, 2), row(A, 3)] })
    await rows.commit({ put: [refused], acked: [{ incarnation: A, through: 3 }] })
    same(await rows.outbox(), [refused])
    same(await store.pending(), [{ document: document('refused'), rows: 0, refused: 1 }])
    await rows.commit({ put: [row(A, 2)] })
    same(await store.pending(), [{ document: document('refused'), rows: 1, refused: 0 }])
    await rows.commit({ acked: [{ incarnation: A, through: 2 }] })
    same(await rows.outbox(), [])
    same(await store.pending(), [])
  }),

  reopened('tells the pending rows of every document, open or closed, also after a restart', async (device) => {
    const names = ['', 'ü/x', '\u{1f600}'].map((end) => document(`pending${end}`))
    await using(device, async (store) => {
      for (const [i, name] of names.entries()) {
        const rows = await store.open(name)
        await rows.commit({ put: Array.from({ length: i + 1 }, (_, n) => row(A, n + 1)) })
        if (i === 1) await rows.close()
      }
      same(sorted(await store.pending()), sorted(names.map((name, i) => ({ document: name, rows: i + 1, refused: 0 }))))
    })
    await using(device, async (store) => {
      same(sorted(await store.pending()), sorted(names.map((name, i) => ({ document: name, rows: i + 1, refused: 0 }))))
      for (const name of names) {
        const rows = await store.open(name)
        await rows.commit({ acked: [{ incarnation: A, through: 9 }] })
        await rows.close()
      }
      same(await store.pending(), [])
    })
    await using(device, async (store) => same(await store.pending(), []))
  }),

  single('commits in the order made, without being awaited', async (store) => {
    const rows = await store.open(document('pipelined'))
    const done: number[] = []
    const commits = Array.from({ length: 300 }, (_, i) =>
      rows
        .commit({ updates: [bytes(i % 250)], put: [row(A, i + 1)], acked: i > 9 ? [{ incarnation: A, through: i - 9 }] : [] })
        .then(() => done.push(i)),
    )
    await all(commits)
    same(
      done,
      Array.from({ length: 300 }, (_, i) => i),
    )
    same(
      (await rows.outbox()).map(({ n }) => n),
      Array.from({ length: 10 }, (_, i) => 291 + i),
    )
    same((await rows.load()).updates.length, 300)
  }),

  reopened('commits what was asked for before it closes', async (device) => {
    const id = document('closing')
    let commits: Promise<void>[] = []
    await using(device, async (store) => {
      const rows = await store.open(id)
      commits = [1, 2, 3].map((n) => rows.commit({ put: [row(A, n)] }))
    })
    await all(commits)
    await use(device, id, async (rows) => same((await rows.outbox()).length, 3))
  }),

  single('folds many rows into one that reads the same, and keeps cursor and outbox', async (store) => {
    const rows = await store.open(document('trim'))
    const doc = new Y.Doc()
    const commits: Promise<void>[] = []
    doc.on('update', (update: Uint8Array) => commits.push(rows.commit({ updates: [update] })))
    for (let i = 0; i < 20; i++) doc.getText().insert(0, `${i} `)
    await all([...commits, rows.commit({ put: [row(A, 1)], cursor: cursor(3) })])
    await rows.trim(Y.mergeUpdates, 21)
    same((await rows.load()).updates.length, 20)
    await rows.trim(Y.mergeUpdates, 20)
    const after = await rows.load()
    same([after.updates.length, after.cursor, after.foreign], [1, cursor(3), false])
    same(after.outbox, [row(A, 1)])
    same(textOf(after), doc.getText().toJSON())
    await rows.commit({ updates: [bytes(1)], cursor: cursor(4) })
    await rows.trim((updates) => bytes(updates.length), 2)
    sameLoaded(await rows.load(), { updates: [bytes(2)], cursor: cursor(4), outbox: [row(A, 1)], foreign: false })
  }),

  single('writes nothing when the fold throws', async (store) => {
    const rows = await store.open(document('fold'))
    await rows.commit({ updates: [bytes(1), bytes(2)] })
    await rejects(
      rows.trim(() => {
        throw new Error('no fold')
      }, 2),
      'store_failed',
    )
    same((await rows.load()).updates.length, 2)
    await rows.commit({ updates: [bytes(3)] })
  }),

  single('lets one hold an incarnation at a time', async (store) => {
    const rows = await store.open(document('hold'))
    const release = await rows.hold(A, never())
    const free = await rows.hold(B, never())
    const second = rows.hold(A, never())
    const order: string[] = []
    void second.then(() => order.push('second'))
    await rows.load()
    order.push('release')
    release()
    const again = await second
    same(order, ['release', 'second'])
    release()
    const third = new AbortController()
    const waiting = rows.hold(A, third.signal)
    third.abort()
    await rejects(waiting, 'aborted')
    await rejects(rows.hold(C, AbortSignal.abort()), 'aborted')
    again()
    free()
    ;(await rows.hold(A, never()))()
  }),

  single('refuses to work after it was closed', async (store) => {
    const rows = await store.open(document('closed'))
    await rows.close()
    await rejects(rows.commit({ updates: [bytes(1)] }), 'closed')
    await rejects(rows.load(), 'closed')
    const again = await store.open(document('closed'))
    same((await again.load()).updates, [])
    await store.close()
    await rejects(again.commit({}), 'closed')
    await rejects(store.open(document('closed')), 'closed')
    await store.close()
  }),

  tabs('shows one tab what another committed', async (one, other) => {
    const [a, b] = [await one.open(document('shared')), await other.open(document('shared'))]
    await all([a.commit({ updates: [bytes(1)], put: [row(A, 1)] }), b.commit({ updates: [bytes(2)], put: [row(B, 1)] })])
    const seen = await b.load()
    same([seen.updates.length, seen.outbox.length, seen.foreign], [2, 2, false])
    await a.commit({ cursor: cursor(7), relayUpdates: [bytes(7)] })
    await b.commit({ cursor: cursor(7), relayUpdates: [bytes(7)], acked: [{ incarnation: A, through: 1 }] })
    const after = await a.load()
    same([after.updates.length, after.cursor, after.outbox.map(({ incarnation }) => incarnation)], [3, cursor(7), [B]])
    same(await one.pending(), await other.pending())
  }),

  tabs('tells the other tabs of edits and outbox once they are committed, in order, and not itself', async (one, other) => {
    const [heard, own]: [Notice[], Notice[]] = [[], []]
    const rows = await one.open(document('notices'))
    const stop = other.watch((notice) => heard.push(notice))
    one.watch((notice) => own.push(notice))
    await rows.commit({ updates: [bytes(1)], put: [row(A, 1)] })
    await until(() => heard.length === 1)
    await rows.commit({ cursor: cursor(1), relayUpdates: [bytes(9)] })
    await rows.commit({ updates: [bytes(2)] })
    await rows.commit({ acked: [{ incarnation: A, through: 1 }] })
    await rows.commit({ acked: [{ incarnation: B, through: 1 }] })
    await until(() => heard.length === 4)
    const name = document('notices')
    same(heard, [
      { document: name, updates: [bytes(1)], incarnations: [A] },
      { document: name, updates: [bytes(2)], incarnations: [] },
      { document: name, updates: [], incarnations: [A] },
      { document: name, updates: [], incarnations: [B] },
    ])
    stop()
    const closing: Notice[] = []
    other.watch((notice) => closing.push(notice))
    await rows.commit({ updates: [bytes(3)] })
    await until(() => closing.length === 1)
    same([heard.length, own.length], [4, 0])
  }),

  tabs('hands an incarnation over when its tab closes', async (one, other) => {
    const [a, b] = [await one.open(document('handover')), await other.open(document('handover'))]
    await a.hold(A, never())
    await a.commit({ put: [row(A, 1)] })
    let adopted = false
    const waiting = b.hold(A, never())
    void waiting.finally(() => {
      adopted = true
    })
    await b.load()
    same(adopted, false)
    await one.close()
    await waiting
    same(await b.outbox(), [row(A, 1)])
    same(await other.pending(), [{ document: document('handover'), rows: 1, refused: 0 }])
  }),

  tabs('trims in one tab while another one writes, and loses nothing', async (one, other) => {
    const [a, b] = [await one.open(document('both')), await other.open(document('both'))]
    const doc = new Y.Doc()
    const commits: Promise<void>[] = []
    doc.on('update', (update: Uint8Array) => commits.push((commits.length % 2 === 0 ? a : b).commit({ updates: [update] })))
    for (let i = 0; i < 60; i++) {
      doc.getText().insert(0, `${i} `)
      if (i % 10 === 9) commits.push(a.trim(Y.mergeUpdates, 5), b.trim(Y.mergeUpdates, 5))
    }
    await all(commits)
    const loaded = await a.load()
    same([textOf(loaded), loaded.foreign], [doc.getText().toJSON(), false])
  }),
]

/** Opens the store, and closes it whatever happens. */
export async function using(device: Device, run: (store: Store) => Promise<void>): Promise<void> {
  const store = await device.tab().open()
  try {
    await run(store)
  } finally {
    await store.close()
  }
}

function single(name: string, run: (store: Store) => Promise<void>): StoreCase {
  return { name, tabs: false, run: (device) => using(device, run) }
}

function reopened(name: string, run: (device: Device) => Promise<void>): StoreCase {
  return { name, tabs: false, run }
}

function tabs(name: string, run: (one: Store, other: Store) => Promise<void>): StoreCase {
  return { name, tabs: true, run: (device) => using(device, (one) => using(device, (other) => run(one, other))) }
}

function use(device: Device, id: DocumentId, run: (rows: DocumentStore) => Promise<unknown>): Promise<void> {
  return using(device, async (store) => void (await run(await store.open(id))))
}

function never(): AbortSignal {
  return new AbortController().signal
}

async function all(promises: readonly Promise<unknown>[]): Promise<void> {
  await Promise.all(promises)
}

async function until(condition: () => boolean): Promise<void> {
  for (let i = 0; i < 1000 && !condition(); i++) await new Promise((resolve) => setTimeout(resolve, 5))
  if (!condition()) throw new Error(`waited for ${condition.toString()}`)
}

function sorted(list: readonly { readonly document: DocumentId }[]): readonly unknown[] {
  return [...list].toSorted((a, b) => (a.document < b.document ? -1 : 1))
}
