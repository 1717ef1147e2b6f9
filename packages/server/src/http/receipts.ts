/**
 * `GET /v1/sinks/<name>?after=<receipt>`: a backend waits until a sink has what a user has just written.
 */
import type { Context } from 'hono'
import type { Clock, DocumentId, Lineage, Seq } from '@rejoin/shared'
import { SyncError } from '@rejoin/shared'
import { decodeReceipt } from '@rejoin/shared/receipts'
import type { AuthRequest, Grant } from '../relay/grant.ts'
import { accessOf } from '../relay/grant.ts'
import type { Rungs } from '../relay/rungs.ts'
import { authRequest } from './answer.ts'

/** What waiting needs. */
export interface ReceiptParts {
  readonly authorize: (request: AuthRequest) => Promise<Grant>
  readonly rungs: Rungs
  /** Where a document stands; undefined when nobody ever wrote to it. */
  readonly head: (document: DocumentId) => Promise<{ readonly lineage: Lineage; readonly seq: Seq } | undefined>
  readonly clock: Clock
}

const MAX_SECONDS = 60
/** Documents of one receipt that are waited for, requests of one principal that wait, and of all. */
const MAX_DOCUMENTS = 100
const MAX_OF_ONE = 100
const MAX_WAITING = 2_000
const DEFAULT_SECONDS = 30

/** 200 when everything of the receipt is in the sink, 202 when that took too long. Throws `SyncError` for what will not be told, and for documents that may not be read. */
export async function answerReceipt(
  c: Context,
  sink: string,
  { authorize, rungs, head, clock }: ReceiptParts,
  gate: ReceiptGate,
): Promise<Response> {
  const grant = await authorize(authRequest(c))
  const { after = '', timeout = String(DEFAULT_SECONDS) } = c.req.query()
  if (!/^\d{1,2}$/u.test(timeout) || Number(timeout) > MAX_SECONDS)
    throw new SyncError('bad_option', `timeout is a whole number of seconds from 0 to ${MAX_SECONDS}`)
  const entries = [...decodeReceipt(after)]
  if (entries.length > MAX_DOCUMENTS)
    throw new SyncError(
      'bad_option',
      `a receipt that is waited for names at most ${MAX_DOCUMENTS} documents; this one has ${entries.length}`,
    )
  for (const [document, entry] of entries) {
    if (grant.admin !== true && accessOf(grant, document) === 'none')
      throw new SyncError('forbidden', `${grant.principal} may not read ${JSON.stringify(document)}`)
    const now = await head(document)
    // What will never be is not waited for.
    if (now === undefined || (now.lineage === entry.lineage && now.seq < entry.seq))
      throw new SyncError('not_found', `${JSON.stringify(document)} has no entry ${entry.seq}`)
    if (now.lineage !== entry.lineage)
      throw new SyncError('replaced', `${JSON.stringify(document)} was deleted or reset since this receipt was given`)
  }
  const leave = gate.enter(grant.principal)
  try {
    const reached = await waitForAll(
      entries.map(([document, { seq }]) => ({ sink, document, seq })),
      { rungs, clock, signal: c.req.raw.signal, ms: Number(timeout) * 1000 },
    )
    return c.json({ reached }, reached ? 200 : 202, { 'Cache-Control': 'no-store' })
  } finally {
    leave()
  }
}

/** Counts requests that wait, of one principal and of all. */
export interface ReceiptGate {
  /** Throws `too_many`. Returns what ends the wait. */
  enter(principal: string): () => void
}

export function createReceiptGate(): ReceiptGate {
  const waiting = new Map<string, number>()
  let all = 0
  return {
    enter(principal) {
      const own = waiting.get(principal) ?? 0
      if (own >= MAX_OF_ONE || all >= MAX_WAITING)
        throw new SyncError('too_many', `${all} requests wait already, ${own} of them of ${principal}`)
      waiting.set(principal, own + 1)
      all++
      return () => {
        const left = (waiting.get(principal) ?? 1) - 1
        if (left > 0) waiting.set(principal, left)
        else waiting.delete(principal)
        all--
      }
    },
  }
}

/** Resolves to false after `ms`, or when nobody listens any more. */
function waitForAll(
  entries: readonly { readonly sink: string; readonly document: DocumentId; readonly seq: Seq }[],
  { rungs, clock, signal, ms }: { readonly rungs: Rungs; readonly clock: Clock; readonly signal: AbortSignal; readonly ms: number },
): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const ends: (() => void)[] = []
    let left = entries.length
    const settle = (run: () => void): void => {
      for (const end of ends) end()
      run()
    }
    const stop = (): void => settle(() => resolve(false))
    ends.push(clock.after(ms, stop), () => signal.removeEventListener('abort', stop))
    signal.addEventListener('abort', stop, { once: true })
    if (left === 0) settle(() => resolve(true))
    for (const entry of entries) {
      ends.push(
        rungs.wait(entry, (code, message) => {
          if (code !== 'ok') settle(() => reject(new SyncError(code, message)))
          else if (--left === 0) settle(() => resolve(true))
        }),
      )
    }
  })
}
