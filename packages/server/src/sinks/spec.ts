/**
 * From what an application writes of a sink to what the forwarder runs (step 8 of the path): the options that every sink takes, their defaults by what the adapter can do, and what is refused, by name.
 */
import { SyncError } from '@rejoin/shared'
import type { Consistency, Forward, Projection, SinkSpec, SinkTraits, Strategy } from './sink.ts'

/** Options that every sink takes beside its own. */
export interface ForwardOptions {
  /** What to write of the records; several need different targets. @default every collection as it is, each to a target of its own name */
  readonly projection?: Projection | readonly Projection[] | undefined
  /** 'state' writes rows as of a cut; 'actions' applies or publishes every change in order. @default 'state' where the sink can */
  readonly strategy?: Strategy | undefined
  /** @default 'latest' where the destination has transactions, otherwise 'key' */
  readonly consistency?: Consistency | undefined
  /** Deliveries that may be on their way at once, 1 to 64. Above 1 only with consistency 'key'. @default 1 */
  readonly lanes?: number | undefined
  /** Where it begins when it never ran. @default 'refresh'; 'now' with strategy 'actions' */
  readonly from?: Forward['from'] | undefined
  /** @default 'both' */
  readonly mode?: Forward['mode'] | undefined
  /** What becomes of a row that the destination refuses. @default 'park'; 'block' with strategy 'actions'; 'stop' with consistency 'every' */
  readonly onPoison?: Forward['onPoison'] | undefined
  /** Of one commit: rows, and bytes of their JSON. @default { items: 5_000, bytes: 8 MiB } */
  readonly batch?: { readonly items?: number | undefined; readonly bytes?: number | undefined } | undefined
  /** Rows a second at most. @default no cap */
  readonly rate?: number | undefined
  /** Rows in the destination that Rejoin never wrote: told, deleted, or left out of the proof. @default 'report' */
  readonly strangers?: Forward['strangers'] | undefined
  /** Never passes the cursor of this other sink. @default none */
  readonly after?: string | undefined
  /** How often the proofs are made by themselves, in whole seconds. @default on demand only */
  readonly verifyEvery?: number | undefined
}

const NAMES: readonly string[] = [
  'projection',
  'strategy',
  'consistency',
  'lanes',
  'from',
  'mode',
  'onPoison',
  'batch',
  'rate',
  'strangers',
  'after',
  'verifyEvery',
] satisfies readonly (keyof ForwardOptions)[]

const MAX_LANES = 64
const MAX_ITEMS = 1_000_000
/** A year. */
const MAX_SECONDS = 31_536_000
const DEFAULT_BATCH = { items: 5_000, bytes: 8 << 20 }

/**
 * What an adapter's function returns: `sinkSpec('postgres', import.meta.url, TRAITS, options, own)`, where `own` are the adapter's options, checked and plain. Throws `SyncError('bad_option')`.
 * `options` is all that the application wrote; a name that is neither in `own`, `functions` nor above is refused.
 */
export function sinkSpec(
  kind: string,
  module: string,
  traits: SinkTraits,
  options: Readonly<Record<string, unknown>>,
  own: {
    readonly options: Readonly<Record<string, unknown>>
    readonly names: readonly string[]
    readonly functions?: SinkSpec['functions']
  },
): SinkSpec {
  const unknown = Object.keys(options).find((name) => !NAMES.includes(name) && !own.names.includes(name))
  if (unknown !== undefined) refuse(kind, `does not know ${unknown}; it takes ${[...own.names, ...NAMES].join(', ')}`)
  return { module, options: own.options, forward: forwardOf(kind, traits, options), functions: own.functions }
}

