/**
 * One open document of the relay: admits pushes in order (step 4), hands them to the ledger (5), and gives what became durable to its readers (6).
 *
 * It has two heads. The durable one is what anybody is told. The other runs ahead of it by what is under way to the log; when a batch fails, it falls
 * back: what was under way is nacked in order, and the admission state is read from the log again.
 */
import type { ChainHash, Clock, DocumentId, ErrorCode, IncarnationId, Lineage, Limits, Seq } from '@rejoin/shared'
import { SyncError } from '@rejoin/shared'
import type { DocumentHead, Log, SnapshotHead } from '../log/log.ts'
import { LogError } from '../log/log.ts'
import type { Admission, Admitted, Admitting, Verdict } from './admission.ts'
import { SLICE_BYTES, absorb, absorbTrusted, admit, beginAdmitting, createAdmission } from './admission.ts'
import type { Author, Nack, Push, Reader, RelayDocument, Subscription, Tick } from './attach.ts'
import { encodeEntries } from './encode.ts'
import type { Item, Ledger, LedgerDocument } from './ledger.ts'
import type { Numbered } from './numbering.ts'
import { Numbering, placeOf } from './numbering.ts'
import { Owners } from './owners.ts'
import type { ReadDocument, Turns } from './reading.ts'
import { Place, Recent } from './reading.ts'

/** Folds documents in the background, in a thread of its own. */
export interface Compactor {
  /** Looks at a document that has grown. Resolves once its snapshot was replaced; undefined when nothing is to be done. */
  consider(head: DocumentHead): Promise<void> | undefined
}

/** What a document needs. */
export interface DocumentPorts {
  readonly log: Log
  readonly ledger: Ledger
  readonly clock: Clock
  readonly defer: (run: () => void) => void
  readonly limits: Limits
  readonly turns: Turns
  readonly compactor: Compactor | undefined
  /** Nothing may be told any more. */
  readonly fatal: (error: unknown) => void
  /** Something an operator should know. */
  readonly report: (what: string, details: Readonly<Record<string, unknown>>) => void
  /** Nobody holds it any more and nothing is under way. */
  readonly idle: (document: OpenDocument) => void
}

/** After a batch that the log refused: when to come back, in ms. */
const RETRY_MS = 2000
/** Incarnations of one author that may wait behind a nack. */
const GATES = 1000
/** Read at a time while loading, in bytes. */
const LOAD_BYTES = 1024 * 1024
const EMPTY = new Uint8Array(0)
const NO_HASH = '' as ChainHash

/** A document, from `load` on. */
export class OpenDocument implements RelayDocument, LedgerDocument, ReadDocument {
  readonly id: DocumentId
  readonly number: number
  readonly log: Log
  readonly turns: Turns
  readonly recent: Recent = new Recent()
  holders = 0
  readonly #ports: DocumentPorts
  readonly #numbering = new Numbering()
  readonly #owners = new Owners()
  readonly #places = new Set<Place>()
  readonly #pushes: Push[] = []
  #head: DocumentHead | undefined
  #admission: Admission = createAdmission()
  /** The head that runs ahead. */
  #taken = 0
  /** Bytes of the snapshot and of everything taken behind it. */
  #bytes = 0
  #underWay = 0
  /** Rises whenever what runs ahead is given up, so that what was asked before is not used after. */
  #life = 0
  #state: 'loading' | 'ready' | 'admitting' | 'broken' = 'loading'
  #folding = false

  constructor(id: DocumentId, number: number, ports: DocumentPorts) {
    this.id = id
    this.number = number
    this.#ports = ports
    this.log = ports.log
    this.turns = ports.turns
  }

  get lineage(): Lineage {
    return this.#known().lineage
  }

  get epoch(): number {
    return this.#known().epoch
  }

  get seq(): Seq {
    return this.#known().seq
  }

  get hash(): ChainHash {
    return this.#known().hash
  }

  get snapshot(): SnapshotHead {
    return this.#known().snapshot
  }

  /** Whether nobody holds it and nothing of it is under way. */
  get unused(): boolean {
    return this.holders === 0 && this.#underWay === 0 && this.#pushes.length === 0 && !this.#folding
  }

