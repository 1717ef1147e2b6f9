/**
 * The receiver's end of a webhook, `@rejoin/server/webhook`: is it from us, and is it newer than what is stored. No dependency, nothing of Node: it runs wherever there is WebCrypto.
 *
 * The scheme is Standard Webhooks (https://www.standardwebhooks.com), version v1: HMAC-SHA256 over `<webhook-id>.<webhook-timestamp>.<body>`.
 */
import type { Message } from './message.ts'

/** What stands in the body of a webhook. */
export type WebhookMessage = Message

/** A request as it came, and what it is checked against. Times in seconds, except `now`. */
export interface VerifyOptions {
  /** The secret, as `whsec_<base64>` or any other text; several while one is being replaced. */
  readonly secret: string | readonly string[]
  /** Of the request: a `Headers`, or an object of lower-case names as Node has it. */
  readonly headers: { get(name: string): string | null } | Readonly<Record<string, string | readonly string[] | undefined>>
  /** The body exactly as it came, before any parsing. */
  readonly body: string | Uint8Array
  /** How old, or early, the timestamp may be, in seconds: what is older may be a replay of a stranger. @default 300 */
  readonly tolerance?: number | undefined
  /** Now, in ms since 1970. @default Date.now() */
  readonly now?: number | undefined
}

/** 'verified': the message and its id, the same each time it is sent, by which a repeat is known. 'refused': why, for a log; to the sender say only 401. */
export type Verified =
  | { readonly type: 'verified'; readonly id: string; readonly message: WebhookMessage }
  | { readonly type: 'refused'; readonly reason: string }

/** Whether the request was made by somebody who knows the secret, just now; and what it says. Answer 401 where it is refused. */
export async function verifyWebhook({ secret, headers, body, tolerance = 300, now = Date.now() }: VerifyOptions): Promise<Verified> {
  const id = headerOf(headers, 'webhook-id')
  const timestamp = headerOf(headers, 'webhook-timestamp')
  const signatures = headerOf(headers, 'webhook-signature')
  if (id === undefined || timestamp === undefined || signatures === undefined) return refused('a header of the three is missing')
  if (!/^\d{1,12}$/u.test(timestamp)) return refused('the timestamp is not in seconds')
  if (Math.abs(now / 1000 - Number(timestamp)) > tolerance) return refused(`the timestamp is more than ${tolerance} s away`)
  const bytes = typeof body === 'string' ? new TextEncoder().encode(body) : body
  const signed = concat(new TextEncoder().encode(`${id}.${timestamp}.`), bytes)
  const given = signatures
    .split(' ', MAX_SIGNATURES)
    .flatMap((signature) => (signature.startsWith('v1,') ? [fromBase64(signature.slice(3))] : []))
  for (const each of typeof secret === 'string' ? [secret] : secret) {
    const key = await crypto.subtle.importKey('raw', secretBytes(each), { name: 'HMAC', hash: 'SHA-256' }, false, ['verify'])
    for (const signature of given) {
      // Compares in constant time.
      if (signature === undefined || !(await crypto.subtle.verify('HMAC', key, signature, signed))) continue
      return { type: 'verified', id, message: JSON.parse(new TextDecoder().decode(bytes)) as WebhookMessage }
    }
  }
  return refused('no signature fits')
}

/**
 * Whether `incoming` is newer than what is stored of its record: messages may come twice, and late after a timeout. Store the version beside the record, also of records that are gone.
 * `stored` is the version, or what has one; null or undefined when nothing was ever stored.
 */
export function isNewer(stored: number | { readonly version: number } | null | undefined, incoming: { readonly version: number }): boolean {
  if (stored === undefined || stored === null) return true
  return incoming.version > (typeof stored === 'number' ? stored : stored.version)
}

/** The key's bytes. Throws a TypeError when there are none; never says what the secret is. */
export function secretBytes(secret: string): Uint8Array<ArrayBuffer> {
  const bytes = secret.startsWith(PREFIX) ? fromBase64(secret.slice(PREFIX.length)) : new TextEncoder().encode(secret)
  if (bytes === undefined || bytes.length === 0) throw new TypeError('the secret is empty, or begins with whsec_ and is not base64')
  return bytes
}

const PREFIX = 'whsec_'
const MAX_SIGNATURES = 16

function refused(reason: string): Verified {
  return { type: 'refused', reason }
}

function headerOf(headers: VerifyOptions['headers'], name: string): string | undefined {
  if (typeof headers.get === 'function') return headers.get(name) ?? undefined
  const value = (headers as Readonly<Record<string, string | readonly string[] | undefined>>)[name]
  return typeof value === 'string' ? value : undefined
}

function fromBase64(text: string): Uint8Array<ArrayBuffer> | undefined {
  try {
    return Uint8Array.from(atob(text), (char) => char.charCodeAt(0))
  } catch {
    return undefined
  }
}

function concat(a: Uint8Array, b: Uint8Array): Uint8Array<ArrayBuffer> {
  const both = new Uint8Array(a.length + b.length)
  both.set(a)
  both.set(b, a.length)
  return both
}
