/**
 * Who waits for edits to reach a sink, a store behind the relay (step 8 of the path, as applications see it): asked on every socket anew, answered once.
 */
import { SyncError } from '@rejoin/shared'
import type { Seq } from '@rejoin/shared'
import type { ClientFrame, ReachedFrame } from '@rejoin/shared/wire'
import { abortable } from './waits.ts'

interface Waiter<Member> {
  readonly member: Member
  readonly sink: string
  readonly seq: Seq
  readonly resolve: () => void
  readonly reject: (error: SyncError) => void
}

type Await = Omit<Extract<ClientFrame, { readonly type: 'await' }>, 'handle'>

/** The waits of one connection. `send` answers false while the document is not open. */
export class SinkWaits<Member> {
  readonly #send: (member: Member, frame: Await) => boolean
  readonly #waiters = new Map<number, Waiter<Member>>()
  #lastRef = 0

  constructor(send: (member: Member, frame: Await) => boolean) {
    this.#send = send
  }

  /** Resolves when everything up to the entry is in the sink. Rejects with `sink_parked`, `sink_paused`, `not_found`, `aborted` … */
  wait(member: Member, sink: string, seq: Seq, signal: AbortSignal | undefined): Promise<void> {
    return abortable<void>(signal, (resolve, reject) => {
      this.#lastRef += 1
      const ref = this.#lastRef
      const waiter = { member, sink, seq, resolve, reject }
      this.#waiters.set(ref, waiter)
      this.#ask(ref, waiter)
      return () => {
        this.#waiters.delete(ref)
      }
    })
  }

  /** The document is open on a socket: what was asked on an earlier one was forgotten with it. */
  opened(member: Member): void {
    for (const [ref, waiter] of this.#waiters) if (waiter.member === member) this.#ask(ref, waiter)
  }

  answered({ ref, code, message }: ReachedFrame): void {
    const waiter = this.#waiters.get(ref)
    this.#waiters.delete(ref)
    if (code === 'ok') waiter?.resolve()
    else waiter?.reject(new SyncError(code, message))
  }

  /** The document is given up. */
  ended(member: Member, error: SyncError): void {
    for (const [ref, waiter] of this.#waiters) {
      if (waiter.member !== member) continue
      this.#waiters.delete(ref)
      waiter.reject(error)
    }
  }

  #ask(ref: number, { member, sink, seq }: Waiter<Member>): void {
    this.#send(member, { type: 'await', ref, seq, sink })
  }
}
