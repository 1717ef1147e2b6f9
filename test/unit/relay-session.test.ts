/**
 * The relay's session as a table: what each event does in each phase, and the rules that stretch over several events.
 */
import { describe, expect, it } from 'vitest'
import type { DocumentId, IncarnationId, Lineage, Seq } from '@rejoin/shared'
import { DEFAULT_LIMITS } from '@rejoin/shared'
import type { Frame, PushFrame } from '@rejoin/shared/wire'
import { encodeFrames } from '@rejoin/shared/wire'
import type { Grant } from '#server/relay/grant.js'
import { weightOf } from '#server/relay/parts.js'
import type { SessionEffect, SessionEvent, SessionRules } from '#server/relay/session-events.js'
import type { Session } from '#server/relay/session.js'
import { accessAt, createSession, step } from '#server/relay/session.js'

const NOW = 1_800_000_000_000
const HEX = 'ab'.repeat(16)
const RULES: SessionRules = {
  relay: HEX,
  heartbeat: 25_000,
  window: DEFAULT_LIMITS.window,
  message: DEFAULT_LIMITS.message,
  helloMessage: DEFAULT_LIMITS.helloMessage,
  helloMs: 5000,
  documents: 3,
  renewMs: 30_000,
}
const GRANT: Grant = { principal: 'alice', documents: { '*': 'write' } }
const HANDLE = 7

const message = (...frames: readonly Frame[]): SessionEvent => ({ type: 'message', bytes: encodeFrames(frames), now: NOW })
const hello: Frame = { type: 'hello', revisionMin: 1, revisionMax: 1, agent: 'test', token: 't' }
const opened = (handle: number, document = `d${handle}`): SessionEvent & { type: 'opened' } => ({
  type: 'opened',
  ref: handle,
  handle,
  document: document as DocumentId,
  lineage: HEX as Lineage,
  epoch: 1,
  head: 0 as Seq,
  mode: 'full',
})
const granted = (grant: Grant = GRANT, now = NOW): SessionEvent => ({ type: 'granted', grant, now })
const time = (now: number, more: { buffered?: number; sent?: number } = {}): SessionEvent => ({
  type: 'time',
  now,
  buffered: 0,
  sent: 0,
  ...more,
})

function push(update: Uint8Array, more: Partial<PushFrame> = {}): PushFrame {
  return {
    type: 'push',
    handle: HANDLE,
    incarnation: HEX as IncarnationId,
    lo: 1,
    hi: 1,
    kind: 'edit',
    covers: [],
    total: update.length,
    offset: 0,
    update,
    ...more,
  }
}

/** A session in a phase; `ready` has one document open and one being opened. */
function sessionIn(phase: Session['phase'], grant: Grant = GRANT): Session {
  const session = createSession(RULES, NOW)
  if (phase === 'hello') return session
  step(session, message(hello))
  if (phase === 'asking') return session
  step(session, granted(grant))
  step(session, message({ type: 'open', ref: 1, document: `d${HANDLE}` }, { type: 'open', ref: 2, document: 'other' }))
  step(session, opened(HANDLE))
  if (phase === 'over') step(session, { type: 'lost' })
  return session
}

function told(effects: readonly SessionEffect[]): string {
  return effects
    .map((effect) => {
      if (effect.type === 'send') return 'code' in effect.frame ? `${effect.frame.type}(${effect.frame.code})` : effect.frame.type
      if (effect.type === 'end') return `end(${effect.code})`
      if (effect.type === 'reading') return effect.on ? 'read' : 'pause'
      if (effect.type === 'wake') return 'wake'
      return effect.type
    })
    .join(' ')
}

const BAD = 'goaway(bad_frame) end(bad_frame)'
const READY_BAD = 'goaway(bad_frame) leave end(bad_frame)'

type Row = Readonly<Record<Session['phase'], string>>
const nothing: Row = { hello: '', asking: '', ready: '', over: '' }
const early = (ready: string): Row => ({ hello: BAD, asking: BAD, ready, over: '' })

