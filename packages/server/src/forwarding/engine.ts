/**
 * One sink's destination and how commits are made to it (step 8 of the path): opens it, applies the steps of next.ts with their dead letters before and their bookkeeping behind, and the repairs in between.
 * Nothing is remembered of a commit but its end: no row outlives its batch.
 */
import type { JsonValue } from '@rejoin/shared'
import { SyncError } from '@rejoin/shared'
import type { Parked, Sink, SinkCommit, SinkOutcome, SinkPlace, SinkRow } from '../sinks/sink.ts'
import type { CutLimits } from '../view/view.ts'
import type { ForwarderOptions } from './control.ts'
import type { Counted } from './counted.ts'
import { createCounted } from './counted.ts'
import type { NextParts, Standing, Step } from './next.ts'
import { isUsable, nextStep, sweepOf } from './next.ts'
import type { Parking } from './parking.ts'
import { MAX_HELD, MAX_PARKED, createParking } from './parking.ts'

/** Why a sink stands still. 'paused' and 'fenced' let go of the destination. */
export interface Held {
  readonly state: 'paused' | 'poisoned' | 'cut-off' | 'fenced'
  readonly reason: string
}

/** What became of a step: the destination moved, is not where it was left, or the sink has to stand still. */
export type Applied = 'written' | 'lost' | { readonly hold: Held }

/** The open destination. */
export interface Session extends Standing {
  readonly sink: Sink
}

export interface Engine {
  readonly session: Session | undefined
  readonly parking: Parking
  readonly counted: Counted
  /** Opens and begins; whatever was open is closed first. */
  open(): Promise<void>
  close(): Promise<void>
  next(turn: number, limits: CutLimits): Promise<Step | undefined>
  apply(step: Step): Promise<Applied>
  /** Rows outside the stream of changes: a repair, dead letters. The place stays. */
  send(rows: readonly SinkRow[], how: Pick<SinkCommit, 'force' | 'whole'>): Promise<SinkOutcome>
  /** The place, when the destination is whole there and the view goes on from it. */
  whole(): SinkPlace | undefined
  /** T changed and its revision did not. */
  readonly warning: string | undefined
}

type EngineOptions = ForwarderOptions & {
  /** After each commit, with how many rows it had. */
  readonly onRows: (rows: number) => void
}

