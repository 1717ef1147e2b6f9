/**
 * The client's two pure machines, cell by cell, and what holds over any history of them.
 */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { ChainHash, Cursor, Lineage, Seq } from '@rejoin/shared'
import { ERRORS } from '@rejoin/shared'
import type { DocumentEvent, DocumentState } from '#client/document.js'
import { DOCUMENT_TABLE, newDocument, stepDocument } from '#client/document.js'
import type { Session, SessionEvent, SessionName } from '#client/session.js'
import { SESSION_TABLE, SESSION_TIMES, newSession, stepSession } from '#client/session.js'
import { hex } from '../support/scripted-relay.ts'

const env = (now: number, draw = 0.5) => ({ now, random: () => draw, agent: 'test' })

const sessionEvents: { readonly [T in SessionEvent['type']]: Extract<SessionEvent, { type: T }> } = {
  start: { type: 'start' },
  wake: { type: 'wake' },
  tick: { type: 'tick' },
  opened: { type: 'opened' },
  heard: { type: 'heard' },
  stop: { type: 'stop' },
  token: { type: 'token', token: 't' },
  'no-token': { type: 'no-token', code: 'timeout', reason: 'no network' },
  fault: { type: 'fault', code: 'bad_frame', reason: 'not a frame' },
  lost: { type: 'lost', code: 1006, reason: '' },
  welcome: { type: 'welcome', revision: 1, heartbeat: 20_000, window: 1000, relay: hex(1), principal: 'p' },
  authenticate: { type: 'authenticate', code: 'expired', deadline: 1000, message: '' },
  authenticated: { type: 'authenticated', principal: 'p' },
  goaway: { type: 'goaway', code: 'draining', retryAfter: 5000, message: 'restarting' },
  ping: { type: 'ping', nonce: 7 },
}

/** A state of each name, as it comes about. */
const sessions: { readonly [S in SessionName]: Session } = (() => {
  const run = (...events: SessionEvent[]): Session =>
    events.reduce((state, event) => stepSession(state, event, env(1000)).state, newSession)
  const e = sessionEvents
  return {
    idle: newSession,
    token: run(e.start),
    dialing: run(e.start, e.token),
    greeting: run(e.start, e.token, e.opened),
    connected: run(e.start, e.token, e.opened, e.welcome),
    waiting: run(e.start, e.token, e.lost),
    'needs-auth': run(e.start, { type: 'no-token', code: 'unauthorized', reason: '' }),
    closed: run(e.start, e.stop),
  }
})()

/** States × events → the state that follows and the effects; '·' where nothing happens. */
const SESSION_LAW = `
             | start | wake        | tick              | token           | no-token          | opened        | heard | fault                     | lost            | welcome          | authenticate          | authenticated         | goaway                    | ping           | stop
  idle       | token ask | ·       | ·                 | ·               | ·                 | ·             | ·     | ·                         | ·               | ·                | ·                     | ·                     | ·                         | ·              | closed
  token      | ·     | ·           | waiting           | dialing dial    | waiting           | ·             | ·     | ·                         | ·               | ·                | ·                     | ·                     | ·                         | ·              | closed
  dialing    | ·     | ·           | waiting hang-up   | ·               | ·                 | greeting send | ·     | ·                         | waiting         | ·                | ·                     | ·                     | ·                         | ·              | closed hang-up
  greeting   | ·     | ·           | waiting hang-up   | ·               | ·                 | ·             | ·     | waiting hang-up           | waiting         | connected online | waiting hang-up       | waiting hang-up       | waiting hang-up           | greeting send  | closed hang-up
  connected  | ·     | connected send | connected      | ·               | connected         | ·             | connected | waiting offline hang-up | waiting offline | ·              | connected ask         | connected renewed     | waiting offline hang-up   | connected send | closed offline hang-up
  waiting    | ·     | token ask   | token ask         | ·               | ·                 | ·             | ·     | ·                         | ·               | ·                | ·                     | ·                     | ·                         | ·              | closed
  needs-auth | ·     | token ask   | token ask         | ·               | ·                 | ·             | ·     | ·                         | ·               | ·                | ·                     | ·                     | ·                         | ·              | closed
  closed     | ·     | ·           | ·                 | ·               | ·                 | ·             | ·     | ·                         | ·               | ·                | ·                     | ·                     | ·                         | ·              | ·`

