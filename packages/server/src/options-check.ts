/**
 * Options checked, once, with every default filled in. An error names the option, what is wrong with it, and what would be right.
 */
import { resolve } from 'node:path'
import type { Limits } from '@rejoin/shared'
import { DEFAULT_LIMITS, SyncError, schemaProblem } from '@rejoin/shared'
import { canonicalOrigin, isLoopbackAddress } from './http/origin.ts'
import type { Logger } from './logger.ts'
import { silentLogger } from './logger.ts'
import type { Options, ServerOptions } from './options.ts'
import type { SinkSpec } from './sinks/sink.ts'

/** Checks options and fills in the defaults. Throws `SyncError('bad_option')` that says which, why, and what to do. */
export function checkOptions(given: ServerOptions): Options {
  const whole: unknown = given
  if (!isObject(whole)) throw wrong('options', 'are an object', whole)
  refuseUnknown(given, OPTION_NAMES, 'option')
  const { auth, schema, insecure = false } = given
  if (typeof insecure !== 'boolean') throw wrong('insecure', 'is true or false', insecure)
  if (auth !== undefined && typeof auth !== 'function')
    throw wrong('auth', 'is jwt({ … }) or a function of the request that resolves to a grant or null', auth)
  const problem = schema === undefined ? undefined : schemaProblem(schema)
  if (problem !== undefined) throw new SyncError('bad_option', `schema: ${problem}`)
  const sinks = checkSinks(given.sinks ?? {})
  if (Object.keys(sinks).length > 0 && schema === undefined)
    throw new SyncError('bad_option', 'sinks: there is nothing to send without a schema; give schema: defineSchema({ … })')
  const host = checkHost(given.host ?? '127.0.0.1')
  if (auth === undefined && !insecure && !isLoopbackAddress(host)) {
    throw new SyncError(
      'bad_option',
      `host: ${host} can be reached from other machines, and there is no auth; set auth in the config file, listen on 127.0.0.1, or say --insecure (insecure: true)`,
    )
  }
  return {
    host,
    port: checkPort(given.port ?? 4400),
    data: resolve(checkText('data', given.data ?? './rejoin-data')),
    schema,
    auth,
    sinks,
    config: given.config === undefined ? undefined : resolve(checkText('config', given.config)),
    forward: checkForward(given.forward ?? 'here'),
    historyMs: checkDuration('history', given.history ?? '7d'),
    insecure,
    limits: checkLimits(given.limits ?? {}),
    retainMs: checkRetain(given.retain ?? '1h'),
    logger: checkLogger(given.logger ?? silentLogger),
    origins: checkOrigins(given.origins ?? ['*']),
  }
}

/** Throws for a key that is not among `known`, with the nearest that is. */
export function refuseUnknown(given: object, known: readonly string[], what: string): void {
  for (const key of Object.keys(given)) {
    if (known.includes(key)) continue
    const near = nearest(key, known)
    throw new SyncError(
      'bad_option',
      `there is no ${what} "${key}"${near === undefined ? `; there are ${known.join(', ')}` : `; did you mean "${near}"?`}`,
    )
  }
}

/** The name among `known` that somebody who wrote `word` may have meant. */
export function nearest(word: string, known: readonly string[]): string | undefined {
  const bound = Math.max(1, Math.floor(word.length / 3))
  const edits = (name: string): number => (letters(word) === letters(name) ? 1 : distance(word.toLowerCase(), name.toLowerCase()))
  const ranked = known.map((name) => ({ name, edits: edits(name) })).toSorted((a, b) => a.edits - b.edits)
  const [best] = ranked
  return best !== undefined && best.edits <= bound ? best.name : undefined
}

/** A duration such as `15m` in ms; undefined when it is none. */
export function durationMs(text: string): number | undefined {
  const parts = /^(\d+(?:\.\d+)?)([smhd])$/u.exec(text)
  const unit = UNIT_MS[parts?.[2] ?? '']
  return unit === undefined ? undefined : Number(parts?.[1]) * unit
}

const OPTION_NAMES: readonly (keyof ServerOptions)[] = [
  'host',
  'port',
  'data',
  'schema',
  'auth',
  'sinks',
  'config',
  'forward',
  'history',
  'limits',
  'retain',
  'logger',
  'origins',
  'insecure',
]
const LIMIT_NAMES = Object.keys(DEFAULT_LIMITS) as (keyof Limits)[]
/** Clients are built with these: a relay that allowed more would send or take what they do not. */
const AT_MOST: { readonly [Name in keyof Limits]?: number } = {
  message: DEFAULT_LIMITS.message,
  edit: DEFAULT_LIMITS.edit,
  fragment: DEFAULT_LIMITS.fragment,
  key: 65_536,
  depth: 64,
}
const UNIT_MS: Readonly<Record<string, number>> = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }

