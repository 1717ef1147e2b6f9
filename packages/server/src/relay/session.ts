/**
 * One native peer's half of the protocol (PROTOCOL.md §4 and §6, between steps 3 and 4), pure: what happened goes in, what is to be done comes out.
 * It changes its own state and nothing else; peer.ts performs the effects.
 *
 *     hello ──▶ asking ──▶ ready ──▶ over
 */
import type { Access, DocumentId, ErrorCode } from '@rejoin/shared'
import { documentIdProblem } from '@rejoin/shared'
import type { AwaitFrame, Frame, OpenFrame, PushFrame } from '@rejoin/shared/wire'
import { REVISION, WIRE_LIMITS, decodeFrames } from '@rejoin/shared/wire'
import type { Grant } from './grant.ts'
import { accessOf } from './grant.ts'
import type { Parts } from './parts.ts'
import { takePart, weightOf } from './parts.ts'
import type { SessionEffect, SessionEvent, SessionRules } from './session-events.ts'

/** A session. Only `step` changes it. */
export interface Session {
  readonly rules: SessionRules
  phase: 'hello' | 'asking' | 'ready' | 'over'
  readonly since: number
  /** When the peer was last heard of. */
  heard: number
  /** Bytes that had left, and whether some waited, when time was last looked at. */
  lastSent: number
  lastBuffered: number
  revision: number
  grant: Grant | undefined
  /** A token is being verified; the one to verify after it. */
  verifying: boolean
  nextToken: string | undefined
  /** When to ask for a fresh token; undefined when that was done, or the grant has no end. */
  askAt: number | undefined
  readonly documents: Map<number, { readonly document: DocumentId; access: Access }>
  opening: number
  parts: Parts | undefined
  unanswered: number
  /** Sinks that the peer waits for. */
  awaits: number
  outboundFull: boolean
  reading: boolean
}

const NONE: readonly SessionEffect[] = []

/** A session whose socket has just opened. The first effect to perform is a wake at `since + helloMs`. */
export function createSession(rules: SessionRules, now: number): Session {
  return {
    rules,
    phase: 'hello',
    since: now,
    heard: now,
    lastSent: 0,
    lastBuffered: 0,
    revision: 0,
    grant: undefined,
    verifying: false,
    nextToken: undefined,
    askAt: undefined,
    documents: new Map(),
    opening: 0,
    parts: undefined,
    unanswered: 0,
    awaits: 0,
    outboundFull: false,
    reading: true,
  }
}

/** The access a session has to an open document at `now`. */
export function accessAt(session: Session, handle: number, now: number): Access {
  const { grant } = session
  if (grant === undefined || session.phase !== 'ready' || (grant.expiresAt !== undefined && grant.expiresAt <= now)) return 'none'
  return session.documents.get(handle)?.access ?? 'none'
}

/** Takes one event. When the session is over, nothing has an effect. */
export function step(session: Session, event: SessionEvent): readonly SessionEffect[] {
  const { phase } = session
  if (phase === 'over') return NONE
  switch (event.type) {
    case 'message':
      return takeMessage(session, event.bytes, event.now)
    case 'granted':
      return phase === 'hello' ? NONE : takeGrant(session, event.grant, event.now)
    case 'denied':
      return phase === 'hello' ? NONE : over(session, event.code, event.message)
    case 'opened':
      return phase === 'ready' ? takeOpened(session, event) : NONE
    case 'refused':
      if (phase !== 'ready') return NONE
      session.opening--
      return [{ type: 'send', frame: event }]
    case 'reached':
      session.awaits--
      return [{ type: 'send', frame: event }]
    case 'answered':
      session.unanswered -= event.bytes
      return updateReading(session)
    case 'outbound':
      session.outboundFull = event.full
      return updateReading(session)
    case 'time':
      return takeTime(session, event)
    case 'regranted':
      if (session.grant === undefined) return NONE
      return event.grant === null ? over(session, 'unauthorized', 'the grant was withdrawn') : regrant(session, event.grant, event.now)
    case 'ended':
      return endDocument(session, event)
    case 'dismissed':
      return over(session, event.code, event.message, event.retryAfter)
    case 'lost':
      session.phase = 'over'
      return leaveAll(session)
  }
}