export function createEngine(options: EngineOptions): Engine {
  const { view, transform, forward, log, notes, clock, ceiling, onRows } = options
  const parts: NextParts = { view, transform, forward, log, notes, ceiling }
  const { maxParked = MAX_PARKED } = options
  const isState = forward.strategy === 'state'
  const parking = createParking({ notes, transform, clock, isState })
  const counted = createCounted({ view, transform, notes })
  let session: Session | undefined
  let warning: string | undefined

  const close = async (): Promise<void> => {
    const closing = session?.sink
    session = undefined
    await closing?.close()
  }
  const open = async (): Promise<void> => {
    await close()
    const sink = await options.open({ adopt: notes.get('adopt') === true })
    try {
      const { place, stamp, parked, attempted } = await sink.begin()
      if (notes.get('adopt') !== undefined) notes.write({ values: { adopt: undefined } })
      // Stamps of a view that was lost, or is older than what the destination saw of it: versions count on above them.
      view.raise(stamp)
      parking.load(parked)
      warning = checkTransform(options, place)
      counted.begin(place, isState ? sink.proof : undefined)
      session = { sink, at: place, stamp, attempted }
    } catch (error) {
      await sink.close()
      throw error
    }
    const at = session.at
    if (at !== undefined && isUsable(view, at)) await parking.recheck(view, at.version)
  }

  const commit = async (given: SinkCommit): Promise<SinkOutcome> => {
    if (session === undefined) throw new SyncError('closed', 'the sink is not open')
    const outcome = await session.sink.commit(given)
    const { to } = given
    // A destination without transactions may have taken the others.
    if (outcome.type === 'refused' && to.version > (given.from?.version ?? 0))
      session = { ...session, stamp: Math.max(session.stamp, to.version), attempted: Math.max(session.attempted ?? 0, to.version) }
    if (outcome.type !== 'committed') return outcome
    session = {
      sink: session.sink,
      at: to,
      stamp: Math.max(session.stamp, to.version),
      attempted: session.attempted !== undefined && session.attempted > to.version ? session.attempted : undefined,
    }
    onRows(given.rows.length)
    return outcome
  }
  const whole = (): SinkPlace | undefined => {
    const at = session?.at
    if (at === undefined || at.refreshed !== undefined || !isUsable(view, at)) return undefined
    // An attempt may have brought rows of later versions.
    if (session?.attempted !== undefined || notes.get('refresh') === true || sweepOf(notes) !== undefined) return undefined
    return at
  }

  const applyState = async (step: Step & { readonly type: 'live' | 'page' | 'sweep' }): Promise<Applied> => {
    const { from, to } = step.commit
    const poisoned = step.type === 'live' ? step.derived.poisoned : step.poisoned
    const isStrict = forward.onPoison === 'stop'
    if (isStrict && poisoned[0] !== undefined) return poison(poisoned[0])
    const before = parking.size
    const fresh = poisoned.filter(({ key }) => !parking.has(key)).length
    if (fresh > 0 && before + fresh > maxParked) return tooMany(maxParked)
    parking.fail(poisoned, to.version)
    const outcome = await commit(isStrict ? { ...step.commit, whole: true } : step.commit)
    if (outcome.type === 'refused') return poison(outcome.parked[0])
    if (outcome.type !== 'committed') return ended(outcome)
    const cured = step.type === 'live' ? step.derived.cured : []
    parking.settle(step.commit.rows, outcome.parked, { version: to.version, freed: [...cured, ...(outcome.landed ?? [])] })
    // A destination that cannot undo says so afterwards.
    if (isStrict && outcome.parked[0] !== undefined) return poison(outcome.parked[0])
    if (step.type === 'live' && from !== undefined) counted.advance(from, to, step.derived)
    if (step.type === 'page') {
      counted.visit(from, to, { rows: step.commit.rows, isFirst: step.isFirst })
      await afterPage(to)
    }
    if (step.type === 'sweep') notes.write({ values: { sweep: step.rest === undefined ? undefined : { ...step.rest } } })
    // Afterwards, as only the destination knows which it refuses: the commit is done, and the next one waits for somebody to look.
    return parking.size > maxParked && parking.size > before ? tooMany(maxParked) : 'written'
  }
  const afterPage = async ({ version, refreshed }: SinkPlace): Promise<void> => {
    if (notes.get('refresh') === true || sweepOf(notes) !== undefined) notes.write({ values: { refresh: undefined, sweep: undefined } })
    if (refreshed !== undefined) return
    if (notes.get('migrating') === true) notes.write({ values: { migrating: undefined } })
    await parking.recheck(view, version)
  }

  const applyEvents = async ({ commit: given, failed }: Step & { readonly type: 'events' }): Promise<Applied> => {
    const isStrict = forward.onPoison === 'stop'
    const [first] = failed
    if (isStrict && first !== undefined) return poison({ key: first[0].key, reason: first[1] })
    let rows = parking.size === 0 && failed.size === 0 ? given.rows : parking.sift(given.rows, failed)
    // Each turn leaves out a key at least.
    while (rows !== 'full') {
      const outcome = await commit({ ...given, rows, whole: true })
      if (outcome.type === 'fenced' || outcome.type === 'lost') return ended(outcome)
      const refused = outcome.parked
      if (refused[0] !== undefined && (isStrict || outcome.type === 'committed')) return poison(refused[0])
      if (outcome.type === 'committed') return 'written'
      rows = parking.block(rows, refused)
    }
    return tooMany(maxParked)
  }

  const applyMove = async ({ commit: given, replay }: Step & { readonly type: 'move' }): Promise<Applied> => {
    const outcome = await commit(given)
    if (outcome.type !== 'committed') return ended(outcome)
    if (notes.get('rewind') !== undefined) notes.write({ values: { rewind: undefined, replay } })
    counted.move()
    return 'written'
  }

  return {
    get session() {
      return session
    },
    parking,
    counted,
    open,
    close,
    next: (turn, limits) => (session === undefined ? Promise.resolve(undefined) : nextStep(parts, session.sink, session, turn, limits)),
    apply: async (step) => {
      if (step.type === 'hold') return { hold: { state: step.state, reason: step.reason } }
      const applied =
        step.type === 'events' ? await applyEvents(step) : step.type === 'move' ? await applyMove(step) : await applyState(step)
      if (applied === 'written' && notes.get('began') !== true) notes.write({ values: { began: true, transform: transformNote(options) } })
      return applied
    },
    send: async (rows, how) => {
      const at = session?.at
      if (at === undefined || !isUsable(view, at))
        throw new SyncError(
          'sink_paused',
          'the sink does not know where its destination stands; it is about to begin, to be refreshed, or to be rewound',
        )
      return commit({ rows, from: at, to: at, ...how })
    },
    whole,
    get warning() {
      return warning
    },
  }
}

function ended(outcome: SinkOutcome): Applied {
  if (outcome.type === 'fenced') return { hold: { state: 'fenced', reason: 'another forwarder has taken over' } }
  return 'lost'
}

function poison(parked: Parked | undefined): Applied {
  const { key, reason } = parked ?? { key: undefined, reason: 'the destination did not say why' }
  const name = key === undefined ? 'a row' : `${key.collection} ${JSON.stringify(`${key.document}/${key.id}`)}`
  return { hold: { state: 'poisoned', reason: `stopped at ${name}: ${reason}; mend it, then resume` } }
}

function tooMany(maxParked: number): Applied {
  const reason = `more than ${maxParked} rows are parked, or more than ${MAX_HELD} events wait behind one; see to the dead letters, then resume`
  return { hold: { state: 'poisoned', reason } }
}

/** What the destination was written with. */
function transformNote({ transform: { revision, source } }: EngineOptions): JsonValue {
  return { revision, source }
}

/** T has another revision: everything is written again. Its text changed without one: somebody is told. */
function checkTransform(options: EngineOptions, place: SinkPlace | undefined): string | undefined {
  const { notes, transform, forward } = options
  if (place === undefined) {
    notes.write({ values: { transform: transformNote(options), migrating: undefined } })
    return undefined
  }
  const written = notes.get('transform') as { readonly revision: string; readonly source: string } | undefined
  if (written === undefined || written.revision !== transform.revision) {
    const isRefreshed = forward.strategy === 'state' && forward.mode !== 'changes'
    notes.write({ values: { transform: transformNote(options), ...(isRefreshed ? { refresh: true, migrating: true } : {}) } })
    return isRefreshed ? undefined : 'the projection has another revision; what was written before stays as it is'
  }
  if (written.source === transform.source) return undefined
  return 'the text of a projection changed and its revision did not: rows written before may differ from what it gives now; raise its revision, or refresh the sink'
}
