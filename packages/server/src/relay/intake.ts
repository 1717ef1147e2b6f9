/**
 * What one document takes (step 4): pushes in order, each numbered, granted and admitted, on their way to the ledger. It runs ahead of what is durable by
 * what is under way; when a batch fails it begins again at what is.
 */
import type { ChainHash, Clock, DocumentId, ErrorCode, IncarnationId, Limits, Seq } from '@rejoin/shared'
import type { DocumentHead, LogError, LogReader } from '../log/log.ts'
import type { Admission, Admitted, Admitting, Nothing, Verdict } from './admission.ts'
import { SLICE_BYTES, absorb, admit, beginAdmitting, createAdmission, stateVectorOf } from './admission.ts'
import type { Nack, Push } from './attach.ts'
import { closeGate, isGated } from './gates.ts'
import type { Item, Ledger, LedgerDocument } from './ledger.ts'
import type { Numbered } from './numbering.ts'
import { ASKED, Numbering, placeOf } from './numbering.ts'
import { Owners } from './owners.ts'

/** What an intake needs. */
export interface IntakePorts {
  readonly log: LogReader
  readonly ledger: Ledger
  readonly clock: Clock
  readonly defer: (run: () => void) => void
  readonly limits: Limits
}

/** The document it takes for. */
export interface IntakeDocument extends LedgerDocument {
  readonly id: DocumentId
  /** Reading the log failed. */
  unreadable(error: unknown): void
  /** What waited was taken or answered. */
  rested(): void
}

/** After a batch that the log refused: when to come back, in ms. */
const RETRY_MS = 2000
const EMPTY = new Uint8Array(0)
const NO_HASH = '' as ChainHash
const NO_COVERS: Push['covers'] = []

/** The intake of one document. Until `begin` it keeps what is pushed. */
export class Intake {
  readonly #document: IntakeDocument
  readonly #ports: IntakePorts
  readonly #numbering = new Numbering()
  readonly #owners = new Owners()
  readonly #pushes: Push[] = []
  #admission: Admission = createAdmission()
  /** The head that runs ahead. */
  #taken = 0
  /** Bytes of the snapshot and of everything taken behind it. */
  #bytes = 0
  #underWay = 0
  /** Rises whenever what runs ahead is given up, so that what was asked before is not used after. */
  #life = 0
  #state: 'waiting' | 'ready' | 'admitting' | 'closed' = 'waiting'

  constructor(document: IntakeDocument, ports: IntakePorts) {
    this.#document = document
    this.#ports = ports
  }

  /** Whether nothing waits and nothing is under way. */
  get empty(): boolean {
    return this.#underWay === 0 && this.#pushes.length === 0
  }