function checkHost(host: unknown): string {
  const text = checkText('host', host)
  if (/[\s/]|^\[|:\d+$/u.test(text) && !/^[0-9A-Fa-f:]+$/u.test(text))
    throw wrong('host', "is an address or a name without scheme and port, such as '127.0.0.1' or '::1'", host)
  return text
}

function checkPort(port: unknown): number {
  if (typeof port === 'number' && Number.isInteger(port) && port >= 0 && port <= 65_535) return port
  throw wrong('port', 'is a whole number from 0 (a free one) to 65535', port)
}

function checkLimits(given: NonNullable<ServerOptions['limits']>): Limits {
  if (!isObject(given)) throw wrong('limits', 'is an object', given)
  refuseUnknown(given, LIMIT_NAMES, 'limit')
  const limits: { -readonly [Name in keyof Limits]: number } = { ...DEFAULT_LIMITS }
  for (const name of LIMIT_NAMES) {
    const value: unknown = given[name]
    if (value === undefined) continue
    const most = AT_MOST[name] ?? Number.MAX_SAFE_INTEGER
    if (typeof value !== 'number' || !Number.isInteger(value) || value < 1 || value > most)
      throw wrong(`limits.${name}`, `is a whole number from 1 to ${most}`, value)
    limits[name] = value
  }
  return limits
}

function checkRetain(retain: unknown): number {
  return retain === 'forever' ? Number.POSITIVE_INFINITY : checkDuration('retain', retain, ", or 'forever'")
}

function checkForward(forward: unknown): 'here' | 'elsewhere' {
  if (forward === 'here' || forward === 'elsewhere') return forward
  throw wrong('forward', "is 'here' or 'elsewhere'", forward)
}

function checkDuration(name: string, value: unknown, or = ''): number {
  const ms = typeof value === 'string' ? durationMs(value) : undefined
  if (ms === undefined) throw wrong(name, `is a duration such as '30s', '15m', '1h' or '7d'${or}`, value)
  return ms
}

function checkSinks(sinks: unknown): Readonly<Record<string, SinkSpec>> {
  if (!isObject(sinks)) throw wrong('sinks', 'is an object of name → sink', sinks)
  for (const [name, spec] of Object.entries(sinks)) {
    if (!/^[A-Za-z][A-Za-z0-9_-]{0,62}$/u.test(name))
      throw new SyncError(
        'bad_option',
        `sinks: ${JSON.stringify(name)} is no name; it is 1 to 63 letters, digits, _ and -, and begins with a letter`,
      )
    if (!isObject(spec) || typeof spec['module'] !== 'string' || !isObject(spec['options']) || !isObject(spec['forward']))
      throw wrong(`sinks.${name}`, 'is made by a sink adapter, such as sqlite({ path }) of @rejoin/server/sinks/sqlite', spec)
  }
  const specs = sinks as Readonly<Record<string, SinkSpec>>
  for (const name of Object.keys(specs)) checkAfter(specs, name)
  return specs
}

/** A sink waits for one that there is, and never, by way of others, for itself. */
function checkAfter(specs: Readonly<Record<string, SinkSpec>>, name: string): void {
  const way = [name]
  for (let next = specs[name]?.forward.after; next !== undefined; next = specs[next]?.forward.after) {
    if (!Object.hasOwn(specs, next)) {
      const near = nearest(next, Object.keys(specs))
      throw new SyncError(
        'bad_option',
        `sinks.${way.at(-1)}: after names ${JSON.stringify(next)}, and there is no such sink${near === undefined ? '' : `; did you mean ${near}?`}`,
      )
    }
    if (next === name) throw new SyncError('bad_option', `sinks: ${[...way, name].join(' waits for ')}: none of them could ever begin`)
    // A circle that this one only leads into is told by one of its own.
    if (way.includes(next)) return
    way.push(next)
  }
}

function checkLogger(logger: unknown): Logger {
  const methods = ['debug', 'info', 'warn', 'error']
  if (isObject(logger) && methods.every((name) => typeof logger[name] === 'function')) return logger as unknown as Logger
  throw wrong('logger', `has the methods ${methods.join(', ')}; pino() is one`, logger)
}

function checkOrigins(origins: unknown): readonly string[] {
  if (!Array.isArray(origins)) throw wrong('origins', "is a list such as ['https://app.example']", origins)
  return origins.map((origin: unknown) => {
    if (origin === '*') return origin
    if (typeof origin !== 'string' || !/^https?:\/\/[^/\s]+\/?$/iu.test(origin) || !URL.canParse(origin))
      throw wrong('origins', "has origins such as 'https://app.example' (scheme, host, port; no path), or '*'", origin)
    return canonicalOrigin(origin)
  })
}

function checkText(name: string, value: unknown): string {
  if (typeof value === 'string' && value !== '' && !value.includes('\0')) return value
  throw wrong(name, 'is text and not empty', value)
}

function wrong(name: string, rule: string, value: unknown): SyncError {
  return new SyncError('bad_option', `${name} ${rule}; this is ${shown(value)}`)
}

function shown(value: unknown): string {
  if (typeof value === 'function') return 'a function'
  if (typeof value === 'object' && value !== null) return Array.isArray(value) ? 'a list' : 'an object'
  return typeof value === 'string' ? JSON.stringify(value.slice(0, 100)) : String(value)
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** Equal for words whose letters are in another order, which is one slip of the hand. */
function letters(word: string): string {
  return Array.from(word.toLowerCase()).toSorted().join('')
}

/** Levenshtein distance, one row at a time. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      const swap = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1)
      next.push(Math.min(swap, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1))
    }
    row = next
  }
  return row[b.length] ?? 0
}
