/**
 * Group commit (between steps 4 and 5): what all documents admitted while the log was busy becomes its next transaction. One is under way at a time.
 */
import type { ChainHash, Seq } from '@rejoin/shared'
import type { Append, Appended, Log } from '../log/log.ts'
import { LogError } from '../log/log.ts'
import type { Committed, Nack, Push } from './attach.ts'

/** One push on its way to an answer. Those without `append` only wait for what is before them. */
export interface Item extends Committed {
  readonly document: LedgerDocument
  readonly push: Push
  /** entry: becomes the entry `seq`. nothing: moves acked only. again: is acknowledged again. refused: is answered with `nack`. */
  readonly kind: 'entry' | 'nothing' | 'again' | 'refused'
  readonly seq: Seq
  /** Set when it is durable. */
  hash: ChainHash
  readonly update: Uint8Array
  readonly append: Append | undefined
  readonly nack: Nack | undefined
}

/** What the ledger tells a document, synchronously, in the order of its items. */
export interface LedgerDocument {
  /** All of these are durable. */
  committed(items: readonly Item[]): void
  /** None of these is durable; `items` are all of the document that were under way. */
  failed(items: readonly Item[], error: LogError): void
}

/** The batches of one relay. */
export interface Ledger {
  add(item: Item): void
  /** Items that were given and not answered. */
  readonly waiting: number
  /** Calls `then` once nothing waits. */
  whenIdle(then: () => void): void
  /** Tells nobody anything more. */
  stop(): void
  readonly stats: LedgerStats
}

/** Counted since the start. */
export interface LedgerStats {
  batches: number
  items: number
}

/** What a ledger needs. */
export interface LedgerPorts {
  readonly log: Log
  /** Runs a little later, after the input that is at hand: what arrives until then shares the first batch. */
  readonly defer: (run: () => void) => void
  /** A durability barrier failed, or our own code did: nothing may be told any more. */
  readonly fatal: (error: unknown) => void
  /** After each batch, when all documents have been told. */
  readonly settled: () => void
}

/** A batch ends at this many items or bytes of updates, whichever comes first. */
const BATCH_ITEMS = 10_000
const BATCH_BYTES = 8 * 1024 * 1024

/** A ledger before `log`. */
export function createLedger({ log, defer, fatal, settled }: LedgerPorts): Ledger {
  let pending: Item[] = []
  let waiting = 0
  let state: 'idle' | 'scheduled' | 'busy' | 'stopped' = 'idle'
  let idle: (() => void)[] = []
  const stats: LedgerStats = { batches: 0, items: 0 }

  function next(): void {
    if (state === 'stopped') return
    if (pending.length === 0) {
      state = 'idle'
      const told = idle
      idle = []
      for (const then of told) then()
      return
    }
    state = 'busy'
    const batch = cut()
    if (!append(batch)) settle(batch, [])
  }

  /** Gives the batch to the log, unless there is nothing in it for the log. */
  function append(batch: readonly Item[]): boolean {
    const appends: Append[] = []
    for (const item of batch) if (item.append !== undefined) appends.push(item.append)
    if (appends.length === 0) return false
    log.append(appends).then(
      (appended) => settle(batch, appended),
      (error: unknown) => fail(batch, error),
    )
    return true
  }

  function cut(): Item[] {
    let bytes = 0
    let end = 0
    for (; end < pending.length && end < BATCH_ITEMS; end++) {
      bytes += pending[end]?.update.length ?? 0
      if (bytes > BATCH_BYTES && end > 0) break
    }
    if (end === pending.length) {
      const batch = pending
      pending = []
      return batch
    }
    return pending.splice(0, end)
  }

  function settle(batch: readonly Item[], appended: readonly Appended[]): void {
    if (state === 'stopped') return
    // The log has the next batch before anybody is told of this one: it would wait for a thousand answers otherwise.
    const following = pending.length > 0 ? cut() : []
    const under = append(following)
    attempt(() => {
      stats.batches++
      stats.items += batch.length
      let at = 0
      for (const item of batch) {
        if (item.append === undefined) continue
        const result = appended[at++]
        if (result === undefined) throw new LogError('failed', `the log answered ${appended.length} appends of more`)
        item.hash = result.hash
      }
      for (const [document, items] of byDocument(batch)) {
        waiting -= items.length
        document.committed(items)
      }
    })
    if (under) return
    if (following.length > 0) settle(following, [])
    else next()
  }

  function fail(batch: readonly Item[], thrown: unknown): void {
    if (state === 'stopped') return
    if (!(thrown instanceof LogError) || thrown.failure === 'failed') {
      stop(thrown)
      return
    }
    attempt(() => {
      const failed = byDocument(batch)
      // What these documents admitted since then stands on what did not come to be.
      const kept: Item[] = []
      for (const item of pending) (failed.get(item.document) ?? kept).push(item)
      pending = kept
      for (const [document, items] of failed) {
        waiting -= items.length
        document.failed(items, thrown)
      }
    })
    next()
  }

  function attempt(tell: () => void): void {
    try {
      tell()
    } catch (error) {
      stop(error)
      return
    }
    settled()
  }

  function stop(error: unknown): void {
    state = 'stopped'
    fatal(error)
  }

  return {
    stats,
    get waiting() {
      return waiting
    },
    add(item) {
      waiting++
      pending.push(item)
      if (state !== 'idle') return
      state = 'scheduled'
      defer(next)
    },
    whenIdle(then) {
      if (state === 'idle') then()
      else idle.push(then)
    },
    stop() {
      state = 'stopped'
    },
  }
}

function byDocument(batch: readonly Item[]): Map<LedgerDocument, Item[]> {
  const documents = new Map<LedgerDocument, Item[]>()
  for (const item of batch) {
    const items = documents.get(item.document)
    if (items === undefined) documents.set(item.document, [item])
    else items.push(item)
  }
  return documents
}
