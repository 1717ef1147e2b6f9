/**
 * Webhooks (step 8 of the path): every row or event as a signed POST in the form of Standard Webhooks, one on its way per key. What a receiver needs is in webhook-receive.ts.
 */
import { createHash, createHmac } from 'node:crypto'
import { SyncError } from '@rejoin/shared'
import type { Delivery, Refusal } from './delivery.ts'
import { deliverySink } from './delivery.ts'
import { messageOf } from './message.ts'
import type { OpenSink, SinkPlace, SinkRow, SinkSpec, SinkTraits } from './sink.ts'
import type { ForwardOptions } from './spec.ts'
import { sinkSpec } from './spec.ts'
import type { Answer, World } from './webhook-post.ts'
import { createPoster, platform } from './webhook-post.ts'
import { secretBytes } from './webhook-receive.ts'

const TRAITS: SinkTraits = { transactional: false, strategies: ['state', 'actions'], readable: false }
const NAMES = ['url', 'secret', 'headers', 'timeout', 'attempts', 'allowPrivate']

/** Who receives the messages, how they are signed, and how long an answer is waited for. Checked by `webhook()`, before anything is sent. */
export interface WebhookOptions extends ForwardOptions {
  /** http or https. Its host must be of the public internet unless `allowPrivate`. A redirect is never followed. */
  readonly url: string
  /** `whsec_<base64>` or any other text of at least 16 bytes. While it is being replaced, several: a message is signed with each. At most 8. */
  readonly secret: string | readonly string[] | undefined
  /** Sent with each message. @default none */
  readonly headers?: Readonly<Record<string, string>> | undefined
  /** Until the receiver has answered, in seconds. @default 15 */
  readonly timeout?: number | undefined
  /** After so many answers of 5xx in a row to one message it counts as refused. @default never: it is sent until it is taken */
  readonly attempts?: number | undefined
  /** Lets loopback, private and link-local addresses through. @default false */
  readonly allowPrivate?: boolean | undefined
}

/** A receiver of messages: `sinks: { crm: webhook({ url: 'https://example.org/hook', secret: process.env.HOOK_SECRET }) }`. 4 lanes unless said. Throws `SyncError('bad_option')`. */
export function webhook(options: WebhookOptions): SinkSpec {
  const own: Record<string, unknown> = Object.fromEntries(NAMES.map((name) => [name, options[name as keyof WebhookOptions]]))
  parse(own)
  const lanes = options.consistency === undefined || options.consistency === 'key' ? { lanes: 4 } : {}
  const defaults = { ...lanes, batch: { items: 100 } }
  const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined))
  return sinkSpec('webhook', import.meta.url, TRAITS, { ...defaults, ...given }, { options: own, names: NAMES })
}

/** Opens the sink, in the worker. */
export const openSink: OpenSink = async (options, context) => deliverySink(createWebhook(options), context)

interface Settings {
  readonly url: URL
  readonly secrets: readonly string[]
  readonly headers: Readonly<Record<string, string>>
  /** ms. */
  readonly timeout: number
  readonly attempts: number
  readonly allowPrivate: boolean
}

/** Longest pause that a receiver may ask for, in ms. */
const MAX_RETRY_AFTER = 300_000
/** 4xx that say something of the moment or of the whole endpoint, not of this message: they are tried again. */
const NOT_OF_THE_MESSAGE = [401, 403, 407, 408, 425, 429]
/** Confirmed messages remembered while a commit is not through, and messages whose 5xx are counted. */
const MAX_REMEMBERED = 100_000

/** The delivery. `world` for tests. */
export function createWebhook(options: Readonly<Record<string, unknown>>, world: World = platform): Delivery {
  const settings = parse(options)
  const { url, attempts } = settings
  const poster = createPoster(url, settings, world)
  const keys = settings.secrets.map(secretBytes)
  /** Taken by the receiver in a commit that is not through: it is not bothered again. */
  const taken = new Set<string>()
  const failures = new Map<string, number>()
  let pauseUntil = 0

  const send = async (row: SinkRow, to: SinkPlace, force: boolean, signal: AbortSignal): Promise<Refusal | undefined> => {
    const message = messageOf(row, to)
    if (taken.has(message.id) && !force) return undefined
    const body = Buffer.from(JSON.stringify(message))
    const id = `msg_${createHash('sha256').update(message.id).digest('hex').slice(0, 32)}`
    await pauseTo(world, pauseUntil, signal)
    const answer = await poster.post({ ...settings.headers, ...sign(id, world.clock.now(), body, keys) }, body, signal)
    const { status } = answer
    const failed = status < 500 ? 0 : (failures.get(message.id) ?? 0) + 1
    failures.delete(message.id)
    if (status >= 200 && status < 300) {
      if (taken.size < MAX_REMEMBERED) taken.add(message.id)
      return undefined
    }
    const reason = `${status}${words(answer.excerpt, settings)}`
    if (failed >= attempts || (status >= 400 && status < 500 && !NOT_OF_THE_MESSAGE.includes(status))) return { row, reason }
    if (failed > 0 && failures.size < MAX_REMEMBERED) failures.set(message.id, failed)
    pauseUntil = Math.max(pauseUntil, Math.min(answer.retryAt ?? 0, world.clock.now() + MAX_RETRY_AFTER))
    throw notTaken(url, answer, reason)
  }
  return {
    begin: async () => ({}),
    deliver: async (rows, { to, force = false }, signal) => {
      const refused: Refusal[] = []
      for (const row of rows) {
        const refusal = await send(row, to, force, signal)
        if (refusal !== undefined) refused.push(refusal)
      }
      return refused
    },
    moved: async () => taken.clear(),
    close: async () => poster.close(),
  }
}

