/**
 * Keeps one sink equal to the view (step 8 of the path): the loop that makes one commit after the other, what an operator may ask of it, and what it says of itself.
 */
import { SyncError, toSyncError } from '@rejoin/shared'
import type { Batch, Pump } from '../pump.ts'
import { startPump } from '../pump.ts'
import type { SinkPlace } from '../sinks/sink.ts'
import type { Forwarder, ForwarderOptions, RewindTarget, SinkState, SinkStatus } from './control.ts'
import type { Applied, Engine, Held } from './engine.ts'
import { createEngine } from './engine.ts'
import type { Job } from './jobs.ts'
import { discardJob, requeueJob, writeJob } from './jobs.ts'
import type { Step } from './next.ts'
import { isUsable, sweepOf } from './next.ts'
import { createThrottle } from './throttle.ts'

export type { Forwarder, ForwarderOptions } from './control.ts'

/** What an operator asked for and waits for. */
interface Queued {
  run(): Promise<Applied>
  reject(error: unknown): void
}

/** Asked for at once, at most. */
const MAX_JOBS = 100
/** Rows from which on a commit is worth its while. */
const SMALL = 256
/** Of so many commits one is followed by a slice of counting, while changes wait. */
const COUNT_EVERY = 4

type Work = { readonly type: 'step'; readonly step: Step } | { readonly type: 'job'; readonly job: Queued } | { readonly type: 'again' }

