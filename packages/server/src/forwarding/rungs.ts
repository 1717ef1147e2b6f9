/**
 * Who waits for an entry to reach a sink (between steps 8 and 3 of the path): the relay's thread keeps who asked, the worker looks whenever a cursor has moved.
 */
import type { Clock, DocumentId, ErrorCode, Seq } from '@rejoin/shared'
import type { View } from '../view/view.ts'
import type { Forwarder, SinkState } from './control.ts'

/** An entry that somebody wants to see in a sink. */
export interface Awaited {
  readonly sink: string
  readonly document: DocumentId
  readonly seq: Seq
}

/** `ok`, or why nobody will say so. */
export type AwaitedAnswer = (code: ErrorCode, message: string) => void

/** To the worker. */
export type AwaitAsk =
  | ({ readonly type: 'await'; readonly id: number } & Awaited)
  /** Nobody asks any more. */
  | { readonly type: 'forget'; readonly id: number }

/** From the worker, once for each `await` that was not forgotten. */
export interface AwaitTell {
  readonly type: 'reached'
  readonly id: number
  readonly code: ErrorCode
  readonly message: string
}

// The relay's thread

/** The half on the relay's thread: `send` posts to the worker there is, if there is one. */
export interface RungDesk {
  wait(what: Awaited, answer: AwaitedAnswer): () => void
  /** The worker has answered. */
  hear(tell: AwaitTell): void
  /** There is a worker, perhaps another than before: it is asked everything. */
  ready(): void
  /** There will be none any more. */
  close(): void
}

/** Waits of all sockets and requests together. */
const MAX_WAITS = 100_000

export function createRungDesk(send: (ask: AwaitAsk) => void): RungDesk {
  const waits = new Map<number, { readonly what: Awaited; readonly answer: AwaitedAnswer }>()
  let last = 0
  return {
    wait(what, answer) {
      if (waits.size >= MAX_WAITS) {
        // Later, as every answer.
        queueMicrotask(() => answer('too_many', `at most ${MAX_WAITS} waits for sinks at a time`))
        return () => undefined
      }
      const id = ++last
      waits.set(id, { what, answer })
      send({ type: 'await', id, ...what })
      return () => {
        if (waits.delete(id)) send({ type: 'forget', id })
      }
    },
    hear({ id, code, message }) {
      const wait = waits.get(id)
      waits.delete(id)
      wait?.answer(code, message)
    },
    ready() {
      for (const [id, { what }] of waits) send({ type: 'await', id, ...what })
    },
    close() {
      const told = [...waits.values()]
      waits.clear()
      for (const { answer } of told) answer('draining', 'the relay is going down')
    },
  }
}

// The worker

/** What the watch asks of a sink. */
export type RungSink = Pick<Forwarder, 'status' | 'cursor' | 'reached'>

/** The half in the worker. */
export interface RungWatch {
  take(ask: AwaitAsk): void
  /** A cursor or the view has moved, or a sink was stopped. Cheap. */
  look(): void
  close(): void
}

/** Who asks is told within this time of a cursor's move, in ms: a look at many waits is not made for each commit. */
const LOOK_MS = 10
/** Looks nobody asked for, while somebody waits, in ms: a state may change without a commit. */
const IDLE_MS = 500
/** Waits that one look places or answers, at most: others have the thread in between. */
const SLICE = 500

interface Wait extends Awaited {
  readonly id: number
  isForgotten: boolean
}

/** A wait whose entry is in the view. */
interface Placed {
  readonly wait: Wait
  readonly version: number
}

/** The waits for one sink. */
interface Line {
  /** In the order in which they came; their entries were not projected when it was last asked. */
  unplaced: Wait[]
  /** By version, the lowest last. */
  placed: Placed[]
}

export interface RungWatchOptions {
  readonly view: Pick<View, 'versionOf' | 'entries'>
  readonly sink: (name: string) => RungSink | undefined
  readonly tell: (tell: AwaitTell) => void
  readonly clock: Clock
}

