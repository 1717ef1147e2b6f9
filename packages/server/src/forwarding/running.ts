/**
 * One sink as it runs in the worker (step 8 of the path): its forwarder, its proofs and its notes, and what an operator may ask of them.
 */
import { basename } from 'node:path'
import type { Clock, Random, Schema } from '@rejoin/shared'
import { SyncError } from '@rejoin/shared'
import type { CallSelect, Transform } from '../projection/transform.ts'
import { compileTransform } from '../projection/transform.ts'
import type { SinkNotes } from '../sinks/notes.ts'
import type { OpenSink, Sink, SinkContext } from '../sinks/sink.ts'
import type { View, ViewStore } from '../view/view.ts'
import type { SinkAnswer, SinkCommand, SinkReport } from './commands.ts'
import type { Forwarder } from './control.ts'
import { startForwarder } from './forwarder.ts'
import type { PlainSpec } from './plain.ts'
import { runningForward } from './plain.ts'
import { planSink } from './plan.ts'
import type { ProverParts } from './proof.ts'
import { createProver } from './prover.ts'

/** Far below what anybody notices, far above what a commit takes. */
const LINGER_MS = 10

/** What a sink needs to run. */
export interface RunningParts {
  readonly name: string
  readonly spec: PlainSpec
  readonly schema: Schema
  readonly log: ProverParts['log'] & { readonly id: string }
  readonly view: ViewStore
  readonly notes: SinkNotes
  readonly select: CallSelect
  readonly functions: SinkContext['functions']
  readonly clock: Clock
  readonly random: Random
  /** The cursor of the sink that this one may not pass. */
  readonly ceiling?: (() => number | undefined) | undefined
  /** No version that there is now is trimmed until the function it gives is called. */
  readonly hold: () => () => void
  /** After each commit. Must not throw. */
  readonly onCommit: () => void
}

/** A running sink. */
export interface RunningSink extends Pick<Forwarder, 'poke' | 'begun' | 'needs' | 'status' | 'cursor' | 'reached'> {
  report(): SinkReport
  /** Rejects with `SyncError`. */
  command<Command extends SinkCommand>(command: Command, signal: AbortSignal): Promise<SinkAnswer<Command>>
  stop(): Promise<void>
}

/** Starts it. */
export function startSink(parts: RunningParts): RunningSink {
  const { name, spec, schema, view, notes, functions, log, clock, random } = parts
  const forward = runningForward(spec)
  const transform = compileTransform(schema, forward.projections, parts.select)
  const context = (adopt: boolean): SinkContext => ({
    name,
    collections: transform.targets,
    untyped: transform.untyped,
    log: log.id,
    adopt,
    forward,
    notes,
    functions,
  })
  const forwarder: Forwarder = startForwarder({
    view,
    transform,
    forward,
    log: log.id,
    notes,
    open: ({ adopt }) => openSinkOf(spec, context(adopt)),
    clock,
    random,
    ceiling: parts.ceiling,
    linger: LINGER_MS,
    onCommit: parts.onCommit,
  })
  const openBeside = (): Promise<Sink> => openSinkOf(spec, context(false))
  const prover = createProver({ name, schema, forward, log, view, transform, forwarder, open: openBeside, notes, clock, hold: parts.hold })

  const report = (): SinkReport => ({
    name,
    kind: basename(new URL(spec.module).pathname).replace(/\.[cm]?[jt]s$/u, ''),
    targets: Object.keys(transform.targets),
    ...forwarder.status(),
    proof: prover.last() ?? null,
  })
  const run = async (command: SinkCommand, signal: AbortSignal): Promise<unknown> => {
    switch (command.type) {
      case 'plan':
        return planOf({
          open: openBeside,
          view,
          transform,
          forwarder,
          ignoreStrangers: forward.strategy === 'actions',
          signal,
        })
      case 'verify':
        return prover.verify({ proofs: command.proofs, signal })
      case 'repair':
        return prover.repair({ proofs: command.proofs, signal })
      case 'dead':
        return notes.letters(command.limit, command.after)
      case 'requeue':
      case 'discard':
        return { count: await forwarder[command.type](command.ids) }
      case 'rewind':
        await forwarder.rewind(command.to)
        return report()
      default:
        await forwarder[command.type]()
        return report()
    }
  }
  return {
    poke: () => forwarder.poke(),
    begun: forwarder.begun,
    needs: () => forwarder.needs(),
    status: () => forwarder.status(),
    cursor: () => forwarder.cursor(),
    reached: (version, records) => forwarder.reached(version, records),
    report,
    command: (command, signal) => run(command, signal) as Promise<SinkAnswer<typeof command>>,
    stop: async () => {
      await prover.stop()
      await forwarder.stop()
    },
  }
}

async function planOf({
  open,
  forwarder,
  ...rest
}: {
  readonly open: () => Promise<Sink>
  readonly view: View
  readonly transform: Transform
  readonly forwarder: Pick<Forwarder, 'status'>
  readonly ignoreStrangers: boolean
  readonly signal: AbortSignal
}): Promise<SinkAnswer<{ readonly type: 'plan' }>> {
  const sink = await open()
  try {
    return { ...(await planSink(sink, rest)), state: forwarder.status().state }
  } finally {
    await sink.close()
  }
}

async function openSinkOf(spec: PlainSpec, context: SinkContext): Promise<Sink> {
  const module = (await import(spec.module)) as { openSink?: OpenSink }
  if (typeof module.openSink !== 'function') throw new SyncError('bad_option', `sink ${context.name}: ${spec.module} exports no openSink`)
  return module.openSink(spec.options, context)
}
