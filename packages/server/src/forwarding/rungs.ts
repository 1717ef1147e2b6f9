/**
 * Who waits for an entry to reach a sink (between steps 8 and 3 of the path): the relay's thread keeps who asked, the worker looks whenever a cursor has moved.
 */
import type { Clock, DocumentId, ErrorCode, Seq } from '@rejoin/shared'
import type { Parked } from '../sinks/sink.ts'
import type { Key, View } from '../view/view.ts'
import type { SinkStatus } from './forwarder.ts'

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
export interface RungSink {
  status(): Pick<SinkStatus, 'state' | 'cursor'>
  /** The first of these records that could not be written, if there is one. */
  parkedAmong(sources: readonly Key[]): Parked | undefined
}

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
    const cursors = new Map<
      string,
      { readonly found: RungSink; readonly cursor: number; readonly stopped: string | undefined } | undefined
    >()
    for (const wait of waits.values()) {
      if (!cursors.has(wait.sink)) cursors.set(wait.sink, standing(sink(wait.sink)))
      const answer = judge(wait, cursors.get(wait.sink))
      if (answer === undefined) continue
      waits.delete(wait.id)
      tell({ type: 'reached', id: wait.id, ...answer })
    }
  }
  const judge = (wait: Wait, at: ReturnType<typeof standing>): { readonly code: ErrorCode; readonly message: string } | undefined => {
    if (at === undefined) return { code: 'not_found', message: `this relay has no sink ${JSON.stringify(wait.sink)}` }
    wait.version ??= view.versionOf(wait.document, wait.seq)
    if (wait.version === undefined || at.cursor < wait.version)
      return at.stopped === undefined ? undefined : { code: 'sink_paused', message: `the sink ${wait.sink} is ${at.stopped}` }
    const [entry] = view.entries(wait.version - 1, wait.version, 1)
    const parked = entry?.document === wait.document ? at.found.parkedAmong(entry.keys) : undefined
    if (parked === undefined) return { code: 'ok', message: '' }
    const { collection, id } = parked.key
    return { code: 'sink_parked', message: `${collection}/${id}: ${parked.reason}` }
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

const STOPPED: ReadonlySet<string> = new Set(['paused', 'poisoned', 'cut-off', 'fenced', 'stopped'])

function standing(
  found: RungSink | undefined,
): { readonly found: RungSink; readonly cursor: number; readonly stopped: string | undefined } | undefined {
  if (found === undefined) return undefined
  const { state, cursor } = found.status()
  return { found, cursor, stopped: STOPPED.has(state) ? state : undefined }
}
