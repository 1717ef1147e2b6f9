/**
 * One y-websocket socket in one document (step 3 of the path): an unmodified client, answered in y-protocols, that writes and reads by the same door as
 * native peers. Nothing is answered from a Y.Doc here: the relay asks with the state vector of admission, and answers with what a worker read from the log.
 *
 *     frame = 0 sync (0 step1 bytes(state vector) | 1 step2 bytes(update) | 2 update bytes(update)) | 1 awareness bytes | 2 auth 0 string | 3 query awareness
 */
import type { Access, Clock, DocumentId, ErrorCode, IncarnationId, Limits, RandomBytes, Seq } from '@rejoin/shared'
import { ERRORS, newIncarnationId } from '@rejoin/shared'
import { ByteReader, ByteWriter } from '@rejoin/shared/wire'
import { LogError } from '../log/log.ts'
import type { Author, Given, Nack, Push, Reader, RelayDocument, Subscription, Tick } from './attach.ts'
import type { Grant } from './grant.ts'
import { accessOf } from './grant.ts'
import type { PresencePeer, RelaySocket, SocketListener } from './peer.ts'
import type { PresenceRelay } from './presence.ts'

/** What a y-websocket peer needs. */
export interface YPeerPorts {
  readonly clock: Clock
  readonly randomBytes: RandomBytes
  readonly limits: Limits
  readonly presence: PresenceRelay
  /** What a replica with that state vector lacks as of `seq`, deletes and all; undefined when nobody has written yet. Durable entries only, and not on this thread. */
  readonly state: (document: DocumentId, stateVector: Uint8Array) => Promise<{ readonly seq: Seq; readonly update: Uint8Array } | undefined>
  readonly gone: (peer: YPeer) => void
  /** Something an operator should know. */
  readonly report: (what: string, details: Readonly<Record<string, unknown>>) => void
}

/** What a push counts beside its bytes: what the relay keeps to answer it. */
const PUSH_WEIGHT = 64
/** Gaps in a row that are healed by asking; one more ends the socket. */
const STRIKES = 3
/** A question that was not answered for this long was not heard, in ms. */
const ASKED_MS = 10_000
/** y-websocket 3 gives up a socket on which it hears nothing for 30 s. */
const KEEP_ALIVE_MS = 15_000
/** An awareness update of no client. */
const KEEP_ALIVE = Uint8Array.of(1, 1, 0)
const NOTHING = Uint8Array.of(0, 0)

const SYNC = 0
const AWARENESS = 1
const AUTH = 2
const QUERY_AWARENESS = 3
const STEP1 = 0
const STEP2 = 1
const UPDATE = 2

/** From the upgrade to the close. Holds `document`, and releases it. */
export class YPeer implements Author, Reader, PresencePeer, SocketListener {
  readonly strict = false
  readonly gates = undefined
  readonly #ports: YPeerPorts
  readonly #socket: RelaySocket
  readonly #document: RelayDocument
  readonly #subscription: Subscription
  readonly #incarnation: IncarnationId
  #grant: Grant
  /** The last push, and the last that is durable. */
  #n = 0
  #durable = 0
  #unanswered = 0
  /** Pushes that answer our step1. */
  readonly #answers = new Set<Push>()
  /** When our step1 was sent that is not answered yet. */
  #askedAt: number | undefined
  #strikes = 0
  /** The client's state vector as it last said. */
  #vector: Uint8Array | undefined
  #answering = false
  #following = false
  #denied = false
  #paused = false
  #stopped = false
  #closed = false
  #cancelKeepAlive: () => void = () => undefined
  #cancelExpiry: () => void = () => undefined

  constructor(ports: YPeerPorts, socket: RelaySocket, document: RelayDocument, grant: Grant) {
    this.#ports = ports
    this.#socket = socket
    this.#document = document
    this.#grant = grant
    this.#incarnation = newIncarnationId(ports.randomBytes)
    this.#subscription = document.subscribe(this, document.seq)
    ports.presence.joined(document.id, this)
    this.#expire()
    this.#keepAlive()
    if (this.access === 'write') this.#ask()
  }

  get principal(): string {
    return this.#grant.principal
  }