/** A look costs what it answers, not what waits: only versions up to the cursor are taken up, and a slice of what was not projected yet. */
export function createRungWatch({ view, sink, tell, clock }: RungWatchOptions): RungWatch {
  const waits = new Map<number, Wait>()
  const lines = new Map<string, Line>()
  let due: number | undefined
  let idleAt = 0
  let cancel = (): void => undefined

  const plan = (ms: number): void => {
    const at = clock.now() + ms
    if (due !== undefined && due <= at) return
    cancel()
    due = at
    cancel = clock.after(ms, () => {
      due = undefined
      const isMore = look()
      if (waits.size > 0) plan(isMore ? 0 : IDLE_MS)
    })
  }
  /** Whether there is more to do at once. */
  const look = (): boolean => {
    const isIdle = clock.now() >= idleAt
    if (isIdle) idleAt = clock.now() + IDLE_MS
    let isMore = false
    for (const [name, line] of lines) {
      const found = sink(name)
      if (found === undefined) refuseAll(line, { code: 'not_found', message: `this relay has no sink ${JSON.stringify(name)}` })
      else if (serve(line, found)) isMore = true
      else if (isIdle && STOPPED.has(found.status().state)) {
        refuseAll(line, { code: 'sink_paused', message: `the sink ${name} is ${found.status().state}` })
      }
      if (line.placed.length + line.unplaced.length === 0) lines.delete(name)
    }
    return isMore
  }
  /** Whether a slice was not enough. */
  const serve = (line: Line, found: RungSink): boolean => {
    const tried = line.unplaced.splice(0, SLICE).filter(({ isForgotten }) => !isForgotten)
    const still: Wait[] = []
    for (const wait of tried) {
      const version = view.versionOf(wait.document, wait.seq)
      if (version === undefined) still.push(wait)
      else insert(line.placed, { wait, version })
    }
    // Some were placed: those behind them may be as well. If none was, the projector has to go on first.
    const isMore = still.length < tried.length && line.unplaced.length > 0
    line.unplaced.push(...still)
    const cursor = found.cursor() ?? -1
    for (let answered = 0; answered < SLICE; answered++) {
      const last = line.placed.at(-1)
      if (last === undefined || last.version > cursor) return isMore
      line.placed.pop()
      if (!last.wait.isForgotten) answer(last.wait, judge(last, found))
    }
    return true
  }
  const judge = ({ wait, version }: Placed, found: RungSink): Answer => {
    const [entry] = view.entries(version - 1, version, 1)
    // Read ahead of its place, the entry has no version of its own.
    const records = entry?.document === wait.document ? entry.keys : []
    const outcome = found.reached(version, records)
    if (outcome.type !== 'parked') return { code: 'ok', message: '' }
    const { key, reason } = outcome.parked
    // By a join it may be of a document that who waits may not read.
    const which =
      key.document === wait.document
        ? `${key.collection}/${key.id}: ${reason}`
        : 'a record that depends on one of the edit cannot be written'
    return { code: 'sink_parked', message: which }
  }
  const answer = (wait: Wait, told: Answer): void => {
    waits.delete(wait.id)
    tell({ type: 'reached', id: wait.id, ...told })
  }
  const refuseAll = (line: Line, told: Answer): void => {
    const all = [...line.placed.map(({ wait }) => wait), ...line.unplaced]
    line.placed = []
    line.unplaced = []
    for (const wait of all) if (!wait.isForgotten) answer(wait, told)
  }

  return {
    take(ask) {
      if (ask.type === 'forget') {
        const wait = waits.get(ask.id)
        if (wait !== undefined) wait.isForgotten = true
        waits.delete(ask.id)
        return
      }
      const { id, document, seq, sink: name } = ask
      const wait: Wait = { id, document, seq, sink: name, isForgotten: false }
      waits.set(id, wait)
      const line = lines.get(name) ?? { unplaced: [], placed: [] }
      lines.set(name, line)
      line.unplaced.push(wait)
      // Who asks of a sink that stands still is told so at once.
      idleAt = 0
      plan(0)
    },
    look: () => {
      if (waits.size > 0) plan(LOOK_MS)
    },
    close: () => {
      cancel()
    },
  }
}

type Answer = Pick<AwaitTell, 'code' | 'message'>

/** Keeps the lowest version last. New ones are mostly the highest. */
function insert(placed: Placed[], one: Placed): void {
  let [low, high] = [0, placed.length]
  while (low < high) {
    const middle = (low + high) >> 1
    if ((placed[middle]?.version ?? 0) > one.version) low = middle + 1
    else high = middle
  }
  placed.splice(low, 0, one)
}

/** Somebody has to do something before it goes on. */
const STOPPED: ReadonlySet<SinkState> = new Set<SinkState>(['paused', 'poisoned', 'cut-off', 'fenced', 'stopped'])
