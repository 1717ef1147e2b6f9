/**
 * What an operator may ask of a sink (step 8 of the path): the commands behind `/v1/sinks` and `rejoin sinks`, read from JSON, and what is answered. Plain data only: it crosses threads.
 */
import type { JsonValue } from '@rejoin/shared'
import { SyncError } from '@rejoin/shared'
import type { DeadLetter } from '../sinks/notes.ts'
import type { RewindTarget, SinkStatus } from './control.ts'
import type { ProofName, ProofResult, RepairResult } from './proof.ts'

/** Names of the proofs, here because the command line does not load what makes them. */
export const PROOF_NAMES: readonly ProofName[] = ['rows', 'projection', 'view']

/** One command for one sink. */
export type SinkCommand =
  | { readonly type: 'plan' }
  | { readonly type: 'pause' }
  | { readonly type: 'resume' }
  | { readonly type: 'rewind'; readonly to: RewindTarget }
  | { readonly type: 'refresh' }
  | { readonly type: 'verify'; readonly proofs?: readonly ProofName[] | undefined }
  | { readonly type: 'repair'; readonly proofs?: readonly ProofName[] | undefined }
  /** Dead letters: at most `limit`, behind the one with the id `after`. */
  | { readonly type: 'dead'; readonly limit: number; readonly after?: string | undefined }
  /** Without ids: all of them. */
  | { readonly type: 'requeue'; readonly ids?: readonly string[] | undefined }
  | { readonly type: 'discard'; readonly ids?: readonly string[] | undefined }
  | { readonly type: 'adopt' }
  | { readonly type: 'drop' }

/** What answers each command. Those not named here: the sink as it is then. */
export interface SinkAnswers {
  readonly plan: SinkPlan
  readonly verify: ProofResult
  readonly repair: RepairResult
  readonly dead: { readonly total: number; readonly first: readonly DeadLetter[] }
  readonly requeue: { readonly count: number }
  readonly discard: { readonly count: number }
}

/** The answer to one command. */
export type SinkAnswer<Command extends SinkCommand = SinkCommand> = Command['type'] extends keyof SinkAnswers
  ? SinkAnswers[Command['type']]
  : SinkReport

/** One sink, as it is listed. */
export interface SinkReport extends SinkStatus {
  readonly name: string
  /** The adapter: 'postgres', 'webhook', … */
  readonly kind: string
  /** Table, index, topic … that it writes. */
  readonly targets: readonly string[]
  /** The last proof; null when there was none. */
  readonly proof: ProofResult | null
}

/** What a sink would do when it begins, and when it is refreshed. */
export interface SinkPlan {
  /** What would change in the destination before the first row, in its own words, such as DDL. */
  readonly statements: readonly string[]
  /** Rows that a refresh would write or delete, of those that were looked at; null when the destination cannot be read back. */
  readonly rows: { readonly changed: number; readonly looked: number; readonly whole: boolean } | null
  /** Rows of the view that the sink gets, and where it stands. */
  readonly state: SinkStatus['state']
}

/** How long each may take, in ms; beyond, it is given up as `timeout`. */
export const PATIENCE: Readonly<Record<SinkCommand['type'], number>> = {
  plan: 60_000,
  pause: 30_000,
  resume: 30_000,
  rewind: 30_000,
  refresh: 30_000,
  verify: 900_000,
  repair: 900_000,
  dead: 10_000,
  requeue: 60_000,
  discard: 60_000,
  adopt: 60_000,
  drop: 60_000,
}

const MAX_LETTERS = 1_000
const DEFAULT_LETTERS = 100
const MAX_IDS = 10_000

/** A command from its name and its JSON, which may be absent. Throws `SyncError`: 'not_found' for another name, 'bad_option' for arguments that it does not take. */
export function parseCommand(name: string, body: JsonValue | undefined): SinkCommand {
  const given = body ?? {}
  if (typeof given !== 'object' || given === null || Array.isArray(given)) throw wrong(name, 'takes a JSON object')
  const fields = given as Readonly<Record<string, JsonValue>>
  const only = (...names: readonly string[]): void => {
    const other = Object.keys(fields).find((each) => !names.includes(each))
    if (other !== undefined) throw wrong(name, `does not take ${other}${names.length === 0 ? '' : `; it takes ${names.join(', ')}`}`)
  }
  switch (name) {
    case 'plan':
    case 'pause':
    case 'resume':
    case 'refresh':
    case 'adopt':
    case 'drop':
      only()
      return { type: name }
    case 'rewind':
      only('to')
      return { type: name, to: rewindTo(fields['to']) }
    case 'verify':
    case 'repair':
      only('proofs')
      return { type: name, proofs: fields['proofs'] === undefined ? undefined : proofsOf(name, fields['proofs']) }
    case 'dead': {
      only('limit', 'after')
      const { limit = DEFAULT_LETTERS, after } = fields
      if (typeof limit !== 'number' || !Number.isInteger(limit) || limit < 1 || limit > MAX_LETTERS)
        throw wrong(name, `limit is a whole number from 1 to ${MAX_LETTERS}`)
      if (after !== undefined && typeof after !== 'string') throw wrong(name, 'after is the id of a dead letter')
      return { type: name, limit, after }
    }
    case 'requeue':
    case 'discard':
      only('ids')
      return { type: name, ids: fields['ids'] === undefined ? undefined : idsOf(name, fields['ids']) }
    default:
      throw new SyncError('not_found', `a sink knows no ${JSON.stringify(name.slice(0, 60))}; it knows ${Object.keys(PATIENCE).join(', ')}`)
  }
}

function rewindTo(to: JsonValue | undefined): RewindTarget {
  if (to === 'oldest' || to === 'now') return to
  if (typeof to === 'number' && Number.isSafeInteger(to) && to >= 0) return to
  const time = typeof to === 'string' ? Date.parse(to) : Number.NaN
  if (Number.isNaN(time)) throw wrong('rewind', "to is 'oldest', 'now', a version, or a time such as '2026-05-17T08:00:00Z'")
  return { time }
}

function proofsOf(name: string, value: JsonValue): readonly ProofName[] {
  if (Array.isArray(value) && value.length > 0 && value.every((each) => PROOF_NAMES.includes(each as ProofName)))
    return value as ProofName[]
  throw wrong(name, `proofs is a list of ${PROOF_NAMES.join(', ')}`)
}

function idsOf(name: string, value: JsonValue): readonly string[] {
  if (Array.isArray(value) && value.length <= MAX_IDS && value.every((each) => typeof each === 'string')) return value
  throw wrong(name, `ids is a list of at most ${MAX_IDS} ids of dead letters`)
}

function wrong(name: string, rule: string): SyncError {
  return new SyncError('bad_option', `${name}: ${rule}`)
}