  /** About how much memory it takes, in bytes. */
  get weight(): number {
    return 4096 + 4 * (this.#head?.snapshot.admission.length ?? 0) + (this.#head?.tailBytes ?? 0)
  }

  /** Reads the head and what admission must know. Rejects as the log does, or with `SyncError('internal')` when the log is not what was admitted. */
  async load(): Promise<void> {
    const life = ++this.#life
    this.#state = 'loading'
    for (;;) {
      // A document that is there is read, which a full disk does not prevent.
      const head = (await this.log.head(this.id)) ?? (await this.log.open(this.id))
      const admission = createAdmission(head.snapshot.admission)
      if (!(await this.#readTail(head, admission))) continue
      if (life !== this.#life) return
      this.#head = { ...head }
      this.#admission = admission
      this.#taken = head.seq
      this.#bytes = head.snapshot.bytes + head.tailBytes
      this.#numbering.clear()
      this.#state = 'ready'
      this.#advance()
      return
    }
  }

  push(push: Push): void {
    if (this.#state !== 'ready' || this.#pushes.length > 0) {
      this.#pushes.push(push)
      if (this.#state === 'broken') this.#refuseAll()
      // What will be asked for anyway is asked for now.
      else this.#ask(push.incarnation)
      return
    }
    if (!this.#take(push)) this.#pushes.push(push)
  }

  subscribe(reader: Reader, after: Seq): Subscription {
    const place = new Place(this, reader, after, this.#ports.limits.outbound)
    this.#places.add(place)
    return place
  }

  async proves(seq: Seq, hash: ChainHash): Promise<boolean> {
    const head = this.#known()
    if (seq === head.seq) return hash === head.hash
    if (seq > head.seq || (seq < head.snapshot.seq && seq + 1 < head.oldest)) return false
    const found = await this.log.find(this.id, { seq })
    return found.hash === hash
  }

  async fragment(seq: Seq, offset: number, length: number): Promise<Uint8Array | undefined> {
    const bytes = await this.log.snapshot(this.id, seq, offset, length)
    if (bytes === undefined) await this.refresh()
    return bytes
  }

  release(): void {
    this.holders--
    this.#checkIdle()
  }

  // Step 4

  /** Whatever waits, as far as it can be taken now. */
  #advance(): void {
    while (this.#state === 'ready') {
      const push = this.#pushes[0]
      if (push === undefined || !this.#take(push)) return
      this.#pushes.shift()
    }
  }

  /** Takes the push that is next; false when something must be found out first, and the push must wait. */
  #take(push: Push): boolean {
    const { author, incarnation, update } = push
    if (isGated(author, push)) {
      author.passed(push)
      this.#checkIdle()
      return true
    }
    const numbered = this.#numbering.get(incarnation)
    if (numbered === undefined) {
      this.#ask(incarnation)
      return false
    }
    const place = placeOf(numbered, push.lo, push.hi)
    if (place === 'gap') this.#refuse(push, numbered, 'gap', `edit ${numbered.taken + 1} comes before edit ${push.lo}`)
    else if (place === 'again') this.#repeat(push, numbered)
    else if (author.access !== 'write') this.#refuse(push, numbered, 'forbidden', 'no grant to write this document')
    else if (this.#bytes + update.length > this.#ports.limits.document) {
      this.#refuse(push, numbered, 'too_large', `the document would be above ${this.#ports.limits.document} bytes`)
    } else if (update.length > SLICE_BYTES) return this.#takeSlowly(push, beginAdmitting(this.#admission, update, this.#ports.limits))
    else this.#conclude(push, numbered, admit(this.#admission, update, this.#ports.limits))
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
    else if (verdict.type === 'nothing') this.#enter(push, 'nothing', this.#taken as Seq, undefined)
    else if (push.author.strict && push.kind === 'edit' && !this.#owners.allows(verdict.clients, push.author.principal)) {
      this.#refuse(push, numbered, 'foreign_client', 'the update goes on under a Yjs client id of another principal')
    } else this.#append(push, verdict)
  }

  #append(push: Push, verdict: Admitted): void {
    absorb(this.#admission, verdict)
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
    const append = { document: this.id, seq, incarnation, lo, hi, covers, actor: author.principal, at: this.#ports.clock.now(), update }
    this.#add({ document: this, push, kind, seq, hash: NO_HASH, update: update ?? EMPTY, append, nack: undefined })
  }

  #repeat(push: Push, numbered: Numbered): void {
    if (this.#underWay === 0) push.author.acked(push, numbered.seq, undefined)
    else this.#add({ document: this, push, kind: 'again', seq: numbered.seq, hash: NO_HASH, update: EMPTY, append: undefined, nack: undefined })
  }

  /** Says no, behind the answers to what is under way: `expected` must not promise what is not durable yet. */
  #refuse(push: Push, numbered: Numbered, code: ErrorCode, message: string): void {
    const nack: Nack = { expected: numbered.taken + 1, code, retryAfter: 0, message }
    gate(push.author, push.incarnation, nack.expected)
    if (this.#underWay === 0) push.author.nacked(push, nack)
    else this.#add({ document: this, push, kind: 'refused', seq: this.#taken as Seq, hash: NO_HASH, update: EMPTY, append: undefined, nack })
  }

  #add(item: Item): void {
    this.#underWay++
    this.#ports.ledger.add(item)
  }

  #ask(incarnation: IncarnationId): void {
    if (!this.#numbering.ask(incarnation)) return
    const life = this.#life
    this.log.find(this.id, { incarnation }).then(
      ({ acked }) => {
        // Forgotten with the rest: whoever needs it asks again.
        if (life !== this.#life) return
        this.#numbering.found(incarnation, acked)
        this.#advance()
      },
      (error: unknown) => this.unreadable(error),
    )
  }

  // Steps 5 and 6

  committed(items: readonly Item[]): void {
    const head = this.#known()
    this.#underWay -= items.length
    const entries: Item[] = []
    for (const item of items) {
      if (item.append !== undefined) {
        this.#numbering.settle(item.push.incarnation, item.push.hi, item.seq)
        for (const cover of item.append.covers) this.#numbering.settle(cover.incarnation, cover.n, item.seq)
      }
      if (item.kind === 'entry') entries.push(item)
    }
    const last = entries.at(-1)
    if (last !== undefined) {
      const added = entries.reduce((sum, { update }) => sum + update.length, 0)
      this.#head = { ...head, seq: last.seq, hash: last.hash, tailBytes: head.tailBytes + added, tailEntries: head.tailEntries + entries.length }
      this.#broadcast(entries, last.seq)
    }
    for (const item of items) this.#answer(item)
    if (last !== undefined) this.#consider()
    this.#checkIdle()
  }

  failed(items: readonly Item[], error: LogError): void {
    this.#underWay -= items.length
    const code: ErrorCode = error.failure === 'full' ? 'storage_full' : 'overloaded'
    if (error.failure !== 'full') this.#ports.report('a batch was refused by the log', { document: this.id, failure: error.failure, reason: error.message })
    for (const { push, kind } of items) {
      const durable = this.#numbering.get(push.incarnation)
      const expected = (durable?.durable ?? 0) + 1
      if (push.hi < expected && durable !== undefined && kind === 'again') push.author.acked(push, durable.seq, undefined)
      else if (isGated(push.author, push, expected)) push.author.passed(push)
      else {
        gate(push.author, push.incarnation, expected)
        push.author.nacked(push, { expected, code, retryAfter: RETRY_MS, message: error.message })
      }
    }
    this.load().catch((thrown: unknown) => this.unreadable(thrown))
  }

  #broadcast(entries: readonly Item[], last: Seq): void {
    this.recent.add(entries)
    if (this.#places.size === 0) return
    let messages: readonly Uint8Array[] | undefined
    const tick: Tick = { first: (last - entries.length + 1) as Seq, last, entries, messages: () => (messages ??= encodeEntries(this, entries)) }
    for (const place of this.#places) place.tick(tick)
  }

  #answer({ push, kind, seq, hash, nack }: Item): void {
    if (kind === 'entry') push.author.acked(push, seq, hash)
    else if (nack !== undefined) push.author.nacked(push, nack)
    else push.author.acked(push, kind === 'again' ? (this.#numbering.get(push.incarnation)?.seq ?? seq) : seq, undefined)
  }

  left(place: Place): void {
    this.#places.delete(place)
  }

  unreadable(error: unknown): void {
    if (error instanceof LogError && error.failure === 'failed') {
      this.#ports.fatal(error)
      return
    }
    if (this.#state === 'broken') return
    this.#life++
    this.#state = 'broken'
    const reason = error instanceof Error ? error.message : String(error)
    this.#ports.report('a document cannot be read from the log', { document: this.id, reason })
    this.#refuseAll()
    for (const place of [...this.#places]) place.ended('internal', 'the relay cannot read this document from its log')
  }

  /** Whether it can be served. */
  get broken(): boolean {
    return this.#state === 'broken'
  }

  #refuseAll(): void {
    for (const push of this.#pushes.splice(0)) {
      push.author.nacked(push, { expected: push.lo, code: 'internal', retryAfter: RETRY_MS, message: 'the relay cannot read this document from its log' })
    }
  }

  // The head

  #known(): DocumentHead {
    if (this.#head === undefined) throw new SyncError('internal', 'a document was used before it was loaded')
    return this.#head
  }

  /** Absorbs the entries behind the snapshot; false when another snapshot took its place meanwhile. */
  async #readTail(head: DocumentHead, admission: Admission): Promise<boolean> {
    for (let after = head.snapshot.seq; after < head.seq; ) {
      const entries = await this.log.read({ document: this.id, after }, LOAD_BYTES)
      if (entries === 'trimmed') return false
      for (const entry of entries) {
        if (entry.seq <= head.seq) absorbTrusted(admission, entry.update)
      }
      const last = entries.at(-1)
      if (last === undefined) throw new SyncError('internal', `the log has no entry ${after + 1}, its head is ${head.seq}`)
      after = last.seq
    }
    return true
  }

  /** Learns of a new snapshot. */
  async refresh(): Promise<void> {
    const read = await this.log.head(this.id)
    const head = this.#known()
    if (read === undefined || read.lineage !== head.lineage || read.snapshot.seq < head.snapshot.seq) return
    // The log may be ahead of what the relay knows to be durable, or behind what was said since it was read.
    const ahead = read.seq - head.seq
    this.#head = { ...read, seq: head.seq, hash: head.hash, tailEntries: Math.max(0, read.tailEntries - ahead) }
    this.#bytes = read.snapshot.bytes + read.tailBytes
  }

  #consider(): void {
    if (this.#folding) return
    const folded = this.#ports.compactor?.consider(this.#known())
    if (folded === undefined) return
    this.#folding = true
    folded
      .then(() => this.refresh())
      .catch((error: unknown) => this.#ports.report('a document was not folded', { document: this.id, reason: String(error) }))
      .finally(() => {
        this.#folding = false
        this.#checkIdle()
      })
  }

  #checkIdle(): void {
    if (this.unused) this.#ports.idle(this)
  }
}

const NO_COVERS: Push['covers'] = []

/** Whether the push stands behind one that was nacked. One that does not opens its gate. */
function isGated({ gates }: Author, { incarnation, lo }: Push, atMost = Infinity): boolean {
  if (gates === undefined || gates.size === 0) return false
  const expected = gates.get(incarnation)
  // A batch that failed calls for edits before those that the gate waits for.
  if (expected === undefined || expected > atMost) return false
  if (lo > expected) return true
  gates.delete(incarnation)
  return false
}

function gate({ gates }: Author, incarnation: IncarnationId, expected: number): void {
  if (gates === undefined) return
  gates.set(incarnation, expected)
  if (gates.size <= GATES) return
  // Whoever is forgotten is nacked once more, which does no harm.
  for (const oldest of gates.keys()) {
    gates.delete(oldest)
    break
  }
}
