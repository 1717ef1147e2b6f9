/**
 * One native socket on the relay (step 3 of the path): performs the effects of its session, gathers what goes out into messages.
 */
import type { Access, Clock, DocumentId, ErrorCode, Limits, Seq } from '@rejoin/shared'
import { ERRORS, SyncError, toSyncError } from '@rejoin/shared'
import type { FrameWriter, OpenFrame, OpenMode, RelayFrame } from '@rejoin/shared/wire'
import { WIRE_LIMITS, createFrameWriter } from '@rejoin/shared/wire'
import type { RelayDocument } from './attach.ts'
import type { AuthRequest, Authorize, Grant } from './grant.ts'
import type { MemberPeer } from './member.ts'
import { Member, PACE_BYTES } from './member.ts'
import type { Turns } from './reading.ts'
import type { Awaits, Rungs } from './rungs.ts'
import { createAwaits } from './rungs.ts'
import type { SessionEffect, SessionEvent, SessionRules } from './session-events.ts'
import type { Session } from './session.ts'
import { accessAt, createSession, step } from './session.ts'

/** A socket as the relay uses it. */
export interface RelaySocket {
  /** Sends one message; ignored after the close. The bytes may be shared and must not be changed. */
  send(bytes: Uint8Array): void
  /** Bytes accepted by `send` and not yet given to the network. */
  readonly buffered: number
  /** Stops and starts reading. */
  pause(): void
  resume(): void
  /** Ends the socket, by force if the other side does not answer. */
  close(code: number, reason: string): void
}

/** What the socket tells. After `closed` nothing more. */
export interface SocketListener {
  /** One message. The bytes must not be changed afterwards. */
  message(bytes: Uint8Array): void
  /** What was buffered has been sent. */
  drained(): void
  closed(): void
}

/** What relays presence; it never enters the log. */
export interface Presence {
  joined(document: DocumentId, peer: PresencePeer): void
  received(document: DocumentId, peer: PresencePeer, awareness: Uint8Array): void
  left(document: DocumentId, peer: PresencePeer): void
}

/** A socket's part in the presence of one document. */
export interface PresencePeer {
  readonly principal: string
  /** Sends a y-protocols awareness update; dropped when the socket has too much unsent. */
  presence(awareness: Uint8Array): void
}

/** What a peer needs. */
export interface PeerPorts {
  readonly rules: SessionRules
  readonly limits: Limits
  readonly clock: Clock
  readonly turns: Turns
  readonly authorize: Authorize
  readonly presence: Presence | undefined
  readonly rungs: Rungs | undefined
  readonly hold: (document: DocumentId) => Promise<RelayDocument>
  /** Wants `flush` to be called before the event loop turns. */
  readonly dirty: (peer: Peer) => void
  readonly gone: (peer: Peer) => void
  readonly report: (what: string, details: Readonly<Record<string, unknown>>) => void
}

/** A message that has gathered this much goes out as it is, in bytes. */
const MESSAGE_BYTES = 64 * 1024

/** A document that was loaded for an `open`, until the session says what becomes of it. */
interface Arrival {
  readonly document: RelayDocument
  readonly frame: OpenFrame
  readonly mode: OpenMode
}

/** From the upgrade to the close. */
export class Peer implements MemberPeer, SocketListener {
  readonly turns: Turns
  readonly fragment: number
  readonly #ports: PeerPorts
  readonly #socket: RelaySocket
  readonly #request: Omit<AuthRequest, 'token'>
  readonly #session: Session
  readonly #members = new Map<number, { readonly member: Member; readonly presence: PresencePeer }>()
  readonly #writer: FrameWriter = createFrameWriter()
  readonly #awaits: Awaits
  #messages: Uint8Array[] = []
  #queued = 0
  #sent = 0
  #dirty = false
  #full = false
  #stopped = false
  #silent = false
  #cancelWake: () => void
  #wakeAt = 0
  #arrival: Arrival | undefined

  constructor(ports: PeerPorts, socket: RelaySocket, request: Omit<AuthRequest, 'token'>) {
    this.#ports = ports
    this.#socket = socket
    this.#request = request
    this.#awaits = createAwaits(ports.rungs)
    this.turns = ports.turns
    this.fragment = ports.limits.fragment
    this.#session = createSession(ports.rules, ports.clock.now())
    this.#cancelWake = ports.clock.after(ports.rules.helloMs, () => this.#woke())
  }

  get principal(): string {
    return this.#session.grant?.principal ?? ''
  }

  get buffered(): number {
    return this.#socket.buffered + this.#queued + this.#writer.length
  }

  // The socket