function takeMessage(session: Session, bytes: Uint8Array, now: number): readonly SessionEffect[] {
  session.heard = now
  const { rules } = session
  const early = session.phase !== 'ready'
  const decoded = decodeFrames(bytes, { maxMessage: early ? rules.helloMessage : rules.message })
  if (decoded.type === 'bad') return over(session, bytes.length > rules.message ? 'frame_too_large' : 'bad_frame', decoded.reason)
  if (early) return takeHello(session, decoded.frames)
  if (decoded.frames.length === 1 && decoded.frames[0] !== undefined) return takeFrame(session, decoded.frames[0])
  const effects: SessionEffect[] = []
  for (const frame of decoded.frames) {
    effects.push(...takeFrame(session, frame))
    // A frame may end the session: what stands behind it was not said.
    if (session.phase !== 'ready') break
  }
  return effects
}

function takeHello(session: Session, frames: readonly Frame[]): readonly SessionEffect[] {
  const [hello] = frames
  if (session.phase === 'asking') return over(session, 'bad_frame', 'a message before the answer to hello')
  if (hello?.type !== 'hello' || frames.length !== 1) return over(session, 'bad_frame', 'the first message is one hello')
  const revision = Math.min(REVISION.max, hello.revisionMax)
  if (revision < REVISION.min || revision < hello.revisionMin) {
    return over(
      session,
      'unsupported_revision',
      `the relay speaks revisions ${REVISION.min} to ${REVISION.max}, the client ${hello.revisionMin} to ${hello.revisionMax}`,
    )
  }
  session.revision = revision
  session.phase = 'asking'
  session.verifying = true
  return [{ type: 'authorize', token: hello.token }]
}

function takeFrame(session: Session, frame: Frame): readonly SessionEffect[] {
  switch (frame.type) {
    case 'push':
      return takePush(session, frame)
    case 'ping':
      return [{ type: 'send', frame: { type: 'pong', nonce: frame.nonce } }]
    case 'pong':
      return NONE
    case 'presence':
      return (session.documents.get(frame.handle)?.access ?? 'none') === 'none'
        ? NONE
        : [{ type: 'presence', handle: frame.handle, awareness: frame.awareness }]
    case 'open':
      return takeOpen(session, frame)
    case 'await':
      return takeAwait(session, frame)
    case 'close':
      return session.documents.has(frame.handle) ? [leave(session, frame.handle)] : NONE
    case 'auth':
      if (session.verifying) {
        session.nextToken = frame.token
        return NONE
      }
      session.verifying = true
      return [{ type: 'authorize', token: frame.token }]
    case 'hello':
    case 'welcome':
    case 'opened':
    case 'refused':
    case 'state':
    case 'entries':
    case 'ack':
    case 'nack':
    case 'grant':
    case 'authenticate':
    case 'authenticated':
    case 'closed':
    case 'goaway':
    case 'reached':
      return over(session, 'bad_frame', `a client does not send ${frame.type} here`)
  }
}

function takeAwait(session: Session, { ref, handle, seq, sink }: AwaitFrame): readonly SessionEffect[] {
  const document = session.documents.get(handle)
  // Closed while this was on its way: whoever closed it knows.
  if (document === undefined) return NONE
  if (document.access === 'none') return [reachedFrame(ref, 'forbidden', 'no grant on this document')]
  if (session.awaits >= WIRE_LIMITS.awaits)
    return [reachedFrame(ref, 'too_many', `at most ${WIRE_LIMITS.awaits} waits for sinks on a socket`)]
  session.awaits++
  return [{ type: 'await', ref, handle, seq, sink }]
}

function reachedFrame(ref: number, code: ErrorCode, message: string): SessionEffect {
  return { type: 'send', frame: { type: 'reached', ref, code, message } }
}

