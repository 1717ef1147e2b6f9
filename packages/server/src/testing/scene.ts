/**
 * Where a conformance case plays (beside the path): a view and notes in memory that can be put back to a copy, the real forwarder, and a sink whose calls can be held, or whose answers lost, on the way.
 */
import type { ChainHash, Clock, DocumentId, Lineage, Position, RecordValue, Seq } from '@rejoin/shared'
import { canonicalJson, residentClock } from '@rejoin/shared'
import type { Forwarder, SinkStatus } from '../forwarding/control.ts'
import { startForwarder } from '../forwarding/forwarder.ts'
import type { Transform } from '../projection/transform.ts'
import { compileTransform } from '../projection/transform.ts'
import type { NotesChanges, SinkNotes } from '../sinks/notes.ts'
import type { Forward, Key, Sink, SinkCommit, SinkContext } from '../sinks/sink.ts'
import { forwardOf } from '../sinks/spec.ts'
import { createMemoryNotes } from '../storage/notes-memory.ts'
import { createMemoryView } from '../storage/view-memory.ts'
import type { ViewCommit, ViewStore } from '../view/view.ts'
import { compareKeys, keyText } from '../view/view.ts'
import type { Conformance, Destination, StoredRow } from './destination.ts'
import { CONFORMANCE_SCHEMA } from './destination.ts'

/** A record and what becomes of it; null: it goes. */
export interface Change {
  readonly collection: string
  readonly id: string
  readonly value: RecordValue | null
}

/** What may happen to a call on its way. Each may throw, or take as long as it likes. */
export interface Trouble {
  beforeCommit?: (commit: SinkCommit) => Promise<void> | void
  /** It has happened; its answer is on the way. */
  afterCommit?: (commit: SinkCommit) => Promise<void> | void
  /** The relay's own notes are about to be written. */
  beforeNotes?: () => void
}

/** A forwarder of the scene, and what happens to its calls. */
export interface Runner {
  readonly forwarder: Forwarder
  readonly trouble: Trouble
  status(): SinkStatus
  /** Ends as a process does that is killed: what it has begun may still happen, it hears of nothing any more. */
  kill(): void
  stop(): Promise<void>
}

export interface Scene {
  readonly destination: Destination
  readonly forward: Forward
  readonly transform: Transform
  /** One entry of the log, in one document. Returns its version. */
  edit(changes: readonly Change[], document?: string): number
  /** Starts a forwarder. `log`: of another relay. */
  start(how?: { readonly log?: string; readonly trouble?: Trouble; readonly items?: number }): Runner
  /** Waits until the condition holds; rejects with `what` and how things stand. */
  until(what: string, condition: () => boolean | Promise<boolean>): Promise<void>
  /** Waits until the destination holds what the view does now, parked keys aside, and the forwarder knows it. */
  settle(runner: Runner, parked?: readonly string[]): Promise<void>
  /** Rows there, by id; of one collection. */
  names(collection?: string): Promise<Readonly<Record<string, unknown>>>
  /** A copy of the relay's data; what it gives puts it back. Nothing may run. */
  backupRelay(): () => void
  close(): Promise<void>
}

const LOG = 'c0'.repeat(16)
const PATIENCE = 20_000
/** What the forwarder waits for is shortened to this, in ms: a case has no time to lose. */
const HASTE = 20

const hasty: Clock = { now: () => residentClock.now(), after: (ms, run) => residentClock.after(Math.min(ms, HASTE), run) }

/** A pet of the cases. */
export function pet(id: string, name: string | null, more: RecordValue = {}): Change {
  return { collection: 'pets', id, value: name === null ? null : { name, age: null, city: null, ...more } }
}