/** Every event: the effects in each phase. */
const TABLE: Readonly<Record<string, { readonly event: SessionEvent; readonly row: Row }>> = {
  'bytes that are no frames': { event: { type: 'message', bytes: new Uint8Array([1, 200, 1]), now: NOW }, row: early(READY_BAD) },
  'an empty message': { event: { type: 'message', bytes: new Uint8Array(0), now: NOW }, row: early(READY_BAD) },
  'a frame of an unknown type': { event: { type: 'message', bytes: new Uint8Array([127, 1, 0]), now: NOW }, row: early('') },
  hello: { event: message(hello), row: { hello: 'authorize', asking: BAD, ready: READY_BAD, over: '' } },
  'hello and more': { event: message(hello, { type: 'ping', nonce: 1 }), row: early(READY_BAD) },
  'hello of another revision': {
    event: message({ ...hello, revisionMin: 2, revisionMax: 3 }),
    row: { hello: 'goaway(unsupported_revision) end(unsupported_revision)', asking: BAD, ready: READY_BAD, over: '' },
  },
  auth: { event: message({ type: 'auth', token: 'u' }), row: early('authorize') },
  await: { event: message({ type: 'await', ref: 1, handle: HANDLE, seq: 1 as Seq, sink: 's' }), row: early('await') },
  'await of a document that was closed': {
    event: message({ type: 'await', ref: 1, handle: 99, seq: 1 as Seq, sink: 's' }),
    row: early(''),
  },
  'the answer to await': {
    event: { type: 'reached', ref: 1, code: 'ok', message: '' },
    row: { hello: 'reached(ok)', asking: 'reached(ok)', ready: 'reached(ok)', over: '' },
  },
  'reached from a client': { event: message({ type: 'reached', ref: 1, code: 'ok', message: '' }), row: early(READY_BAD) },
  open: { event: message({ type: 'open', ref: 3, document: 'third' }), row: early('open') },
  'open of what is no document': { event: message({ type: 'open', ref: 3, document: '..' }), row: early('refused(bad_document)') },
  close: { event: message({ type: 'close', handle: HANDLE }), row: early('leave') },
  'close of what is not open': { event: message({ type: 'close', handle: 99 }), row: early('') },
  push: { event: message(push(new Uint8Array([1]))), row: early('push') },
  'push to what is not open': { event: message(push(new Uint8Array([1]), { handle: 99 })), row: early('') },
  'first part of a push': { event: message(push(new Uint8Array([1]), { total: 2 })), row: early('') },
  'later part of a push that did not begin': { event: message(push(new Uint8Array([1]), { total: 2, offset: 1 })), row: early(READY_BAD) },
  'part of a push that holds nothing': { event: message(push(new Uint8Array(0), { total: 2 })), row: early(READY_BAD) },
  presence: { event: message({ type: 'presence', handle: HANDLE, awareness: new Uint8Array([0]) }), row: early('presence') },
  'presence in what is not open': { event: message({ type: 'presence', handle: 99, awareness: new Uint8Array([0]) }), row: early('') },
  ping: { event: message({ type: 'ping', nonce: 1 }), row: early('pong') },
  pong: { event: message({ type: 'pong', nonce: 1 }), row: early('') },
  'a frame that only relays send': { event: message({ type: 'authenticated', principal: 'x' }), row: early(READY_BAD) },
  granted: { event: granted(), row: { hello: '', asking: 'welcome wake', ready: 'authenticated wake', over: '' } },
  'granted until before now': {
    event: granted({ ...GRANT, expiresAt: NOW }),
    row: { hello: '', asking: 'goaway(expired) end(expired)', ready: 'authenticated goaway(expired) leave end(expired)', over: '' },
  },
  'granted to another principal': {
    event: granted({ ...GRANT, principal: 'mallory' }),
    row: { hello: '', asking: 'welcome wake', ready: 'goaway(unauthorized) leave end(unauthorized)', over: '' },
  },
  denied: {
    event: { type: 'denied', code: 'unauthorized', message: '' },
    row: { hello: '', asking: 'goaway(unauthorized) end(unauthorized)', ready: 'goaway(unauthorized) leave end(unauthorized)', over: '' },
  },
  opened: { event: opened(8), row: { hello: '', asking: '', ready: 'opened join', over: '' } },
  'opened once more': { event: opened(HANDLE), row: { hello: '', asking: '', ready: 'opened join', over: '' } },
  'opened, but of another lineage': {
    event: { ...opened(8), mode: 'replaced' },
    row: { hello: '', asking: '', ready: 'opened', over: '' },
  },
  refused: {
    event: { type: 'refused', ref: 2, code: 'internal', retryAfter: 0, message: '' },
    row: { ...nothing, ready: 'refused(internal)' },
  },
  answered: { event: { type: 'answered', bytes: 0 }, row: nothing },
  'outbound full': { event: { type: 'outbound', full: true }, row: { hello: 'pause', asking: 'pause', ready: 'pause', over: '' } },
  'outbound not full': { event: { type: 'outbound', full: false }, row: nothing },
  'time, early': { event: time(NOW + 1000), row: { hello: 'wake', asking: 'wake', ready: 'wake', over: '' } },
  'time, after 5 s': {
    event: time(NOW + 5000),
    row: { hello: 'goaway(timeout) end(timeout)', asking: 'goaway(timeout) end(timeout)', ready: 'wake', over: '' },
  },
  'time, after a heartbeat': {
    event: time(NOW + 25_000),
    row: { hello: 'goaway(timeout) end(timeout)', asking: 'goaway(timeout) end(timeout)', ready: 'ping wake', over: '' },
  },
  'time, after two heartbeats': {
    event: time(NOW + 50_000),
    row: {
      hello: 'goaway(timeout) end(timeout)',
      asking: 'goaway(timeout) end(timeout)',
      ready: 'goaway(timeout) leave end(timeout)',
      over: '',
    },
  },
  'time, set back': {
    event: time(NOW - 86_400_000),
    row: { hello: 'goaway(timeout) end(timeout)', asking: 'goaway(timeout) end(timeout)', ready: 'wake', over: '' },
  },
  'regranted less': {
    event: { type: 'regranted', grant: { principal: 'alice', documents: { '*': 'read' } }, now: NOW },
    row: { ...nothing, ready: 'access grant(forbidden) wake' },
  },
  'regranted nothing': {
    event: { type: 'regranted', grant: null, now: NOW },
    row: { ...nothing, ready: 'goaway(unauthorized) leave end(unauthorized)' },
  },
  ended: {
    event: { type: 'ended', handle: HANDLE, code: 'replaced', retryAfter: 0, message: '' },
    row: { ...nothing, ready: 'closed(replaced) leave' },
  },
  'ended, of what is not open': { event: { type: 'ended', handle: 99, code: 'replaced', retryAfter: 0, message: '' }, row: nothing },
  dismissed: {
    event: { type: 'dismissed', code: 'draining', retryAfter: 5, message: '' },
    row: {
      hello: 'goaway(draining) end(draining)',
      asking: 'goaway(draining) end(draining)',
      ready: 'goaway(draining) leave end(draining)',
      over: '',
    },
  },
  lost: { event: { type: 'lost' }, row: { ...nothing, ready: 'leave' } },
}

