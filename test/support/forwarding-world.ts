/**
 * A log, its view and one sink in one process under a virtual clock, with an oracle that knows what lies where at every version. Anything may fail at any step.
 */
import type { DocumentId, IncarnationId, Position, RecordValue, Schema, Seq } from '@rejoin/shared'
import { canonicalJson, newIncarnationId } from '@rejoin/shared'
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
import { BUCKETS, bucketOf } from '#server/sinks/digest.js'
import type { Forward, Projection, Sink, SinkCommit, SinkPlace, SinkRow } from '#server/sinks/sink.js'
import type { Key, ProjectedEntry, RecordChange, ViewCommit, ViewStore } from '#server/view/view.js'
import { keyText } from '#server/view/view.js'
import type { Chance } from './histories.ts'
import { below, pick } from './histories.ts'
import type { Truth } from './projections.ts'
import { shownOf, truthOf } from './projections.ts'
import { RECORDS, editRecords, recordsOf, strangeUpdate } from './record-edits.ts'
import { sinkContext } from './sink-context.ts'
import type { ModelName, ModelParts } from './sink-models.ts'
import { createModel } from './sink-models.ts'
import { createVirtualClock } from './virtual-clock.ts'

const DOCUMENTS = ['a', 'b', 'ü/c'] as DocumentId[]

/** Where chance may strike. */
type Fail = (where: string) => void

export interface WorldOptions {
  readonly chance: Chance
  readonly schema?: Schema
  readonly projections?: readonly Projection[]
  /** What the sink is told. @default strategy 'state', as latest */
  readonly forward?: Forward
  /** @default 'transactional' */
  readonly model?: ModelName
  /** How many there are, three at most. */
  readonly documents?: number
  /** One transaction of a device. */
  readonly edit?: (doc: Y.Doc, chance: Chance) => void
  /** Told of every commit. */
  readonly trace?: ((what: string) => void) | undefined
  /** Why a row is refused now. */
  readonly refuse?: ModelParts['refuse']
  /** Makes the view; called again after it was lost. */
  readonly makeView?: (id: string) => ViewStore
}