/** Opens a scene on a destination of its own. */
export async function openScene(under: Conformance): Promise<Scene> {
  const destination = await under.destination()
  const isActing = (under.forward?.strategy ?? under.traits.strategies[0]) === 'actions'
  const forward = forwardOf(under.name, under.traits, { ...(isActing ? { from: 'beginning' as const } : {}), ...under.forward })
  const transform = compileTransform(CONFORMANCE_SCHEMA, [])
  const relay = createRelay()
  const runners: Runner[] = []

  const start: Scene['start'] = ({ log = LOG, trouble = {}, items = forward.batch.items } = {}) => {
    const own: Forward = { ...forward, batch: { ...forward.batch, items } }
    const life = { killed: false }
    const notes = log === LOG ? relay.notes(trouble, life) : createMemoryNotes()
    const open = async ({ adopt }: Pick<SinkContext, 'adopt'>): Promise<Sink> => {
      const context = { name: 'conformance', collections: transform.targets, untyped: [], log, adopt, forward: own, notes, functions: {} }
      return troubled(await destination.open(context), trouble, life)
    }
    const forwarder = startForwarder({
      view: relay.view(),
      transform,
      forward: own,
      log,
      notes,
      open,
      clock: hasty,
      random: Math.random,
      idle: HASTE,
    })
    const runner: Runner = {
      forwarder,
      trouble,
      status: () => forwarder.status(),
      kill: () => {
        if (life.killed) return
        life.killed = true
        void forwarder.stop().catch(() => undefined)
      },
      stop: () => forwarder.stop(),
    }
    runners.push(runner)
    return runner
  }

  const patience = under.patience ?? PATIENCE
  const until: Scene['until'] = async (what, condition) => {
    const deadline = residentClock.now() + patience
    let last: unknown
    for (;;) {
      try {
        if (await condition()) return
        last = undefined
      } catch (error) {
        last = error
      }
      if (residentClock.now() > deadline) {
        const states = runners.map((runner) => JSON.stringify(runner.status()))
        throw new Error(`waited ${patience} ms for: ${what}; forwarders: ${states.join('; ')}`, { cause: last })
      }
      await pause(HASTE / 4)
    }
  }

  return {
    destination,
    forward,
    transform,
    edit: (changes, document = 'clinic') => {
      const version = relay.edit(changes, document as DocumentId)
      for (const { forwarder } of runners) forwarder.poke()
      return version
    },
    start,
    until,
    settle: async (runner, parked = []) => {
      const view = relay.view()
      let head = 0
      let problem = ''
      const isSettled = async (): Promise<boolean> => {
        const { state, cursor } = runner.status()
        // A sink that finds higher stamps in its destination has the view count on from above them.
        head = view.head() ?? 0
        problem =
          state === 'current' && cursor === head ? differencesOf(expectedIn(view, head), await destination.rows(), new Set(parked)) : state
        return problem === ''
      }
      try {
        await until('the destination equal at the head', isSettled)
      } catch (error) {
        throw new Error(`not equal at version ${head}: ${problem}`, { cause: error })
      }
    },
    names: async (collection = 'pets') =>
      Object.fromEntries(
        (await destination.rows()).flatMap(({ key, value }) => (key.collection === collection ? [[key.id, value['name']]] : [])),
      ),
    backupRelay: relay.backup,
    close: async () => {
      for (const runner of runners) runner.kill()
      // One whose commit is held never ends.
      await Promise.race([Promise.allSettled(runners.map((runner) => runner.stop())), pause(500)])
      await destination.close()
    },
  }
}

/** What the sink is told lies between it and the forwarder: its calls are held, its answers are lost, and of one that was killed nobody hears any more. */
function troubled(sink: Sink, trouble: Trouble, life: { readonly killed: boolean }): Sink {
  const refuseDead = (): void => {
    if (life.killed) throw new Error('this forwarder was killed')
  }
  return {
    ...sink,
    begin: () => {
      refuseDead()
      return sink.begin()
    },
    commit: async (commit) => {
      refuseDead()
      await trouble.beforeCommit?.(commit)
      const outcome = await sink.commit(commit)
      refuseDead()
      await trouble.afterCommit?.(commit)
      refuseDead()
      return outcome
    },
  }
}