/** Starts forwarding. `poke` it when the view has grown. */
export function startForwarder(options: ForwarderOptions): Forwarder {
  const { view, transform, forward, notes, clock, onCommit } = options
  const pace = createThrottle(clock, forward.rate)
  const engine = createEngine({ ...options, onRows: (rows) => counted(rows) })
  /** The last commit: its rows, and when it was made. */
  let wrote = { rows: 0, at: Number.NEGATIVE_INFINITY }
  const counted = (rows: number): void => {
    pace.count(rows)
    wrote = { rows, at: clock.now() }
  }
  const gather = async (): Promise<void> => {
    const early = (options.linger ?? 0) - (clock.now() - wrote.at)
    if (early <= 0 || wrote.rows >= SMALL || forward.consistency === 'every') return
    await new Promise<void>((resolve) => void clock.after(early, resolve))
  }
  const jobs: Queued[] = []
  let held = pausedIn(options)
  let last: SinkPlace | undefined
  let turn = 0
  let isStopped = false
  let busy: Promise<unknown> = Promise.resolve()
  let tellBegun = (): void => {}
  const begun = new Promise<void>((resolve) => {
    tellBegun = resolve
  })
  if (held !== undefined) tellBegun()

  const isLettingGo = (): boolean => held?.state === 'paused' || held?.state === 'fenced'
  const open = (): Promise<void> => {
    const opening = engine.open().finally(tellBegun)
    busy = opening.catch(() => undefined)
    return opening
  }
  const close = async (): Promise<void> => {
    last = engine.session?.at ?? last
    if (engine.session !== undefined) engine.counted.keep()
    await engine.close()
  }
  const hold = (next: Held): void => {
    held = next
    if (next.state === 'paused') notes.write({ values: { paused: next.reason } })
    onCommit?.()
  }
  const rejectJobs = (error: SyncError): void => {
    for (const job of jobs.splice(0)) job.reject(error)
  }

  const read = async (): Promise<Work | undefined> => {
    if (held !== undefined && isLettingGo()) {
      await close()
      rejectJobs(new SyncError('sink_paused', `the sink is ${held.state}: ${held.reason}`))
      return undefined
    }
    if (engine.session === undefined) await open()
    const job = jobs.shift()
    if (job !== undefined) return { type: 'job', job }
    if (held !== undefined) return undefined
    if (await pace.wait()) return { type: 'again' }
    await gather()
    const step = await engine.next(turn++, pace.limits(forward.batch))
    if (step !== undefined && turn % COUNT_EVERY !== 0) return { type: 'step', step }
    const isCounting = await engine.counted.work(engine.session?.at)
    return step === undefined ? (isCounting ? { type: 'again' } : undefined) : { type: 'step', step }
  }
  const write = async (work: Work): Promise<'written' | 'lost'> => {
    // Asked to let go while the step was read.
    if (work.type === 'again' || (work.type === 'step' && held !== undefined)) return 'written'
    const applying = work.type === 'job' ? work.job.run() : engine.apply(work.step)
    busy = applying.catch(() => undefined)
    const applied = await applying
    if (applied === 'lost') {
      last = undefined
      return 'lost'
    }
    last = engine.session?.at ?? last
    if (applied === 'written') onCommit?.()
    else hold(applied.hold)
    return 'written'
  }
  const check = async (): Promise<'written' | 'lost'> => {
    const { session } = engine
    if (session?.at === undefined) return 'written'
    const outcome = await session.sink.commit({ rows: [], from: session.at, to: session.at })
    if (outcome.type === 'fenced') hold({ state: 'fenced', reason: 'another forwarder has taken over' })
    return outcome.type === 'lost' ? 'lost' : 'written'
  }
  const start = (): Pump =>
    startPump<undefined, Work, Work>({
      ...options,
      idle: options.idle ?? 1_000,
      limits: forward.batch,
      stages: {
        // After a failure nothing about the old connection is known.
        begin: async () => {
          await close()
          if (!isLettingGo()) await open()
          return undefined
        },
        read: async (): Promise<Batch<undefined, Work> | undefined> => {
          const work = await read()
          return work === undefined ? undefined : { input: work, next: undefined }
        },
        step: (work) => work,
        write,
        check,
      },
    })
  let pump = start()
  let restarting: Promise<void> | undefined
  /** Takes effect at once, also on a sink that waits after a failure. Asked twice it is done once: there is never a second loop. */
  const restart = (): Promise<void> => {
    restarting ??= pump.stop().then(() => {
      restarting = undefined
      if (!isStopped) pump = start()
    })
    return restarting
  }

  const ask = <T>(job: Job<T>): Promise<T> =>
    new Promise<T>((resolve, reject) => {
      if (isStopped) return reject(new SyncError('closed', 'the sink is stopped'))
      if (held !== undefined && isLettingGo()) return reject(new SyncError('sink_paused', `the sink is ${held.state}: ${held.reason}`))
      if (jobs.length >= MAX_JOBS) return reject(new SyncError('overloaded', `${MAX_JOBS} commands wait for this sink`))
      jobs.push({
        reject,
        run: async () => {
          try {
            const { outcome, value } = await job(engine)
            if (outcome !== 'written') reject(new SyncError('overloaded', `the destination is ${outcome}; ask again when it is back`))
            else resolve(value)
            return outcome === 'fenced' ? { hold: { state: 'fenced', reason: 'another forwarder has taken over' } } : outcome
          } catch (error) {
            reject(toSyncError(error))
            // Ours to say no; anything else is the destination's trouble.
            if (error instanceof SyncError && !error.retryable) return 'written'
            throw error
          }
        },
      })
      pump.poke()
    })
  const whole = (): SinkPlace | undefined => (engine.session === undefined ? lastWhole(options, last) : engine.whole())
  const pause = async (reason: string): Promise<void> => {
    hold({ state: 'paused', reason })
    await busy
    pump.poke()
  }

  return {
    poke: () => pump.poke(),
    begun,
    status: () =>
      statusOf(options, { engine, pump, held, place: engine.session?.at ?? last, whole: whole(), isStopped, ...pace.figures() }),
    cursor: () => whole()?.version,
    needs: () => {
      const at = engine.session?.at ?? last
      if (at?.view !== view.id) return undefined
      return Math.min(at.version, sweepOf(notes)?.at ?? at.version, engine.counted.needs() ?? at.version)
    },
    reached: (version, records) => {
      const at = whole()
      if (at === undefined || at.version < version) return { type: 'behind' }
      const parked =
        engine.parking.size === 0 ? undefined : engine.parking.among(transform.affected(view, records, Math.max(version, view.oldest())))
      return parked === undefined ? { type: 'reached' } : { type: 'parked', parked }
    },
    parked: () => engine.parking.all(),
    digestAt: (version) => engine.counted.at(version),
    recount: async () => {
      engine.counted.move()
      pump.poke()
    },
    write: async (keys, how) => {
      if (forward.strategy === 'actions') throw new SyncError('bad_option', "strategy 'actions' has no rows to repair")
      await ask(writeJob(options, keys, how))
    },
    pause: () => pause('asked to'),
    resume: async () => {
      if (held?.state === 'paused' && forward.mode === 'refresh-once') notes.write({ values: { refresh: true } })
      held = undefined
      notes.write({ values: { paused: undefined } })
      // Whatever was still open is looked at anew.
      await restart()
      onCommit?.()
    },
    rewind: async (to) => {
      rewind(options, to, engine.session?.at ?? last)
      if (held?.state === 'cut-off') held = undefined
      pump.poke()
    },
    refresh: async () => {
      if (forward.strategy === 'actions')
        throw new SyncError('bad_option', "strategy 'actions' cannot be refreshed: events of what is no more cannot be made; rewind it")
      // Written anew with T as it is now.
      const { revision, source } = transform
      notes.write({ values: { refresh: true, transform: { revision, source } } })
      if (held?.state === 'cut-off') held = undefined
      pump.poke()
    },
    adopt: async () => {
      notes.write({ values: { adopt: true } })
      if (held?.state === 'paused') return
      held = undefined
      await restart()
    },
    drop: async () => {
      await pause('dropped')
      const sink = await options.open({ adopt: false })
      try {
        await sink.drop?.()
      } finally {
        await sink.close()
      }
      notes.write({ clear: 'all', values: { paused: 'dropped' } })
      last = undefined
    },
    requeue: (ids) => ask(requeueJob(options, ids)),
    discard: async (ids) => {
      if (forward.strategy === 'state')
        throw new SyncError(
          'bad_option',
          "a row of strategy 'state' stays parked until it can be written; mend the destination or the document, then requeue it",
        )
      return ask(discardJob(options, ids))
    },
    stop: async () => {
      isStopped = true
      pace.end()
      await restarting
      await pump.stop()
      rejectJobs(new SyncError('closed', 'the sink is stopped'))
      await close()
      tellBegun()
    },
  }
}