/** Starts with an empty log, nothing running. */
export function createForwardingWorld({
  chance,
  schema = RECORDS,
  projections = [],
  forward = forwardOf('memory', { transactional: true, strategies: ['state'], readable: true }, {}),
  model: name = 'transactional',
  edit = editRecords,
  documents = DOCUMENTS.length,
  refuse = () => undefined,
  makeView = createMemoryView,
  trace,
}: WorldOptions) {
  const clock = createVirtualClock()
  const hex = (length: number): Uint8Array => Uint8Array.from({ length }, () => below(chance, 256))
  const disk = createMemoryDisk({ randomBytes: hex, random: chance })
  const log: Log = createMemoryLog(disk)
  const replicas = new Map<DocumentId, { doc: Y.Doc; incarnation: IncarnationId; seq: number; n: number }[]>()
  /** Records of every document behind each position, by code that knows nothing of the view. */
  const oracle: ProjectedEntry[] = []
  const latest = new Map<DocumentId, ReadonlyMap<string, string>>()
  const truths = new Map<DocumentId, Y.Doc>()
  const notes = createMemoryNotes()
  const transform = compileTransform(schema, projections)
  const trouble = { level: 0 }
  const problems: string[] = []
  const fail: Fail = (where) => {
    if (chance() < trouble.level) throw new Error(`trouble at ${where}`)
  }
  const model = createModel(name, { chance, clock, fail, refuse, problems, onCommit: () => inspect(model.place()) })
  const contextOf = (adopt: boolean) => sinkContext({ name: 'sink', collections: transform.targets, log: log.id, forward, notes, adopt })

  let views = 0
  let settled = new Map<number, number>()
  let view = watch(makeView(`${++views}`.padStart(32, '0')))
  let projector: Pump | undefined
  let life = { isOver: false }
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

  /** At its cursor the destination equals T of the prefix that the version stands for, but for what is parked. */
  function inspect(place: SinkPlace | undefined): void {
    if (place === undefined || place.refreshed !== undefined || place.view !== view.id || model.isWiped()) return
    const parked = new Set([...model.refused(), ...(forwarder?.parked() ?? []).map(({ key }) => keyText(key))])
    const truth = truthOf(oracle, positionAt(place.version), projections)
    const hidden = new Set([...parked, ...truth.poisoned, ...partsOf(truth, parked)])
    const [found, expected] = [shownOf(textsOf(model.rows()), hidden), shownOf(truth.rows.values(), hidden)]
    for (const each of found) if (!expected.includes(each)) note(`at version ${place.version} there is ${each}`)
    for (const each of expected) if (!found.includes(each)) note(`at version ${place.version} there is no ${each}`)
  }

  function note(problem: string): void {
    trace?.(problem)
    problems.push(problem)
  }

  function committed(commit: SinkCommit, attempted: number | undefined): void {
    // Events that may have come are sent again in their order; until then the destination may be ahead.
    if (forward.strategy === 'state' || attempted === undefined || commit.to.version >= attempted) inspect(commit.to)
    passedOver(commit, attempted)
  }

  /** With 'every', all states are seen: between two that were, nothing changed that T reads. */
  function passedOver({ from, to }: SinkCommit, attempted: number | undefined): void {
    if (forward.consistency !== 'every' || from?.view !== to.view || from.refreshed !== undefined || to.refreshed !== undefined) return
    // What may have been attempted is written at once; what is not kept any more cannot be shown.
    if (attempted !== undefined || from.version < view.oldest()) return
    const missed = view
      .entries(from.version, to.version, 1_000)
      .filter(({ version, keys }) => version < to.version && settled.has(version) && transform.affected(view, keys, version).length > 0)
    for (const { version } of missed) note(`the state of version ${version}, between ${from.version} and ${to.version}, was never shown`)
  }

  function positionAt(version: number): number {
    const last = [...settled.keys()].filter((each) => each <= version).sort((a, b) => b - a)[0]
    return last === undefined ? 0 : (settled.get(last) ?? 0)
  }

  /** Of a record that is parked as a whole all parts are. */
  function partsOf({ rows }: Truth, parked: ReadonlySet<string>): readonly string[] {
    return [...textsOf(model.rows()), ...rows.values()].flatMap(({ key }) => {
      const source = transform.sources.get(key.collection)?.parts === true ? transform.sourceOf(key) : undefined
      return source !== undefined && parked.has(keyText({ ...source, collection: key.collection })) ? [keyText(key)] : []
    })
  }

  async function append(document: DocumentId, incarnation: IncarnationId, n: number, update: Uint8Array): Promise<void> {
    const { seq } = await log.open(document)
    await log.append([{ document, seq: (seq + 1) as Seq, incarnation, lo: n, hi: n, covers: [], actor: 'alice', at: clock.now(), update }])
    const truth = truths.get(document) ?? new Y.Doc({ gc: false })
    truths.set(document, truth)
    Y.applyUpdate(truth, update)
    const records = recordsOf(truth, schema)
    const changes: RecordChange[] = []
    for (const each of new Set([...(latest.get(document)?.keys() ?? []), ...records.keys()])) {
      const text = records.get(each)
      if (text === latest.get(document)?.get(each)) continue
      const slash = each.indexOf('/')
      const value = text === undefined ? null : (JSON.parse(text) as RecordValue)
      changes.push({ collection: each.slice(0, slash), id: each.slice(slash + 1), value })
    }
    latest.set(document, records)
    const position = (oracle.length + 1) as Position
    oracle.push({
      version: position,
      position,
      partition: 0,
      epoch: 1,
      seq: (seq + 1) as Seq,
      document,
      actor: 'alice',
      at: 0,
      changes,
      settled: true,
    })
  }

  const replicasOf = (document: DocumentId) => {
    const known =
      replicas.get(document) ??
      Array.from({ length: 2 }, () => {
        const doc = new Y.Doc()
        // Of two concurrent values the one of the higher client stays: the same in every run.
        doc.clientID = below(chance, 2 ** 31)
        return { doc, incarnation: newIncarnationId(hex), seq: 0, n: 0 }
      })
    replicas.set(document, known)
    return known
  }

  return {
    clock,
    model,
    notes,
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
    /** What has to lie there in the end, and what select fails on. */
    expected: (): Truth => truthOf(oracle, oracle.length, projections),
    /** One edit by one device, which may first have heard of the others. */
    edit: async (): Promise<void> => {
      const document = pick(chance, DOCUMENTS.slice(0, documents))
      const replica = pick(chance, replicasOf(document))
      const truth = truths.get(document)
      if (truth !== undefined && chance() < 0.5) Y.applyUpdate(replica.doc, Y.encodeStateAsUpdate(truth))
      if (chance() < 0.02) return append(document, newIncarnationId(hex), 1, strangeUpdate())
      const updates: Uint8Array[] = []
      const collect = (update: Uint8Array): void => void updates.push(update)
      replica.doc.on('update', collect)
      edit(replica.doc, chance)
      replica.doc.off('update', collect)
      if (updates.length > 0) await append(document, replica.incarnation, ++replica.n, Y.mergeUpdates(updates))
    },
    /** Folds a document and drops old entries, as compaction does. */
    compact: async (): Promise<void> => {
      const document = pick(chance, DOCUMENTS.slice(0, documents))
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
        transform,
        forward: { ...forward, batch: { items: 1 + below(chance, 6), bytes: 3_000 } },
        log: log.id,
        notes,
        clock,
        random: chance,
        idle: 10_000,
        open: async ({ adopt }) =>
          watched(model.open(contextOf(adopt)), {
            life,
            trace,
            committed,
          }),
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
      life.isOver = true
      life = { isOver: false }
      const [oldProjector, oldForwarder] = [projector, forwarder]
      projector = undefined
      forwarder = undefined
      void oldProjector?.stop()
      void oldForwarder?.stop()
    },
    killProjector: (): void => {
      void projector?.stop()
      projector = undefined
    },
    partsOf,
    /** What is wrong with the kept digest of the version at the cursor; undefined: nothing, or it keeps none. */
    digestProblem: (): string | undefined => {
      const at = forwarder?.cursor()
      const kept = at === undefined ? undefined : forwarder?.digestAt(at)
      if (name !== 'transactional' || forward.strategy === 'actions') return undefined
      if (at === undefined || kept === undefined) return 'it was not counted'
      const expected = new BigUint64Array(BUCKETS)
      const hash = model.open(contextOf(false)).proof?.hash
      for (const { key, text } of truthOf(oracle, positionAt(at), projections).rows.values())
        expected[bucketOf(key)] = (expected[bucketOf(key)] ?? 0n) + (hash?.(key, JSON.parse(text) as RecordValue) ?? 0n)
      return expected.every((each, i) => each === kept[i]) ? undefined : `it is wrong at version ${at}`
    },
    /** view.db is deleted while nothing runs. */
    loseView: (): void => {
      view = watch(makeView(`${++views}`.padStart(32, '0')))
    },
    trim: (): void => {
      const needs = forwarder?.needs()
      if (needs !== undefined) view.trim(needs, 1 + below(chance, 5))
    },
  }
}

