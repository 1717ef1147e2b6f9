/**
 * The client's half of the socket's protocol (step 3 of the path), pure: a table of states and events without a blank cell. connection.ts performs the effects.
 */
import { ERRORS, backoff } from '@rejoin/shared'
import type { ErrorCode, Random } from '@rejoin/shared'
import type { ClientFrame, RelayFrame } from '@rejoin/shared/wire'
import { REVISION } from '@rejoin/shared/wire'
import type { ConnectionStatus } from './status.ts'

/** Where the socket stands. `token`: the application is asked for one. `waiting` and `needs-auth` dial again by themselves, for ever. */
export type SessionName = 'idle' | 'token' | 'dialing' | 'greeting' | 'connected' | 'waiting' | 'needs-auth' | 'closed'

/** All times in ms. */
export interface Session {
  readonly name: SessionName
  /** Failures since a connection that lasted. */
  readonly attempt: number
  /** When `tick` is due. While waiting: when it dials again. */
  readonly due: number | undefined
  /** The relay asked not to come back before. */
  readonly notBefore: number
  /** Why the last connection ended or could not begin. */
  readonly reason: string | undefined
  readonly token: string
  readonly heartbeat: number
  readonly connectedAt: number
  readonly heardAt: number
  /** A ping is out whose answer is due at the next tick. */
  readonly probing: boolean
  /** The relay wants a new token on the open socket. `again`: the application could not give one, ask again at the next tick. */
  readonly renewal: 'none' | 'asked' | 'again'
  /** When the application was last asked because the relay wanted it. */
  readonly askedAt: number
}

export type SessionEvent =
  | { readonly type: 'start' }
  /** The platform says that things may have changed: online, visible, resumed. */
  | { readonly type: 'wake' }
  | { readonly type: 'tick' }
  | { readonly type: 'token'; readonly token: string }
  | { readonly type: 'no-token'; readonly code: ErrorCode; readonly reason: string }
  | { readonly type: 'opened' }
  /** A message arrived, whatever is in it. */
  | { readonly type: 'heard' }
  /** The relay breaks the protocol, or leaves pushes unanswered. */
  | { readonly type: 'fault'; readonly code: ErrorCode; readonly reason: string }
  | { readonly type: 'lost'; readonly code: number; readonly reason: string }
  | Extract<RelayFrame, { readonly type: 'welcome' | 'authenticate' | 'authenticated' | 'goaway' | 'ping' }>
  | { readonly type: 'stop' }

export type SessionEffect =
  /** Ask the application for a token; answered by `token` or `no-token`. */
  | { readonly type: 'ask' }
  | { readonly type: 'dial' }
  | { readonly type: 'send'; readonly frame: ClientFrame }
  /** End the socket; nothing of it is heard any more. */
  | { readonly type: 'hang-up'; readonly code: number; readonly reason: string }
  /** Documents may be opened; `window` in bytes. */
  | { readonly type: 'online'; readonly window: number }
  | { readonly type: 'offline' }
  /** The relay took a new token: documents it refused may be asked for again. */
  | { readonly type: 'renewed' }

export interface SessionStep {
  readonly state: Session
  readonly effects: readonly SessionEffect[]
}

/** What a step may know of the world. */
export interface SessionEnv {
  readonly now: number
  readonly random: Random
  readonly agent: string
}

export const SESSION_TIMES = {
  /** For the application's token callback. */
  token: 30_000,
  /** For the transport to open, and then for `welcome`. */
  dial: 15_000,
  greet: 15_000,
  /** A connection that lasted this long starts the backoff afresh. */
  stable: 10_000,
  /** For the answer to the ping after a wake. */
  probe: 5000,
  /** Between two questions for a token that the relay caused. */
  renew: 1000,
  /** A relay that asks for a heartbeat outside of these, or not to be dialled for longer, is a relay gone wrong. */
  heartbeat: { least: 1000, most: 3_600_000 },
  retryAfter: 3_600_000,
} as const

export const newSession: Session = {
  name: 'idle',
  attempt: 0,
  due: undefined,
  notBefore: 0,
  reason: undefined,
  token: '',
  heartbeat: 0,
  connectedAt: 0,
  heardAt: 0,
  probing: false,
  renewal: 'none',
  askedAt: -Infinity,
}

type EventOf<T extends SessionEvent['type']> = Extract<SessionEvent, { readonly type: T }>
type Cell<T extends SessionEvent['type']> = (state: Session, event: EventOf<T>, env: SessionEnv) => SessionStep
type Row = { readonly [T in SessionEvent['type']]: Cell<T> }

/** One step. Never throws. */
export function stepSession(state: Session, event: SessionEvent, env: SessionEnv): SessionStep {
  const cell = SESSION_TABLE[state.name][event.type] as Cell<SessionEvent['type']>
  return cell(state, event, env)
}

