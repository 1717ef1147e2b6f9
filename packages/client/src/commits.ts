/**
 * One document's way into the device's store (step 2 of the path): commits in the order made, several in one transaction while an earlier one is under way, tried again when the store fails.
 */
import { backoff, toSyncError } from '@rejoin/shared'
import type { Clock, IncarnationId, Random, SyncError } from '@rejoin/shared'
import type { Commit, DocumentStore, OutboxRow } from './stores/store.ts'

export interface CommitsListener {
  /** These rows are in the store. */
  committed(rows: readonly OutboxRow[]): void
  /** These rows are not, for now: they go to the relay all the same, from memory. Told once a row. */
  uncommitted(rows: readonly OutboxRow[], error: SyncError): void
  /** The store took a commit after it had failed. */
  recovered(): void
}

/** A transaction is cut here, so that a long backlog does not become one huge transaction. Bytes. */
const TRANSACTION_BYTES = 8 * 1024 * 1024

export class Commits {
  readonly #clock: Clock
  readonly #random: Random
  readonly #listener: CommitsListener
  #store: DocumentStore | undefined
  #queue: Commit[] = []
  #running: Promise<void> | undefined
  #broken: SyncError | undefined
  #attempt = 0
  #cancel: (() => void) | undefined
  #told = new WeakSet<OutboxRow>()

  constructor(clock: Clock, random: Random, listener: CommitsListener) {
    this.#clock = clock
    this.#random = random
    this.#listener = listener
  }

  /** From here on what was and will be added is committed. */
  attach(store: DocumentStore): void {
    this.#store = store
    this.#go()
  }

  /** There will be no store: what was and will be added stays in memory. */
  abandon(error: SyncError): void {
    this.#store = undefined
    this.#broken = error
    const rows = this.#queue.flatMap((commit) => commit.put ?? [])
    this.#queue = []
    if (rows.length > 0) this.#listener.uncommitted(rows, error)
  }

  add(commit: Commit): void {
    if (this.#store === undefined && this.#broken !== undefined) {
      if (commit.put !== undefined) this.#listener.uncommitted(commit.put, this.#broken)
      return
    }
    this.#queue.push(commit)
    if (this.#broken !== undefined) this.#tell(this.#broken)
    this.#go()
  }

  /** Resolves when all that was added is committed, or has failed for now. */
  async settled(): Promise<void> {
    while (this.#running !== undefined) await this.#running
  }

  /** Makes one more attempt if the store had failed, then stops trying. */
  async close(): Promise<void> {
    this.#giveUpWaiting()
    this.#go()
    await this.settled()
    this.#giveUpWaiting()
    this.#store = undefined
  }

  #giveUpWaiting(): void {
    this.#cancel?.()
    this.#cancel = undefined
  }

  #go(): void {
    if (this.#running !== undefined || this.#cancel !== undefined || this.#store === undefined || this.#queue.length === 0) return
    const run = this.#run(this.#store)
    this.#running = run
  }

  async #run(store: DocumentStore): Promise<void> {
    // What is added in the same synchronous step becomes one transaction.
    await Promise.resolve()
    while (this.#queue.length > 0 && this.#cancel === undefined) {
      const parts = this.#takeParts()
      const commit = mergeCommits(parts)
      try {
        await store.commit(commit)
      } catch (error) {
        this.#queue.unshift(...parts)
        this.#failed(toSyncError(error, 'store_failed'))
        break
      }
      if (this.#broken !== undefined) {
        this.#broken = undefined
        this.#attempt = 0
        this.#listener.recovered()
      }
      if (commit.put !== undefined && commit.put.length > 0) this.#listener.committed(commit.put)
    }
    this.#running = undefined
  }

  #takeParts(): Commit[] {
    let bytes = 0
    const end = this.#queue.findIndex((commit) => (bytes += sizeOf(commit)) > TRANSACTION_BYTES)
    return this.#queue.splice(0, end < 0 ? this.#queue.length : Math.max(1, end))
  }

  #failed(error: SyncError): void {
    this.#broken = error
    this.#cancel = this.#clock.after(1000 + backoff(this.#attempt, this.#random, { first: 1000, cap: 60_000 }), () => {
      this.#cancel = undefined
      this.#go()
    })
    this.#attempt += 1
    this.#tell(error)
  }

  #tell(error: SyncError): void {
    const rows = this.#queue.flatMap((commit) => commit.put ?? []).filter((row) => row.refused === undefined && !this.#told.has(row))
    for (const row of rows) this.#told.add(row)
    this.#listener.uncommitted(rows, error)
  }
}

/** Several commits, in order, as one. */
export function mergeCommits(parts: readonly Commit[]): Commit {
  const [only] = parts
  if (parts.length === 1 && only !== undefined) return only
  const acked = new Map<IncarnationId, number>()
  const put = new Map<string, OutboxRow>()
  for (const part of parts) {
    for (const row of part.put ?? []) put.set(`${row.incarnation}/${row.n}`, row)
    for (const { incarnation, through } of part.acked ?? []) acked.set(incarnation, Math.max(through, acked.get(incarnation) ?? 0))
  }
  return {
    updates: parts.flatMap(({ updates }) => updates ?? []),
    // The store applies `acked` behind `put`: a row that was acknowledged before it could be stored never gets there.
    put: [...put.values()],
    acked: [...acked].map(([incarnation, through]) => ({ incarnation, through })),
    relayUpdates: parts.flatMap(({ relayUpdates }) => relayUpdates ?? []),
    cursor: parts.findLast(({ cursor }) => cursor !== undefined)?.cursor,
  }
}

function sizeOf({ updates = [], put = [], relayUpdates = [] }: Commit): number {
  const all = [...updates, ...relayUpdates, ...put.map(({ update }) => update)]
  return all.reduce((sum, { length }) => sum + length, 256)
}
