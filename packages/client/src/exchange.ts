/**
 * One document on the wire (steps 2 and 3 of the path): performs the effects of document.ts, sends the outbox, and proves after a full exchange that the relay holds what this replica holds.
 */
import { DEFAULT_LIMITS, ERRORS, SyncError, backoff, newIncarnationId } from '@rejoin/shared'
import { encodeReceipt } from '@rejoin/shared/receipts'
import type { Clock, Cursor, DocumentId, IncarnationId, Random, RandomBytes, Seq } from '@rejoin/shared'
import type { AckFrame, NackFrame } from '@rejoin/shared/wire'
import { WIRE_LIMITS } from '@rejoin/shared/wire'
import * as Y from 'yjs'
import { ORIGINS, applyUpdates, encodeDifference, isBlank } from './capture.ts'
import type { Connection, Member } from './connection.ts'
import type { DocumentEffect, DocumentEvent, DocumentState } from './document.ts'
import { newDocument, stepDocument } from './document.ts'
import type { Line, LineHost, Whereabouts } from './network.ts'
import type { Outbox, Push } from './outbox.ts'

export interface ExchangeOptions {
  readonly connection: Connection
  readonly clock: Clock
  readonly random: Random
  readonly randomBytes: RandomBytes
}

/** What the relay lacks after a full exchange, as edit 1 of an incarnation of its own. */
interface Proof {
  readonly incarnation: IncarnationId
  readonly update: Uint8Array
  readonly covers: readonly { readonly incarnation: IncarnationId; readonly n: number }[]
  sent: boolean
  attempt: number
  until: number
}

/** An update larger than this travels in parts. Bytes; below the message limit with room for what is gathered before it. */
const PART_BYTES = 512 * 1024
/** Acks that are remembered for receipts and waits. */
const KEPT_ACKS = 1000

export class Exchange implements Line, Member, Whereabouts {
  readonly document: DocumentId
  readonly #host: LineHost
  readonly #outbox: Outbox
  readonly #options: ExchangeOptions
  #state: DocumentState = newDocument(undefined)
  #fragments: Uint8Array[] = []
  /** State vector of the relay's state, while what the relay lacks has not been encoded. */
  #owed: Uint8Array | undefined
  #proof: Proof | undefined
  /** The last acks of own edits: which entries they became. */
  readonly #acks: Pick<AckFrame, 'incarnation' | 'n' | 'seq'>[] = []
  #begun = false
  #flew = 0
  #timer: { readonly due: number; readonly cancel: () => void } | undefined

  constructor(host: LineHost, options: ExchangeOptions) {
    this.#host = host
    this.#options = options
    this.#outbox = host.outbox
    this.document = host.document
    host.met(this)
  }

  begin(cursor: Cursor | undefined): void {
    this.#state = newDocument(cursor)
    this.#begun = true
    this.#options.connection.attach(this)
  }

  end(): void {
    this.#begun = false
    this.#timer?.cancel()
    this.#timer = undefined
    this.#options.connection.detach(this)
    this.#options.connection.sinks.ended(this, new SyncError('closed', `the replica of "${this.document}" was closed`))
    this.#outbox.rewind()
    this.#account()
  }

  get isReplaced(): boolean {
    return this.#state.name === 'replaced'
  }

  get isHeld(): boolean {
    const { name, grant, problem } = this.#state
    if (name === 'live' || name === 'fetching') return grant !== 'write'
    return name === 'replaced' || (problem !== undefined && ERRORS[problem.code].retry === 'hold')
  }