  message(bytes: Uint8Array): void {
    this.#step({ type: 'message', bytes, now: this.#ports.clock.now() })
  }

  drained(): void {
    if (this.#full && this.buffered <= this.#ports.limits.outbound) {
      this.#full = false
      this.#step({ type: 'outbound', full: false })
    }
    for (const { member } of this.#members.values()) member.drained()
  }

  closed(): void {
    this.#step({ type: 'lost' })
    this.#over()
  }

  /** Gives the socket what was gathered. */
  flush(): void {
    this.#dirty = false
    this.#cut()
    const messages = this.#messages
    if (messages.length === 0 || this.#silent) return
    this.#messages = []
    for (const message of messages) this.#socket.send(message)
    const queued = this.#queued
    this.#sent += queued
    this.#queued = 0
    const { outbound } = this.#ports.limits
    const { buffered } = this.#socket
    if (buffered > outbound) {
      this.#full = true
      this.#step({ type: 'outbound', full: true })
      // Somebody may wait for room, and the network took it all at once: nobody else will say so.
    } else if (queued > PACE_BYTES && buffered === 0) this.drained()
  }

  // The relay

  dismiss(code: ErrorCode, retryAfter: number, message: string): void {
    this.#step({ type: 'dismissed', code, retryAfter, message })
  }

  /** Reads nothing more: what was pushed is still answered. */
  stopReading(): void {
    this.#stopped = true
    this.#setReading()
  }

  /** Sends nothing more, not even what was gathered: a durability barrier has failed. */
  silence(): void {
    this.#silent = true
  }

  regrant(grant: Grant | null): void {
    this.#step({ type: 'regranted', grant, now: this.#ports.clock.now() })
  }

  // Its members

  accessTo(handle: number): Access {
    return accessAt(this.#session, handle, this.#session.grant?.expiresAt === undefined ? 0 : this.#ports.clock.now())
  }

  send(frame: RelayFrame): void {
    this.#writer.write(frame)
    // Far below what a message may hold, even with the largest frame behind it.
    if (this.#writer.length > MESSAGE_BYTES) this.#cut()
    this.#touch()
  }

  share(messages: readonly Uint8Array[]): void {
    this.#cut()
    for (const message of messages) this.#add(message)
    this.#touch()
  }

  answered(bytes: number): void {
    this.#step({ type: 'answered', bytes })
  }

  ended(handle: number, code: ErrorCode, message: string): void {
    this.#step({ type: 'ended', handle, code, retryAfter: 0, message })
  }

  // The session

  #step(event: SessionEvent): void {
    for (const effect of step(this.#session, event)) this.#perform(effect)
  }

  #perform(effect: SessionEffect): void {
    switch (effect.type) {
      case 'push':
        this.#members.get(effect.handle)?.member.push(effect.push)
        return
      case 'send':
        this.send(effect.frame)
        return
      case 'authorize':
        this.#authorize(effect.token)
        return
      case 'open':
        this.#open(effect.frame, effect.document).catch((error: unknown) => this.#refuse(effect.frame.ref, toSyncError(error)))
        return
      case 'join':
        this.#join(effect.handle, effect.access)
        return
      case 'access':
        this.#members.get(effect.handle)?.member.setAccess(effect.access)
        return
      case 'leave':
        this.#leave(effect.handle)
        return
      case 'presence':
        this.#receivePresence(effect.handle, effect.awareness)
        return
      case 'await':
        this.#await(effect)
        return
      case 'reading':
        this.#setReading()
        return
      case 'wake':
        this.#wakeBy(effect.at)
        return
      case 'end':
        this.flush()
        this.#socket.close(ERRORS[effect.code].close, effect.message)
        this.#over()
    }
  }

  #authorize(token: string): void {
    this.#ports.authorize({ ...this.#request, token }).then(
      (grant) => {
        if (grant === null) this.#step({ type: 'denied', code: 'unauthorized', message: 'no grant for this token' })
        else if (utf8.encode(grant.principal).length > WIRE_LIMITS.principal)
          this.#deny(new SyncError('internal', `a principal of more than ${WIRE_LIMITS.principal} bytes`))
        else this.#step({ type: 'granted', grant, now: this.#ports.clock.now() })
      },
      (error: unknown) => this.#deny(toSyncError(error)),
    )
  }

  #deny(error: SyncError): void {
    const told = error.code === 'unauthorized' || error.code === 'expired' || error.code === 'forbidden' || error.code === 'overloaded'
    // A fault of the hook is the operator's to read, not the peer's.
    if (!told) this.#ports.report('a grant could not be decided', { reason: error.message })
    this.#step({ type: 'denied', code: told ? error.code : 'internal', message: told ? error.reason : 'the relay could not decide' })
  }

  /** Loads the document and finds out how to go on from the cursor. */
  async #open(frame: OpenFrame, id: DocumentId): Promise<void> {
    const document = await this.#ports.hold(id)
    let mode: OpenMode
    try {
      mode = await modeOf(document, frame.cursor)
    } catch (error) {
      document.release()
      throw error
    }
    this.#arrival = { document, frame, mode }
    const { number, lineage, epoch, seq } = document
    this.#step({ type: 'opened', ref: frame.ref, handle: number, document: id, lineage, epoch, head: seq, mode })
    // Taken over by `join`, or not wanted any more.
    if (this.#arrival !== undefined) document.release()
    this.#arrival = undefined
  }

  #refuse(ref: number, { code, reason }: SyncError): void {
    if (code === 'internal') this.#ports.report('a document could not be opened', { reason })
    this.#step({ type: 'refused', ref, code, retryAfter: 0, message: reason })
  }