/** The relay's side: a view and notes in memory, made of what was written, so that they can be made again of less. */
function createRelay() {
  let commits: ViewCommit[] = [{ entries: [], documents: [], places: [], misfits: [], source: { log: LOG, schema: '' }, settled: true }]
  let written: NotesChanges[] = []
  let histories = 0
  let [view, kept] = rebuild(commits, written)
  return {
    view: () => view,
    notes: (trouble: Trouble, life: { readonly killed: boolean }): SinkNotes => ({
      ...kept,
      write: (changes) => {
        // What a dead process writes, nobody reads.
        if (life.killed) return
        trouble.beforeNotes?.()
        written.push(changes)
        kept.write(changes)
      },
    }),
    edit: (changes: readonly Change[], document: DocumentId): number => {
      const version = Math.max(view.head() ?? 0, view.standing().version) + 1
      const position = commits.length as Position
      const seq = commits.filter(({ documents }) => documents.some((state) => state.document === document)).length + 1
      const origin = { partition: 0, position, epoch: 1, seq: seq as Seq, document, actor: `actor-${histories}`, at: residentClock.now() }
      const commit: ViewCommit = {
        entries: [{ ...origin, version, changes, settled: true }],
        documents: [{ document, partition: 0, lineage: '1'.repeat(32) as Lineage, seq: seq as Seq, parked: undefined }],
        places: [{ partition: 0, position, hash: `${histories}`.padStart(32, '0') as ChainHash, ahead: 0 as Position }],
        misfits: [],
      }
      commits.push(commit)
      view.commit(commit)
      return version
    },
    backup: () => {
      const [atCommit, atNotes] = [commits.length, written.length]
      return () => {
        histories++
        commits = commits.slice(0, atCommit)
        written = written.slice(0, atNotes)
        ;[view, kept] = rebuild(commits, written)
      }
    },
  }
}

function rebuild(commits: readonly ViewCommit[], written: readonly NotesChanges[]): [ViewStore, SinkNotes] {
  const view = createMemoryView('ca'.repeat(16))
  for (const commit of commits) view.commit(commit)
  const notes = createMemoryNotes()
  for (const changes of written) notes.write(changes)
  return [view, notes]
}

function expectedIn(view: ViewStore, head: number): readonly StoredRow[] {
  return view.keys(head, Number.MAX_SAFE_INTEGER).flatMap((key) => {
    const value = view.get(key, head)
    return value === null ? [] : [{ key, value }]
  })
}

/** '' when they are equal, keys with these ids aside. */
function differencesOf(expected: readonly StoredRow[], found: readonly StoredRow[], parked: ReadonlySet<string>): string {
  const textOf = ({ key, value }: StoredRow): [string, { readonly key: Key; readonly text: string }] => [
    keyText(key),
    { key, text: canonicalJson(value) },
  ]
  const [right, there] = [new Map(expected.map(textOf)), new Map(found.map(textOf))]
  const twice = found.length - there.size
  const keys = [...new Map([...right, ...there].map(([text, { key }]) => [text, key])).values()].sort(compareKeys)
  const wrong = keys.filter((key) => !parked.has(key.id) && right.get(keyText(key))?.text !== there.get(keyText(key))?.text)
  const shown = wrong.slice(0, 3).map((key) => {
    const text = keyText(key)
    return `${key.collection}/${key.document}/${key.id} is ${there.get(text)?.text ?? 'absent'} and should be ${right.get(text)?.text ?? 'absent'}`
  })
  if (twice > 0) shown.push(`${twice} rows lie there twice`)
  return wrong.length > 3 ? `${shown.join('; ')}; and ${wrong.length - 3} more` : shown.join('; ')
}

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => void residentClock.after(ms, resolve))
}
