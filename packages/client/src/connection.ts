/**
 * Performs the session's effects (step 3 of the path): asks for tokens, dials, sends, keeps time, and carries frames between the socket and the documents of one client.
 */
import { SyncError, createReadable, toSyncError } from '@rejoin/shared'
import type { DocumentId, Readable } from '@rejoin/shared'
import { createFrameWriter, decodeFrames } from '@rejoin/shared/wire'
import type { ClientFrame, Frame, OpenFrame } from '@rejoin/shared/wire'
import type { DocumentEvent } from './document.ts'
import type { NetworkOptions } from './network.ts'
import { SinkWaits } from './rungs.ts'
import type { Session, SessionEffect, SessionEvent } from './session.ts'
import { SESSION_TIMES, connectionStatus, newSession, stepSession } from './session.ts'
import type { ConnectionStatus } from './status.ts'
import type { Transport, TransportSocket } from './transports/transport.ts'

/** What the connection knows of a document: whom to tell, and when there is room to send. */
export interface Member {
  readonly document: DocumentId
  take(event: DocumentEvent): void
  presence(awareness: Uint8Array): void
  /** There is room in the window: send one push if there is one. `full`: there is one, but it wants more room. */
  push(): 'sent' | 'full' | 'idle'
}

export interface ConnectionOptions extends Omit<NetworkOptions, 'randomBytes'> {
  readonly transport: Transport
  /** Tells when things may have changed: online, visible, resumed. Returns the unsubscribe. */
  readonly wake: (listener: () => void) => () => void
}

type Frameless<T> = T extends { readonly handle: number } ? Omit<T, 'handle'> : never
/** A frame of one document, before it has its handle. */
export type DocumentFrame = Frameless<Extract<ClientFrame, { readonly handle: number }>>

const AGENT = 'rejoin-client/0.1.0'
/** A message is sent when it has this many bytes, or when the work that made its frames is over. */
const MESSAGE_BYTES = 256 * 1024
/** Pushes are answered within this time, or the socket is given up; looked at when the heartbeat is. */
const ANSWER_MS = 60_000

export class Connection {
  readonly status: Readable<ConnectionStatus>
  readonly sinks: SinkWaits<Member> = new SinkWaits<Member>((member, frame) => this.send(member, frame))
  readonly #setStatus: (status: ConnectionStatus) => void
  readonly #options: ConnectionOptions
  readonly #members = new Map<DocumentId, Member>()
  readonly #refs = new Map<number, Member>()
  /** Documents with something to push, in the order of their turns. */
  readonly #ready = new Set<Member>()
  readonly #byHandle = new Map<number, Member>()
  readonly #handles = new Map<Member, number>()
  readonly #writer = createFrameWriter()
  readonly #unsubscribe: () => void
  #session: Session = newSession
  #socket: TransportSocket | undefined
  /** Rises with every socket: an older one is not heard. */
  #generation = 0
  #cancelTimer: (() => void) | undefined
  #timerFor: number | undefined
  #lastRef = 0
  #window = 0
  #flying = 0
  /** When pushes were last answered, or first sent. */
  #answeredAt = 0
  #flushing = false
  #pumping = false

  constructor(options: ConnectionOptions) {
    this.#options = options
    const { readable, set } = createReadable<ConnectionStatus>({ name: 'connecting' })
    this.status = readable
    this.#setStatus = set
    this.#unsubscribe = options.wake(() => this.#step({ type: 'wake' }))
  }

  start(): void {
    this.#step({ type: 'start' })
  }

  close(): void {
    this.#unsubscribe()
    this.#flush()
    this.#step({ type: 'stop' })
  }

  get isOnline(): boolean {
    return this.#session.name === 'connected'
  }

  attach(member: Member): void {
    this.#members.set(member.document, member)
    if (this.isOnline) member.take({ type: 'online' })
  }

