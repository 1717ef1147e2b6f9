/**
 * The thread that projects and forwards (steps 7 and 8 of the path). Y.Docs are built here, never on the relay's thread.
 */
import { dirname, join } from 'node:path'
import { parentPort, workerData } from 'node:worker_threads'
import { SyncError, systemClock, toSyncError } from '@rejoin/shared'
import { loadConfig } from '../load.ts'
import type { Pump, PumpState } from '../pump.ts'
import type { SinkSpec } from '../sinks/sink.ts'
import { refsOf } from '../projection/transform.ts'
import { openSqliteNotes } from '../storage/notes-sqlite.ts'
import { openSqliteSource } from '../storage/sqlite-source.ts'
import { openSqliteView } from '../storage/view-sqlite.ts'
import { startProjector } from '../view/projector.ts'
import { refuseSlow, withSlow } from '../view/turns.ts'
import type { ViewStore } from '../view/view.ts'
import type { Outcome } from './calls.ts'
import { createCalls, outcomeOf } from './calls.ts'
import type { ChangesPage, ChangesRequest, Waiting } from './changes.ts'
import { createWaiting, readChanges } from './changes.ts'
import { localFunctions, remoteFunctions } from './functions.ts'
import { guardedFunctions, guardedSelects } from './guard.ts'
import type { Ask, Tell, ViewStatus, WorkerSetup, WorkerStatus } from './messages.ts'
import { differenceOf } from './plain.ts'
import type { RunningParts, RunningSink } from './running.ts'
import { startSink } from './running.ts'
import { createRungWatch } from './rungs.ts'
import type { TurnTeller } from './turn.ts'
import { tellTurns } from './turn.ts'

/** Versions that are kept at most. A sink further behind is cut off, and refreshed when it comes back. */
const MAX_HISTORY = 1_000_000
/** Rows trimmed at a time, and how often, in ms. */
const TRIM_ROWS = 5_000
const TRIM_EVERY = 1_000
/** How long a new view waits for its destinations to say where they stand, in ms. One that is slower is refreshed all the same. */
const BEGIN_MS = 10_000

if (parentPort !== null) await run(parentPort, workerData as WorkerSetup)

type Port = NonNullable<typeof parentPort>