  get access(): Access {
    const { expiresAt } = this.#grant
    if (this.#closed || (expiresAt !== undefined && expiresAt <= this.#ports.clock.now())) return 'none'
    return accessOf(this.#grant, this.#document.id)
  }

  get buffered(): number {
    return this.#socket.buffered
  }

  // The socket

  message(bytes: Uint8Array): void {
    if (this.#closed) return
    const reader = new ByteReader(bytes)
    const type = reader.varUint()
    if (type === SYNC) this.#sync(reader)
    else if (type === AWARENESS) {
      const awareness = reader.blob(Infinity, 'awareness')
      if (reader.fault === undefined) this.#ports.presence.received(this.#document.id, this, awareness)
    } else if (type === QUERY_AWARENESS) this.#ports.presence.asked(this.#document.id, this)
    // Other types are other people's additions.
    if (reader.fault !== undefined) this.close('bad_frame', reader.fault)
  }

  drained(): void {
    this.#subscription.drained()
  }

  closed(): void {
    if (this.#closed) return
    this.#closed = true
    this.#cancelKeepAlive()
    this.#cancelExpiry()
    this.#subscription.close()
    this.#ports.presence.left(this.#document.id, this)
    this.#document.release()
    this.#ports.gone(this)
  }

  // The relay

  /** Ends the socket with what the code says. */
  close(code: ErrorCode, message: string): void {
    if (this.#closed) return
    this.#socket.close(ERRORS[code].close, message)
    this.closed()
  }

  /** Reads nothing more: what was pushed still becomes durable. */
  stopReading(): void {
    this.#stopped = true
    this.#setReading()
  }

  /** Holds the socket to another grant of the same principal; with null, ends it. */
  regrant(grant: Grant | null): void {
    if (grant === null) {
      this.close('unauthorized', 'the grant was withdrawn')
      return
    }
    const before = this.access
    this.#grant = grant
    this.#expire()
    const { access } = this
    if (access === 'none') this.close('forbidden', 'no grant on this document')
    else if (access === 'write' && before !== 'write') {
      this.#denied = false
      this.#ask()
    }
  }

  // What the client says

  #sync(reader: ByteReader): void {
    const type = reader.varUint()
    const bytes = reader.blob(Infinity, 'a sync message')
    if (reader.fault !== undefined) return
    if (type === STEP1) this.#asked(bytes)
    else if (type === STEP2 || type === UPDATE) this.#push(bytes, type === STEP2)
    else reader.fail(`sync message ${type} is none of y-protocols'`)
  }

  #asked(vector: Uint8Array): void {
    if (!isStateVector(vector)) {
      this.close('bad_frame', 'a state vector that is none')
      return
    }
    this.#vector = vector.slice()
    this.#answer()
  }

  /** Sends what the client lacks; the entries behind that follow. Asked again meanwhile, it answers once more. */
  #answer(): void {
    if (this.#answering) return
    this.#answering = true
    const vector = this.#vector ?? Uint8Array.of(0)
    this.#ports.state(this.#document.id, vector).then(
      (state) => {
        this.#answering = false
        if (this.#closed) return
        this.#send(encodeSync(STEP2, state?.update ?? NOTHING))
        if (!this.#following) {
          this.#following = true
          this.#subscription.resume(state?.seq ?? (0 as Seq))
        }
        if (this.#vector !== undefined && this.#vector !== vector) this.#answer()
      },
      (error: unknown) => this.#failed(error),
    )
  }

  #failed(error: unknown): void {
    const busy = error instanceof LogError && error.failure === 'overloaded'
    if (!busy && !this.#closed)
      this.#ports.report('a y-websocket client could not be answered', { document: this.#document.id, reason: String(error) })
    this.close(busy ? 'overloaded' : 'internal', 'the relay could not read the document')
  }

  #push(update: Uint8Array, isAnswer: boolean): void {
    if (isAnswer && isEmpty(update)) {
      this.#healed()
      return
    }
    if (this.access !== 'write') {
      this.#deny()
      return
    }
    // Of these edits the relay has some or none, as it may refuse one and take the next: a client that is told of neither cannot number them.
    const push: Push = {
      author: this,
      incarnation: this.#incarnation,
      lo: this.#durable + 1,
      hi: ++this.#n,
      kind: 'edit',
      covers: [],
      update,
    }
    if (isAnswer) this.#answers.add(push)
    this.#unanswered += update.length + PUSH_WEIGHT
    this.#setReading()
    this.#document.push(push)
  }

  // Author

  acked(push: Push): void {
    this.#durable = Math.max(this.#durable, push.hi)
    this.#settled(push)
    this.#healed()
  }

  nacked(push: Push, { code, message }: Nack): void {
    const isAnswer = this.#settled(push)
    if (this.#closed) return
    if (code === 'gap') this.#missed(isAnswer)
    else if (code === 'forbidden') this.#deny()
    // What may come back later comes with the step2 of the client's next socket.
    else this.close(code, message)
  }

  passed(push: Push): void {
    this.#settled(push)
  }

  #settled(push: Push): boolean {
    this.#unanswered -= push.update.length + PUSH_WEIGHT
    this.#setReading()
    const isAnswer = this.#answers.delete(push)
    if (isAnswer) this.#askedAt = undefined
    return isAnswer
  }

  #healed(): void {
    this.#strikes = 0
    this.#askedAt = undefined
  }

  /** Edits before these went to another tab, which is not here: the whole difference brings them. */
  #missed(isAnswer: boolean): void {
    // What was on its way when we asked is in the answer.
    if (!isAnswer && this.#askedAt !== undefined && this.#ports.clock.now() - this.#askedAt < ASKED_MS) return
    if (this.#strikes++ < STRIKES) this.#ask()
    else this.close('gap', 'the updates do not fit what the relay has, and asking did not help')
  }

  #ask(): void {
    this.#askedAt = this.#ports.clock.now()
    this.#send(encodeSync(STEP1, this.#document.stateVector()))
  }

  /** y-websocket writes the reason to the console. */
  #deny(): void {
    if (this.#denied) return
    this.#denied = true
    const writer = new ByteWriter()
    writer.varUint(AUTH)
    writer.varUint(0)
    writer.clipped('no grant to write this document: what is edited here stays here', 1024)
    this.#send(writer.take())
  }

  // Reader

  tick(tick: Tick): void {
    for (const frame of framesOf(tick)) this.#send(frame)
  }

  entries(entries: readonly Given[]): void {
    for (const { update } of entries) this.#send(encodeSync(UPDATE, update))
  }

  trimmed(): void {
    this.#following = false
    this.#answer()
  }

  ended(code: ErrorCode, message: string): void {
    this.close(code, message)
  }

  presence(awareness: Uint8Array): void {
    if (this.buffered > this.#ports.limits.outbound) return
    const writer = new ByteWriter()
    writer.varUint(AWARENESS)
    writer.blob(awareness)
    this.#send(writer.take())
  }

  #send(frame: Uint8Array): void {
    if (!this.#closed) this.#socket.send(frame)
  }

  #setReading(): void {
    const paused = this.#stopped || this.#unanswered > 2 * this.#ports.limits.window
    if (paused === this.#paused || this.#closed) return
    this.#paused = paused
    if (paused) this.#socket.pause()
    else this.#socket.resume()
  }

  // Time

  #keepAlive(): void {
    this.#cancelKeepAlive = this.#ports.clock.after(KEEP_ALIVE_MS, () => {
      this.#send(KEEP_ALIVE)
      this.#keepAlive()
    })
  }

