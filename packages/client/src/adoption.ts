/**
 * Rows of incarnations that are not ours (step 2 of the path): counted while another tab holds them, sent by this one when that tab is gone.
 */
import type { IncarnationId } from '@rejoin/shared'
import type { Outbox } from './outbox.ts'
import type { DocumentStore, OutboxRow } from './stores/store.ts'

export interface AdoptionListener {
  /** These rows are in our outbox from now on. */
  adopted(rows: readonly OutboxRow[]): void
  changed(): void
  /** The store could not be read. */
  trouble(thrown: unknown): void
}

export class Adoption {
  readonly #store: DocumentStore
  readonly #outbox: Outbox
  readonly #signal: AbortSignal
  readonly #listener: AdoptionListener
  /** Incarnation → rows that wait, while another tab holds it. */
  #others = new Map<IncarnationId, number>()
  /** Incarnations that we hold, with the release, or wait to hold. */
  readonly #held = new Map<IncarnationId, (() => void) | undefined>()
  #reading = false
  #stale = false

  constructor(store: DocumentStore, outbox: Outbox, signal: AbortSignal, listener: AdoptionListener) {
    this.#store = store
    this.#outbox = outbox
    this.#signal = signal
    this.#listener = listener
  }

  /** Rows that wait in the outboxes of other tabs. */
  get elsewhere(): number {
    let sum = 0
    for (const rows of this.#others.values()) sum += rows
    return sum
  }

  /** Takes note of the document's rows. */
  count(rows: readonly OutboxRow[]): void {
    const others = new Map<IncarnationId, number>()
    for (const { incarnation, refused } of rows) {
      if (this.#outbox.has(incarnation)) continue
      others.set(incarnation, (others.get(incarnation) ?? 0) + (refused === undefined ? 1 : 0))
    }
    this.#others = others
  }

  /** Takes note of the document's rows; those that nobody holds become ours. */
  meet(rows: readonly OutboxRow[]): void {
    this.count(rows)
    for (const incarnation of this.#others.keys()) if (!this.#held.has(incarnation)) void this.#adopt(incarnation)
    this.#listener.changed()
  }

  /** Another tab changed its outbox: reads it again, and once more when something changed meanwhile. */
  reread(): void {
    this.#stale = true
    if (!this.#reading) void this.#read()
  }

  /** Lets go of an incarnation whose rows are all acknowledged. */
  release(incarnation: IncarnationId): void {
    const release = this.#held.get(incarnation)
    if (release === undefined || !this.#outbox.isEmpty(incarnation)) return
    this.#outbox.dismiss(incarnation)
    this.#held.delete(incarnation)
    release()
  }

  async #adopt(incarnation: IncarnationId): Promise<void> {
    this.#held.set(incarnation, undefined)
    let release: (() => void) | undefined
    try {
      release = await this.#store.hold(incarnation, this.#signal)
      const rows = (await this.#store.outbox()).filter((row) => row.incarnation === incarnation)
      const [first] = rows
      this.#others.delete(incarnation)
      if (first === undefined || this.#signal.aborted) {
        this.#held.delete(incarnation)
        release()
      } else {
        this.#held.set(incarnation, release)
        this.#outbox.admit(incarnation, false, first.n - 1)
        this.#outbox.add(incarnation, rows)
        this.#listener.adopted(rows)
      }
      this.#listener.changed()
    } catch (thrown) {
      this.#held.delete(incarnation)
      // Held without being sent, its edits would wait for as long as this tab lives.
      release?.()
      this.#listener.trouble(thrown)
    }
  }

  async #read(): Promise<void> {
    this.#reading = true
    while (this.#stale && !this.#signal.aborted) {
      this.#stale = false
      try {
        this.meet(await this.#store.outbox())
      } catch (thrown) {
        this.#listener.trouble(thrown)
      }
    }
    this.#reading = false
  }
}