  /** State vector as Yjs encodes it, with what was taken and is not durable yet. */
  stateVector(): Uint8Array {
    return stateVectorOf(this.#admission)
  }

  /** Takes from `head` on. */
  begin(head: DocumentHead, admission: Admission): void {
    this.#admission = admission
    this.#taken = head.seq
    this.measure(head)
    this.#numbering.clear()
    this.#state = 'ready'
    this.#advance()
  }

  /** Learns how large the document is. */
  measure({ snapshot, tailBytes }: DocumentHead): void {
    this.#bytes = snapshot.bytes + tailBytes
  }

  push(push: Push): void {
    if (this.#state === 'closed') this.#turnAway(push)
    else if (!this.#numbering.mayAsk(push.incarnation)) this.#putOff(push)
    else if (this.#state !== 'ready' || this.#pushes.length > 0) {
      this.#pushes.push(push)
      // What will be asked for anyway is asked for now.
      this.#ask(push.incarnation)
    } else if (!this.#take(push)) this.#pushes.push(push)
  }

  /** These are durable: their numbers are. */
  settle(items: readonly Item[]): void {
    this.#underWay -= items.length
    for (const { append, push, seq } of items) {
      if (append === undefined) continue
      this.#numbering.settle(push.incarnation, push.hi, seq)
      for (const cover of append.covers) this.#numbering.settle(cover.incarnation, cover.n, seq)
    }
  }

  /** Tells the author what came of an item that is settled. */
  answer({ push, kind, seq, hash, nack }: Item): void {
    if (kind === 'entry') push.author.acked(push, seq, hash)
    else if (nack !== undefined) push.author.nacked(push, nack)
    else push.author.acked(push, kind === 'again' ? (this.#numbering.get(push.incarnation)?.seq ?? seq) : seq, undefined)
  }

  /** None of these, which are all that was under way, is durable: nacks them in order, and waits for `begin`. */
  fail(items: readonly Item[], { failure, message }: LogError): void {
    this.#underWay -= items.length
    this.#life++
    this.#state = 'waiting'
    const code: ErrorCode = failure === 'full' ? 'storage_full' : 'overloaded'
    for (const { push, kind } of items) {
      const { author, incarnation } = push
      const { durable, seq } = this.#numbering.get(incarnation) ?? { durable: 0, seq: 0 as Seq }
      const expected = durable + 1
      if (kind === 'again' && push.hi <= durable) author.acked(push, seq, undefined)
      else if (isGated(author, push, expected)) author.passed(push)
      else {
        closeGate(author, incarnation, expected)
        author.nacked(push, { expected, code, retryAfter: RETRY_MS, message })
      }
    }
  }

  /** Takes nothing any more. */
  close(): void {
    this.#life++
    this.#state = 'closed'
    for (const push of this.#pushes.splice(0)) this.#turnAway(push)
  }

  #turnAway(push: Push): void {
    const message = 'the relay cannot read this document from its log'
    push.author.nacked(push, { expected: push.lo, code: 'internal', retryAfter: RETRY_MS, message })
  }

  /** Nothing of its incarnation waits here, or that would be asked for already. */
  #putOff(push: Push): void {
    const { author, incarnation, lo } = push
    if (isGated(author, push)) author.passed(push)
    else {
      closeGate(author, incarnation, lo)
      author.nacked(push, { expected: lo, code: 'too_many', retryAfter: RETRY_MS, message: `more than ${ASKED} incarnations at a time` })
    }
  }

  /** Whatever waits, as far as it can be taken now. */
  #advance(): void {
    while (this.#state === 'ready') {
      const push = this.#pushes[0]
      if (push === undefined || !this.#take(push)) break
      this.#pushes.shift()
    }
    this.#document.rested()
  }

  /** Takes the push that is next; false when something must be found out first, and the push must wait. */
  #take(push: Push): boolean {
    const { author, incarnation, update } = push
    if (isGated(author, push)) {
      author.passed(push)
      return true
    }
    const numbered = this.#numbering.get(incarnation)
    if (numbered === undefined) {
      this.#ask(incarnation)
      return false
    }
    const { limits } = this.#ports
    const place = placeOf(numbered, push.lo, push.hi)
    if (place === 'gap') this.#refuse(push, numbered, 'gap', `edit ${numbered.taken + 1} comes before edit ${push.lo}`)
    else if (place === 'again') this.#repeat(push, numbered)
    else if (author.access !== 'write') this.#refuse(push, numbered, 'forbidden', 'no grant to write this document')
    else if (this.#bytes + update.length > limits.document)
      this.#refuse(push, numbered, 'too_large', `the document would be above ${limits.document} bytes`)
    else if (update.length > SLICE_BYTES) return this.#takeSlowly(push, beginAdmitting(this.#admission, update, limits))
    else this.#conclude(push, numbered, admit(this.#admission, update, limits))
    return true
  }

  /** Admits a large update in slices, one a turn of the event loop. The push stays the next until there is a verdict. */
  #takeSlowly(push: Push, admitting: Admitting): false {
    const life = this.#life
    this.#state = 'admitting'
    const go = (): void => {
      if (life !== this.#life) return
      const verdict = admitting.step()
      if (verdict === undefined) {
        this.#ports.defer(go)
        return
      }
      this.#state = 'ready'
      const numbered = this.#numbering.get(push.incarnation)
      if (numbered !== undefined) {
        this.#pushes.shift()
        // A grant may have ended between the slices.
        if (push.author.access === 'write') this.#conclude(push, numbered, verdict)
        else this.#refuse(push, numbered, 'forbidden', 'no grant to write this document')
      }
      this.#advance()
    }
    this.#ports.defer(go)
    return false
  }

  #conclude(push: Push, numbered: Numbered, verdict: Verdict): void {
    if (verdict.type === 'refused') this.#refuse(push, numbered, verdict.code, verdict.message)
    else if (this.#isForeign(push, verdict))
      this.#refuse(push, numbered, 'foreign_client', 'the update goes on under a Yjs client id of another principal')
    else if (verdict.type === 'nothing') this.#enter(push, 'nothing', this.#taken as Seq, undefined)
    else this.#append(push, verdict)
  }

  /**
   * Whether it adds something under a Yjs client id of another principal: no edit may, and a state push, which repeats what others wrote, only where nobody is
   * known to own. What is known already tells nothing: a client that tidies rich text names the structs of others in its own edits.
   */
  #isForeign({ author }: Push, verdict: Admitted | Nothing): boolean {
    return author.strict && verdict.type === 'admitted' && !this.#owners.allows(verdict.clients, author.principal)
  }

  #append(push: Push, verdict: Admitted): void {
    absorb(this.#admission, verdict)
    // A state push carries what others wrote and the relay lost: that does not make it the author's.
    if (push.author.strict && push.kind === 'edit') this.#owners.remember(verdict.clients, push.author.principal)
    this.#bytes += verdict.update.length
    this.#enter(push, 'entry', ++this.#taken as Seq, verdict.update)
  }

  /** Puts the push into the batch. */
  #enter(push: Push, kind: 'entry' | 'nothing', seq: Seq, update: Uint8Array | undefined): void {
    const { incarnation, lo, hi, author } = push
    const covers = push.kind === 'state' ? push.covers : NO_COVERS
    this.#numbering.take(incarnation, hi)
    for (const cover of covers) this.#numbering.take(cover.incarnation, cover.n)
    const append = {
      document: this.#document.id,
      seq,
      incarnation,
      lo,
      hi,
      covers,
      actor: author.principal,
      at: this.#ports.clock.now(),
      update,
    }
    this.#add({ document: this.#document, push, kind, seq, hash: NO_HASH, update: update ?? EMPTY, append, nack: undefined })
  }

  #repeat(push: Push, { seq }: Numbered): void {
    if (this.#underWay === 0) push.author.acked(push, seq, undefined)
    else this.#add({ document: this.#document, push, kind: 'again', seq, hash: NO_HASH, update: EMPTY, append: undefined, nack: undefined })
  }

  /** Says no, behind the answers to what is under way: `expected` must not promise what is not durable yet. */
  #refuse(push: Push, { taken }: Numbered, code: ErrorCode, message: string): void {
    const nack: Nack = { expected: taken + 1, code, retryAfter: 0, message }
    closeGate(push.author, push.incarnation, nack.expected)
    if (this.#underWay === 0) push.author.nacked(push, nack)
    else
      this.#add({
        document: this.#document,
        push,
        kind: 'refused',
        seq: this.#taken as Seq,
        hash: NO_HASH,
        update: EMPTY,
        append: undefined,
        nack,
      })
  }

  #add(item: Item): void {
    this.#underWay++
    this.#ports.ledger.add(item)
  }

  #ask(incarnation: IncarnationId): void {
    if (!this.#numbering.ask(incarnation)) return
    const life = this.#life
    this.#ports.log.find(this.#document.id, { incarnation }).then(
      ({ acked }) => {
        // Forgotten with the rest: whoever needs it asks again.
        if (life !== this.#life) return
        this.#numbering.found(incarnation, acked)
        this.#advance()
      },
      (error: unknown) => this.#document.unreadable(error),
    )
  }
}