function pausedIn({ notes }: ForwarderOptions): Held | undefined {
  const reason = notes.get('paused')
  return typeof reason === 'string' ? { state: 'paused', reason } : undefined
}

/** What was known of the destination when it was let go of. */
function lastWhole({ view, notes }: ForwarderOptions, last: SinkPlace | undefined): SinkPlace | undefined {
  const isWhole = last !== undefined && last.refreshed === undefined && isUsable(view, last)
  return isWhole && notes.get('refresh') !== true && sweepOf(notes) === undefined ? last : undefined
}

/** Notes where to go on; the loop sees it. Throws `SyncError('bad_option')`. */
function rewind({ view, forward, notes }: ForwarderOptions, to: RewindTarget, at: SinkPlace | undefined): void {
  const head = view.head()
  if (head === undefined) throw new SyncError('bad_option', 'the view is not ready: nothing can be rewound yet')
  const oldest = view.oldest()
  const version = to === 'now' ? head : to === 'oldest' ? oldest : typeof to === 'number' ? to : view.versionAt(to.time)
  if (version === undefined || version < oldest)
    throw new SyncError('bad_option', `changes are kept from version ${oldest} on; that is the oldest to rewind to ('oldest')`)
  if (!Number.isInteger(version) || version > head)
    throw new SyncError('bad_option', `there is no version ${version} yet; the last one is ${head}`)
  if (forward.strategy === 'actions') {
    notes.write({ values: { rewind: version } })
    return
  }
  // Everything is written anyway.
  if (at !== undefined && at.refreshed !== undefined && sweepOf(notes)?.begun !== true) return
  const swept = sweepOf(notes)
  notes.write({
    values: { sweep: { at: Math.min(version, swept?.at ?? version), to: head, ...(swept?.begun === true ? { begun: true } : {}) } },
  })
}

interface Seen {
  readonly engine: Engine
  readonly pump: Pump
  readonly held: Held | undefined
  readonly place: SinkPlace | undefined
  readonly whole: SinkPlace | undefined
  readonly isStopped: boolean
  readonly commits: number
  readonly rows: number
  readonly rate: number
}

function statusOf({ view, forward, notes, clock }: ForwarderOptions, seen: Seen): SinkStatus {
  const { engine, pump, held, whole } = seen
  const { session, parking } = engine
  const head = view.head()
  const cursor = whole?.version ?? 0
  const state = (): SinkState => {
    if (seen.isStopped) return 'stopped'
    if (held !== undefined) return held.state
    if (pump.state.name === 'waiting') return 'failing'
    if (session === undefined || head === undefined) return 'starting'
    if (whole === undefined) return notes.get('migrating') === true ? 'migrating' : 'refreshing'
    return cursor < head ? 'behind' : 'current'
  }
  const { entries, bytes, at } = head === undefined ? { entries: 0, bytes: 0, at: undefined } : view.lag(cursor)
  const parked = parking.all()
  const error =
    held !== undefined && held.state !== 'paused'
      ? held.reason
      : pump.state.name === 'waiting'
        ? toSyncError(pump.state.error).reason
        : undefined
  return {
    state: state(),
    strategy: forward.strategy,
    consistency: forward.consistency,
    cursor,
    lag: { entries, bytes, seconds: at === undefined ? 0 : Math.max(0, (clock.now() - at) / 1000) },
    rate: seen.rate,
    commits: seen.commits,
    rows: seen.rows,
    parked: { total: parked.length, first: parked.slice(0, 10) },
    letters: notes.letters(0).total,
    attempted: session?.attempted,
    warning: engine.warning,
    error,
  }
}