interface Step {
  readonly state: { readonly name: string }
  readonly effects: readonly { readonly type: string }[]
}

function cells(law: string): { state: string; event: string; expected: string }[] {
  const [head = '', ...rows] = law
    .trim()
    .split('\n')
    .map((line) => line.trim())
  const events = head
    .split('|')
    .slice(1)
    .map((cell) => cell.trim())
  return rows.flatMap((line) => {
    const [state = '', ...row] = line.split('|').map((cell) => cell.trim().replaceAll(/\s+/gu, ' '))
    return events.map((event, index) => ({ state, event, expected: row[index] ?? 'missing' }))
  })
}

function told(before: unknown, { state, effects }: Step): string {
  if (state === before && effects.length === 0) return '·'
  return [state.name, ...effects.map(({ type }) => type)].join(' ')
}

describe('the session', () => {
  const law = cells(SESSION_LAW)

  it('has a cell for every state and event', () => {
    expect(law.map(({ state, event }) => `${state} × ${event}`).sort()).toEqual(
      Object.entries(SESSION_TABLE)
        .flatMap(([state, row]) => Object.keys(row).map((event) => `${state} × ${event}`))
        .sort(),
    )
    expect(law).toHaveLength(Object.keys(sessions).length * Object.keys(sessionEvents).length)
  })

  it.each(law)('$state × $event: $expected', ({ state, event, expected }) => {
    const before = sessions[state as SessionName]
    expect(before.name).toBe(state)
    expect(told(before, stepSession(before, sessionEvents[event as SessionEvent['type']], env(2000)))).toBe(expected)
  })

  it('pings after a heartbeat of silence, ends after two, and a message is as good as a pong', () => {
    const { connected } = sessions
    const ping = stepSession(connected, sessionEvents.tick, env(21_000))
    expect(told(connected, ping)).toBe('connected send')
    expect(ping.state.due).toBe(41_000)
    expect(told(connected, stepSession(ping.state, sessionEvents.tick, env(41_000)))).toBe('waiting offline hang-up')
    const heard = stepSession(ping.state, sessionEvents.heard, env(30_000)).state
    expect(stepSession(heard, sessionEvents.tick, env(41_000)).state).toMatchObject({ name: 'connected', due: 50_000 })
  })

  it('asks after a wake, and gives a dead socket five seconds', () => {
    const woken = stepSession(sessions.connected, sessionEvents.wake, env(500_000)).state
    expect(woken.due).toBe(500_000 + SESSION_TIMES.probe)
    expect(stepSession(woken, sessionEvents.tick, env(505_000)).state.name).toBe('waiting')
    const alive = stepSession(woken, sessionEvents.heard, env(500_100)).state
    expect(stepSession(alive, sessionEvents.tick, env(505_000)).state.name).toBe('connected')
  })

  it('does not take a clock that was set back for silence', () => {
    const { state, effects } = stepSession(sessions.connected, sessionEvents.tick, env(-50_000))
    expect(state).toMatchObject({ name: 'connected', heardAt: -50_000, due: -30_000 })
    expect(effects).toEqual([])
  })

  it('comes back no sooner than the relay asked, even when it wakes', () => {
    const { state } = stepSession(sessions.connected, sessionEvents.goaway, env(2000))
    expect(state).toMatchObject({ notBefore: 7000, due: 7250 })
    expect(stepSession(state, sessionEvents.wake, env(3000)).state).toMatchObject({ name: 'waiting', due: 7000 })
    expect(stepSession(state, sessionEvents.wake, env(7000)).state.name).toBe('token')
  })

  it('waits for authorisation when it was refused, by frame or by close code', () => {
    for (const code of ['unauthorized', 'expired', 'forbidden'] as const) {
      expect(stepSession(sessions.greeting, { type: 'goaway', code, retryAfter: 0, message: '' }, env(2000)).state.name).toBe('needs-auth')
      expect(stepSession(sessions.connected, { type: 'lost', code: ERRORS[code].close, reason: '' }, env(2000)).state.name).toBe(
        'needs-auth',
      )
    }
  })

  it('starts its backoff afresh only after a connection that lasted', () => {
    const flapping: Session = { ...sessions.connected, attempt: 5 }
    expect(stepSession(flapping, sessionEvents.lost, env(2000)).state.attempt).toBe(6)
    expect(stepSession(flapping, sessionEvents.lost, env(1000 + SESSION_TIMES.stable)).state.attempt).toBe(1)
  })

  it('asks the application for a token once at a time, and once a second at most, however often the relay wants one', () => {
    const authenticate = (state: Session, now: number): ReturnType<typeof stepSession> =>
      stepSession(state, sessionEvents.authenticate, env(now))
    const asked = authenticate(sessions.connected, 2000)
    expect(authenticate(asked.state, 2001)).toEqual({ state: asked.state, effects: [] })
    const given = stepSession(asked.state, sessionEvents.token, env(2100)).state
    const early = authenticate(given, 2200)
    expect(early).toMatchObject({ state: { renewal: 'again', due: 3000 }, effects: [] })
    expect(stepSession(early.state, { type: 'tick' }, env(3000))).toMatchObject({ state: { renewal: 'asked' }, effects: [{ type: 'ask' }] })
    expect(authenticate(given, 3000).effects).toEqual([{ type: 'ask' }])
  })

  it('takes no heartbeat under a second or over an hour', () => {
    const heartbeat = (ms: number): number =>
      stepSession(sessions.greeting, { ...sessionEvents.welcome, heartbeat: ms }, env(0)).state.heartbeat
    expect([0, 5000, 2 ** 31].map(heartbeat)).toEqual([1000, 5000, 3_600_000])
  })

  it('asks again for a token that could not be had, while the socket lasts', () => {
    const asked = stepSession(sessions.connected, sessionEvents.authenticate, env(2000)).state
    const failed = stepSession(asked, sessionEvents['no-token'], env(2100)).state
    expect(failed.due).toBeLessThan(5000)
    const again = stepSession(failed, sessionEvents.tick, env(failed.due ?? 0))
    expect(again.effects).toEqual([{ type: 'ask' }])
    expect(stepSession(again.state, sessionEvents.token, env(4000)).effects).toMatchObject([{ type: 'send', frame: { type: 'auth' } }])
  })

  it('never gives up: from every state that was not closed, time and a relay that answers lead to connected', () => {
    const any = fc.constantFrom(...Object.values(sessionEvents).filter(({ type }) => type !== 'stop'))
    fc.assert(
      fc.property(
        fc.array(fc.tuple(any, fc.nat(100_000), fc.double({ min: 0, max: 0.999, noNaN: true })), { maxLength: 60 }),
        (history) => {
          let now = 1000
          let state = stepSession(newSession, sessionEvents.start, env(now)).state
          for (const [event, later, draw] of history) {
            now += later
            state = stepSession(state, event, env(now, draw)).state
            // Something is always due: time alone brings it on.
            expect(state.due).toBeDefined()
            if (state.name === 'waiting' || state.name === 'needs-auth') expect(state.due ?? 0).toBeLessThanOrEqual(now + 5000 + 30_000)
          }
          for (let steps = 0; state.name !== 'connected'; steps++) {
            expect(steps).toBeLessThan(10)
            now = Math.max(now, state.due ?? now)
            const answer = { token: 'token', dialing: 'opened', greeting: 'welcome' } as const
            const next = state.name in answer ? answer[state.name as keyof typeof answer] : 'tick'
            state = stepSession(state, sessionEvents[next], env(now)).state
          }
        },
      ),
      { numRuns: 300 },
    )
  })
})