describe('a session, phase by phase', () => {
  for (const phase of ['hello', 'asking', 'ready', 'over'] as const) {
    it.each(Object.entries(TABLE).map(([name, { event, row }]) => [name, event, row[phase]] as const))(
      `${phase}: %s`,
      (_name, event, expected) => {
        const session = sessionIn(phase)
        expect(told(step(session, event))).toBe(expected)
        if (expected.includes('end(') || event.type === 'lost') expect(session.phase).toBe('over')
      },
    )
  }
})

describe('a push in parts', () => {
  const whole = Uint8Array.from({ length: 10 }, (_, i) => i)
  const part = (from: number, to: number, more: Partial<PushFrame> = {}): Frame =>
    push(whole.subarray(from, to), { total: 10, offset: from, ...more })

  it('is one push when its last part has come', () => {
    const session = sessionIn('ready')
    expect(step(session, message(part(0, 4), part(4, 9)))).toEqual([])
    const [effect] = step(session, message(part(9, 10)))
    expect(effect).toMatchObject({ type: 'push', handle: HANDLE, push: { lo: 1, hi: 1, update: whole } })
  })

  it.each([
    ['leaves a hole', part(5, 6)],
    ['repeats', part(0, 4)],
    ['is of another edit', part(4, 6, { hi: 2 })],
    ['is of another length', part(4, 6, { total: 12 })],
    ['is of another kind', part(4, 6, { kind: 'state' })],
    ['is another whole push', push(whole)],
  ])('ends the session when a part %s', (_what, next) => {
    const session = sessionIn('ready')
    step(session, message(part(0, 4)))
    expect(told(step(session, message(next)))).toBe(READY_BAD)
  })

  it('is forgotten with its document', () => {
    const session = sessionIn('ready')
    step(session, message(part(0, 4)))
    step(session, message({ type: 'close', handle: HANDLE }))
    expect(session.parts).toBeUndefined()
    expect(told(step(session, message(part(4, 10))))).toBe('')
  })
})