/** Defaults filled in, what contradicts itself refused. */
export function forwardOf(kind: string, traits: SinkTraits, options: ForwardOptions): Forward {
  const { projection } = options
  const strategy = oneOf(kind, 'strategy', options.strategy ?? traits.strategies[0], traits.strategies)
  const actions = strategy === 'actions'
  const consistency = oneOf(kind, 'consistency', options.consistency ?? (traits.transactional ? 'latest' : 'key'), [
    'every',
    'latest',
    'key',
  ])
  const every = consistency === 'every'
  const forward: Forward = {
    projections:
      projection === undefined ? [] : Array.isArray(projection) ? (projection as readonly Projection[]) : [projection as Projection],
    strategy,
    consistency,
    lanes: whole(kind, 'lanes', options.lanes ?? 1, MAX_LANES),
    from: oneOf(kind, 'from', options.from ?? (actions ? 'now' : 'refresh'), ['refresh', 'now', 'beginning']),
    mode: oneOf(kind, 'mode', options.mode ?? 'both', ['changes', 'refresh-once', 'both']),
    onPoison: oneOf(kind, 'onPoison', options.onPoison ?? (every ? 'stop' : actions ? 'block' : 'park'), ['park', 'block', 'stop']),
    batch: {
      items: whole(kind, 'batch.items', options.batch?.items ?? DEFAULT_BATCH.items, MAX_ITEMS),
      bytes: whole(kind, 'batch.bytes', options.batch?.bytes ?? DEFAULT_BATCH.bytes, 1 << 30),
    },
    rate: options.rate ?? Number.POSITIVE_INFINITY,
    strangers: oneOf(kind, 'strangers', options.strangers ?? 'report', ['report', 'delete', 'ignore']),
    after: options.after,
    verifyEvery: options.verifyEvery === undefined ? undefined : whole(kind, 'verifyEvery', options.verifyEvery, MAX_SECONDS) * 1000,
  }
  for (const problem of contradictions(forward, traits)) refuse(kind, problem)
  return forward
}

function* contradictions(forward: Forward, { transactional, readable }: SinkTraits): Generator<string> {
  const { strategy, consistency, lanes, from, onPoison, projections, rate, verifyEvery } = forward
  const actions = strategy === 'actions'
  if (!transactional && consistency === 'latest') yield "consistency 'latest' needs a destination with transactions; write 'key' or 'every'"
  if (lanes > 1 && consistency !== 'key') yield "lanes above 1 need consistency 'key': several at once keep order per key only"
  if (lanes > 1 && transactional)
    yield 'lanes above 1: rows and cursor of this destination move in one transaction, one after the other; leave lanes out'
  if (actions && projections.some(({ join }) => Object.keys(join).length > 0))
    yield "strategy 'actions' and a join: which of many joined changes caused a row is not known; write strategy 'state'"
  if (consistency === 'every' && onPoison === 'park')
    yield "onPoison 'park' and consistency 'every': a state without the parked row never existed; write onPoison 'stop'"
  if (actions && onPoison === 'park')
    yield "onPoison 'park' and strategy 'actions': later events of the key would be applied without the parked one; write 'block'"
  if (!actions && onPoison === 'block') yield "onPoison 'block' is for strategy 'actions'; write 'park' or 'stop'"
  if (actions && from === 'refresh') yield "from 'refresh' and strategy 'actions': a refresh has no actions; write 'now' or 'beginning'"
  if (verifyEvery !== undefined && !readable) yield 'verifyEvery: this destination cannot be read back'
  if (!(rate > 0)) yield `rate is rows a second, above 0; this is ${String(rate)}`
  const twin = projections.find(({ to }, i) => projections.findIndex((other) => other.to === to) !== i)
  if (twin !== undefined) yield `two projections write to ${twin.to}; give one of them another name (to: '…')`
}

function oneOf<T extends string>(kind: string, name: string, value: unknown, allowed: readonly T[]): T {
  const found = allowed.find((each) => each === value)
  return found ?? refuse(kind, `${name} is ${allowed.map((each) => `'${each}'`).join(' or ')}; this is ${JSON.stringify(value)}`)
}

function whole(kind: string, name: string, value: unknown, max: number): number {
  if (typeof value === 'number' && Number.isInteger(value) && value >= 1 && value <= max) return value
  return refuse(kind, `${name} is a whole number from 1 to ${max}; this is ${JSON.stringify(value)}`)
}

function refuse(kind: string, problem: string): never {
  throw new SyncError('bad_option', `${kind}(): ${problem}`)
}
