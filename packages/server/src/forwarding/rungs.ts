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
        answer('too_many', `at most ${MAX_WAITS} waits for sinks at a time`)
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
export type RungSink = Pick<Forwarder, 'status' | 'reached'>

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

interface Wait extends Awaited {
  readonly id: number
  /** Of the view; undefined until the entry was projected. */
  version: number | undefined
}

export interface RungWatchOptions {
  readonly view: Pick<View, 'versionOf' | 'entries'>
  readonly sink: (name: string) => RungSink | undefined
  readonly tell: (tell: AwaitTell) => void
  readonly clock: Clock
}

export function createRungWatch({ view, sink, tell, clock }: RungWatchOptions): RungWatch {
  const waits = new Map<number, Wait>()
  let due: number | undefined
  let cancel = (): void => undefined

  const plan = (ms: number): void => {
    const at = clock.now() + ms
    if (due !== undefined && due <= at) return
    cancel()
    due = at
    cancel = clock.after(ms, () => {
      due = undefined
      look()
      if (waits.size > 0) plan(IDLE_MS)
    })
  }
  const look = (): void => {
    for (const wait of waits.values()) {
      const answer = judge(wait, sink(wait.sink))
      if (answer === undefined) continue
      waits.delete(wait.id)
      tell({ type: 'reached', id: wait.id, ...answer })
    }
  }
  const judge = (wait: Wait, found: RungSink | undefined): Answer | undefined => {
    if (found === undefined) return { code: 'not_found', message: `this relay has no sink ${JSON.stringify(wait.sink)}` }
    wait.version ??= view.versionOf(wait.document, wait.seq)
    const { version } = wait
    const [entry] = version === undefined ? [] : view.entries(version - 1, version, 1)
    // Read ahead of its place, the entry has no version of its own.
    const records = entry?.document === wait.document ? entry.keys : []
    const outcome = version === undefined ? BEHIND : found.reached(version, records)
    if (outcome.type === 'reached') return { code: 'ok', message: '' }
    if (outcome.type === 'parked') {
      const { key, reason } = outcome.parked
      return { code: 'sink_parked', message: `${key.collection}/${key.id}: ${reason}` }
    }
    const { state } = found.status()
    return STOPPED.has(state) ? { code: 'sink_paused', message: `the sink ${wait.sink} is ${state}` } : undefined
  }

  return {
    take(ask) {
      if (ask.type === 'forget') {
        waits.delete(ask.id)
        return
      }
      const { id, document, seq, sink: name } = ask
      waits.set(id, { id, document, seq, sink: name, version: undefined })
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

const BEHIND = { type: 'behind' } as const
/** Somebody has to do something before it goes on. */
const STOPPED: ReadonlySet<SinkState> = new Set<SinkState>(['paused', 'poisoned', 'cut-off', 'fenced', 'stopped'])