  #expire(): void {
    this.#cancelExpiry()
    const { expiresAt } = this.#grant
    if (expiresAt === undefined) return
    const left = expiresAt - this.#ports.clock.now()
    // In steps, as timers hold 31 bits and clocks are set.
    this.#cancelExpiry = this.#ports.clock.after(Math.min(Math.max(left, 0), LONGEST_TIMER_MS), () => {
      if (expiresAt <= this.#ports.clock.now()) this.close('expired', 'the token has ended')
      else this.#expire()
    })
  }
}

const LONGEST_TIMER_MS = 60_000

/** One frame an entry, never merged: y-websocket 3 reads one message of each frame. Shared by all readers of the tick. */
function framesOf(tick: Tick): readonly Uint8Array[] {
  let frames = encoded.get(tick)
  if (frames === undefined) encoded.set(tick, (frames = tick.entries.map(({ update }) => encodeSync(UPDATE, update))))
  return frames
}

const encoded = new WeakMap<Tick, readonly Uint8Array[]>()

function encodeSync(type: number, bytes: Uint8Array): Uint8Array {
  const writer = new ByteWriter()
  writer.varUint(SYNC)
  writer.varUint(type)
  writer.blob(bytes)
  return writer.take()
}

function isEmpty(update: Uint8Array): boolean {
  return update.length === 2 && update[0] === 0 && update[1] === 0
}

/** Whether the bytes are pairs of client and clock, as many as they say. */
function isStateVector(bytes: Uint8Array): boolean {
  const reader = new ByteReader(bytes)
  for (let left = reader.varUint(); left > 0 && reader.fault === undefined; left--) {
    reader.varUint()
    reader.varUint()
  }
  return reader.fault === undefined && reader.left === 0
}
