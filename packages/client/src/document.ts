/**
 * One document's half of the protocol on the socket (step 3 of the path), pure: a table of states and events without a blank cell. replica.ts performs the effects.
 */
import { ERRORS, backoff } from '@rejoin/shared'
import type { Access, ChainHash, Cursor, ErrorCode, Lineage, Random, Seq } from '@rejoin/shared'
import type { AckFrame, ClosedFrame, EntriesFrame, GrantFrame, NackFrame, OpenedFrame, RefusedFrame, StateFrame } from '@rejoin/shared/wire'

/**
 * Where the document stands. `away`: no socket. `fetching`: the relay's whole state is arriving. `live`: entries follow one another. `waiting`: the relay would not have it now, it is asked for again.
 * `refused`: not on this socket. `replaced`: never again, its lineage is over.
 */
export type DocumentName = 'away' | 'opening' | 'fetching' | 'live' | 'waiting' | 'refused' | 'replaced'

/** The relay's state as far as it has arrived; survives the socket. */
export interface Fetch {
  readonly lineage: Lineage
  readonly epoch: number
  readonly seq: Seq
  readonly hash: ChainHash
  /** Bytes. */
  readonly total: number
  readonly received: number
}

export interface DocumentState {
  readonly name: DocumentName
  /** Of the replica in memory: it holds every entry up to here. */
  readonly cursor: Cursor | undefined
  /** Whether the relay is known to hold all that the replica held when the cursor began, so that the cursor may be stored. */
  readonly proven: boolean
  readonly grant: Access
  /** Last seq when the document was opened on this socket. */
  readonly head: Seq | undefined
  readonly caughtUp: boolean
  readonly fetch: Fetch | undefined
  /** Refusals and distrusts in a row. */
  readonly attempt: number
  /** When `tick` is due, ms. */
  readonly due: number | undefined
  readonly problem: { readonly code: ErrorCode; readonly message: string } | undefined
}

export type DocumentEvent =
  | { readonly type: 'online' }
  | { readonly type: 'offline' }
  | { readonly type: 'tick' }
  /** The socket has a new token. */
  | { readonly type: 'renewed' }
  /** The replica cannot vouch for its cursor: an entry left something pending, or the relay misses edits it once had. */
  | { readonly type: 'distrust'; readonly reason: string }
  /** Entries fit. */
  | { readonly type: 'applied' }
  /** The relay holds all that the replica holds. */
  | { readonly type: 'proved' }
  | OpenedFrame
  | RefusedFrame
  | StateFrame
  | EntriesFrame
  | AckFrame
  | NackFrame
  | GrantFrame
  | ClosedFrame

export type DocumentEffect =
  | {
      readonly type: 'open'
      readonly cursor: Cursor | undefined
      readonly resume: { readonly snapshotSeq: Seq; readonly offset: number } | undefined
    }
  /** Give up the handle. */
  | { readonly type: 'close' }
  /** A piece of the relay's state; `first` drops pieces of an earlier one. */
  | { readonly type: 'fragment'; readonly update: Uint8Array; readonly first: boolean }
  /** The pieces are whole: apply them. `prove`: they are all that the relay holds, see what it lacks. */
  | { readonly type: 'whole'; readonly prove: boolean }
  /** Apply, and commit with the state's cursor. */
  | { readonly type: 'apply'; readonly updates: readonly Uint8Array[] }
  /** Edits are durable on the relay; `moved`: the state's cursor moved over them. */
  | { readonly type: 'acked'; readonly frame: AckFrame; readonly moved: boolean }
  | { readonly type: 'nacked'; readonly frame: NackFrame }
  /** The cursor may be stored from now on. */
  | { readonly type: 'store-cursor' }
  /** Nothing that was sent and not answered will be answered. */
  | { readonly type: 'rewind' }
  /** There may be something to send. */
  | { readonly type: 'pump' }
  | { readonly type: 'caught-up' }
  | { readonly type: 'replaced' }

export interface DocumentStep {
  readonly state: DocumentState
  readonly effects: readonly DocumentEffect[]
}

export interface DocumentEnv {
  readonly now: number
  readonly random: Random
}

/** The largest state that is taken: an edit of the relay's own limit and a margin. Bytes. */
export const MAX_STATE_BYTES: number = 256 * 1024 * 1024

/** A document with what the device's store knows of it. */
export function newDocument(cursor: Cursor | undefined): DocumentState {
  return {
    name: 'away',
    cursor,
    proven: true,
    grant: 'none',
    head: undefined,
    caughtUp: false,
    fetch: undefined,
    attempt: 0,
    due: undefined,
    problem: undefined,
  }
}

type EventOf<T extends DocumentEvent['type']> = Extract<DocumentEvent, { readonly type: T }>
type Cell<T extends DocumentEvent['type']> = (state: DocumentState, event: EventOf<T>, env: DocumentEnv) => DocumentStep
type Row = { readonly [T in DocumentEvent['type']]: Cell<T> }

