#!/usr/bin/env node
/**
 * The `rejoin` command: `serve` runs a relay, `forward` its sinks in a process of their own, `token` signs a JSON Web Token, `sinks` and `tail` steer and read a relay that runs. Standard output is for programs, standard error for people and logs.
 */
import { Command, CommanderError, Option } from 'commander'
import { ERRORS, toSyncError } from '@rejoin/shared'
import type { Terminal } from './cli-sinks.ts'
import { addSinkCommands } from './cli-sinks.ts'
import { addTailCommand } from './cli-tail.ts'
import type { ServeFlags } from './config.ts'
import { gatherOptions, readSecretFile } from './config.ts'
import type { ServerOptions } from './options.ts'
import type { TokenFlags } from './token.ts'
import { signToken } from './token.ts'

/** Exit codes: what was asked for cannot be meant; what was asked for failed. */
const MISUSED = 2
const FAILED = 1
/** After this the process exits although something still hangs: what was acknowledged is durable, and the rest was not. */
const DRAIN_MS = 4500
/** Of rejoin forward: the relay beside it has 4400. */
const FORWARD_PORT = 4401

const program = new Command('rejoin')
  .description('Work apart, rejoin with nothing lost: a relay for Yjs documents.')
  .exitOverride()
  .showHelpAfterError('(rejoin --help shows every command)')

serverOptions(program.command('serve'), 4400)
  .description('Runs the relay.')
  .option('--forward <where>', 'where view and sinks are kept: here (default), or elsewhere by rejoin forward')
  .action((flags: ServeFlags) =>
    run(flags, async (options) => {
      const { createServer } = await import('./server.ts')
      return createServer(options)
    }),
  )

serverOptions(program.command('forward'), FORWARD_PORT)
  .description('Keeps view and sinks in a process of its own, for a relay on the same folder that serves with --forward elsewhere.')
  .action((flags: ServeFlags) =>
    run(flags, async (options) => {
      const { createForwardServer } = await import('./forward.ts')
      // The port of the config is the relay's.
      return createForwardServer({ ...options, port: flags.port === undefined ? FORWARD_PORT : options.port })
    }),
  )

program
  .command('token')
  .description('Prints a JSON Web Token signed with HS256.')
  .requiredOption('--secret-file <file>', 'file with the secret, as in jwt({ secret })')
  .requiredOption('--sub <principal>', 'whom it is for')
  .option('--doc <pattern=access...>', "what it allows, such as 'clinic-*=write'; read, write or none; may be repeated", gather, [])
  .option('--ttl <duration>', 'how long it is valid, such as 30s, 15m, 1h or 7d', '1h')
  .option('--admin', 'administrative calls as well')
  .option('--issuer <iss>', 'claim iss')
  .option('--audience <aud>', 'claim aud')
  .action(token)

/** The exit code of what fails: a script that asks a running relay tells a bad answer (1) from none (2). */
let failed = FAILED
const terminal: Terminal = {
  write: (text) => void process.stdout.write(text),
  note: (text) => void process.stderr.write(text),
  fail: () => {
    process.exitCode = FAILED
  },
  asking: () => {
    failed = MISUSED
  },
}
addSinkCommands(program, terminal)
addTailCommand(program, terminal)

for (const command of program.commands) for (const each of [command, ...command.commands]) each.exitOverride()

try {
  await program.parseAsync()
} catch (thrown) {
  // Commander has written its message and help itself.
  if (thrown instanceof CommanderError) process.exitCode = thrown.exitCode === 0 ? 0 : MISUSED
  else {
    const error = toSyncError(thrown)
    process.stderr.write(`rejoin: ${error.reason}${error.code === 'bad_option' ? '' : `\n  ${ERRORS[error.code].hint}`}\n`)
    process.exitCode = error.code === 'bad_option' && !isTaken(error.cause) ? MISUSED : failed
  }
}

/** Somebody else listens there: no fault of the options, which may be right a moment later. */
function isTaken(cause: unknown): boolean {
  return cause instanceof Error && 'code' in cause && cause.code === 'EADDRINUSE'
}

/** Options of what listens. */
function serverOptions(command: Command, port: number): Command {
  return command
    .option('--host <address>', 'address to listen on (default 127.0.0.1)')
    .option('--port <port>', `port to listen on, 0 for a free one (default ${port})`)
    .option('--data <folder>', 'folder of the log (default ./rejoin-data)')
    .option('--config <file>', 'config file (default rejoin.config.ts, .mts, .js or .mjs, when there is one)')
    .addOption(new Option('--log-level <level>', 'silent, error, warn, info or debug (default info)'))
    .option('--insecure', 'without auth: listen on any address and let everybody in')
}

/** Runs what `start` gives until it is told to stop. */
async function run(
  flags: ServeFlags,
  start: (options: ServerOptions) => Promise<{ readonly url: string; close(): Promise<void> }>,
): Promise<void> {
  // A command that only asks a relay is spared all that makes one.
  const { pino } = await import('pino')
  const { options, logLevel, file, warnings } = await gatherOptions(flags, process.env, process.cwd())
  // Written in the same call: the last lines before an exit are the ones that matter.
  const logger = pino(
    { level: logLevel, base: null, redact: ['token', 'secret', 'headers', 'authorization'] },
    pino.destination({ fd: 2, sync: true }),
  )
  for (const warning of warnings) logger.warn({}, warning)
  if (file !== undefined) logger.info({ file }, 'read the config file')
  const server = await start({ logger, ...options })
  if (options.auth === undefined)
    logger.warn(
      {},
      options.insecure === true
        ? 'no auth, and insecure: everybody who reaches this port may read and write everything'
        : 'no auth: only this machine may connect, and everybody on it may read and write everything',
    )
  const stop = (signal: string): void => {
    // A second signal means now.
    process.once('SIGTERM', () => process.exit(FAILED)).once('SIGINT', () => process.exit(FAILED))
    logger.info({ signal }, 'draining')
    setTimeout(() => {
      logger.warn({}, 'something still hangs; leaving it')
      process.exit(0)
    }, DRAIN_MS).unref()
    server.close().then(
      () => process.exit(0),
      (thrown: unknown) => {
        logger.error({ reason: toSyncError(thrown).reason }, 'closing failed')
        process.exit(FAILED)
      },
    )
  }
  process.once('SIGTERM', stop).once('SIGINT', stop)
  process.stdout.write(`${JSON.stringify({ event: 'listening', url: server.url })}\n`)
}

async function token(flags: TokenFlags & { readonly secretFile: string }): Promise<void> {
  const secret = readSecretFile(flags.secretFile, '--secret-file')
  process.stdout.write(`${await signToken(secret, flags, Date.now())}\n`)
}

function gather(value: string, before: readonly string[]): readonly string[] {
  return [...before, value]
}