function sign(id: string, now: number, body: Buffer, keys: readonly Uint8Array[]): Readonly<Record<string, string>> {
  const timestamp = Math.floor(now / 1000)
  const signature = (key: Uint8Array): string =>
    `v1,${createHmac('sha256', key).update(`${id}.${timestamp}.`).update(body).digest('base64')}`
  return {
    'content-type': 'application/json',
    'user-agent': 'rejoin-webhook/1',
    'webhook-id': id,
    'webhook-timestamp': `${timestamp}`,
    'webhook-signature': keys.map(signature).join(' '),
  }
}

function notTaken({ origin }: URL, { status }: Answer, reason: string): SyncError {
  if (status >= 300 && status < 400)
    return new SyncError('bad_option', `${origin} answered with a redirect (${status}), which is not followed; write the final URL`)
  if (status === 401 || status === 403 || status === 407) return new SyncError('bad_option', `${origin} does not let us in: ${reason}`)
  return new SyncError('overloaded', `${origin} did not take the message: ${reason}`)
}

/** What the receiver said, without what it may have repeated of ours. */
function words(excerpt: string, { secrets, headers }: Settings): string {
  if (excerpt === '') return ''
  const hidden = [...secrets, ...secrets.map((secret) => secret.replace(/^whsec_/u, '')), ...Object.values(headers)].filter(
    (each) => each !== '',
  )
  return `: ${hidden.reduce((text, each) => text.replaceAll(each, '•••'), excerpt)}`
}

/** Waits until the clock says `at`. */
function pauseTo({ clock }: World, at: number, signal: AbortSignal): Promise<void> {
  const ms = at - clock.now()
  if (ms <= 0) return Promise.resolve()
  return new Promise((resolve, reject) => {
    const stop = clock.after(Math.min(ms, MAX_RETRY_AFTER), () => {
      signal.removeEventListener('abort', abort)
      resolve()
    })
    const abort = (): void => {
      stop()
      reject(new SyncError('aborted', 'the delivery was given up while it waited for the receiver'))
    }
    signal.addEventListener('abort', abort, { once: true })
    if (signal.aborted) abort()
  })
}

function parse({
  url,
  secret,
  headers = {},
  timeout = 15,
  attempts = Number.POSITIVE_INFINITY,
  allowPrivate = false,
}: Readonly<Record<string, unknown>>): Settings {
  return {
    url: urlOf(url),
    secrets: secretsOf(secret),
    headers: headersOf(headers),
    timeout: positive('timeout', timeout) * 1000,
    attempts: positive('attempts', attempts),
    allowPrivate: allowPrivate === true,
  }
}

function urlOf(url: unknown): URL {
  if (typeof url !== 'string' || !URL.canParse(url)) refuse('url is a whole URL, such as https://example.org/hook')
  const parsed = new URL(url)
  if (parsed.protocol !== 'https:' && parsed.protocol !== 'http:') refuse(`url begins with https:// or http://, not ${parsed.protocol}`)
  if (parsed.username !== '' || parsed.password !== '') refuse('url holds a user name or password; send them in headers: { authorization }')
  return parsed
}

function secretsOf(secret: unknown): readonly string[] {
  const secrets: readonly unknown[] = Array.isArray(secret) ? secret : [secret]
  if (secrets.length < 1 || secrets.length > 8) refuse('secret is one secret, or up to 8')
  return secrets.map((each) => {
    if (typeof each !== 'string') refuse('secret is missing; write whsec_… or a text of at least 16 bytes')
    let length = 0
    try {
      length = secretBytes(each).length
    } catch {
      refuse('secret begins with whsec_ and is not base64')
    }
    if (length < 16) refuse('secret has less than 16 bytes, which can be guessed')
    return each
  })
}

const OURS = ['content-type', 'content-length', 'user-agent', 'host', 'connection', 'transfer-encoding', 'expect']

function headersOf(headers: unknown): Readonly<Record<string, string>> {
  if (typeof headers !== 'object' || headers === null) refuse('headers is an object of texts')
  return Object.fromEntries(
    Object.entries(headers).map(([name, value]: [string, unknown]) => {
      const lower = name.toLowerCase()
      if (!/^[a-z0-9!#$%&'*+.^_`|~-]+$/u.test(lower)) refuse(`headers: ${JSON.stringify(name)} is not a header's name`)
      if (OURS.includes(lower) || lower.startsWith('webhook-')) refuse(`headers: ${name} is set by the sink itself`)
      // What it holds is not repeated: it may be a secret.
      if (typeof value !== 'string' || !/^[\t\x20-\x7e]*$/u.test(value)) refuse(`headers: ${name} is a text of visible ASCII`)
      return [lower, value]
    }),
  )
}

function positive(name: string, value: unknown): number {
  if (typeof value !== 'number' || !(value > 0)) refuse(`${name} is a number above 0; this is ${JSON.stringify(value)}`)
  return value
}

function refuse(problem: string): never {
  throw new SyncError('bad_option', `webhook(): ${problem}`)
}