const lineage = hex(1) as Lineage
const at = (seq: number, epoch = 1): Cursor => ({ lineage, epoch, seq: seq as Seq, hash: hex(seq) as ChainHash })
const opened = { type: 'opened', ref: 1, handle: 1, lineage, epoch: 1, head: 2 as Seq, grant: 'write', mode: 'resumed' } as const
const documentEvents: { readonly [T in DocumentEvent['type']]: Extract<DocumentEvent, { type: T }> } = {
  online: { type: 'online' },
  offline: { type: 'offline' },
  tick: { type: 'tick' },
  renewed: { type: 'renewed' },
  proved: { type: 'proved' },
  applied: { type: 'applied' },
  distrust: { type: 'distrust', reason: 'scripted' },
  opened,
  refused: { type: 'refused', ref: 1, code: 'overloaded', retryAfter: 0, message: '' },
  state: {
    type: 'state',
    handle: 1,
    lineage,
    epoch: 1,
    seq: 2 as Seq,
    hash: hex(2) as ChainHash,
    total: 4,
    offset: 0,
    update: new Uint8Array(4),
  },
  entries: { type: 'entries', handle: 1, first: 2 as Seq, hash: hex(2) as ChainHash, updates: [new Uint8Array(2)] },
  ack: { type: 'ack', handle: 1, incarnation: hex(3) as never, n: 1, seq: 2 as Seq, hash: hex(2) as ChainHash },
  nack: { type: 'nack', handle: 1, incarnation: hex(3) as never, n: 1, expected: 1, code: 'overloaded', retryAfter: 0, message: '' },
  grant: { type: 'grant', handle: 1, grant: 'read', code: 'forbidden', message: '' },
  closed: { type: 'closed', handle: 1, code: 'overloaded', retryAfter: 0, message: '' },
}

