/**
 * One native socket's part in one document: pushes as an author, reads as a reader, and begins with the whole state where no cursor is proved.
 */
import type { Access, ChainHash, ErrorCode, IncarnationId, Seq } from '@rejoin/shared'
import type { OpenFrame, RelayFrame } from '@rejoin/shared/wire'
import type { Author, Committed, Given, Nack, Push, Reader, RelayDocument, Subscription, Tick } from './attach.ts'
import { encodeEntries } from './encode.ts'
import type { Turns } from './reading.ts'
import { CATCH_UP_BYTES } from './reading.ts'
import type { WholePush } from './parts.ts'
import { weightOf } from './parts.ts'

/** What a member asks of its socket. */
export interface MemberPeer {
  readonly principal: string
  /** Bytes handed to the socket and not yet sent. */
  readonly buffered: number
  /** Checked at this moment. */
  accessTo(handle: number): Access
  send(frame: RelayFrame): void
  /** Messages that others get too. */
  share(messages: readonly Uint8Array[]): void
  answered(bytes: number): void
  ended(handle: number, code: ErrorCode, message: string): void
  readonly turns: Turns
  readonly fragment: number
}

/** State fragments wait while the socket has more than this unsent, in bytes. */
export const PACE_BYTES: number = CATCH_UP_BYTES

/** From `join` to `leave`. */
export class Member implements Author, Reader {
  readonly document: RelayDocument
  readonly strict = true
  readonly gates: Map<IncarnationId, number> = new Map<IncarnationId, number>()
  readonly #peer: MemberPeer
  readonly #subscription: Subscription
  /** Pushes that were not answered yet. */
  #unanswered = 0
  /** The last seq whose ack stood in the place of its entry. */
  #inPlace = 0
  /** The first sync under way: rises when it is given up. */
  #sync = 0
  #syncing: { readonly seq: Seq; offset: number } | undefined
  #wake: (() => void) | undefined
  #suspended = false
  #closed = false

  constructor(peer: MemberPeer, document: RelayDocument) {
    this.#peer = peer
    this.document = document
    this.#subscription = document.subscribe(this, document.seq)
  }

  get principal(): string {
    return this.#peer.principal
  }

  get access(): Access {
    return this.#closed ? 'none' : this.#peer.accessTo(this.document.number)
  }

  get buffered(): number {
    return this.#peer.buffered
  }

  /** Begins to read as `opened` has told the client, once or, when it opens again, once more. */
  begin(after: Seq | undefined, resume: OpenFrame['resume'], access: Access): void {
    this.#sync++
    this.#syncing = undefined
    this.#subscription.suspend()
    this.#suspended = access === 'none'
    if (after === undefined) {
      const { seq, bytes } = this.document.snapshot
      this.#beginState(resume !== undefined && resume.snapshotSeq === seq && resume.offset <= bytes ? resume.offset : 0)
    } else this.#follow(after)
  }

  push(push: WholePush): void {
    this.#unanswered++
    const { incarnation, lo, hi, kind, covers, update } = push
    this.document.push({ author: this, incarnation, lo, hi, kind, covers, update })
  }

  setAccess(access: Access): void {
    const suspended = access === 'none'
    if (suspended === this.#suspended) return
    this.#suspended = suspended
    if (suspended) this.#subscription.suspend()
    else if (this.#syncing === undefined) this.#subscription.resume()
    else this.#wakeUp()
  }

  drained(): void {
    this.#wakeUp()
    this.#subscription.drained()
  }

  close(): void {
    this.#closed = true
    this.#sync++
    this.#wakeUp()
    this.#subscription.close()
    this.document.release()
  }

  // Author

  acked(push: Push, seq: Seq, hash: ChainHash | undefined): void {
    this.#answered(push)
    if (this.#closed || (hash !== undefined && seq <= this.#inPlace)) return
    // A reader that is not live gets the entry itself, in its order, later.
    this.#peer.send({ type: 'ack', handle: this.document.number, incarnation: push.incarnation, n: push.hi, seq })
  }

  nacked(push: Push, { expected, code, retryAfter, message }: Nack): void {
    this.#answered(push)
    if (this.#closed) return
    this.#peer.send({
      type: 'nack',
      handle: this.document.number,
      incarnation: push.incarnation,
      n: push.lo,
      expected,
      code,
      retryAfter,
      message,
    })
  }

  passed(push: Push): void {
    this.#answered(push)
  }

  #wakeUp(): void {
    const wake = this.#wake
    this.#wake = undefined
    wake?.()
  }

  #answered(push: Push): void {
    this.#unanswered--
    this.#peer.answered(weightOf(push))
  }

