/**
 * A log, its view and one sink in one process under a virtual clock, with an oracle that knows what lies where at every version. Anything may fail at any step.
 */
import type { DocumentId, IncarnationId, Position, Schema, Seq } from '@rejoin/shared'
import { newIncarnationId } from '@rejoin/shared'
import * as Y from 'yjs'
import type { Log } from '#server/log/log.js'
import type { Forwarder } from '#server/forwarding/forwarder.js'
import { startForwarder } from '#server/forwarding/forwarder.js'
import { compileTransform } from '#server/projection/transform.js'
import { forwardOf } from '#server/sinks/spec.js'
import { createMemoryDisk } from '#server/storage/memory-disk.js'
import { createMemoryLog } from '#server/storage/memory.js'
import { createMemoryNotes } from '#server/storage/notes-memory.js'
import { createMemoryView } from '#server/storage/view-memory.js'
import type { Pump } from '#server/pump.js'
import { startProjector } from '#server/view/projector.js'
import { createLogSource } from '#server/view/source.js'
import type { ViewCommit, ViewStore } from '#server/view/view.js'
import { keyText } from '#server/view/view.js'
import type { Chance } from './histories.ts'
import { below, pick } from './histories.ts'
import { createMemoryDestination, openMemorySink, rowsOf } from './memory-sink.ts'
import { RECORDS, editRecords, recordsOf, strangeUpdate } from './record-edits.ts'
import { sinkContext } from './sink-context.ts'
import { createVirtualClock } from './virtual-clock.ts'

const DOCUMENTS = ['a', 'b', 'ü/c'] as DocumentId[]

/** Where chance may strike. */
type Fail = (where: string) => void

export interface WorldOptions {
  readonly chance: Chance
  readonly schema?: Schema
  /** Makes the view; called again after it was lost. */
  readonly makeView?: (id: string) => ViewStore
}