describe('what is unanswered', () => {
  it('stops the reading beyond twice the window, until enough is answered', () => {
    const session = sessionIn('ready')
    const half = push(new Uint8Array(RULES.window))
    const weight = weightOf(half)
    expect(told(step(session, message(half)))).toBe('push')
    expect(told(step(session, message(half)))).toBe('push pause')
    expect(told(step(session, { type: 'answered', bytes: weight }))).toBe('read')
    expect(told(step(session, { type: 'answered', bytes: weight }))).toBe('')
    expect(session.unanswered).toBe(0)
  })

  it('counts what many small pushes cost to answer', () => {
    const session = sessionIn('ready')
    const small = push(new Uint8Array(1))
    let sent = 0
    while (session.reading) {
      step(session, message(small))
      sent++
    }
    expect(sent).toBeLessThanOrEqual((2 * RULES.window) / 64 + 1)
  })

  it('does not start the reading while too much waits to be sent', () => {
    const session = sessionIn('ready')
    step(session, { type: 'outbound', full: true })
    expect(told(step(session, { type: 'answered', bytes: 0 }))).toBe('')
    expect(told(step(session, { type: 'outbound', full: false }))).toBe('read')
  })
})

describe('time', () => {
  it('does not end a peer that takes what waits for it, however slowly', () => {
    const session = sessionIn('ready')
    step(session, time(NOW + 25_000, { buffered: 500, sent: 100 }))
    expect(told(step(session, time(NOW + 50_000, { buffered: 400, sent: 200 })))).toBe('wake')
    expect(told(step(session, time(NOW + 75_000, { buffered: 400, sent: 200 })))).toBe('ping wake')
    expect(told(step(session, time(NOW + 100_000, { buffered: 400, sent: 200 })))).toContain('goaway(timeout)')
  })

  it('does not count silence while the relay itself does not read', () => {
    const session = sessionIn('ready')
    step(session, message(push(new Uint8Array(3 * RULES.window))))
    expect(session.reading).toBe(false)
    expect(told(step(session, time(NOW + 60_000)))).toBe('wake')
  })

  it('asks for a fresh token before the end of the old one, once, and ends without it', () => {
    const session = sessionIn('ready', { ...GRANT, expiresAt: NOW + 100_000 })
    const deadlineOf = (effects: readonly SessionEffect[]): unknown =>
      effects.find((effect) => effect.type === 'send' && effect.frame.type === 'authenticate')
    session.heard = NOW + 69_000
    expect(deadlineOf(step(session, time(NOW + 69_999)))).toBeUndefined()
    expect(deadlineOf(step(session, time(NOW + 70_000)))).toMatchObject({ frame: { code: 'expired', deadline: 30_000 } })
    session.heard = NOW + 99_000
    expect(deadlineOf(step(session, time(NOW + 99_000)))).toBeUndefined()
    expect(told(step(session, time(NOW + 100_000)))).toBe('goaway(expired) leave end(expired)')
  })

  it('renews a token that lives for a moment only at half of its life', () => {
    const session = sessionIn('ready', { ...GRANT, expiresAt: NOW + 2000 })
    expect(session.askAt).toBe(NOW + 1000)
  })

  it('gives no access from the moment the grant is over, whether or not a timer has run', () => {
    const session = sessionIn('ready', { ...GRANT, expiresAt: NOW + 100 })
    expect(accessAt(session, HANDLE, NOW + 99)).toBe('write')
    expect(accessAt(session, HANDLE, NOW + 100)).toBe('none')
  })
})