  // Reader

  tick(tick: Tick): void {
    if (this.#unanswered === 0) {
      this.#peer.share(tick.messages())
      return
    }
    let run: Committed[] = []
    for (const entry of tick.entries) {
      if (entry.push.author !== this) {
        run.push(entry)
        continue
      }
      this.entries(run)
      run = []
      const { push, seq, hash } = entry
      this.#inPlace = seq
      this.#peer.send({ type: 'ack', handle: this.document.number, incarnation: push.incarnation, n: push.hi, seq, hash })
    }
    if (run.length === tick.entries.length) this.#peer.share(tick.messages())
    else this.entries(run)
  }

  entries(entries: readonly Given[]): void {
    if (entries.length > 0) this.#peer.share(encodeEntries(this.document, entries, this.#peer.fragment))
  }

  trimmed(): void {
    const sync = ++this.#sync
    this.document.refresh().then(
      () => {
        if (sync === this.#sync) this.#beginState(0)
      },
      (error: unknown) => this.#failed(error),
    )
  }

  ended(code: ErrorCode, message: string): void {
    this.#peer.ended(this.document.number, code, message)
  }

  #follow(after: Seq): void {
    if (this.#suspended) this.#subscription.suspend(after)
    else this.#subscription.resume(after)
  }

  // The whole state

  #beginState(offset: number): void {
    this.#syncing = { seq: this.document.snapshot.seq, offset }
    this.#sendState(++this.#sync).catch((error: unknown) => this.#failed(error))
  }

  #failed(error: unknown): void {
    if (!this.#closed) this.ended('internal', error instanceof Error ? error.message : String(error))
  }

  async #sendState(sync: number): Promise<void> {
    let sending = true
    while (sending) {
      await this.#pace()
      if (sync === this.#sync) sending = await this.#sendNext(sync)
      else return
    }
  }

  /** Waits until the client may read and its socket takes more. */
  async #pace(): Promise<void> {
    while (!this.#closed && (this.#suspended || this.#peer.buffered > PACE_BYTES)) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
  }

  /** Sends one fragment; whether another follows. */
  async #sendNext(sync: number): Promise<boolean> {
    const syncing = this.#syncing
    if (syncing === undefined) return false
    const before = this.document.snapshot
    const fragment = before.seq === 0 ? NOTHING : await this.#read(syncing.seq, syncing.offset)
    if (sync !== this.#sync) return false
    const { snapshot } = this.document
    if (fragment === undefined || snapshot.seq !== syncing.seq) {
      // Another snapshot has taken its place, perhaps while a fragment of the old one was read.
      if (snapshot.seq === syncing.seq) throw new Error(`the snapshot at ${snapshot.seq} is not there`)
      this.#syncing = { seq: snapshot.seq, offset: 0 }
      return true
    }
    const { number, lineage, epoch } = this.document
    this.#peer.send({
      type: 'state',
      handle: number,
      lineage,
      epoch,
      seq: snapshot.seq,
      hash: snapshot.hash,
      total: snapshot.bytes,
      offset: syncing.offset,
      update: fragment,
    })
    syncing.offset += fragment.length
    if (syncing.offset < snapshot.bytes && fragment.length > 0) return true
    this.#syncing = undefined
    this.#follow(snapshot.seq)
    return false
  }

  #read(seq: Seq, offset: number): Promise<Uint8Array | undefined> {
    return new Promise((resolve, reject) => {
      this.#peer.turns.take((done) => {
        this.document.fragment(seq, offset, this.#peer.fragment).then(resolve, reject).finally(done).catch(reject)
      })
    })
  }
}

const NOTHING = new Uint8Array(0)
