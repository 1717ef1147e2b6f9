/**
 * One open document of the relay: what its intake admits (step 4) comes back from the ledger durable (5), and is given to its readers (6).
 */
import type { ChainHash, DocumentId, Lineage, Seq } from '@rejoin/shared'
import { SyncError } from '@rejoin/shared'
import type { DocumentHead, Log, SnapshotHead } from '../log/log.ts'
import { LogError } from '../log/log.ts'
import type { Push, Reader, RelayDocument, Subscription, Tick } from './attach.ts'
import { encodeEntries } from './encode.ts'
import { headBehind, headOver, readHead } from './head.ts'
import type { IntakeDocument, IntakePorts } from './intake.ts'
import { Intake } from './intake.ts'
import type { Item } from './ledger.ts'
import type { ReadDocument, Turns } from './reading.ts'
import { Place, Recent } from './reading.ts'

/** Folds documents in the background, in a thread of its own. */
export interface Compactor {
  /** Looks at a document at rest, or one that is growing. Resolves once its snapshot was replaced; undefined when nothing is to be done. */
  consider(head: DocumentHead, growing: boolean): Promise<void> | undefined
}

/** What a document needs. */
export interface DocumentPorts extends IntakePorts {
  readonly log: Log
  readonly turns: Turns
  readonly compactor: Compactor | undefined
  /** Nothing may be told any more. */
  readonly fatal: (error: unknown) => void
  /** Something an operator should know. */
  readonly report: (what: string, details: Readonly<Record<string, unknown>>) => void
  /** Nobody holds it any more and nothing is under way. */
  readonly idle: (document: OpenDocument) => void
}

/** A document to which nothing was added for so long is at rest, in ms. */
const REST_MS = 5_000

/** A document, from `load` on. */
export class OpenDocument implements RelayDocument, IntakeDocument, ReadDocument {
  readonly id: DocumentId
  readonly number: number
  readonly log: Log
  readonly turns: Turns
  readonly recent: Recent = new Recent()
  /** Whoever got it from `hold` and has not released it. */
  holders = 0
  /** Whether it can no longer be served. */
  broken = false
  readonly #ports: DocumentPorts
  readonly #intake: Intake
  readonly #places = new Set<Place>()
  #head: DocumentHead | undefined
  #folding = false
  /** Whether it waits to be at rest. */
  #restless = false

  constructor(id: DocumentId, number: number, ports: DocumentPorts) {
    this.id = id
    this.number = number
    this.log = ports.log
    this.turns = ports.turns
    this.#ports = ports
    this.#intake = new Intake(this, ports)
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

  stateVector(): Uint8Array {
    return this.#intake.stateVector()
  }

  /** Whether nobody holds it and nothing of it is under way. */
  get unused(): boolean {
    return this.holders === 0 && this.#intake.empty && !this.#folding
  }

  /** About how much memory it takes, in bytes. */
  get weight(): number {
    return 4096 + 4 * (this.#head?.snapshot.admission.length ?? 0) + (this.#head?.tailBytes ?? 0)
  }

  /** Reads what is durable, and takes from there on. Rejects as `readHead` does. */
  async load(): Promise<void> {
    const { head, admission } = await readHead(this.log, this.id)
    if (this.broken) return
    this.#head = head
    this.#intake.begin(head, admission)
    this.#awaitRest()
  }

  push(push: Push): void {
    this.#intake.push(push)
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

  async refresh(): Promise<void> {
    const read = await this.log.head(this.id)
    this.#head = headOver(this.#known(), read)
    this.#intake.measure(this.#head)
  }

  release(): void {
    this.holders--
    this.rested()
  }

  // From the ledger

  committed(items: readonly Item[]): void {
    this.#intake.settle(items)
    const entries = items.filter(({ kind }) => kind === 'entry')
    if (entries.length > 0) {
      this.#head = headBehind(this.#known(), entries)
      this.#broadcast(entries)
    }
    // Behind the readers, whose own entries were answered in their place.
    for (const item of items) this.#intake.answer(item)
    if (entries.length > 0) {
      this.#consider(true)
      this.#awaitRest()
    }
    this.rested()
  }

  failed(items: readonly Item[], error: LogError): void {
    const { failure, message } = error
    if (failure !== 'full') this.#ports.report('the log refused a batch', { document: this.id, failure, reason: message })
    this.#intake.fail(items, error)
    this.load().catch((thrown: unknown) => this.unreadable(thrown))
  }

  // To its readers

  #broadcast(entries: readonly Item[]): void {
    this.recent.add(entries)
    if (this.#places.size === 0) return
    let messages: readonly Uint8Array[] | undefined
    const last = this.seq
    const tick: Tick = {
      first: (last - entries.length + 1) as Seq,
      last,
      entries,
      messages: () => (messages ??= encodeEntries(this, entries, this.#ports.limits.fragment)),
    }
    for (const place of this.#places) place.tick(tick)
  }

  left(place: Place): void {
    this.#places.delete(place)
  }

  unreadable(error: unknown): void {
    if (error instanceof LogError && error.failure === 'failed') {
      this.#ports.fatal(error)
      return
    }
    if (this.broken) return
    this.broken = true
    this.#ports.report('a document cannot be read from the log', {
      document: this.id,
      reason: error instanceof Error ? error.message : String(error),
    })
    this.#intake.close()
    for (const place of [...this.#places]) place.ended('internal', 'the relay cannot read this document from its log')
    this.rested()
  }

  // Its head

  #known(): DocumentHead {
    if (this.#head === undefined) throw new SyncError('internal', 'a document was used before it was loaded')
    return this.#head
  }

  /** Has the document looked at once nothing was added to it for a while: then a fold is in nobody's way, and whoever opens it next need not read its tail. */
  #awaitRest(): void {
    if (this.#restless) return
    this.#restless = true
    const { seq } = this
    this.#ports.clock.after(REST_MS, () => {
      this.#restless = false
      if (this.broken) return
      if (this.seq === seq) this.#consider(false)
      else this.#awaitRest()
    })
  }

  #consider(growing: boolean): void {
    if (this.#folding) return
    const folded = this.#ports.compactor?.consider(this.#known(), growing)
    if (folded === undefined) return
    this.#folding = true
    folded
      .then(() => this.refresh())
      .catch((error: unknown) => this.#ports.report('a document was not folded', { document: this.id, reason: String(error) }))
      .finally(() => {
        this.#folding = false
        this.rested()
      })
  }

  rested(): void {
    if (this.unused) this.#ports.idle(this)
  }
}