describe('grants', () => {
  it('decide what is opened', () => {
    const session = sessionIn('ready', { principal: 'alice', documents: { 'd*': 'read' } })
    const refused = step(session, message({ type: 'open', ref: 9, document: 'private' }))
    expect(refused).toMatchObject([{ frame: { type: 'refused', ref: 9, code: 'forbidden' } }])
    expect(accessAt(session, HANDLE, NOW)).toBe('read')
  })

  it('that change while a document loads count when it has loaded', () => {
    const session = sessionIn('ready')
    step(session, { type: 'regranted', grant: { principal: 'alice', documents: { d7: 'write' } }, now: NOW })
    expect(told(step(session, opened(8)))).toBe('refused(forbidden)')
  })

  it('that rise are told, with what else is open left alone', () => {
    const session = sessionIn('ready', { principal: 'alice', documents: { d7: 'read', 'd*': 'write' } })
    step(session, opened(8))
    const effects = step(session, granted({ principal: 'alice', documents: { 'd*': 'write' } }))
    expect(told(effects)).toBe('authenticated access grant(ok) wake')
    expect(effects[1]).toEqual({ type: 'access', handle: HANDLE, access: 'write' })
  })

  it('verify the newest token when two come at once', () => {
    const session = sessionIn('ready')
    const effects = step(session, message({ type: 'auth', token: 'a' }, { type: 'auth', token: 'b' }, { type: 'auth', token: 'c' }))
    expect(effects).toEqual([{ type: 'authorize', token: 'a' }])
    expect(step(session, granted()).at(-1)).toEqual({ type: 'authorize', token: 'c' })
  })
})

describe('limits', () => {
  it('hold a socket to its documents, those being opened included', () => {
    const session = sessionIn('ready')
    step(session, message({ type: 'open', ref: 3, document: 'third' }))
    expect(step(session, message({ type: 'open', ref: 4, document: 'fourth' }))).toMatchObject([
      { frame: { type: 'refused', ref: 4, code: 'too_many' } },
    ])
    step(session, { type: 'refused', ref: 3, code: 'internal', retryAfter: 0, message: '' })
    expect(told(step(session, message({ type: 'open', ref: 4, document: 'fourth' })))).toBe('open')
  })

  it('hold a socket to 1,000 waits for sinks, counted until they are answered', () => {
    const session = sessionIn('ready')
    const ask = message({ type: 'await', ref: 1, handle: HANDLE, seq: 1 as Seq, sink: 's' })
    for (let i = 0; i < 1000; i++) expect(told(step(session, ask))).toBe('await')
    expect(told(step(session, ask))).toBe('reached(too_many)')
    step(session, { type: 'reached', ref: 1, code: 'ok', message: '' })
    expect(told(step(session, ask))).toBe('await')
  })

  it('hold the first message to 64 KiB', () => {
    const large = new Uint8Array(RULES.helloMessage + 1)
    expect(told(step(sessionIn('hello'), { type: 'message', bytes: large, now: NOW }))).toBe(BAD)
  })

  it('hold later messages to 1 MiB', () => {
    const large = new Uint8Array(RULES.message + 1)
    expect(told(step(sessionIn('ready'), { type: 'message', bytes: large, now: NOW }))).toBe(
      'goaway(frame_too_large) leave end(frame_too_large)',
    )
  })

  it('let nothing be done by frames behind the one that ended the session', () => {
    const effects = step(sessionIn('ready'), message({ type: 'ping', nonce: 1 }, hello, { type: 'ping', nonce: 2 }))
    expect(told(effects)).toBe('pong goaway(bad_frame) leave end(bad_frame)')
  })
})

describe('weights', () => {
  it('count covers too', () => {
    expect(weightOf({ update: new Uint8Array(10), covers: [{}, {}] })).toBe(10 + 3 * 64)
  })
})