const documents: { readonly [S in DocumentState['name']]: DocumentState } = (() => {
  const run = (...events: DocumentEvent[]): DocumentState =>
    events.reduce((state, event) => stepDocument(state, event, env(1000)).state, newDocument(at(1)))
  const e = documentEvents
  return {
    away: run(),
    opening: run(e.online),
    fetching: run(e.online, { ...opened, mode: 'full' }),
    live: run(e.online, opened),
    waiting: run(e.online, e.refused),
    refused: run(e.online, { ...e.refused, code: 'bad_document' }),
    replaced: run(e.online, { ...opened, mode: 'replaced' }),
  }
})()

const DOCUMENT_LAW = `
           | online       | offline      | tick         | renewed      | proved                 | distrust             | opened    | refused              | state                             | entries                | ack                    | nack           | grant           | closed | applied
  away     | opening open | ·            | ·            | ·            | ·                      | away                 | ·         | ·                    | ·                                 | ·                      | ·                      | ·              | ·               | · | ·
  opening  | ·            | away rewind  | ·            | ·            | ·                      | opening              | live pump | waiting close rewind | ·                                 | ·                      | ·                      | ·              | ·               | · | ·
  fetching | ·            | away rewind  | ·            | ·            | ·                      | waiting close rewind | ·         | ·                    | live fragment whole caught-up     | waiting close rewind   | ·                      | ·              | fetching rewind | waiting close rewind | ·
  live     | ·            | away rewind  | ·            | ·            | live store-cursor pump | waiting close rewind | ·         | ·                    | live fragment whole caught-up     | live apply caught-up   | live acked caught-up   | live nacked    | live rewind     | waiting close rewind | ·
  waiting  | ·            | away rewind  | opening open | opening open | ·                      | waiting              | ·         | ·                    | ·                                 | ·                      | ·                      | ·              | ·               | · | ·
  refused  | ·            | away rewind  | ·            | opening open | ·                      | refused              | ·         | ·                    | ·                                 | ·                      | ·                      | ·              | ·               | · | ·
  replaced | ·            | ·            | ·            | ·            | ·                      | ·                    | ·         | ·                    | ·                                 | ·                      | ·                      | ·              | ·               | · | ·`

