/**
 * Which edits of each incarnation a document has (the table of PROTOCOL.md §5, in step 4): durable, or taken and under way to the log. Bounded: what was
 * not used lately is asked of the log again.
 */
import type { IncarnationId, Seq } from '@rejoin/shared'

/** What is known of one incarnation in one document. */
export interface Numbered {
  /** The last edit taken: durable or under way. */
  taken: number
  /** The last edit that is durable. */
  durable: number
  /** The seq that the ack of `durable` names. */
  seq: Seq
  /** Whether the log was asked. When it was not, `taken` is only a lower bound (`covers` of a state push). */
  known: boolean
  /** Whether the log is being asked. */
  asked: boolean
  /** Items under way that name it: it cannot be forgotten meanwhile. */
  underWay: number
  /** Used since the last look at it. */
  used: boolean
}

/** What a push lo..hi is, after the edits up to `taken`. */
export function placeOf({ taken }: Numbered, lo: number, hi: number): 'gap' | 'again' | 'next' {
  if (lo > taken + 1) return 'gap'
  return hi <= taken ? 'again' : 'next'
}

/** Incarnations remembered a document, as a count; more only while they are asked for or under way. */
const KEPT = 1000
/** Looks for one to forget, each time one is added. */
const LOOKS = 16
/** Incarnations of a document that the log may be asked for at a time. */
export const ASKED: number = 10_000

/** The incarnations of one document. */
export class Numbering {
  readonly #byIncarnation = new Map<IncarnationId, Numbered>()
  /** Where the next look is. */
  #hand: Iterator<[IncarnationId, Numbered], undefined> = this.#byIncarnation.entries()
  #asking = 0

  /** What is known of `incarnation`, when the log was asked. */
  get(incarnation: IncarnationId): Numbered | undefined {
    const numbered = this.#byIncarnation.get(incarnation)
    if (numbered === undefined || !numbered.known) return undefined
    numbered.used = true
    return numbered
  }

  /** Whether `incarnation` is known or being asked for, or may be. */
  mayAsk(incarnation: IncarnationId): boolean {
    if (this.#asking < ASKED) return true
    const numbered = this.#byIncarnation.get(incarnation)
    return numbered !== undefined && (numbered.known || numbered.asked)
  }

  /** Whether the log is to be asked for `incarnation` now; it is then being asked. */
  ask(incarnation: IncarnationId): boolean {
    const numbered = this.#at(incarnation)
    if (numbered.known || numbered.asked) return false
    numbered.asked = true
    this.#asking++
    return true
  }

  /** Takes what the log has found. */
  found(incarnation: IncarnationId, acked: { readonly n: number; readonly seq: Seq } | undefined): void {
    const numbered = this.#at(incarnation)
    if (numbered.asked) this.#asking--
    numbered.known = true
    numbered.asked = false
    if (acked === undefined || acked.n <= numbered.durable) return
    numbered.durable = acked.n
    numbered.seq = acked.seq
    numbered.taken = Math.max(numbered.taken, acked.n)
  }

  /** Edits up to `n` are under way to the log. */
  take(incarnation: IncarnationId, n: number): void {
    const numbered = this.#at(incarnation)
    numbered.taken = Math.max(numbered.taken, n)
    numbered.underWay++
  }

  /** Edits up to `n` are durable. */
  settle(incarnation: IncarnationId, n: number, seq: Seq): void {
    const numbered = this.#byIncarnation.get(incarnation)
    if (numbered === undefined) return
    numbered.underWay--
    if (n > numbered.durable) {
      numbered.durable = n
      numbered.seq = seq
    }
    if (!numbered.known && !numbered.asked && numbered.underWay === 0) this.#byIncarnation.delete(incarnation)
  }

  /** Forgets everything: what was under way did not reach the log. */
  clear(): void {
    this.#asking = 0
    this.#byIncarnation.clear()
  }

  get size(): number {
    return this.#byIncarnation.size
  }

  #at(incarnation: IncarnationId): Numbered {
    let numbered = this.#byIncarnation.get(incarnation)
    if (numbered === undefined) {
      this.#forget()
      numbered = { taken: 0, durable: 0, seq: 0 as Seq, known: false, asked: false, underWay: 0, used: true }
      this.#byIncarnation.set(incarnation, numbered)
    }
    return numbered
  }

  /**
   * Second chance, round and round: whoever was used since the last look stays. It looks at a few only, so that adding many costs each the same, and forgets two
   * where it can, so that what grew while all were in use shrinks again.
   */
  #forget(): void {
    let over = Math.min(2, this.#byIncarnation.size - KEPT + 1)
    for (let looks = LOOKS; over > 0 && looks > 0; looks--) {
      const { value: next } = this.#hand.next()
      if (next === undefined) {
        this.#hand = this.#byIncarnation.entries()
        continue
      }
      const [incarnation, numbered] = next
      if (numbered.underWay === 0 && !numbered.asked && !numbered.used) {
        this.#byIncarnation.delete(incarnation)
        over--
      }
      numbered.used = false
    }
  }
}
