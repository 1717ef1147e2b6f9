/**
 * `rejoin tail`: prints the changes of a relay that runs as they come, a line each, and goes on behind the last one when the relay was away.
 */
import { once } from 'node:events'
import { setTimeout as pause } from 'node:timers/promises'
import type { Command } from 'commander'
import { Option } from 'commander'
import { SyncError } from '@rejoin/shared'
import type { RelayFlags } from './cli-relay.ts'
import { findRelay } from './cli-relay.ts'
import type { Terminal } from './cli-sinks.ts'
import { relayOptions } from './cli-sinks.ts'

interface TailFlags extends RelayFlags {
  readonly after: string
  readonly format: string
  readonly follow: boolean
}

/** How long it waits for a relay that has gone, in ms. */
const AWAY_MS = 1_000

/** Adds it. */
export function addTailCommand(program: Command, terminal: Terminal): void {
  relayOptions(program.command('tail'))
    .description('Prints the changes of all records as they come, a line of JSON each.')
    .option('--after <cursor>', "where to begin: a cursor, 'now' or 'oldest'", 'now')
    .addOption(new Option('--format <format>', 'what a line is').choices(['ndjson', 'json', 'cloudevents', 'debezium']).default('ndjson'))
    .option('--no-follow', 'ends at the last change there is')
    .action(async (flags: TailFlags) => {
      terminal.asking()
      // Whoever reads the lines has gone: that is how `rejoin tail | head` ends.
      process.stdout.on('error', () => process.exit(0))
      await tail(flags, terminal)
    })
}

async function tail(flags: TailFlags, terminal: Terminal): Promise<void> {
  const { after, format, follow } = flags
  const as = format === 'ndjson' ? 'json' : format
  let cursor = after
  let reached = false
  for (;;) {
    const address = `/v1/changes?format=${as}&after=${encodeURIComponent(cursor)}${follow ? '&follow=1' : ''}`
    try {
      // Found again each time: a relay that was started again has another secret.
      const response = await findRelay(flags).fetch(address, { headers: { accept: 'application/x-ndjson' } })
      reached = true
      if (cursor === 'now') cursor = response.headers.get('rejoin-cursor') ?? cursor
      for await (const line of linesOf(response)) {
        cursor = cursorOf(line) ?? cursor
        if (!process.stdout.write(`${line}\n`)) await once(process.stdout, 'drain')
      }
      if (!follow) return
    } catch (thrown) {
      // Said by the relay, or there never was one: to go on would not help.
      if (!follow || !reached || (thrown instanceof SyncError && thrown.code !== 'bad_option' && !thrown.retryable)) throw thrown
      if (thrown instanceof SyncError && thrown.code === 'bad_option' && !isAway(thrown)) throw thrown
    }
    terminal.note('the relay has gone; waiting for it\n')
    await pause(AWAY_MS)
  }
}

/** Nobody answered, as opposed to: somebody refused. */
function isAway({ cause }: SyncError): boolean {
  return cause !== undefined
}

/** Lines of the answer. Throws what the relay says instead of one. */
async function* linesOf(response: Response): AsyncGenerator<string> {
  let rest = ''
  const decoder = new TextDecoder()
  for await (const chunk of response.body ?? []) {
    const lines = (rest + decoder.decode(chunk as Uint8Array, { stream: true })).split('\n')
    rest = lines.pop() ?? ''
    for (const line of lines) {
      // An empty one says that the relay is there.
      if (line === '') continue
      if (line.startsWith('{"error":')) throw errorOf(line)
      yield line
    }
  }
}

function errorOf(line: string): SyncError {
  const { error } = JSON.parse(line) as { readonly error: { readonly code: SyncError['code']; readonly message: string } }
  return new SyncError(error.code, error.message)
}

/** Where the line leads on from, in each format. */
function cursorOf(line: string): string | undefined {
  const parsed = JSON.parse(line) as { readonly cursor?: string; readonly source?: { readonly cursor?: string } | string }
  return parsed.cursor ?? (typeof parsed.source === 'object' ? parsed.source.cursor : undefined)
}