function takeOpen(session: Session, frame: OpenFrame): readonly SessionEffect[] {
  const refuse = (code: ErrorCode, message: string): readonly SessionEffect[] => [refusedFrame(frame.ref, code, message)]
  const problem = documentIdProblem(frame.document)
  if (problem !== undefined) return refuse('bad_document', problem)
  const document = frame.document as DocumentId
  if (session.documents.size + session.opening >= session.rules.documents)
    return refuse('too_many', `at most ${session.rules.documents} documents on a socket`)
  if (session.grant === undefined || accessOf(session.grant, document) === 'none') return refuse('forbidden', 'no grant on this document')
  session.opening++
  return [{ type: 'open', frame, document }]
}

function takeOpened(session: Session, event: SessionEvent & { type: 'opened' }): readonly SessionEffect[] {
  session.opening--
  const { ref, handle, document, lineage, epoch, head, mode } = event
  // The grant may have changed while the document was loaded.
  const access = session.grant === undefined ? 'none' : accessOf(session.grant, document)
  const open = session.documents.has(handle)
  if (access === 'none' && !open) return [refusedFrame(ref, 'forbidden', 'no grant on this document')]
  const opened: SessionEffect = { type: 'send', frame: { type: 'opened', ref, handle, lineage, epoch, head, grant: access, mode } }
  if (mode === 'replaced') return open ? [opened, leave(session, handle)] : [opened]
  session.documents.set(handle, { document, access })
  return [opened, { type: 'join', handle, access }]
}

function refusedFrame(ref: number, code: ErrorCode, message: string): SessionEffect {
  return { type: 'send', frame: { type: 'refused', ref, code, retryAfter: 0, message } }
}

function takePush(session: Session, frame: PushFrame): readonly SessionEffect[] {
  // A handle that is not open was closed while the push was on its way: whoever closed it knows.
  if (!session.documents.has(frame.handle)) return NONE
  const assembly = takePart(session.parts, frame)
  if (assembly.type === 'bad') return over(session, 'bad_frame', assembly.reason)
  session.parts = assembly.type === 'more' ? assembly.parts : undefined
  if (assembly.type === 'more') return NONE
  session.unanswered += weightOf(assembly.push)
  const push: SessionEffect = { type: 'push', handle: frame.handle, push: assembly.push }
  return session.reading && session.unanswered > 2 * session.rules.window ? [push, ...updateReading(session)] : [push]
}

function takeGrant(session: Session, grant: Grant, now: number): readonly SessionEffect[] {
  session.verifying = false
  if (session.phase === 'asking') {
    const { relay, heartbeat, window } = session.rules
    session.phase = 'ready'
    session.heard = now
    hold(session, grant, now)
    if (isOver(grant, now)) return over(session, 'expired', 'the token has ended')
    return [
      { type: 'send', frame: { type: 'welcome', revision: session.revision, heartbeat, window, relay, principal: grant.principal } },
      wake(session, now),
    ]
  }
  if (grant.principal !== session.grant?.principal) return over(session, 'unauthorized', 'a token of another principal')
  const effects: SessionEffect[] = [
    { type: 'send', frame: { type: 'authenticated', principal: grant.principal } },
    ...regrant(session, grant, now),
  ]
  if (session.nextToken !== undefined && session.phase === 'ready') {
    effects.push({ type: 'authorize', token: session.nextToken })
    session.nextToken = undefined
    session.verifying = true
  }
  return effects
}

/** Holds the session to another grant of the same principal: what each open document may be used for from now on. */
function regrant(session: Session, grant: Grant, now: number): readonly SessionEffect[] {
  if (isOver(grant, now)) return over(session, 'expired', 'the token has ended')
  hold(session, grant, now)
  const effects: SessionEffect[] = []
  for (const [handle, open] of session.documents) {
    const access = accessOf(grant, open.document)
    if (access === open.access) continue
    open.access = access
    const code: ErrorCode = access === 'write' ? 'ok' : 'forbidden'
    effects.push({ type: 'access', handle, access }, { type: 'send', frame: { type: 'grant', handle, grant: access, code, message: '' } })
  }
  effects.push(wake(session, now))
  return effects
}

