/**
 * Where options come from: a config file, the environment and flags become one `ServerOptions`. Nothing else reads the environment or argv.
 */
import { existsSync, readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { SyncError } from '@rejoin/shared'
import { jwt } from './http/authorize.ts'
import { loadConfig } from './load.ts'
import type { Duration, ServerOptions } from './options.ts'
import { durationMs, nearest } from './options-check.ts'

/** Gives the options of a config file their types: `export default defineConfig({ … })`. */
export function defineConfig(options: ServerOptions): ServerOptions {
  return options
}

/** How much is logged. */
export type LogLevel = 'silent' | 'error' | 'warn' | 'info' | 'debug'

/** The flags of `rejoin serve`, as text. */
export interface ServeFlags {
  readonly host?: string | undefined
  readonly port?: string | undefined
  readonly data?: string | undefined
  readonly config?: string | undefined
  readonly logLevel?: string | undefined
  readonly forward?: string | undefined
  readonly insecure?: boolean | undefined
}

/** What the flags, the environment and the config file came to. */
export interface Gathered {
  readonly options: ServerOptions
  readonly logLevel: LogLevel
  /** The config file that was read, if any. */
  readonly file: string | undefined
  /** REJOIN_ variables that mean nothing here: told, not refused, because the environment is shared with others. */
  readonly warnings: readonly string[]
}

/** Config files that are looked for in the working directory, in this order. */
const FILES = ['rejoin.config.ts', 'rejoin.config.mts', 'rejoin.config.js', 'rejoin.config.mjs']
const VARIABLES = ['HOST', 'PORT', 'DATA', 'CONFIG', 'LOG_LEVEL', 'RETAIN', 'ORIGINS', 'INSECURE', 'JWT_SECRET_FILE', 'FORWARD']
const LEVELS: readonly LogLevel[] = ['silent', 'error', 'warn', 'info', 'debug']

/**
 * Gathers the options of `rejoin serve`: a flag goes before a REJOIN_ variable, that before the config file. Relative paths are relative to `directory`.
 * Throws `SyncError('bad_option')` that names the flag, variable or file.
 */
export async function gatherOptions(
  flags: ServeFlags,
  environment: Readonly<Record<string, string | undefined>>,
  directory: string,
): Promise<Gathered> {
  const variable = (name: string): string | undefined => environment[`REJOIN_${name}`] || undefined
  const given = (
    flag: string | undefined,
    flagName: string,
    name: string,
  ): { readonly value: string; readonly from: string } | undefined => {
    if (flag !== undefined) return { value: flag, from: flagName }
    const value = variable(name)
    return value === undefined ? undefined : { value, from: `REJOIN_${name}` }
  }
  const file = findFile(given(flags.config, '--config', 'CONFIG'), directory)
  const fromFile: ServerOptions = file === undefined ? {} : { config: file, ...(await loadConfig(file)) }
  const [host, port, data] = [given(flags.host, '--host', 'HOST'), given(flags.port, '--port', 'PORT'), given(flags.data, '--data', 'DATA')]
  const [retain, origins, secretFile] = [variable('RETAIN'), variable('ORIGINS'), variable('JWT_SECRET_FILE')]
  const forward = given(flags.forward, '--forward', 'FORWARD')
  const insecure = flags.insecure ?? readYes('REJOIN_INSECURE', variable('INSECURE'))
  const options: ServerOptions = {
    ...fromFile,
    ...(host === undefined ? {} : { host: host.value }),
    ...(port === undefined ? {} : { port: readPort(port) }),
    ...(data === undefined ? {} : { data: resolve(directory, data.value) }),
    ...(retain === undefined ? {} : { retain: retain as Duration }),
    ...(origins === undefined ? {} : { origins: origins.split(',').map((origin) => origin.trim()) }),
    ...(forward === undefined ? {} : { forward: forward.value as 'here' }),
    ...(insecure === undefined ? {} : { insecure }),
    ...(secretFile === undefined
      ? {}
      : { auth: jwt({ secret: readSecretFile(resolve(directory, secretFile), 'REJOIN_JWT_SECRET_FILE') }) }),
  }
  return { options, file, logLevel: readLevel(given(flags.logLevel, '--log-level', 'LOG_LEVEL')), warnings: unknownVariables(environment) }
}

/** The text of a secret's file. */
export function readSecretFile(path: string, from: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (cause) {
    throw new SyncError('bad_option', `${from}: ${path} cannot be read: ${reasonOf(cause)}`, { cause })
  }
}

/** A duration in ms; `from` is the flag or option that an error names. */
export function readDuration(text: string, from: string): number {
  const ms = durationMs(text)
  if (ms === undefined || ms === 0)
    throw new SyncError('bad_option', `${from} is a duration such as 30s, 15m, 1h or 7d; this is ${JSON.stringify(text)}`)
  return ms
}

function findFile(given: { readonly value: string; readonly from: string } | undefined, directory: string): string | undefined {
  if (given === undefined) return FILES.map((name) => resolve(directory, name)).find((path) => existsSync(path))
  const path = resolve(directory, given.value)
  if (!existsSync(path)) throw new SyncError('bad_option', `${given.from}: there is no file ${path}`)
  return path
}

function readPort({ value, from }: { readonly value: string; readonly from: string }): number {
  if (!/^\d{1,5}$/u.test(value) || Number(value) > 65_535)
    throw new SyncError('bad_option', `${from} is a whole number from 0 (a free one) to 65535; this is ${JSON.stringify(value)}`)
  return Number(value)
}

function readLevel(given: { readonly value: string; readonly from: string } | undefined): LogLevel {
  const level = LEVELS.find((name) => name === (given?.value ?? 'info'))
  if (level === undefined)
    throw new SyncError('bad_option', `${given?.from} is one of ${LEVELS.join(', ')}; this is ${JSON.stringify(given?.value)}`)
  return level
}

function readYes(name: string, value: string | undefined): boolean | undefined {
  if (value === undefined) return undefined
  if (value === '1' || value === 'true') return true
  if (value === '0' || value === 'false') return false
  throw new SyncError('bad_option', `${name} is 1, 0, true or false; this is ${JSON.stringify(value)}`)
}

function unknownVariables(environment: Readonly<Record<string, string | undefined>>): readonly string[] {
  return Object.keys(environment)
    .filter((name) => name.startsWith('REJOIN_') && !VARIABLES.includes(name.slice(7)))
    .map((name) => {
      const near = nearest(name.slice(7), VARIABLES)
      return `${name} means nothing to rejoin serve${near === undefined ? '' : `; did you mean REJOIN_${near}?`}`
    })
}

function reasonOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown)
}