  take(event: DocumentEvent): void {
    if (!this.#begun) return
    const { clock, random } = this.#options
    const before = this.#state.name
    const { state, effects } = stepDocument(this.#state, event, { now: clock.now(), random })
    this.#state = state
    if (event.type === 'opened' && (state.name === 'live' || state.name === 'fetching')) this.#host.present(true)
    for (const effect of effects) {
      // An effect can end what the next ones belong to: an entry that does not fit leaves nothing caught up.
      if (this.#state.name !== state.name) break
      this.#perform(effect)
    }
    if (isOpen(before) && !isOpen(this.#state.name)) this.#host.present(false)
    this.#keepTime()
    this.#host.changed()
  }

  presence(awareness: Uint8Array): void {
    this.#host.presence(awareness)
  }

  announce(awareness: Uint8Array): void {
    this.#options.connection.send(this, { type: 'presence', awareness })
  }

  reach(rung: string, incarnation: IncarnationId, n: number, signal: AbortSignal | undefined): Promise<void> {
    return this.#options.connection.sinks.wait(this, rung.slice('sink:'.length), this.#seqOf(incarnation, n), signal)
  }

  receipt(incarnation: IncarnationId, n: number): string | undefined {
    const { cursor } = this.#state
    if (n < 1 || cursor === undefined || this.#outbox.ackedOf(incarnation) < n) return undefined
    return encodeReceipt(new Map([[this.document, { lineage: cursor.lineage, seq: this.#seqOf(incarnation, n) }]]))
  }

  /** The entry that an acknowledged edit became, or a later one when that is not remembered any more. */
  #seqOf(incarnation: IncarnationId, n: number): Seq {
    const ack = this.#acks.find((each) => each.incarnation === incarnation && each.n >= n)
    return ack?.seq ?? this.#acks.at(-1)?.seq ?? this.#state.cursor?.seq ?? (0 as Seq)
  }

  want(): void {
    if (this.#begun) this.#options.connection.want(this)
  }

  push(): 'sent' | 'full' | 'idle' {
    const { connection, clock } = this.#options
    const { name, grant, proven } = this.#state
    if (name !== 'live' || grant !== 'write') return 'idle'
    // What the relay lacks goes first; later edits may build on it.
    if (!proven && (this.#owed !== undefined || this.#proof !== undefined) && this.#outbox.count().refused === 0) return this.#pushProof()
    const push = this.#outbox.next(clock.now(), connection.room)
    if (push === 'full') return 'full'
    if (push === undefined) {
      this.#keepTime()
      return 'idle'
    }
    this.#account()
    if (push.update.length > DEFAULT_LIMITS.edit) this.#tooLarge(push)
    else this.#send({ ...push, kind: 'edit', covers: [] })
    return 'sent'
  }

  #perform(effect: DocumentEffect): void {
    const { connection } = this.#options
    switch (effect.type) {
      case 'open':
        connection.openDocument(this, effect.cursor, effect.resume)
        return
      case 'close':
        connection.closeDocument(this)
        return
      case 'fragment':
        if (effect.first) this.#fragments = []
        // The bytes are a view of a message, which would be kept as long as they are.
        this.#fragments.push(effect.update.slice())
        this.#host.progress(this.#state.fetch)
        return
      case 'whole':
        this.#whole(effect.prove)
        return
      case 'apply':
        // Bytes of a message are views of all of it, and a store may keep what a view is of.
        if (
          this.#apply(
            effect.updates.map((update) => update.slice()),
            this.#state.proven,
          )
        )
          this.take({ type: 'applied' })
        return
      case 'acked':
        this.#acked(effect.frame, effect.moved)
        return
      case 'nacked':
        this.#nacked(effect.frame)
        return
      case 'store-cursor':
        this.#host.commit({ cursor: this.#state.cursor })
        return
      case 'rewind':
        this.#outbox.rewind()
        if (this.#proof !== undefined) this.#proof.sent = false
        this.#account()
        return
      case 'pump':
        this.want()
        return
      case 'caught-up':
        this.#host.caughtUp()
        return
      case 'replaced':
        this.#replaced(new SyncError('replaced', this.#state.problem?.message ?? 'the document was deleted or reset'))
        return
      default:
        effect satisfies never
    }
  }

  #replaced(error: SyncError): void {
    this.#host.replaced(error)
    this.#options.connection.sinks.ended(this, error)
  }

  /** Applies what the relay sent, and commits it, with the cursor when `proven`. Returns false when it does not fit: what cannot be proved leads to a full exchange. */
  #apply(updates: readonly Uint8Array[], proven: boolean): boolean {
    const fits = applyUpdates(this.#host.ydoc, updates, ORIGINS.relay, this.#state.grant === 'write') === 'whole'
    this.#host.commit({ relayUpdates: updates, cursor: fits && proven ? this.#state.cursor : undefined })
    if (!fits) this.take({ type: 'distrust', reason: 'what the relay sent does not fit this replica' })
    return fits
  }

  /** The pieces are here. What this replica held before may be missing in the relay's whole state, and is sent unless there was nothing. */
  #whole(prove: boolean): void {
    const update = concat(this.#fragments)
    const updates = update.length === 0 ? [] : [update]
    this.#fragments = []
    this.#host.progress(undefined)
    if (!prove) {
      this.#apply(updates, this.#state.proven)
      return
    }
    const { ydoc, isNew } = this.#host
    const isOwing = !isNew && !isBlank(ydoc)
    this.#proof = undefined
    this.#owed = undefined
    try {
      if (isOwing) this.#owed = update.length === 0 ? new Uint8Array([0]) : Y.encodeStateVectorFromUpdate(update)
    } catch {
      this.take({ type: 'distrust', reason: 'the state that the relay sent cannot be read' })
      return
    }
    if (!this.#apply(updates, !isOwing)) return
    if (isOwing) this.want()
    else this.take({ type: 'proved' })
  }

  #pushProof(): 'sent' | 'full' | 'idle' {
    const { connection, clock, randomBytes } = this.#options
    this.#proof ??= {
      incarnation: newIncarnationId(randomBytes),
      update: encodeDifference(this.#host.ydoc, this.#owed),
      covers: this.#outbox.covers().slice(-WIRE_LIMITS.covers),
      sent: false,
      attempt: 0,
      until: 0,
    }
    this.#owed = undefined
    const { incarnation, update, covers, sent, until } = this.#proof
    if (sent || until > clock.now()) return 'idle'
    if (update.length > DEFAULT_LIMITS.edit) {
      // It stays unproved: the cursor is not stored, and the next start asks for everything again.
      this.#proof = undefined
      return this.push()
    }
    if (update.length > connection.room) return 'full'
    this.#proof.sent = true
    this.#account()
    this.#send({ incarnation, lo: 1, hi: 1, kind: 'state', covers, update })
    return 'sent'
  }

  #send({ update, ...push }: Push & { readonly kind: 'edit' | 'state'; readonly covers: Proof['covers'] }): void {
    const total = update.length
    for (let offset = 0; offset === 0 || offset < total; offset += PART_BYTES) {
      this.#options.connection.send(this, { type: 'push', ...push, total, offset, update: update.subarray(offset, offset + PART_BYTES) })
    }
  }

  #acked({ incarnation, n, seq }: AckFrame, moved: boolean): void {
    this.#acks.push({ incarnation, n, seq })
    if (this.#acks.length > KEPT_ACKS) this.#acks.shift()
    const cursor = moved && this.#state.proven ? this.#state.cursor : undefined
    if (incarnation === this.#proof?.incarnation) {
      this.#proof = undefined
      this.take({ type: 'proved' })
    } else {
      const through = this.#outbox.acked(incarnation, n)
      if (through > 0) this.#host.commit({ acked: [{ incarnation, through }], cursor })
      else if (cursor !== undefined) this.#host.commit({ cursor })
      if (through > 0) this.#host.acked(incarnation, through)
    }
    this.#account()
    this.want()
  }

  #nacked(frame: NackFrame): void {
    const { clock, random } = this.#options
    if (frame.incarnation === this.#proof?.incarnation) {
      const proof = this.#proof
      proof.sent = false
      proof.until = clock.now() + backoff(proof.attempt, random, { atLeast: frame.retryAfter })
      proof.attempt += 1
      // Refused for good: the edits are sent all the same, the cursor stays unproved.
      if (ERRORS[frame.code].retry === 'never') this.#proof = undefined
    } else {
      const verdict = this.#outbox.nacked(frame, clock.now(), random)
      if (verdict.type === 'lost') this.take({ type: 'distrust', reason: 'the relay lacks edits that it once acknowledged' })
      if (verdict.type === 'refused') {
        this.#host.commit({ put: [verdict.row] })
        this.#host.refused(verdict.row)
      }
    }
    this.#account()
    this.want()
  }

  /** More than any relay takes: refused here, as the relay would. */
  #tooLarge({ incarnation, lo, update }: Push): void {
    const message = `the edit has ${update.length} bytes, ${DEFAULT_LIMITS.edit} go on the wire`
    this.#nacked({ type: 'nack', handle: 0, incarnation, n: lo, expected: lo, code: 'too_large', retryAfter: 0, message })
  }

  /** Tells the connection how many of our bytes are under way. */
  #account(): void {
    const flying = this.#outbox.flying + (this.#proof?.sent === true ? this.#proof.update.length : 0)
    this.#options.connection.fly(flying - this.#flew)
    this.#flew = flying
  }

  #keepTime(): void {
    const { clock } = this.#options
    const now = clock.now()
    // It is about to fire: what it is for is due, and shows no more among the times to come.
    if (this.#timer !== undefined && this.#timer.due <= now) return
    const proofDue = this.#proof !== undefined && !this.#proof.sent && this.#proof.until > now ? this.#proof.until : undefined
    const dues = [this.#state.due, this.#outbox.due(now), proofDue].filter((due) => due !== undefined)
    const due = dues.length === 0 ? undefined : Math.min(...dues)
    if (due === this.#timer?.due) return
    this.#timer?.cancel()
    this.#timer = due === undefined ? undefined : { due, cancel: clock.after(Math.max(0, due - now), () => this.#tick()) }
  }

  #tick(): void {
    this.#timer = undefined
    const { due } = this.#state
    if (due !== undefined && due <= this.#options.clock.now()) this.take({ type: 'tick' })
    this.want()
    this.#keepTime()
  }
}

function isOpen(name: DocumentState['name']): boolean {
  return name === 'live' || name === 'fetching'
}

function concat(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0))
  let offset = 0
  for (const part of parts) {
    whole.set(part, offset)
    offset += part.length
  }
  return whole
}
