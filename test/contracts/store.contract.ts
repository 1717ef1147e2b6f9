/**
 * What every device store owes its callers, as cases without a test runner, so that the same run in Node and inside a browser's page.
 */
import * as fc from 'fast-check'
import * as Y from 'yjs'
import type { ChainHash, Cursor, DocumentId, IncarnationId, Lineage, Seq } from '@rejoin/shared'
import { SyncError } from '@rejoin/shared'
import type { Commit, DocumentStore, Loaded, Notice, OutboxRow, Store, StoreFactory } from '#client/stores/store.js'

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

  single('keeps the cursor that is further, and then not the bytes up to the other', async (store) => {
    const rows = await store.open(document('cursor'))
    await rows.commit({ cursor: cursor(5), relayUpdates: [bytes(5)] })
    for (const behind of [4, 5]) await rows.commit({ cursor: cursor(behind), relayUpdates: [bytes(90)], updates: [bytes(behind)] })
    sameLoaded(await rows.load(), { updates: [bytes(5), bytes(4), bytes(5)], cursor: cursor(5), outbox: [], foreign: false })
    await rows.commit({ cursor: cursor(6), relayUpdates: [bytes(6)] })
    await rows.commit({ cursor: cursor(2, 1), relayUpdates: [bytes(7)] })
    same((await rows.load()).cursor, cursor(2, 1))
    await rows.commit({ cursor: cursor(1, 1, '2'), relayUpdates: [bytes(8)] })
    same((await rows.load()).cursor, cursor(1, 1, '2'))
    same((await rows.load()).updates.length, 6)
  }),

  single('keeps what was refused until it is discarded', async (store) => {
    const rows = await store.open(document('refused'))
    const refused = { ...row(A, 2), refused: { code: 'too_large', message: 'too large', at: 1234.5 } }
    await rows.commit({ put: [row(A, 1), row(A, 2), row(A, 3)] })
    await rows.commit({ put: [refused], acked: [{ incarnation: A, through: 3 }] })
    same(await rows.outbox(), [refused])
    same(await store.pending(), [{ document: document('refused'), rows: 0, refused: 1 }])
    await rows.commit({ put: [row(A, 2)] })
    same(await store.pending(), [{ document: document('refused'), rows: 1, refused: 0 }])
    await rows.commit({ put: [refused] })
    await rows.commit({ discard: { incarnation: A, n: 2 } })
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
    await b.commit({ cursor: cursor(6), relayUpdates: [bytes(6)], acked: [{ incarnation: A, through: 1 }] })
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
    await rows.commit({ discard: { incarnation: B, n: 1 } })
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

export const A = 'a'.repeat(32) as IncarnationId
export const B = 'b'.repeat(32) as IncarnationId
export const C = 'c'.repeat(32) as IncarnationId

export function document(name: string): DocumentId {
  return name as DocumentId
}

/** An update of its own: the client `of` writes one character. */
export function bytes(of: number): Uint8Array {
  const doc = new Y.Doc()
  doc.clientID = of + 1
  doc.getText().insert(0, 'x')
  return Y.encodeStateAsUpdate(doc)
}

export function row(incarnation: IncarnationId, n: number): OutboxRow {
  return { incarnation, n, update: bytes(n % 250) }
}

export function cursor(seq: number, epoch = 0, lineage = '1'): Cursor {
  return { lineage: lineage.repeat(32) as Lineage, epoch, seq: seq as Seq, hash: seq.toString(16).padStart(32, '0') as ChainHash }
}

export function textOf({ updates }: Loaded): string {
  const doc = new Y.Doc()
  for (const update of updates) Y.applyUpdate(doc, update)
  return doc.getText().toJSON()
}

/** Opens the store, and closes it whatever happens. */
export async function using(device: Device, run: (store: Store) => Promise<void>): Promise<void> {
  const store = await device.tab().open()
  try {
    await run(store)
  } finally {
    await store.close()
  }
}

export async function rejects(promise: Promise<unknown>, code: string): Promise<SyncError> {
  const thrown: unknown = await promise.then(
    () => undefined,
    (error: unknown) => error,
  )
  if (!(thrown instanceof SyncError)) throw new Error(`rejects with ${code}, not ${String(thrown)}`, { cause: thrown })
  same(thrown.code, code)
  return thrown
}

/** Deep equality by a canonical text; properties that are undefined count as absent. */
export function same(found: unknown, expected: unknown): void {
  const [is, shall] = [print(found), print(expected)]
  if (is === shall) return
  let at = 0
  while (is[at] === shall[at]) at++
  const around = (text: string): string => text.slice(Math.max(0, at - 200), at + 200)
  throw new Error(`they differ at character ${at}:\nis    ${around(is)}\nnot   ${around(shall)}`)
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

/** Updates are a set with repetitions: the port gives them in any order. */
function sameLoaded(found: Loaded, expected: Loaded): void {
  same({ ...found, updates: found.updates.map(print).toSorted() }, { ...expected, updates: expected.updates.map(print).toSorted() })
}

function sorted(list: readonly { readonly document: DocumentId }[]): readonly unknown[] {
  return [...list].toSorted((a, b) => (a.document < b.document ? -1 : 1))
}

function print(value: unknown): string {
  return JSON.stringify(value, (_, inner: unknown) => {
    if (inner instanceof Uint8Array) return [...inner].join(' ')
    if (typeof inner !== 'object' || inner === null || Array.isArray(inner)) return inner
    return Object.fromEntries(Object.entries(inner).toSorted(([a], [b]) => (a < b ? -1 : 1)))
  })
}

/** The port in words of a map and an array, to compare stores with. */
function createModel(): { commit(commit: Commit): void; loaded(): Loaded } {
  const updates: Uint8Array[] = []
  let outbox: readonly OutboxRow[] = []
  let at: Cursor | undefined
  const remove = (gone: (row: OutboxRow) => boolean): void => {
    outbox = outbox.filter((one) => !gone(one))
  }
  return {
    commit: (commit) => {
      updates.push(...(commit.updates ?? []))
      for (const put of commit.put ?? []) {
        remove(({ incarnation, n }) => incarnation === put.incarnation && n === put.n)
        outbox = [...outbox, put]
      }
      for (const { incarnation, through } of commit.acked ?? [])
        remove((one) => one.incarnation === incarnation && one.n <= through && one.refused === undefined)
      remove(({ incarnation, n }) => incarnation === commit.discard?.incarnation && n === commit.discard.n)
      const next = commit.cursor
      if (next !== undefined && at !== undefined && next.lineage === at.lineage && next.epoch === at.epoch && next.seq <= at.seq) return
      updates.push(...(commit.relayUpdates ?? []))
      at = next ?? at
    },
    loaded: () => ({
      updates,
      cursor: at,
      outbox: outbox.toSorted((a, b) => a.incarnation.localeCompare(b.incarnation) || a.n - b.n),
      foreign: false,
    }),
  }
}

function arbitraryCommit(): fc.Arbitrary<Commit> {
  const update = fc.nat({ max: 200 }).map(bytes)
  const incarnation = fc.constantFrom(A, B, C)
  const n = fc.integer({ min: 1, max: 12 })
  const refused = fc.option(fc.record({ code: fc.constant('limit'), message: fc.string(), at: fc.nat() }), { nil: undefined, freq: 4 })
  const rows = fc
    .record({ incarnation, n, update, refused })
    .map((made) => (made.refused === undefined ? { incarnation: made.incarnation, n: made.n, update: made.update } : made))
  return fc.record(
    {
      updates: fc.array(update, { maxLength: 3 }),
      put: fc.array(rows, { maxLength: 4 }),
      acked: fc.array(fc.record({ incarnation, through: fc.nat({ max: 12 }) }), { maxLength: 2 }),
      discard: fc.record({ incarnation, n }),
      cursor: fc
        .tuple(fc.nat({ max: 9 }), fc.nat({ max: 1 }), fc.constantFrom('1', '2'))
        .map(([seq, epoch, lineage]) => cursor(seq, epoch, lineage)),
      relayUpdates: fc.array(update, { maxLength: 3 }),
    },
    { requiredKeys: [] },
  )
}