/** One step. Never throws. */
export function stepDocument(state: DocumentState, event: DocumentEvent, env: DocumentEnv): DocumentStep {
  const cell = DOCUMENT_TABLE[state.name][event.type] as Cell<DocumentEvent['type']>
  return cell(state, event, env)
}

const stay = (state: DocumentState): DocumentStep => ({ state, effects: [] })
const open = (state: DocumentState): DocumentStep => ({
  state: { ...state, name: 'opening', due: undefined, caughtUp: false, head: undefined },
  effects: [
    {
      type: 'open',
      cursor: state.cursor,
      resume: state.fetch === undefined ? undefined : { snapshotSeq: state.fetch.seq, offset: state.fetch.received },
    },
  ],
})
/** What survives the opening: pieces of a first sync are resumed, pieces in the place of an entry come again behind the cursor. */
const keep = (state: DocumentState): DocumentState => ({ ...state, fetch: state.name === 'live' ? undefined : state.fetch })
const away = (state: DocumentState): DocumentStep => ({
  state: { ...keep(state), name: 'away', due: undefined, caughtUp: false, attempt: 0 },
  effects: [{ type: 'rewind' }],
})
const refuse = (state: DocumentState, event: RefusedFrame | ClosedFrame, env: DocumentEnv): DocumentStep => refusal(state, event, env)
const nacked = (state: DocumentState, frame: NackFrame): DocumentStep =>
  ERRORS[frame.code].retry === 'hold'
    ? // Never the fault of one edit: all of them wait for the grant.
      {
        state: { ...state, grant: state.grant === 'write' ? 'read' : state.grant, problem: problemOf(frame) },
        effects: [{ type: 'rewind' }],
      }
    : { state, effects: [{ type: 'nacked', frame }] }
const granted = (state: DocumentState, { grant, code, message }: GrantFrame): DocumentStep => ({
  state: { ...state, grant, problem: grant === 'write' ? undefined : { code, message } },
  effects: [{ type: grant === 'write' ? 'pump' : 'rewind' }],
})
/** Only now: entries that do not fit lead to a full exchange, which must not begin again and again without a pause. */
const applied = (state: DocumentState): DocumentStep => stay(state.attempt === 0 ? state : { ...state, attempt: 0 })
const proved = (state: DocumentState): DocumentStep => ({
  state: { ...state, proven: true },
  effects: [{ type: 'store-cursor' }, { type: 'pump' }],
})

/** States × events. `stay` where an event says nothing new: a frame behind a close, or an answer to what is no longer asked. */
export const DOCUMENT_TABLE: { readonly [S in DocumentName]: Row } = {
  away: row({ online: open }),
  opening: row({ opened, refused: refuse, offline: away }),
  fetching: row({
    state: fragment,
    offline: away,
    closed: refuse,
    grant: granted,
    distrust,
    entries: (state, _frame, env) => broken(state, env, 'entries before the state was whole'),
  }),
  live: row({
    applied,
    entries,
    ack: acked,
    nack: nacked,
    grant: granted,
    closed: refuse,
    offline: away,
    distrust,
    proved,
    state: fragment,
  }),
  waiting: row({ tick: open, renewed: open, offline: away }),
  refused: row({ renewed: open, offline: away }),
  replaced: row({ distrust: stay }),
}

function row(cells: Partial<Row>): Row {
  return {
    online: stay,
    offline: stay,
    tick: stay,
    renewed: stay,
    proved: stay,
    applied: stay,
    distrust: (state) => stay({ ...state, cursor: undefined, fetch: undefined, proven: false }),
    opened: stay,
    refused: stay,
    state: stay,
    entries: stay,
    ack: stay,
    nack: stay,
    grant: stay,
    closed: stay,
    ...cells,
  }
}

function opened(state: DocumentState, { mode, lineage, epoch, head, grant }: OpenedFrame, env: DocumentEnv): DocumentStep {
  if (mode === 'replaced')
    return {
      state: { ...state, name: 'replaced', due: undefined, problem: { code: 'replaced', message: 'the document was deleted or reset' } },
      effects: [{ type: 'rewind' }, { type: 'replaced' }],
    }
  const next = { ...state, head, grant, problem: grant === 'write' ? undefined : state.problem }
  if (mode === 'full') return { state: { ...next, name: 'fetching', proven: false }, effects: [] }
  const { cursor } = state
  if (cursor?.lineage !== lineage || cursor.epoch !== epoch) return broken(state, env, 'resumed from a cursor that is not ours')
  return arrived({ ...next, name: 'live', fetch: undefined }, [{ type: 'pump' }])
}

