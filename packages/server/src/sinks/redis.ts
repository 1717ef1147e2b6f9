/**
 * Redis (step 8 of the path): rows as hashes or JSON texts that can be proved, events in streams, or caches that are invalidated when what they hold has changed.
 */
import type { Clock } from '@rejoin/shared'
import { SyncError, systemClock } from '@rejoin/shared'
import type { Delivery } from './delivery.ts'
import { deliverySink } from './delivery.ts'
import type { CursorContext } from './redis-link.ts'
import { connectRedis } from './redis-link.ts'
import { createRedisInvalidation, createRedisStream } from './redis-messages.ts'
import { STAMP, createRedisRows } from './redis-rows.ts'
import type { OpenSink, SinkContext, SinkSpec, SinkTraits } from './sink.ts'
import type { ForwardOptions } from './spec.ts'
import { sinkSpec } from './spec.ts'

const NAMES = ['url', 'prefix', 'as', 'ttl', 'maxLength', 'keys', 'timeout']

/** Where the server is, and what a row becomes there. Checked by `redis()`, before anything connects. */
export interface RedisOptions extends ForwardOptions {
  /** `redis://` or, with TLS, `rediss://`. One server, or the primary of several; no cluster. */
  readonly url: string | undefined
  /** Begins the name of every key. @default '' */
  readonly prefix?: string | undefined
  /** 'hash' or 'json': a key `<prefix><target>:<document>/<id>` for every row. 'stream': an entry in the stream `<prefix><target>` for every row or event. 'invalidate': `keys` are deleted. @default 'hash' */
  readonly as?: 'hash' | 'json' | 'stream' | 'invalidate' | undefined
  /** Of 'hash' and 'json': after how many seconds a row that was not written again goes. It can then not be proved. @default never */
  readonly ttl?: number | undefined
  /** Of 'stream': about how many entries are kept. @default all */
  readonly maxLength?: number | undefined
  /** Of 'invalidate': names of keys, with {collection}, {document} and {id}: `cache:pets:{document}:{id}`. */
  readonly keys?: string | readonly string[] | undefined
  /** Until the server has answered, in seconds. @default 10 */
  readonly timeout?: number | undefined
}

/** A Redis: `sinks: { live: redis({ url: process.env.REDIS_URL, prefix: 'app:' }) }`. Needs the package `@redis/client`. Throws `SyncError('bad_option')`. */
export function redis(options: RedisOptions): SinkSpec {
  const own = Object.fromEntries(NAMES.map((name) => [name, options[name as keyof RedisOptions]]))
  const { as, ttl } = parse(own)
  const traits: SinkTraits = {
    transactional: false,
    strategies: as === 'invalidate' ? ['state'] : ['state', 'actions'],
    readable: (as === 'hash' || as === 'json') && ttl === 0,
  }
  return sinkSpec('redis', import.meta.url, traits, { ...options }, { options: own, names: NAMES })
}

/** Connects, in the worker. */
export const openSink: OpenSink = async (options, context) => deliverySink(createRedis(options, context), context)

/** The delivery. */
export function createRedis(
  options: Readonly<Record<string, unknown>>,
  context: CursorContext & Pick<SinkContext, 'collections'>,
  clock: Clock = systemClock,
): Delivery {
  const { url, prefix, as, ttl, maxLength, keys, timeout } = parse(options)
  const connect = () => connectRedis(url, timeout, clock)
  if (as === 'invalidate') return createRedisInvalidation(keys, connect)
  for (const [target, { fields }] of Object.entries(context.collections)) {
    if (target === 'rejoin' || target.startsWith('rejoin:'))
      refuse(`a target named ${target} would share keys with the sink's own; give it another name (to: '…')`)
    if (Object.hasOwn(fields, STAMP)) refuse(`${target}.${STAMP} is the name of the stamp; give the field another one`)
  }
  return as === 'stream'
    ? createRedisStream({ prefix, maxLength }, context, connect)
    : createRedisRows({ as, prefix, ttl }, context, connect)
}

interface Settings {
  readonly url: string
  readonly prefix: string
  readonly as: 'hash' | 'json' | 'stream' | 'invalidate'
  /** ms; 0 for ever. */
  readonly ttl: number
  /** 0: all. */
  readonly maxLength: number
  readonly keys: readonly string[]
  /** ms. */
  readonly timeout: number
}

const MODES = ['hash', 'json', 'stream', 'invalidate'] as const

function parse({ url, prefix = '', as = 'hash', ttl, maxLength, keys, timeout = 10 }: Readonly<Record<string, unknown>>): Settings {
  // The URL is not repeated: it may hold a password.
  if (typeof url !== 'string' || !/^rediss?:\/\/./u.test(url) || !URL.canParse(url)) refuse('url begins with redis:// or rediss://')
  if (typeof prefix !== 'string') refuse('prefix is a text')
  const mode = MODES.find((each) => each === as) ?? refuse(`as is ${MODES.map((each) => `'${each}'`).join(' or ')}`)
  const templates: readonly unknown[] = keys === undefined ? [] : Array.isArray(keys) ? keys : [keys]
  const isRows = mode === 'hash' || mode === 'json'
  if (ttl !== undefined && !isRows) refuse("ttl is for as: 'hash' and 'json'")
  if (maxLength !== undefined && mode !== 'stream') refuse("maxLength is for as: 'stream'")
  if (templates.length > 0 !== (mode === 'invalidate'))
    refuse("as: 'invalidate' and keys belong together: keys: 'cache:pets:{document}:{id}'")
  return {
    url,
    prefix,
    as: mode,
    ttl: ttl === undefined ? 0 : Math.ceil(positive('ttl', ttl) * 1000),
    maxLength: maxLength === undefined ? 0 : Math.ceil(positive('maxLength', maxLength)),
    keys: templates.map((template) => (typeof template === 'string' && template !== '' ? template : refuse('keys are texts'))),
    timeout: positive('timeout', timeout) * 1000,
  }
}

function positive(name: string, value: unknown): number {
  return typeof value === 'number' && value > 0 && Number.isFinite(value)
    ? value
    : refuse(`${name} is a number above 0; this is ${JSON.stringify(value)}`)
}

function refuse(problem: string): never {
  throw new SyncError('bad_option', `redis(): ${problem}`)
}