async function run(port: Port, setup: WorkerSetup): Promise<void> {
  const { logDirectory, viewPath, schema, poked, turn, slow } = setup
  const tell = (message: Tell): void => port.postMessage(message)
  const loaded = await loadFunctions(setup, tell)
  const log = openSqliteSource(logDirectory)
  const view = openSqliteView(viewPath)
  const notes = openSqliteNotes(join(dirname(viewPath), 'sinks.db'))
  const holds = createHolds(view)
  if (slow.length > 0) view.setSlow(slow.reduce(withSlow, view.slow()))
  const turns = refuseSlow(view.slow(), systemClock, tellTurns(turn))
  const times = { clock: systemClock, random: Math.random }
  const readers = createWaiting((ms, wake) => systemClock.after(ms, wake))
  const calls = createCalls(systemClock)
  const sinks = new Map<string, RunningSink>()
  const rungs = createRungWatch({ view, sink: (name) => sinks.get(name), tell, clock: systemClock })
  // Who waits for a sink goes on when that has moved.
  const moved = (): void => {
    for (const sink of sinks.values()) sink.poke()
    rungs.look()
  }
  const functionsOf = functionFinder(setup, loaded, tellTurns(turn), (call, { ms, signal }) =>
    calls.ask((id) => tell({ type: 'call', id, call }), {
      ms,
      what: 'a function of the application',
      signal,
      giveUp: (id) => tell({ type: 'abort', id }),
    }),
  )
  view.prepareRefs(Object.values(setup.sinks).flatMap(({ forward }) => refsOf(forward.projections)))
  for (const [name, spec] of Object.entries(setup.sinks)) {
    const { after } = spec.forward
    const parts = { ...times, name, spec, schema, log, view, notes: notes.of(name), hold: holds.take, ...functionsOf(name) }
    sinks.set(name, startSink({ ...parts, onCommit: moved, ceiling: after === undefined ? undefined : () => sinks.get(after)?.cursor() }))
  }
  // A view that is new counts from above what its destinations carry, so that no version is given twice even when the old view was lost.
  const isNew = view.standing().version === 0
  const whenCounted = isNew
    ? Promise.race([Promise.all([...sinks.values()].map(({ begun }) => begun)), pause(BEGIN_MS)])
    : Promise.resolve()
  let projector: Pump | undefined
  let closing = false
  const grown = (): void => {
    moved()
    readers.wake()
  }
  const project = async (): Promise<void> => {
    await whenCounted
    if (!closing) projector = startProjector({ ...times, log, view, schema, turns, onCommit: grown })
  }
  void project()
  const stopTrimming = trimRegularly(view, { sinks, holds, historyMs: setup.historyMs })

  const status = (): WorkerStatus => ({
    view: viewStatus(view, projector?.state),
    sinks: Object.fromEntries([...sinks].map(([name, sink]) => [name, sink.report()])),
  })
  const answer = (ask: Ask & { readonly type: 'status' | 'command' | 'changes' }, signal: AbortSignal): unknown => {
    if (ask.type === 'status') return status()
    if (ask.type === 'changes') return readWaiting(view, readers, ask.request, log.id, signal)
    const sink = sinks.get(ask.sink)
    if (sink === undefined) throw new SyncError('not_found', `there is no sink ${JSON.stringify(ask.sink.slice(0, 100))}`)
    return sink.command(ask.command, signal)
  }
  const close = async (): Promise<void> => {
    closing = true
    stopTrimming()
    rungs.close()
    calls.failAll(new SyncError('closed', 'the worker is closing'))
    await Promise.all([projector?.stop(), ...[...sinks.values()].map((sink) => sink.stop())])
    view.close()
    notes.close()
    log.close()
    tell({ type: 'closed' })
    port.close()
  }
  const asked = new Map<number, AbortController>()
  const reply = async (ask: Ask & { readonly type: 'status' | 'command' | 'changes' }): Promise<void> => {
    const controller = new AbortController()
    asked.set(ask.id, controller)
    const outcome: Outcome = await outcomeOf(() => answer(ask, controller.signal))
    asked.delete(ask.id)
    rungs.look()
    tell({ type: 'reply', id: ask.id, outcome })
  }
  port.on('message', (ask: Ask) => {
    switch (ask.type) {
      case 'poke':
        Atomics.store(poked, 0, 0)
        projector?.poke()
        return
      case 'cancel':
        asked.get(ask.id)?.abort(new SyncError('aborted', 'nobody waits for the answer any more'))
        return
      case 'await':
      case 'forget':
        rungs.take(ask)
        return
      case 'called':
        calls.answer(ask.id, ask.outcome)
        return
      case 'close':
        for (const controller of asked.values()) controller.abort(new SyncError('draining', 'the relay is going down'))
        void close()
        return
      default:
        void reply(ask)
    }
  })
  tell({ type: 'ready' })
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => void systemClock.after(ms, resolve))
}

type Loaded = Readonly<Record<string, SinkSpec>> | undefined

/** The sinks of the config file, with their functions; undefined when there is none, or it is not that of the relay any more: the other thread has them. */
async function loadFunctions({ config, sinks }: WorkerSetup, tell: (message: Tell) => void): Promise<Loaded> {
  const wanted = Object.values(sinks).some(({ forward, functions }) => forward.projections.length > 0 || functions.length > 0)
  if (config === undefined || !wanted) return undefined
  const because = (reason: string): undefined => {
    tell({ type: 'warning', message: `the functions of the sinks run on the relay's own thread: ${config}: ${reason}` })
    return undefined
  }
  try {
    const { sinks: loaded = {} } = (await loadConfig(config)) as { readonly sinks?: Loaded }
    const difference = differenceOf(sinks, loaded)
    return difference === undefined ? loaded : because(difference)
  } catch (thrown) {
    return because(toSyncError(thrown).reason)
  }
}