describe('the document', () => {
  const law = cells(DOCUMENT_LAW)

  it('has a cell for every state and event', () => {
    expect(law.map(({ state, event }) => `${state} × ${event}`).sort()).toEqual(
      Object.entries(DOCUMENT_TABLE)
        .flatMap(([state, row]) => Object.keys(row).map((event) => `${state} × ${event}`))
        .sort(),
    )
    expect(law).toHaveLength(Object.keys(documents).length * Object.keys(documentEvents).length)
  })

  it.each(law)('$state × $event: $expected', ({ state, event, expected }) => {
    const before = documents[state as DocumentState['name']]
    expect(before.name).toBe(state)
    expect(told(before, stepDocument(before, documentEvents[event as DocumentEvent['type']], env(2000)))).toBe(expected)
  })

  it('moves the cursor one by one, by entries and by acks in place, never by a repeated ack', () => {
    const frames = fc.constantFrom('entries', 'ack', 'repeat', 'gap')
    fc.assert(
      fc.property(fc.array(frames, { maxLength: 40 }), (history) => {
        let state = documents.live
        for (const kind of history) {
          if (state.name !== 'live') return
          const seq = (state.cursor?.seq ?? 0) as number
          const next = hex(seq + 1) as ChainHash
          if (kind === 'entries')
            state = stepDocument(state, { ...documentEvents.entries, first: (seq + 1) as Seq, hash: next }, env(1)).state
          else if (kind === 'ack') state = stepDocument(state, { ...documentEvents.ack, seq: (seq + 1) as Seq, hash: next }, env(1)).state
          else if (kind === 'repeat')
            state = stepDocument(state, { ...documentEvents.ack, seq: (seq + 5) as Seq, hash: undefined }, env(1)).state
          else state = stepDocument(state, { ...documentEvents.entries, first: (seq + 2) as Seq }, env(1)).state
          expect(state.cursor?.seq).toBe(kind === 'entries' || kind === 'ack' ? seq + 1 : seq)
          expect(state.name).toBe(kind === 'gap' ? 'waiting' : 'live')
        }
      }),
    )
  })

  it('slows down while what arrives does not fit, and no sooner than it fits again begins afresh', () => {
    const failing = { ...documents.live, attempt: 5 }
    const arrived = stepDocument(failing, documentEvents.entries, env(1)).state
    expect(arrived.attempt).toBe(5)
    expect(stepDocument(arrived, documentEvents.distrust, env(1)).state.attempt).toBe(6)
    expect(stepDocument(arrived, documentEvents.applied, env(1)).state.attempt).toBe(0)
  })

  it('does not resume from a cursor that is not its own', () => {
    for (const other of [
      { ...opened, epoch: 2 },
      { ...opened, lineage: hex(9) as Lineage },
    ])
      expect(stepDocument(documents.opening, other, env(1)).state.name).toBe('waiting')
  })

  it('keeps an unproved cursor in memory over a reconnect, and stays unproved', () => {
    const whole = stepDocument(documents.fetching, documentEvents.state, env(1)).state
    expect(whole).toMatchObject({ name: 'live', proven: false, cursor: at(2) })
    const back = stepDocument(stepDocument(whole, documentEvents.offline, env(1)).state, documentEvents.online, env(1))
    expect(back.effects).toMatchObject([{ type: 'open', cursor: at(2) }])
    expect(stepDocument(back.state, opened, env(1)).state.proven).toBe(false)
  })

  it('follows fragments that lead on from its cursor, without leaving what it proved, and begins them again on another socket', () => {
    const half = { ...documentEvents.state, total: 4, update: new Uint8Array(2) }
    const first = stepDocument(documents.live, half, env(1))
    expect(first.state).toMatchObject({ name: 'live', cursor: at(1), proven: true })
    const second = stepDocument(first.state, { ...half, offset: 2 }, env(1))
    expect(second.effects.map(({ type }) => type)).toEqual(['fragment', 'whole', 'caught-up'])
    expect(second.effects[1]).toEqual({ type: 'whole', prove: false })
    expect(second.state).toMatchObject({ name: 'live', cursor: at(2), proven: true, fetch: undefined })
    const back = stepDocument(stepDocument(first.state, documentEvents.offline, env(1)).state, documentEvents.online, env(1))
    expect(back.effects).toMatchObject([{ type: 'open', cursor: at(1), resume: undefined }])
  })

  it('does not follow fragments that lead elsewhere', () => {
    for (const other of [{ seq: 1 as Seq }, { epoch: 2 }, { lineage: hex(9) as Lineage }]) {
      expect(stepDocument(documents.live, { ...documentEvents.state, ...other }, env(1)).state).toMatchObject({
        name: 'waiting',
        cursor: at(1),
      })
    }
  })

  it('tells once per socket that it has caught up', () => {
    const first = stepDocument(documents.opening, { ...opened, head: 1 as Seq }, env(1))
    expect(first.effects.map(({ type }) => type)).toEqual(['pump', 'caught-up'])
    expect(stepDocument(first.state, documentEvents.entries, env(1)).effects.map(({ type }) => type)).toEqual(['apply'])
  })
})