const stay = (state: Session): SessionStep => ({ state, effects: [] })
const stop = (state: Session): SessionStep => ({
  state: { ...state, name: 'closed', due: undefined, reason: undefined },
  effects: [
    ...(state.name === 'connected' ? [{ type: 'offline' } as const] : []),
    ...(hasSocket(state) ? [{ type: 'hang-up', code: 1000, reason: 'closed' } as const] : []),
  ],
})
const ask = (state: Session, _event: unknown, { now }: SessionEnv): SessionStep => ({
  state: { ...state, name: 'token', due: now + SESSION_TIMES.token },
  effects: [{ type: 'ask' }],
})
const dial = (state: Session, { token }: EventOf<'token'>, { now }: SessionEnv): SessionStep => ({
  state: { ...state, name: 'dialing', token, due: now + SESSION_TIMES.dial },
  effects: [{ type: 'dial' }],
})
const greet = (state: Session, _event: unknown, { now, agent }: SessionEnv): SessionStep => ({
  state: { ...state, name: 'greeting', due: now + SESSION_TIMES.greet },
  effects: [{ type: 'send', frame: { type: 'hello', revisionMin: REVISION.min, revisionMax: REVISION.max, agent, token: state.token } }],
})
const welcome = (state: Session, event: EventOf<'welcome'>, { now }: SessionEnv): SessionStep => ({
  state: {
    ...state,
    name: 'connected',
    due: now + heartbeatOf(event),
    heartbeat: heartbeatOf(event),
    connectedAt: now,
    heardAt: now,
    probing: false,
    renewal: 'none',
    reason: undefined,
    notBefore: 0,
  },
  effects: [{ type: 'online', window: event.window }],
})
const noToken = (state: Session, { code, reason }: EventOf<'no-token'>, env: SessionEnv): SessionStep =>
  retreat(state, env, { code, reason })
const tooLong = (state: Session, _event: unknown, env: SessionEnv): SessionStep =>
  retreat(state, env, { code: 'timeout', reason: `no answer while ${DOING[state.name]}` })
const lost = (state: Session, { code, reason }: EventOf<'lost'>, env: SessionEnv): SessionStep =>
  retreat(state, env, { code: errorOfClose(code), reason: reason === '' ? `the connection ended (${code})` : reason, socketGone: true })
const fault = (state: Session, { code, reason }: EventOf<'fault'>, env: SessionEnv): SessionStep => retreat(state, env, { code, reason })
const goaway = (state: Session, { code, message, retryAfter }: EventOf<'goaway'>, env: SessionEnv): SessionStep =>
  retreat(state, env, { code, reason: message === '' ? code : message, retryAfter })
const pong = (state: Session, { nonce }: EventOf<'ping'>): SessionStep => ({
  state,
  effects: [{ type: 'send', frame: { type: 'pong', nonce } }],
})
const retry = (state: Session, event: unknown, env: SessionEnv): SessionStep =>
  env.now < state.notBefore ? { state: { ...state, due: state.notBefore }, effects: [] } : ask(state, event, env)
const early = (state: Session, _event: unknown, env: SessionEnv): SessionStep =>
  retreat(state, env, { code: 'bad_frame', reason: 'a frame before welcome' })

const DOING: Readonly<Record<SessionName, string>> = {
  idle: 'idle',
  token: 'asking for a token',
  dialing: 'dialing',
  greeting: 'greeting the relay',
  connected: 'connected',
  waiting: 'waiting',
  'needs-auth': 'waiting',
  closed: 'closed',
}

/** States × events. `stay` where an event says nothing new: a late answer, or a frame of a socket that has been given up. */
export const SESSION_TABLE: { readonly [S in SessionName]: Row } = {
  idle: row({ start: ask }),
  token: row({ token: dial, 'no-token': noToken, tick: tooLong }),
  dialing: row({ opened: greet, tick: tooLong, lost }),
  greeting: row({ welcome, goaway, ping: pong, tick: tooLong, lost, fault, authenticate: early, authenticated: early }),
  connected: row({
    heard: (state, _event, { now }) => stay({ ...state, heardAt: now, probing: false }),
    tick: beat,
    wake: probe,
    ping: pong,
    goaway,
    lost,
    fault,
    authenticate: renew,
    token: (state, { token }) =>
      state.renewal === 'none'
        ? stay(state)
        : { state: { ...state, token, renewal: 'none' }, effects: [{ type: 'send', frame: { type: 'auth', token } }] },
    // The socket ends at the relay's deadline if no token comes; until then it is asked for again.
    'no-token': (state, { reason }, { now, random }) =>
      stay({ ...state, reason, renewal: 'again', due: Math.min(state.due ?? Infinity, now + 1000 + backoff(2, random)) }),
    authenticated: (state) => ({ state: { ...state, reason: undefined }, effects: [{ type: 'renewed' }] }),
  }),
  waiting: row({ tick: retry, wake: retry }),
  'needs-auth': row({ tick: retry, wake: retry }),
  closed: row({ stop: stay }),
}

