/**
 * A reader's place in a document (step 6 of the path): from the log until it has caught up, then live, and from the log again when its socket is slow. No
 * entry is left out on any of these ways, because the place moves only with what was given.
 */
import type { DocumentId, Seq } from '@rejoin/shared'
import type { Entry, LogReader } from '../log/log.ts'
import type { Committed, Given, Reader, Subscription, Tick } from './attach.ts'

/** What a place needs to know of its document. */
export interface ReadDocument {
  readonly id: DocumentId
  readonly seq: Seq
  readonly log: LogReader
  readonly turns: Turns
  readonly recent: Recent
  /** Reading the log failed. */
  unreadable(error: unknown): void
  left(place: Place): void
}

/** A reader with more than this unsent is given nothing live, in bytes. */
const LIVE_BYTES = 4 * 1024 * 1024
/** A reader with more than this unsent is read nothing from the log for. */
export const CATCH_UP_BYTES: number = 1024 * 1024
/** One read of the log. */
const READ_BYTES = 256 * 1024

/** live: has everything and is given each tick. behind: is read for. stalled: waits for its socket. suspended: waits for `resume`. */
type PlaceState = 'live' | 'behind' | 'stalled' | 'suspended' | 'closed'

/** One subscription. */
export class Place implements Subscription {
  seq: Seq
  readonly #document: ReadDocument
  readonly #reader: Reader
  readonly #liveBytes: number
  #state: PlaceState = 'suspended'
  #reading = false

  constructor(document: ReadDocument, reader: Reader, after: Seq, liveBytes: number = LIVE_BYTES) {
    this.#document = document
    this.#reader = reader
    this.#liveBytes = liveBytes
    this.seq = after
  }

  /** Called by the document with each batch. */
  tick(tick: Tick): void {
    if (this.#state !== 'live') return
    if (this.#reader.buffered > this.#liveBytes) {
      this.#move('stalled')
      return
    }
    this.seq = tick.last
    this.#reader.tick(tick)
  }

  drained(): void {
    if (this.#state !== 'stalled') return
    this.#move('behind')
    this.#next()
  }

  suspend(after?: Seq): void {
    if (this.#state === 'closed') return
    if (after !== undefined) this.seq = after
    this.#move('suspended')
  }

  resume(after?: Seq): void {
    if (this.#state === 'closed') return
    if (after !== undefined) this.seq = after
    this.#move('behind')
    this.#next()
  }

  close(): void {
    if (this.#state === 'closed') return
    this.#move('closed')
    this.#document.left(this)
  }

  ended(...why: Parameters<Reader['ended']>): void {
    if (this.#state === 'closed') return
    this.close()
    this.#reader.ended(...why)
  }

  #next(): void {
    if (this.#state !== 'behind' || this.#reading) return
    const { recent, turns } = this.#document
    if (this.seq < this.#document.seq && this.#reader.buffered > CATCH_UP_BYTES) {
      this.#move('stalled')
      return
    }
    const rest = recent.after(this.seq)
    if (rest !== undefined && rest.length > 0) this.#give(rest)
    if (this.seq >= this.#document.seq) {
      this.#move('live')
      return
    }
    this.#reading = true
    turns.take((done) => {
      if (this.#state !== 'behind') {
        this.#reading = false
        done()
        return
      }
      const from = this.seq
      this.#document.log.read({ document: this.#document.id, after: from }, READ_BYTES).then(
        (read) => {
          done()
          this.#reading = false
          this.#took(from, read)
        },
        (error: unknown) => {
          done()
          this.#reading = false
          this.#document.unreadable(error)
        },
      )
    })
  }

  #took(from: Seq, read: readonly Entry[] | 'trimmed'): void {
    // Somebody moved or stopped the place while it was read for: what was read is not what follows it.
    if (this.#state !== 'behind' || this.seq !== from) {
      this.#next()
      return
    }
    if (read === 'trimmed') {
      this.#move('suspended')
      this.#reader.trimmed()
      return
    }
    // The log may be ahead of what the relay knows to be durable; those entries come with their tick.
    const given = read.filter(({ seq }) => seq <= this.#document.seq)
    if (given.length > 0) this.#give(given)
    else this.#document.unreadable(new Error(`the log has no entry ${from + 1}, its head is ${this.#document.seq}`))
    this.#next()
  }

  #give(entries: readonly Given[]): void {
    this.seq = entries.at(-1)?.seq ?? this.seq
    this.#reader.entries(entries)
  }

  #move(state: PlaceState): void {
    const waited = this.#state === 'behind'
    this.#state = state
    if (waited !== (state === 'behind')) this.#document.recent.wanted(state === 'behind')
  }
}

/** The newest entries of a document, kept only while somebody catches up: without them a reader of a busy document would read after the head for ever. */
export class Recent {
  #wanted = 0
  #entries: Committed[] = []
  #bytes = 0

  wanted(more: boolean): void {
    this.#wanted += more ? 1 : -1
    if (this.#wanted === 0) this.#clear()
  }

  add(entries: readonly Committed[]): void {
    if (this.#wanted === 0) return
    for (const entry of entries) {
      this.#entries.push(entry)
      this.#bytes += entry.update.length
    }
    // Too much to keep: the log has it.
    if (this.#bytes > READ_BYTES || this.#entries.length > 1000) this.#clear()
  }

  /** The entries behind `after`, when the first of them is here. */
  after(after: Seq): readonly Committed[] | undefined {
    const first = this.#entries[0]
    if (first === undefined || first.seq > after + 1) return undefined
    return this.#entries.slice(after + 1 - first.seq)
  }

  #clear(): void {
    this.#entries = []
    this.#bytes = 0
  }
}

/** A bounded number of reads of the log at a time, first come, first served. */
export interface Turns {
  take(run: (done: () => void) => void): void
}

/** At most `limit` at a time. */
export function createTurns(limit: number): Turns {
  const waiting: ((done: () => void) => void)[] = []
  let running = 0
  const next = (): void => {
    while (running < limit) {
      const run = waiting.shift()
      if (run === undefined) return
      running++
      run(done)
    }
  }
  const done = (): void => {
    running--
    next()
  }
  return {
    take(run) {
      waiting.push(run)
      next()
    },
  }
}