  #join(handle: number, access: Access): void {
    if (this.#arrival === undefined) return
    const { document, frame, mode } = this.#arrival
    const after: Seq | undefined = mode === 'resumed' ? frame.cursor?.seq : undefined
    const open = this.#members.get(handle)
    if (open !== undefined) {
      open.member.begin(after, frame.resume, access)
      return
    }
    this.#arrival = undefined
    const member = new Member(this, document)
    const presence = this.#presenceOf(handle)
    this.#members.set(handle, { member, presence })
    member.begin(after, frame.resume, access)
    this.#ports.presence?.joined(document.id, presence)
  }

  #leave(handle: number): void {
    const open = this.#members.get(handle)
    if (open === undefined) return
    this.#members.delete(handle)
    this.#ports.presence?.left(open.member.document.id, open.presence)
    open.member.close()
  }

  #presenceOf(handle: number): PresencePeer {
    const principal = this.principal
    return {
      principal,
      presence: (awareness) => {
        if (this.buffered > this.#ports.limits.outbound || this.accessTo(handle) === 'none') return
        this.send({ type: 'presence', handle, awareness })
      },
    }
  }

  #receivePresence(handle: number, awareness: Uint8Array): void {
    const open = this.#members.get(handle)
    if (open !== undefined) this.#ports.presence?.received(open.member.document.id, open.presence, awareness)
  }

  #await({ ref, handle, seq, sink }: SessionEffect & { type: 'await' }): void {
    const document = this.#members.get(handle)?.member.document
    const answer = (code: ErrorCode, message: string): void => this.#step({ type: 'reached', ref, code, message })
    if (document === undefined || seq > document.seq) return answer('not_found', `there is no entry ${seq} of this document`)
    const [no, gone] = ['forbidden', 'no grant on this document'] as const
    const ask = { sink, document: document.id, seq }
    this.#awaits.begin(ask, (code, message) => (this.accessTo(handle) === 'none' ? answer(no, gone) : answer(code, message)))
  }

  /** As the session has it now: what it said some effects ago may be over. */
  #setReading(): void {
    if (this.#session.reading && !this.#stopped) this.#socket.resume()
    else this.#socket.pause()
  }

  // Time and bytes

  #wakeBy(at: number): void {
    if (at === this.#wakeAt) return
    this.#cancelWake()
    this.#wakeAt = at
    this.#cancelWake = this.#ports.clock.after(Math.max(0, at - this.#ports.clock.now()), () => this.#woke())
  }

  #woke(): void {
    this.#wakeAt = 0
    const { buffered } = this.#socket
    this.#step({ type: 'time', now: this.#ports.clock.now(), buffered, sent: this.#sent - buffered })
  }

  #touch(): void {
    if (this.#dirty) return
    this.#dirty = true
    this.#ports.dirty(this)
  }

  /** Ends the message under way. */
  #cut(): void {
    if (this.#writer.length > 0) this.#add(this.#writer.take())
  }

  #add(message: Uint8Array): void {
    this.#messages.push(message)
    this.#queued += message.length
  }

  #over(): void {
    this.#cancelWake()
    this.#awaits.end()
    this.#ports.gone(this)
  }
}

const utf8 = new TextEncoder()

async function modeOf(document: RelayDocument, cursor: OpenFrame['cursor']): Promise<OpenMode> {
  if (cursor === undefined) return 'full'
  if (cursor.lineage !== document.lineage) return 'replaced'
  if (cursor.epoch !== document.epoch) return 'full'
  return (await document.proves(cursor.seq, cursor.hash)) ? 'resumed' : 'full'
}