function textsOf(
  rows: ReadonlyMap<string, { readonly key: Key; readonly value: RecordValue }>,
): readonly { readonly key: Key; readonly text: string }[] {
  return [...rows.values()].map(({ key, value }) => ({ key, text: canonicalJson(value) }))
}

interface Watching {
  readonly life: { readonly isOver: boolean }
  readonly trace: ((what: string) => void) | undefined
  readonly committed: (commit: SinkCommit, attempted: number | undefined) => void
}

/** Looks at the destination after every commit that it confirmed. A forwarder whose process died begins no other. */
function watched(sink: Sink, { life, trace = () => {}, committed }: Watching): Sink {
  let attempted: number | undefined
  const live = (): void => {
    if (life.isOver) throw new Error('the process is dead')
  }
  return {
    ...sink,
    begin: async () => {
      live()
      const standing = await sink.begin()
      attempted = standing.attempted
      trace(`begin ${JSON.stringify(standing)}`)
      return standing
    },
    commit: async (commit) => {
      live()
      const { rows, from, to, force } = commit
      const isCheck = rows.length === 0 && from?.version === to.version && from.refreshed === to.refreshed
      trace(`commit ${JSON.stringify({ from, to, force })}${rows.map(textOf).join('')}`)
      const outcome = await sink.commit(commit).catch((error: unknown) => {
        trace(`failed ${String(error)}`)
        throw error
      })
      if (!isCheck) trace(`outcome ${JSON.stringify(outcome)}`)
      if (isCheck || outcome.type !== 'committed') return outcome
      committed(commit, attempted)
      if (attempted !== undefined && to.version >= attempted) attempted = undefined
      return outcome
    },
  }
}

function textOf({ key, value, event }: SinkRow): string {
  return `\n   ${key.collection} ${key.document} ${key.id} ${event?.version ?? ''} ${JSON.stringify(value)}`
}