function takeTime(session: Session, { now, buffered, sent }: SessionEvent & { type: 'time' }): readonly SessionEffect[] {
  const { rules, grant } = session
  // A clock that was set back would otherwise put every deadline off.
  if (now < session.heard) session.heard = now
  if (session.phase !== 'ready') {
    if (now - session.since < rules.helloMs && now >= session.since) return [{ type: 'wake', at: session.since + rules.helloMs }]
    return over(session, 'timeout', `no welcome within ${rules.helloMs} ms`)
  }
  // Whoever still takes what waits for it is alive, even when its answers stand behind it; and whom we do not read cannot be heard.
  if ((session.lastBuffered > 0 && sent > session.lastSent) || (!session.reading && !session.outboundFull)) session.heard = now
  session.lastBuffered = buffered
  session.lastSent = sent
  if (grant !== undefined && isOver(grant, now)) return over(session, 'expired', 'the token has ended')
  if (now - session.heard >= 2 * rules.heartbeat) return over(session, 'timeout', `nothing was heard for ${2 * rules.heartbeat} ms`)
  const effects: SessionEffect[] = []
  if (grant?.expiresAt !== undefined && session.askAt !== undefined && now >= session.askAt) {
    session.askAt = undefined
    effects.push({
      type: 'send',
      frame: { type: 'authenticate', code: 'expired', deadline: Math.ceil(grant.expiresAt - now), message: 'the token is about to end' },
    })
  }
  if (now - session.heard >= rules.heartbeat) effects.push({ type: 'send', frame: { type: 'ping', nonce: Math.floor(now / 1000) } })
  effects.push(wake(session, now))
  return effects
}

/** The next moment something may be due, at least 10 ms away. */
function wake(session: Session, now: number): SessionEffect {
  const { rules, grant } = session
  let at = now - session.heard >= rules.heartbeat ? session.heard + 2 * rules.heartbeat : session.heard + rules.heartbeat
  if (grant?.expiresAt !== undefined) at = Math.min(at, session.askAt ?? grant.expiresAt)
  return { type: 'wake', at: Math.max(at, now + 10) }
}

function hold(session: Session, grant: Grant, now: number): void {
  session.grant = grant
  // Half of a short life at the earliest, or a token that lives less than `renewMs` would be renewed without end.
  session.askAt =
    grant.expiresAt === undefined ? undefined : Math.max(grant.expiresAt - session.rules.renewMs, now + (grant.expiresAt - now) / 2)
}

function isOver(grant: Grant, now: number): boolean {
  return grant.expiresAt !== undefined && grant.expiresAt <= now
}

function updateReading(session: Session): readonly SessionEffect[] {
  const on = !session.outboundFull && session.unanswered <= 2 * session.rules.window
  if (on === session.reading) return NONE
  session.reading = on
  return [{ type: 'reading', on }]
}

function endDocument(session: Session, { handle, code, retryAfter, message }: SessionEvent & { type: 'ended' }): readonly SessionEffect[] {
  if (!session.documents.has(handle)) return NONE
  return [{ type: 'send', frame: { type: 'closed', handle, code, retryAfter, message } }, leave(session, handle)]
}

function leave(session: Session, handle: number): SessionEffect {
  session.documents.delete(handle)
  if (session.parts?.first.handle === handle) session.parts = undefined
  return { type: 'leave', handle }
}

function leaveAll(session: Session): SessionEffect[] {
  return [...session.documents.keys()].map((handle) => leave(session, handle))
}

function over(session: Session, code: ErrorCode, message: string, retryAfter = 0): readonly SessionEffect[] {
  session.phase = 'over'
  return [{ type: 'send', frame: { type: 'goaway', code, retryAfter, message } }, ...leaveAll(session), { type: 'end', code, message }]
}
