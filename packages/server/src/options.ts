/**
 * What a relay can be told: the one type behind the config file, the environment, the flags and `createRelay`. config.ts checks it, once.
 */
import type { Limits, Schema } from '@rejoin/shared'
import type { Logger } from './logger.ts'
import type { Authorize } from './relay/grant.ts'
import type { SinkSpec } from './sinks/sink.ts'

/** A length of time: `'30s'`, `'15m'`, `'1h'`, `'7d'`. */
export type Duration = `${number}${'s' | 'm' | 'h' | 'd'}`

/** Options of `createServer`, `createRelay` and `defineConfig`. Every one has a default. */
export interface ServerOptions {
  /** Address to listen on. Without `auth` it must be a loopback address. @default '127.0.0.1' */
  readonly host?: string | undefined
  /** Port to listen on; 0 takes a free one. @default 4400 */
  readonly port?: number | undefined
  /** Folder of the log and the view; made when it is missing. @default './rejoin-data' */
  readonly data?: string | undefined
  /** The application's collections (`defineSchema`); without it nothing is projected. @default none */
  readonly schema?: Schema | undefined
  /** Who may do what: `jwt({ … })`, or a function that returns a grant, or null to refuse. @default none: loopback only, everybody may do everything */
  readonly auth?: Authorize | undefined
  /** Name → destination to keep equal to the documents. @default none */
  readonly sinks?: Readonly<Record<string, SinkSpec>> | undefined
  /** File whose default export has these sinks: their functions (projections, handlers) run in the worker, which loads it too, rather than on this thread. `rejoin serve` sets it. @default none */
  readonly config?: string | undefined
  /** Where view and sinks are kept: 'here', or 'elsewhere' by `rejoin forward` on the same folder, a process of its own. @default 'here' */
  readonly forward?: 'here' | 'elsewhere' | undefined
  /** How long changes stay readable at least, for `/v1/changes` and rewinding; those that a sink has not had yet stay longer. Never more than the latest million versions. @default '7d' */
  readonly history?: Duration | undefined
  /** Limits to change; the others keep their defaults. @default DEFAULT_LIMITS */
  readonly limits?: { readonly [Name in keyof Limits]?: Limits[Name] | undefined } | undefined
  /** How long folded entries stay readable: a duration or 'forever'. @default '1h' */
  readonly retain?: Duration | 'forever' | undefined
  /** Where log lines go. @default nowhere; the CLI writes JSON lines to standard error */
  readonly logger?: Logger | undefined
  /** With `auth`: origins of the web pages that may connect, such as `'https://app.example'`, or `'*'`. A request without Origin does not come from a page and is let through. @default ['*'] */
  readonly origins?: readonly string[] | undefined
  /** Listen on any address without `auth`, and for any Host and Origin. Everybody who reaches the port may read and write everything. @default false */
  readonly insecure?: boolean | undefined
}

/** Options as the relay uses them: checked, with every default filled in. */
export interface Options {
  readonly host: string
  readonly port: number
  /** Absolute path. */
  readonly data: string
  readonly schema: Schema | undefined
  readonly auth: Authorize | undefined
  readonly sinks: Readonly<Record<string, SinkSpec>>
  /** Absolute path. */
  readonly config: string | undefined
  readonly forward: 'here' | 'elsewhere'
  /** Milliseconds. */
  readonly historyMs: number
  readonly limits: Limits
  /** Milliseconds; Infinity for 'forever'. */
  readonly retainMs: number
  readonly logger: Logger
  readonly origins: readonly string[]
  readonly insecure: boolean
}