  detach(member: Member): void {
    if (this.#members.get(member.document) === member) this.#members.delete(member.document)
    this.#ready.delete(member)
    this.closeDocument(member)
  }

  /** Asks for a document; `opened` or `refused` comes back as an event. */
  openDocument(member: Member, cursor: OpenFrame['cursor'], resume: OpenFrame['resume']): void {
    this.#lastRef += 1
    this.#refs.set(this.#lastRef, member)
    this.#write({ type: 'open', ref: this.#lastRef, document: member.document, cursor, resume })
  }

  /** Gives up the handle, if there is one. */
  closeDocument(member: Member): void {
    const handle = this.#handles.get(member)
    if (handle === undefined) return
    this.#forget(member)
    this.#write({ type: 'close', handle })
  }

  /** Sends a frame of an open document; returns false when it is not open. */
  send(member: Member, frame: DocumentFrame): boolean {
    const handle = this.#handles.get(member)
    if (handle === undefined) return false
    this.#write({ ...frame, handle })
    return true
  }

  /** Bytes that may be pushed now. One push may be larger than the window when nothing is under way. */
  get room(): number {
    return this.#flying === 0 ? Infinity : this.#window - this.#flying
  }

  /** A document's bytes under way changed. */
  fly(bytes: number): void {
    if (bytes < 0 || this.#flying === 0) this.#answeredAt = this.#options.clock.now()
    this.#flying = Math.max(0, this.#flying + bytes)
  }

  /** A document has something to push. */
  want(member: Member): void {
    this.#ready.add(member)
    this.#pump()
  }

  /** Lets documents push, in turn, while there is room. */
  #pump(): void {
    if (this.#pumping) return
    this.#pumping = true
    try {
      for (const member of this.#ready) {
        if (!this.isOnline || this.room <= 0) break
        const outcome = member.push()
        if (outcome === 'full') break
        this.#ready.delete(member)
        // Behind the others: the loop comes to it again.
        if (outcome === 'sent') this.#ready.add(member)
      }
    } finally {
      this.#pumping = false
    }
  }

  #step(event: SessionEvent): void {
    const { clock, random } = this.#options
    const { state, effects } = stepSession(this.#session, event, { now: clock.now(), random, agent: AGENT })
    this.#session = state
    for (const effect of effects) this.#perform(effect)
    this.#keepTime()
    this.#tellStatus()
  }

  #perform(effect: SessionEffect): void {
    switch (effect.type) {
      case 'ask':
        void this.#ask()
        return
      case 'dial':
        this.#dial()
        return
      case 'send':
        this.#write(effect.frame)
        return
      case 'hang-up':
        this.#hangUp(effect.code, effect.reason)
        return
      case 'online':
        this.#window = effect.window
        this.#flying = 0
        this.#tellMembers({ type: 'online' })
        return
      case 'offline':
        this.#refs.clear()
        this.#byHandle.clear()
        this.#handles.clear()
        this.#tellMembers({ type: 'offline' })
        this.#flying = 0
        return
      case 'renewed':
        this.#tellMembers({ type: 'renewed' })
        return
      default:
        effect satisfies never
    }
  }

  /** A late answer is a token all the same; the session passes it over where it is of no use. */
  async #ask(): Promise<void> {
    this.#step(await askFor(this.#options.token))
  }

  #dial(): void {
    this.#generation += 1
    const generation = this.#generation
    const current = (event: () => void) => () => {
      if (generation === this.#generation) event()
    }
    this.#socket = this.#options.transport(this.#options.url, {
      opened: current(() => this.#step({ type: 'opened' })),
      message: (bytes) => {
        if (generation === this.#generation) this.#message(bytes)
      },
      closed: (code, reason) => {
        if (generation !== this.#generation) return
        this.#socket = undefined
        // What was not sent yet is not for the next socket, which begins with a hello.
        this.#writer.take()
        this.#step({ type: 'lost', code, reason })
      },
    })
  }

  #hangUp(code: number, reason: string): void {
    this.#generation += 1
    this.#writer.take()
    this.#socket?.close(code, reason)
    this.#socket = undefined
  }

  #message(bytes: Uint8Array): void {
    this.#step({ type: 'heard' })
    const decoded = decodeFrames(bytes)
    if (decoded.type === 'bad') {
      this.#step({ type: 'fault', code: 'bad_frame', reason: decoded.reason })
      return
    }
    const generation = this.#generation
    for (const frame of decoded.frames) {
      // A frame may have ended the socket: what follows it is no longer ours to act on.
      if (generation !== this.#generation) return
      this.#frame(bounded(frame))
    }
    this.#pump()
  }