/** Starts with an empty log, nothing running. */
export function createForwardingWorld({ chance, schema = RECORDS, makeView = createMemoryView }: WorldOptions) {
  const clock = createVirtualClock()
  const hex = (length: number): Uint8Array => Uint8Array.from({ length }, () => below(chance, 256))
  const disk = createMemoryDisk({ randomBytes: hex, random: chance })
  const log: Log = createMemoryLog(disk)
  const replicas = new Map<DocumentId, { doc: Y.Doc; incarnation: IncarnationId; seq: number; n: number }[]>()
  /** Records of every document behind each position, by code that knows nothing of the view. */
  const oracle: { readonly document: DocumentId; readonly records: ReadonlyMap<string, string> }[] = []
  const truths = new Map<DocumentId, Y.Doc>()
  const destination = createMemoryDestination()
  const forward = forwardOf('memory', { transactional: true, strategies: ['state'], readable: true }, {})
  const notes = createMemoryNotes()
  const trouble = { level: 0 }
  const problems: string[] = []
  const fail: Fail = (where) => {
    if (chance() < trouble.level) throw new Error(`trouble at ${where}`)
  }

  let views = 0
  let settled = new Map<number, number>()
  let view = watch(makeView(`${++views}`.padStart(32, '0')))
  let projector: Pump | undefined
  let forwarder: Forwarder | undefined

  /** Remembers which position each settled version is the projection of. */
  function watch(made: ViewStore): ViewStore {
    settled = new Map()
    const mine = settled
    return {
      ...made,
      commit: (commit: ViewCommit) => {
        fail('before a view commit')
        made.commit(commit)
        for (const entry of commit.entries) if (entry.settled) mine.set(entry.version, entry.position)
        if (commit.settled === true) mine.set(made.standing().version, commit.places[0]?.position ?? 0)
        fail('after a view commit')
      },
    }
  }

  const source = createLogSource(log, {
    id: log.id,
    ends: async () => {
      fail('ends')
      return new Map([[0, disk.image.position as Position]])
    },
    documents: async (limit, from) =>
      [...disk.image.documents.keys()]
        .sort()
        .filter((id) => from === undefined || id > from)
        .slice(0, limit),
  })
  const troubled: typeof source = {
    ...source,
    read: async (...args) => {
      fail('read')
      return source.read(...args)
    },
    load: async (...args) => {
      fail('load')
      return source.load(...args)
    },
  }

  destination.hook = (at) => {
    if (typeof at === 'string') fail(`sink: ${at}`)
    if (at === 'after commit') inspect()
  }

  /** At its cursor the destination equals the full projection of the prefix that the version stands for. */
  function inspect(): void {
    const { place } = destination
    if (place === undefined || place.refreshed !== undefined || place.view !== view.id) return
    const version = [...settled.keys()].filter((each) => each <= place.version).sort((a, b) => b - a)[0]
    const expected = expectedAt(version === undefined ? 0 : (settled.get(version) ?? 0))
    const found = new Map([...rowsOf(destination)].map(([text, value]) => [text, JSON.stringify(value)]))
    const all = new Set([...expected.keys(), ...found.keys()])
    for (const each of all)
      if (expected.get(each) !== found.get(each))
        problems.push(`at version ${place.version}: ${each} is ${found.get(each)} and should be ${expected.get(each)}`)
  }

  function expectedAt(position: number): Map<string, string> {
    const last = new Map<DocumentId, ReadonlyMap<string, string>>()
    for (const { document, records } of oracle.slice(0, position)) last.set(document, records)
    const expected = new Map<string, string>()
    for (const [document, records] of last) {
      for (const [name, text] of records) {
        const slash = name.indexOf('/')
        expected.set(keyText({ collection: name.slice(0, slash), document, id: name.slice(slash + 1) }), text)
      }
    }
    return expected
  }

  async function append(document: DocumentId, incarnation: IncarnationId, n: number, update: Uint8Array): Promise<void> {
    const { seq } = await log.open(document)
    await log.append([{ document, seq: (seq + 1) as Seq, incarnation, lo: n, hi: n, covers: [], actor: 'alice', at: clock.now(), update }])
    const truth = truths.get(document) ?? new Y.Doc({ gc: false })
    truths.set(document, truth)
    Y.applyUpdate(truth, update)
    oracle.push({ document, records: recordsOf(truth, schema) })
  }

  const replicasOf = (document: DocumentId) => {
    const known =
      replicas.get(document) ?? Array.from({ length: 2 }, () => ({ doc: new Y.Doc(), incarnation: newIncarnationId(hex), seq: 0, n: 0 }))
    replicas.set(document, known)
    return known
  }

  return {
    clock,
    destination,
    problems,
    trouble,
    get view() {
      return view
    },
    get projector() {
      return projector
    },
    get forwarder() {
      return forwarder
    },
    expected: () => expectedAt(oracle.length),
    /** One edit by one device, which may first have heard of the others. */
    edit: async (): Promise<void> => {
      const document = pick(chance, DOCUMENTS)
      const replica = pick(chance, replicasOf(document))
      const truth = truths.get(document)
      if (truth !== undefined && chance() < 0.5) Y.applyUpdate(replica.doc, Y.encodeStateAsUpdate(truth))
      if (chance() < 0.02) return append(document, newIncarnationId(hex), 1, strangeUpdate())
      const updates: Uint8Array[] = []
      const collect = (update: Uint8Array): void => void updates.push(update)
      replica.doc.on('update', collect)
      editRecords(replica.doc, chance)
      replica.doc.off('update', collect)
      if (updates.length > 0) await append(document, replica.incarnation, ++replica.n, Y.mergeUpdates(updates))
    },
    /** Folds a document and drops old entries, as compaction does. */
    compact: async (): Promise<void> => {
      const document = pick(chance, DOCUMENTS)
      const head = await log.head(document)
      const truth = truths.get(document)
      if (head === undefined || truth === undefined) return
      await log.fold({
        document,
        lineage: head.lineage,
        seq: head.seq,
        update: Y.encodeStateAsUpdate(truth),
        admission: new Uint8Array(0),
      })
      if (chance() < 0.5) await log.trim(Number.MAX_SAFE_INTEGER)
    },
    start: (): void => {
      projector ??= startProjector({
        log: troubled,
        view,
        schema,
        clock,
        random: chance,
        maxOpenBytes: 400,
        limits: { items: 1 + below(chance, 5), bytes: 2_000 },
        onCommit: () => forwarder?.poke(),
      })
      forwarder ??= startForwarder({
        view,
        transform: compileTransform(schema, []),
        forward: { ...forward, batch: { items: 1 + below(chance, 6), bytes: 3_000 } },
        log: log.id,
        notes,
        clock,
        random: chance,
        idle: 10_000,
        open: async () => openMemorySink(destination, sinkContext({ name: 'sink', collections: schema.collections, log: log.id, forward, notes })),
      })
      projector.poke()
    },
    stop: async (): Promise<void> => {
      await Promise.all([projector?.stop(), forwarder?.stop()])
      projector = undefined
      forwarder = undefined
    },
    /** The process dies in the middle: nothing is closed, what was under way writes nothing more, and others begin. */
    kill: (): void => {
      const [oldProjector, oldForwarder] = [projector, forwarder]
      projector = undefined
      forwarder = undefined
      void oldProjector?.stop()
      void oldForwarder?.stop()
    },
    /** view.db is deleted while nothing runs. */
    loseView: (): void => {
      view = watch(makeView(`${++views}`.padStart(32, '0')))
    },
    /** The destination is emptied under whatever runs. */
    wipe: (): void => {
      const { hook } = destination
      Object.assign(destination, createMemoryDestination(), { hook })
    },
    trim: (): void => {
      const needs = forwarder?.needs()
      if (needs !== undefined) view.trim(needs, 1 + below(chance, 5))
    },
  }
}