function row(cells: Partial<Row>): Row {
  return {
    start: stay,
    wake: stay,
    tick: stay,
    token: stay,
    'no-token': stay,
    opened: stay,
    heard: stay,
    fault: stay,
    lost: stay,
    welcome: stay,
    authenticate: stay,
    authenticated: stay,
    goaway: stay,
    ping: stay,
    stop,
    ...cells,
  }
}

function heartbeatOf({ heartbeat }: EventOf<'welcome'>): number {
  const { least, most } = SESSION_TIMES.heartbeat
  return Math.min(Math.max(heartbeat, least), most)
}

/** The application is asked once at a time, and at a pace that it can bear. */
function renew(state: Session, _event: unknown, { now }: SessionEnv): SessionStep {
  if (state.renewal !== 'none') return stay(state)
  const from = state.askedAt + SESSION_TIMES.renew
  if (now < from) return stay({ ...state, renewal: 'again', due: Math.min(state.due ?? Infinity, from) })
  return { state: { ...state, renewal: 'asked', askedAt: now }, effects: [{ type: 'ask' }] }
}

/** The connected socket's clock: a ping when the relay was silent for a heartbeat, the end after two. */
function beat(state: Session, _event: unknown, env: SessionEnv): SessionStep {
  const { now } = env
  const silent = now - state.heardAt
  if (silent >= 2 * state.heartbeat || (state.probing && silent >= SESSION_TIMES.probe))
    return retreat(state, env, { code: 'timeout', reason: 'the relay fell silent' })
  const effects: SessionEffect[] = state.renewal === 'again' ? [{ type: 'ask' }] : []
  const renewal = state.renewal === 'again' ? 'asked' : state.renewal
  const askedAt = state.renewal === 'again' ? now : state.askedAt
  // A clock that was set back would otherwise count as silence that never ends.
  if (silent < 0) return { state: { ...state, renewal, askedAt, heardAt: now, due: now + state.heartbeat }, effects }
  if (silent < state.heartbeat) return { state: { ...state, renewal, askedAt, due: state.heardAt + state.heartbeat }, effects }
  effects.push({ type: 'send', frame: { type: 'ping', nonce: 0 } })
  return { state: { ...state, renewal, askedAt, due: state.heardAt + 2 * state.heartbeat }, effects }
}

/** After sleep, a frozen tab or another network the socket may be dead without a sign. */
function probe(state: Session, _event: unknown, { now }: SessionEnv): SessionStep {
  if (state.probing) return stay(state)
  // Silence before the wake proves nothing, since the device may have slept: it counts from here.
  return {
    state: { ...state, probing: true, heardAt: now, due: now + SESSION_TIMES.probe },
    effects: [{ type: 'send', frame: { type: 'ping', nonce: 0 } }],
  }
}

interface Cause {
  readonly code: ErrorCode
  readonly reason: string
  readonly retryAfter?: number
  readonly socketGone?: boolean
}

/** Gives the socket up and says when to come back. */
function retreat(state: Session, { now, random }: SessionEnv, { code, reason, retryAfter = 0, socketGone = false }: Cause): SessionStep {
  const attempt = state.name === 'connected' && now - state.connectedAt >= SESSION_TIMES.stable ? 0 : state.attempt
  const { retry: kind, close } = ERRORS[code]
  // What only a change of software can cure is tried at the slowest pace, but tried.
  const delay = backoff(kind === 'never' ? 30 : attempt, random, { atLeast: retryAfter })
  const effects: SessionEffect[] = []
  if (state.name === 'connected') effects.push({ type: 'offline' })
  if (hasSocket(state) && !socketGone) effects.push({ type: 'hang-up', code: close, reason })
  const name = kind === 'hold' ? 'needs-auth' : 'waiting'
  return {
    state: { ...state, name, attempt: attempt + 1, due: now + delay, notBefore: now + retryAfter, reason, probing: false, renewal: 'none' },
    effects,
  }
}

function hasSocket({ name }: Session): boolean {
  return name === 'dialing' || name === 'greeting' || name === 'connected'
}

/** The code of the table that a WebSocket close code stands for; `timeout` for the network's own. */
function errorOfClose(close: number): ErrorCode {
  if (close < 4400) return 'timeout'
  return (Object.keys(ERRORS) as ErrorCode[]).find((code) => ERRORS[code].close === close) ?? 'internal'
}

/** What to tell of a session; `due`: when it dials again, ms since 1970. */
export function connectionStatus({ name, reason }: Session, due: number | undefined): ConnectionStatus {
  const why = reason === undefined ? {} : { reason }
  switch (name) {
    case 'idle':
    case 'token':
    case 'dialing':
    case 'greeting':
      return { name: 'connecting', ...why }
    case 'connected':
    case 'closed':
      return { name, ...why }
    case 'needs-auth':
      return { name, ...why, ...(due === undefined ? {} : { retryAt: due }) }
    case 'waiting':
      return { name: 'offline', ...why, ...(due === undefined ? {} : { retryAt: due }) }
    default:
      return name satisfies never
  }
}