  #frame(frame: Frame): void {
    switch (frame.type) {
      case 'welcome':
      case 'authenticate':
      case 'authenticated':
      case 'goaway':
      case 'ping':
        this.#step(frame)
        return
      case 'opened':
      case 'refused': {
        const member = this.#refs.get(frame.ref)
        this.#refs.delete(frame.ref)
        // Given up in the meantime: the handle is of no use, unless the document has been opened anew.
        if (member === undefined || this.#members.get(member.document) !== member) {
          if (frame.type === 'opened' && !this.#byHandle.has(frame.handle) && !this.#isAwaited(member))
            this.#write({ type: 'close', handle: frame.handle })
          return
        }
        if (frame.type === 'opened') {
          this.#byHandle.set(frame.handle, member)
          this.#handles.set(member, frame.handle)
        }
        member.take(frame)
        if (frame.type === 'opened') this.sinks.opened(member)
        return
      }
      case 'reached':
        this.sinks.answered(frame)
        return
      case 'state':
      case 'entries':
      case 'ack':
      case 'nack':
      case 'grant':
        this.#byHandle.get(frame.handle)?.take(frame)
        return
      case 'closed': {
        const member = this.#byHandle.get(frame.handle)
        if (member !== undefined) this.#forget(member)
        member?.take(frame)
        return
      }
      case 'presence':
        this.#byHandle.get(frame.handle)?.presence(frame.awareness)
        return
      case 'pong':
      case 'hello':
      case 'auth':
      case 'open':
      case 'close':
      case 'push':
      case 'await':
        // `heard` has noted the pong; a relay sends none of the others.
        return
      default:
        frame satisfies never
    }
  }

  #isAwaited(member: Member | undefined): boolean {
    return member !== undefined && [...this.#refs.values()].some(({ document }) => document === member.document)
  }

  #forget(member: Member): void {
    const handle = this.#handles.get(member)
    if (handle !== undefined) this.#byHandle.delete(handle)
    this.#handles.delete(member)
  }

  #tellMembers(event: DocumentEvent): void {
    for (const member of [...this.#members.values()]) member.take(event)
  }

  #write(frame: ClientFrame): void {
    if (this.#socket === undefined) return
    this.#writer.write(frame)
    if (this.#writer.length >= MESSAGE_BYTES) {
      this.#flush()
    } else if (!this.#flushing) {
      this.#flushing = true
      queueMicrotask(() => {
        this.#flushing = false
        this.#flush()
      })
    }
  }

  #flush(): void {
    if (this.#writer.length > 0) this.#socket?.send(this.#writer.take())
  }

  #keepTime(): void {
    const { due } = this.#session
    if (due === this.#timerFor) return
    this.#cancelTimer?.()
    this.#timerFor = due
    this.#cancelTimer =
      due === undefined
        ? undefined
        : this.#options.clock.after(Math.max(0, due - this.#options.clock.now()), () => {
            this.#timerFor = undefined
            // A relay that answers pings and no pushes would leave edits pending without a word.
            const overdue = this.#flying > 0 && this.#options.clock.now() - this.#answeredAt > ANSWER_MS
            this.#step(overdue ? { type: 'fault', code: 'timeout', reason: 'the relay left edits unanswered' } : { type: 'tick' })
          })
  }

  #tellStatus(): void {
    const { due } = this.#session
    const next = connectionStatus(this.#session, due === undefined ? undefined : this.#options.clock.wall(due))
    const now = this.status.get()
    if (next.name !== now.name || next.reason !== now.reason || next.retryAt !== now.retryAt) this.#setStatus(next)
  }
}

/** No relay keeps a client away for longer, whatever it says. */
function bounded(frame: Frame): Frame {
  return 'retryAfter' in frame ? { ...frame, retryAfter: Math.min(frame.retryAfter, SESSION_TIMES.retryAfter) } : frame
}

/** What the application says. A callback that fails because it is offline is not a matter of authorisation: only a `SyncError` that says so, or no token at all, is. */
async function askFor(token: ConnectionOptions['token']): Promise<Extract<SessionEvent, { readonly type: 'token' | 'no-token' }>> {
  if (typeof token !== 'function') return { type: 'token', token: token ?? '' }
  try {
    const given = await token()
    if (typeof given !== 'string' || given === '')
      return { type: 'no-token', code: 'unauthorized', reason: 'the token callback gave no token' }
    return { type: 'token', token: given }
  } catch (error) {
    const { code, reason } = error instanceof SyncError ? error : toSyncError(error, 'timeout')
    return { type: 'no-token', code, reason }
  }
}