/** A piece of a state: all that the relay holds while `fetching`; when `live`, what leads from our cursor to another. */
function fragment(state: DocumentState, frame: StateFrame, env: DocumentEnv): DocumentStep {
  const { lineage, epoch, seq, hash, total, offset, update } = frame
  const { fetch, cursor, name } = state
  const prove = name === 'fetching'
  const first = offset === 0
  const fits = first
    ? prove || (cursor !== undefined && seq > cursor.seq && epoch === cursor.epoch && lineage === cursor.lineage)
    : fetch !== undefined &&
      fetch.seq === seq &&
      fetch.hash === hash &&
      fetch.epoch === epoch &&
      fetch.lineage === lineage &&
      fetch.total === total &&
      fetch.received === offset
  const received = offset + update.length
  if (!fits || received > total || total > MAX_STATE_BYTES || (update.length === 0 && total > 0))
    return broken({ ...state, fetch: undefined }, env, 'state fragments out of order')
  const effects: DocumentEffect[] = [{ type: 'fragment', update, first }]
  if (received < total) return { state: { ...state, fetch: { lineage, epoch, seq, hash, total, received } }, effects }
  const next: DocumentState = {
    ...state,
    name: 'live',
    fetch: undefined,
    cursor: { lineage, epoch, seq, hash },
    proven: state.proven && !prove,
  }
  return arrived(next, [...effects, { type: 'whole', prove }])
}

function entries(state: DocumentState, { first, updates, hash }: EntriesFrame, env: DocumentEnv): DocumentStep {
  const { cursor } = state
  if (cursor === undefined || first !== cursor.seq + 1 || updates.length === 0)
    return broken(state, env, `entries from ${first}, expected ${(cursor?.seq ?? 0) + 1}`)
  const seq = (cursor.seq + updates.length) as Seq
  return arrived({ ...state, cursor: { ...cursor, seq, hash } }, [{ type: 'apply', updates }])
}

/** With a hash it stands in the place of our entry and moves the cursor by one; without, it repeats an older answer. */
function acked(state: DocumentState, frame: AckFrame, env: DocumentEnv): DocumentStep {
  const { cursor } = state
  if (frame.hash === undefined) return { state, effects: [{ type: 'acked', frame, moved: false }] }
  if (cursor === undefined || frame.seq !== cursor.seq + 1)
    return broken(state, env, `an ack at ${frame.seq}, expected ${(cursor?.seq ?? 0) + 1}`)
  return arrived({ ...state, attempt: 0, cursor: { ...cursor, seq: frame.seq, hash: frame.hash } }, [{ type: 'acked', frame, moved: true }])
}

/** Tells once per socket that the replica has what the relay had when it was opened. */
function arrived(state: DocumentState, effects: readonly DocumentEffect[]): DocumentStep {
  if (state.caughtUp || state.cursor === undefined || state.head === undefined || state.cursor.seq < state.head) return { state, effects }
  return { state: { ...state, caughtUp: true }, effects: [...effects, { type: 'caught-up' }] }
}

/** The relay broke the order of the protocol: the same cursor is tried again, on a new opening. */
function broken(state: DocumentState, env: DocumentEnv, reason: string): DocumentStep {
  return again(state, env, { code: 'bad_frame', message: reason }, 0)
}

/** What cannot be proved leads to a full exchange, never to "up to date". */
function distrust(state: DocumentState, { reason }: EventOf<'distrust'>, env: DocumentEnv): DocumentStep {
  return again({ ...state, cursor: undefined, fetch: undefined, proven: false }, env, { code: 'gap', message: reason }, 0)
}

function again(
  state: DocumentState,
  { now, random }: DocumentEnv,
  problem: NonNullable<DocumentState['problem']>,
  retryAfter: number,
  pace: number = state.attempt,
): DocumentStep {
  const due = now + backoff(pace, random, { atLeast: retryAfter })
  return {
    state: { ...keep(state), name: 'waiting', attempt: state.attempt + 1, due, problem },
    effects: [{ type: 'close' }, { type: 'rewind' }],
  }
}

function refusal(state: DocumentState, frame: RefusedFrame | ClosedFrame, env: DocumentEnv): DocumentStep {
  const problem = problemOf(frame)
  if (frame.code === 'replaced')
    return { state: { ...state, name: 'replaced', due: undefined, problem }, effects: [{ type: 'rewind' }, { type: 'replaced' }] }
  const { retry } = ERRORS[frame.code]
  const next = { ...state, grant: retry === 'hold' ? ('none' as const) : state.grant }
  if (retry === 'never') return { state: { ...next, name: 'refused', due: undefined, problem }, effects: [{ type: 'rewind' }] }
  // A grant may be given without a new token: it is asked for again at the slowest pace.
  return again(next, env, problem, frame.retryAfter, retry === 'hold' ? 30 : state.attempt)
}

function problemOf({ code, message }: { readonly code: ErrorCode; readonly message: string }): NonNullable<DocumentState['problem']> {
  return { code, message }
}
