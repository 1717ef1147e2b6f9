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
  /** The life that a document is in now; undefined when nobody ever wrote to it. */
  readonly lineage: (document: DocumentId) => Promise<Lineage | undefined>
  readonly clock: Clock
}

const MAX_SECONDS = 60
const DEFAULT_SECONDS = 30

/** 200 when everything of the receipt is in the sink, 202 when that took too long. Throws `SyncError` for what will not be told, and for documents that may not be read. */
export async function answerReceipt(c: Context, sink: string, { authorize, rungs, lineage, clock }: ReceiptParts): Promise<Response> {
  const grant = await authorize(authRequest(c))
  const { after = '', timeout = String(DEFAULT_SECONDS) } = c.req.query()
  if (!/^\d{1,2}$/u.test(timeout) || Number(timeout) > MAX_SECONDS)
    throw new SyncError('bad_option', `timeout is a whole number of seconds from 0 to ${MAX_SECONDS}`)
  const entries = [...decodeReceipt(after)]
  for (const [document, entry] of entries) {
    if (grant.admin !== true && accessOf(grant, document) === 'none')
      throw new SyncError('forbidden', `${grant.principal} may not read ${JSON.stringify(document)}`)
    const now = await lineage(document)
    if (now !== undefined && now !== entry.lineage)
      throw new SyncError('replaced', `${JSON.stringify(document)} was deleted or reset since this receipt was given`)
  }
  const signal = c.req.raw.signal
  const reached = await waitForAll(
    entries.map(([document, { seq }]) => ({ sink, document, seq })),
    { rungs, clock, signal, ms: Number(timeout) * 1000 },
  )
  return c.json({ reached }, reached ? 200 : 202, { 'Cache-Control': 'no-store' })
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