/** Where the functions of each sink are. */
function functionFinder(
  { sinks, selectTurn, slowSelects }: WorkerSetup,
  loaded: Loaded,
  documentTurns: TurnTeller,
  ask: Parameters<typeof remoteFunctions>[2],
): (name: string) => Pick<RunningParts, 'select' | 'functions'> {
  const turns = tellTurns(selectTurn)
  return (name) => {
    const spec = loaded?.[name]
    if (spec === undefined) return remoteFunctions(name, sinks[name]?.functions ?? [], ask)
    return {
      select: guardedSelects(name, spec.forward.projections, { slow: slowSelects, turns, clock: systemClock }),
      // They may take as long as a document before they let go of the thread.
      functions: guardedFunctions(name, localFunctions(spec), { slow: slowSelects, turns: documentTurns, clock: systemClock }),
    }
  }
}

/** Waits for a change when there is none yet. */
async function readWaiting(
  view: ViewStore,
  readers: Waiting,
  request: ChangesRequest,
  log: string,
  signal: AbortSignal,
): Promise<ChangesPage> {
  const read = (after: string): ChangesPage => readChanges(view, { ...request, after }, { log, now: systemClock.now() })
  const page = read(request.after)
  if (page.changes.length > 0 || request.wait === 0) return page
  await readers.wait(request.wait, signal)
  signal.throwIfAborted()
  // The cursor of this page: 'now' would skip what has just come.
  return read(page.cursor)
}

/** Drops what is old and no sink asks for any more, a slice at a time. A sink that is not there holds MAX_HISTORY versions. */
function trimRegularly(
  view: ViewStore,
  { sinks, holds, historyMs }: { readonly sinks: ReadonlyMap<string, RunningSink>; readonly holds: Holds; readonly historyMs: number },
): () => void {
  let cancel = (): void => {}
  const tick = (): void => {
    const head = view.head() ?? 0
    const old = view.versionAt(systemClock.now() - historyMs) ?? 0
    const needs = [...sinks.values()].map((sink) => sink.needs() ?? 0)
    // A version is still read while a commit is under way: the last cursor is left.
    if (head > 0) view.trim(Math.min(head, holds.lowest(), Math.max(head - MAX_HISTORY, Math.min(old, ...needs))), TRIM_ROWS)
    cancel = systemClock.after(TRIM_EVERY, tick)
  }
  cancel = systemClock.after(TRIM_EVERY, tick)
  return () => {
    cancel()
  }
}

/** Who reads versions for longer than a turn of the thread. */
interface Holds {
  /** From what is the oldest now on, everything is kept until the function it gives is called. */
  readonly take: () => () => void
  lowest(): number
}

function createHolds(view: Pick<ViewStore, 'oldest'>): Holds {
  const held = new Set<{ readonly version: number }>()
  return {
    take: () => {
      const hold = { version: view.oldest() }
      held.add(hold)
      return () => void held.delete(hold)
    },
    lowest: () => Math.min(...[...held].map(({ version }) => version)),
  }
}

function viewStatus(view: ViewStore, state: PumpState | undefined): ViewStatus {
  const head = view.head()
  const name = (): ViewStatus['state'] => {
    if (state?.name === 'waiting') return 'failing'
    if (state?.name === 'stopped') return 'stopped'
    if (state === undefined || head === undefined) return 'starting'
    return state.name === 'idle' ? 'current' : 'projecting'
  }
  return {
    state: name(),
    version: head ?? 0,
    positions: Object.fromEntries(view.standing().places.map(({ partition, position }) => [partition, position])),
    parked: view.parked(10),
    misfits: view.misfits(10),
    error: state?.name === 'waiting' ? (state.error instanceof Error ? state.error.message : String(state.error)) : undefined,
  }
}
