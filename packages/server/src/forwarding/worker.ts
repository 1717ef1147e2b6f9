/**
 * The thread that projects and forwards (steps 7 and 8 of the path). Y.Docs are built here, never on the relay's thread.
 */
import { parentPort, workerData } from 'node:worker_threads'
import { SyncError, systemClock } from '@rejoin/shared'
import type { Pump, PumpState } from '../pump.ts'
import type { Forwarder, SinkStatus } from './forwarder.ts'
import { startForwarder } from './forwarder.ts'
import type { OpenSink, Sink, SinkSpec } from '../sinks/sink.ts'
import { createMemoryNotes } from '../storage/notes-memory.ts'
import { openSqliteSource } from '../storage/sqlite-source.ts'
import { openSqliteView } from '../storage/view-sqlite.ts'
import { startProjector } from '../view/projector.ts'
import { refuseSlow, withSlow } from '../view/turns.ts'
import type { ViewStore } from '../view/view.ts'
import type { Ask, Tell, ViewStatus, WorkerSetup } from './messages.ts'
import { tellTurns } from './turn.ts'

/** Versions that are kept for a sink that is not there. Beyond it is cut off, and refreshed when it comes back. */
const MAX_BACKLOG = 1_000_000
/** Rows trimmed at a time, and how often, in ms. */
const TRIM_ROWS = 5_000
const TRIM_EVERY = 1_000
/** How long a new view waits for its destinations to say where they stand, in ms. One that is slower is refreshed all the same. */
const BEGIN_MS = 10_000

if (parentPort !== null) run(parentPort, workerData as WorkerSetup)

type Port = NonNullable<typeof parentPort>

function run(port: Port, { logDirectory, viewPath, schema, sinks, poked, turn, slow }: WorkerSetup): void {
  const tell = (message: Tell): void => port.postMessage(message)
  const log = openSqliteSource(logDirectory)
  const view = openSqliteView(viewPath)
  if (slow.length > 0) view.setSlow(slow.reduce(withSlow, view.slow()))
  const turns = refuseSlow(view.slow(), systemClock, tellTurns(turn))
  const times = { clock: systemClock, random: Math.random }
  const forwarders = new Map<string, Forwarder>()
  const pokeForwarders = (): void => {
    for (const forwarder of forwarders.values()) forwarder.poke()
  }
  for (const [name, spec] of Object.entries(sinks)) {
    const context = {
      name,
      collections: schema.collections,
      untyped: [],
      log: log.id,
      adopt: false,
      forward: spec.forward,
      notes: createMemoryNotes(),
      functions: {},
    }
    forwarders.set(name, startForwarder({ ...times, collections: schema.collections, view, open: () => openSinkOf(spec, context) }))
  }
  // A view that is new counts from above what its destinations carry, so that no version is given twice even when the old view was lost.
  const isNew = view.standing().version === 0
  const whenCounted = isNew
    ? Promise.race([Promise.all([...forwarders.values()].map(({ begun }) => begun)), pause(BEGIN_MS)])
    : Promise.resolve()
  let projector: Pump | undefined
  let closing = false
  const project = async (): Promise<void> => {
    await whenCounted
    if (!closing) projector = startProjector({ ...times, log, view, schema, turns, onCommit: pokeForwarders })
  }
  void project()
  const stopTrimming = trimRegularly(view, forwarders)

  const close = async (): Promise<void> => {
    closing = true
    stopTrimming()
    await Promise.all([projector?.stop(), ...[...forwarders.values()].map((forwarder) => forwarder.stop())])
    view.close()
    log.close()
    tell({ type: 'closed' })
    port.close()
  }
  port.on('message', (ask: Ask) => {
    switch (ask.type) {
      case 'poke':
        Atomics.store(poked, 0, 0)
        projector?.poke()
        return
      case 'status': {
        const ofSinks: Record<string, SinkStatus> = Object.fromEntries(
          [...forwarders].map(([name, forwarder]) => [name, forwarder.status()]),
        )
        tell({ type: 'status', id: ask.id, status: { view: viewStatus(view, projector?.state), sinks: ofSinks } })
        return
      }
      case 'close':
        void close()
    }
  })
  tell({ type: 'ready' })
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => void systemClock.after(ms, resolve))
}

async function openSinkOf(spec: SinkSpec, context: Parameters<OpenSink>[1]): Promise<Sink> {
  const module = (await import(spec.module)) as { openSink?: OpenSink }
  if (typeof module.openSink !== 'function') throw new SyncError('bad_option', `sink ${context.name}: ${spec.module} exports no openSink`)
  return module.openSink(spec.options, context)
}

/** Drops what no sink asks for any more, a slice at a time. A sink that is unknown or not there holds MAX_BACKLOG versions. */
function trimRegularly(view: ViewStore, forwarders: ReadonlyMap<string, Forwarder>): () => void {
  let cancel = (): void => {}
  const tick = (): void => {
    const head = view.head() ?? 0
    const needs = [...forwarders.values()].map((forwarder) => Math.max(forwarder.needs() ?? 0, head - MAX_BACKLOG))
    // A version is still read while a commit is under way: the last cursor is left.
    if (head > 0) view.trim(Math.min(head, ...needs), TRIM_ROWS)
    cancel = systemClock.after(TRIM_EVERY, tick)
  }
  cancel = systemClock.after(TRIM_EVERY, tick)
  return () => {
    cancel()
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
