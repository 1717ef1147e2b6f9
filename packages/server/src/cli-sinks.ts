/**
 * `rejoin sinks …`: what an operator sees and does of the sinks of a relay that runs, as tables for people and as JSON for programs.
 */
import { Option } from 'commander'
import type { Command } from 'commander'
import { SyncError } from '@rejoin/shared'
import type { RelayFlags, RunningRelay } from './cli-relay.ts'
import { findRelay } from './cli-relay.ts'
import { counted, deadText, holds, listText, planText, proofText, reportText } from './cli-text.ts'
import type { SinkAnswers, SinkReport } from './forwarding/commands.ts'
import { PROOF_NAMES } from './forwarding/commands.ts'
import type { ProofResult, RepairResult } from './forwarding/proof.ts'

/** What a command found: its text, its JSON, and whether that is bad news (exit 1). */
interface Found {
  readonly text: string
  readonly json: unknown
  /** For people, beside what was asked for. */
  readonly notes?: readonly string[] | undefined
  readonly bad?: boolean | undefined
}

interface SinkFlags extends RelayFlags {
  readonly json?: boolean | undefined
}

/** Where output goes, and how the process ends. */
export interface Terminal {
  write(text: string): void
  /** To standard error. */
  note(text: string): void
  /** Exit 1: what was asked has a bad answer. From `asking` on, what cannot be asked or answered at all is exit 2. */
  fail(): void
  asking(): void
}

/** Adds `sinks` and its commands. */
export function addSinkCommands(program: Command, terminal: Terminal): void {
  const sinks = program.command('sinks').description('Shows and steers the sinks of a relay that runs.')
  const add: Add = (name, description, run) =>
    relayOptions(sinks.command(name))
      .description(description)
      .argument('<name>', 'the sink, as the config names it')
      .option('--json', 'prints JSON')
      .action(async (sink: string, flags: SinkFlags & OwnFlags) => {
        terminal.asking()
        show(terminal, flags, await run(findRelay(flags), `/v1/sinks/${encodeURIComponent(sink)}`, sink, flags))
      })
  const steer = (name: string, description: string): Command =>
    add(name, description, async (relay, path) => shown((await relay.json(`${path}/${name}`, {})) as SinkReport))

  relayOptions(sinks.command('list'))
    .description('Lists them: state, cursor, lag, rate, parked, last proof.')
    .option('--json', 'prints JSON')
    .action(async (flags: SinkFlags) => {
      terminal.asking()
      const { sinks: found } = (await findRelay(flags).json('/v1/sinks')) as { readonly sinks: readonly SinkReport[] }
      show(terminal, flags, { text: listText(found), json: found })
    })
  add('plan', 'Tells what it would change in the destination. Changes nothing.', async (relay, path, sink) => {
    const plan = (await relay.json(`${path}/plan`, {})) as SinkAnswers['plan']
    return { text: planText(sink, plan), json: plan }
  })
  steer('pause', 'Stops it, also over restarts, until it is resumed.')
  steer('resume', 'Goes on: after a pause, a poison row, or having been cut off or fenced.')
  add('rewind', 'Sends again what changed since a version.', async (relay, path, _sink, { to }) =>
    shown((await relay.json(`${path}/rewind`, { to: rewindTo(to ?? '') })) as SinkReport),
  ).requiredOption('--to <place>', "'oldest', 'now', a version, or a time such as 2026-05-17T08:00:00Z")
  steer('refresh', 'Writes everything anew, and removes what should not be there.')
  const proofs = (): Option =>
    new Option('--proof <name>', `only this proof; may be repeated (${PROOF_NAMES.join(', ')}; all three)`)
      .choices(PROOF_NAMES)
      .argParser((value: string, before: readonly string[] | undefined) => [...(before ?? []), value])
  add('verify', 'Proves that it equals the documents. Exit 1 when it does not.', async (relay, path, sink, { proof }) => {
    const result = (await relay.json(`${path}/verify`, proof === undefined ? {} : { proofs: proof })) as ProofResult
    return { text: proofText(sink, result), json: result, notes: result.reasons, bad: !holds(result) }
  }).addOption(proofs())
  add('repair', 'Writes what differs, and verifies again.', async (relay, path, sink, { proof }) => {
    const result = (await relay.json(`${path}/repair`, proof === undefined ? {} : { proofs: proof })) as RepairResult
    const text = `${sink}: ${counted(result.repaired, 'row')} repaired\n${proofText(sink, result.after)}`
    return { text, json: result, notes: result.after.reasons, bad: !holds(result.after) }
  }).addOption(proofs())
  addDead(add)
  steer('adopt', 'Takes a destination over that another log wrote; it is refreshed.')
  steer('drop', 'Stops it, and removes all that Rejoin made in the destination.')
}

/** Flags that only some commands have. */
interface OwnFlags extends DeadFlags {
  readonly to?: string | undefined
  readonly proof?: readonly string[] | undefined
}

type Add = (
  name: string,
  description: string,
  run: (relay: RunningRelay, path: string, sink: string, flags: OwnFlags) => Promise<Found>,
) => Command

interface DeadFlags {
  readonly requeue?: readonly string[] | true | undefined
  readonly discard?: readonly string[] | true | undefined
  readonly limit?: string | undefined
}

function addDead(add: Add): void {
  add('dead', 'Lists its dead letters; tries them again, or forgets them.', async (relay, path, sink, { requeue, discard, limit }) => {
    if (requeue !== undefined && discard !== undefined) throw new SyncError('bad_option', 'either --requeue or --discard')
    const ids = requeue ?? discard
    if (ids === undefined) {
      const letters = (await relay.json(`${path}/dead?limit=${encodeURIComponent(limit ?? '')}`)) as SinkAnswers['dead']
      return { text: deadText(sink, letters), json: letters }
    }
    const name = requeue === undefined ? 'discard' : 'requeue'
    const done = (await relay.json(`${path}/${name}`, ids === true ? {} : { ids })) as { readonly count: number }
    return { text: `${sink}: ${counted(done.count, 'dead letter')} ${name === 'requeue' ? 'tried again' : 'forgotten'}\n`, json: done }
  })
    .option('--requeue [ids...]', 'tries these again, or all')
    .option('--discard [ids...]', 'forgets these, or all')
    .option('--limit <count>', 'how many are listed', '100')
}

/** The options of every command that talks to a relay. */
export function relayOptions(command: Command): Command {
  return command
    .option('--url <address>', 'the relay', 'http://127.0.0.1:4400')
    .option('--token-file <file>', "file with an operator's token (rejoin token --admin)")
    .option('--data <folder>', 'data folder of the relay: its secret is used (default ./rejoin-data when the relay is on this machine)')
}

function shown(report: SinkReport): Found {
  return { text: reportText(report), json: report }
}

function show(terminal: Terminal, { json }: SinkFlags, found: Found): void {
  terminal.write(json === true ? `${JSON.stringify(found.json)}\n` : found.text)
  if (json !== true) for (const note of found.notes ?? []) terminal.note(`${note}\n`)
  if (found.bad === true) terminal.fail()
}

function rewindTo(text: string): string | number {
  return /^\d+$/u.test(text) ? Number(text) : text
}
