/**
 * Keeps one sink equal to the view (step 8 of the path), consistency `latest`: what changed since its cursor is read as of one cut, written stamped with it, and the
 * cursor moves with the rows. A destination that is new, wiped or changed is refreshed on the same path: every key of the view and every key of its own.
 */
import type { Clock, Collections, Random } from '@rejoin/shared'
import type { Batch, BatchLimits, Pump, PumpState, Written } from '../pump.ts'
import { startPump } from '../pump.ts'
import type { View } from '../view/view.ts'
import { compareKeys, keyText } from '../view/view.ts'
import type { Parked, Sink, SinkCommit, SinkPlace, SinkRow } from '../sinks/sink.ts'

export interface ForwarderOptions {
  readonly collections: Collections
  readonly view: ForwardedView
  /** Opens the destination: at the start, and again after every failure. */
  readonly open: () => Promise<Sink>
  readonly clock: Clock
  readonly random: Random
  /** Of one commit: rows, and bytes of their canonical JSON. One entry is never divided. @default { items: 5_000, bytes: 8 MiB } */
  readonly limits?: BatchLimits | undefined
  /** How often an idle forwarder looks whether the destination is still there and ours, in ms. @default 1_000 */
  readonly idle?: number | undefined
  /** After each commit. Must not throw. */
  readonly onCommit?: (() => void) | undefined
}

/** What the forwarder asks of the view. */
export type ForwardedView = View & {
  /** Versions given from now on are above `version`: a destination already carries it as a stamp. */
  raise(version: number): void
}

/** What to know about a sink. */
export interface SinkStatus {
  /**
   * 'starting': the destination or the view is not ready · 'refreshing': writing everything · 'behind': writing what changed · 'current' · 'failing': `error` says why,
   * it tries again · 'fenced': another forwarder has taken over, this one stays still until it is started again · 'stopped'.
   */
  readonly state: 'starting' | 'refreshing' | 'behind' | 'current' | 'failing' | 'fenced' | 'stopped'
  /** The version below which everything is in the destination, or parked. 0 until the destination is known, and while it is refreshed for the first time. */
  readonly cursor: number
  /** Versions between the cursor and the head of the view. */
  readonly lag: number
  readonly parked: { readonly total: number; readonly first: readonly Parked[] }
  readonly error?: string | undefined
}

/** A running forwarder. */
export interface Forwarder extends Pick<Pump, 'poke'> {
  status(): SinkStatus
  /** Resolves after the first attempt to begin, successful or not: if it was, the view's versions are now above the destination's stamps. */
  readonly begun: Promise<void>
  /** Versions up to here are no longer asked of the view; undefined when that is not known. */
  needs(): number | undefined
  /** Ends after the stage under way and closes the destination. */
  stop(): Promise<void>
}

/** Where the destination stands; undefined: everything has to be written. */
type Cursor = SinkPlace | undefined

/** Starts forwarding. `poke` it when the view has grown. */
export function startForwarder(options: ForwarderOptions): Forwarder {
  const { view, open, onCommit } = options
  let sink: Sink | undefined
  let known: { readonly at: Cursor; readonly stamp: number } | undefined
  const parked = new Map<string, Parked>()

  let tellBegun = (): void => {}
  const begun = new Promise<void>((resolve) => {
    tellBegun = resolve
  })

  const begin = async (): Promise<Cursor> => {
    // After a failure nothing about the old connection is known.
    known = undefined
    await close()
    sink = await open()
    const { place, stamp, parked: stored } = await sink.begin()
    parked.clear()
    for (const each of stored) parked.set(keyText(each.key), each)
    // Stamps of a view that was lost: this one counts on above them.
    if (place?.view !== view.id) view.raise(stamp)
    known = { at: place, stamp }
    return place
  }
  const close = async (): Promise<void> => {
    const closing = sink
    sink = undefined
    await closing?.close()
  }
  const opened = (): Sink => {
    if (sink === undefined) throw new Error('the sink is not open')
    return sink
  }
  const commit = async ({ rows, from, to }: SinkCommit): Promise<Written> => {
    const outcome = await opened().commit({ rows: deletesFirst(rows), from, to })
    if (outcome.type !== 'committed') return outcome.type === 'fenced' ? 'stop' : 'lost'
    for (const { key } of rows) parked.delete(keyText(key))
    for (const each of outcome.parked) parked.set(keyText(each.key), each)
    known = { at: to, stamp: Math.max(known?.stamp ?? 0, to.version) }
    return 'written'
  }

  const pump = startPump<Cursor, SinkCommit, SinkCommit>({
    ...options,
    limits: options.limits ?? { items: 5_000, bytes: 8 << 20 },
    idle: options.idle ?? 1_000,
    stages: {
      begin: () => begin().finally(tellBegun),
      read: (at, limits) => readNext(options, opened(), { at, stamp: known?.stamp ?? 0 }, limits),
      // The projection to the destination's rows; here they are the records themselves.
      step: (rows) => rows,
      write: async (input) => {
        const written = await commit(input)
        if (written === 'written') onCommit?.()
        return written
      },
      check: (at) => (at === undefined ? 'written' : commit({ rows: [], from: at, to: at })),
    },
  })

  return {
    poke: () => pump.poke(),
    begun,
    status: () => statusOf(pump.state, known?.at, view, { began: known !== undefined, parked: [...parked.values()] }),
    needs: () => (known?.at?.view === view.id ? known.at.version : undefined),
    stop: async () => {
      await pump.stop()
      await close()
    },
  }
}

/** The next commit: a piece of a refresh, or everything that changed up to a cut. */
async function readNext(
  options: ForwarderOptions,
  sink: Sink,
  { at, stamp }: { readonly at: Cursor; readonly stamp: number },
  limits: BatchLimits,
): Promise<Batch<Cursor, SinkCommit> | undefined> {
  const { view, collections } = options
  const head = view.head()
  if (head === undefined) return undefined
  if (at === undefined || !isReadable(view, at, head)) {
    // The guard lets rows pass that are stamped as high as the stored ones: everything is written as of a version not below any of them.
    if (head < stamp) view.raise(stamp)
    const version = view.head() ?? 0
    return version < stamp ? undefined : refresh(options, sink, at, { view: view.id, version, refreshed: null }, limits)
  }
  if (at.refreshed !== undefined) return refresh(options, sink, at, at, limits)
  const cut = view.cut(at.version, limits)
  if (cut <= at.version) return undefined
  const keys = view.dirty(at.version, cut).filter((key) => Object.hasOwn(collections, key.collection))
  return batchOf(
    keys.map((key) => ({ key, value: view.get(key, cut) })),
    at,
    { view: view.id, version: cut },
  )
}

/** Whether the view still has everything since the place. */
function isReadable(view: View, place: SinkPlace, head: number): boolean {
  return place.view === view.id && place.version >= view.oldest() && place.version <= head
}

/** Keys of the view and keys of the destination, side by side in their order, read as of the version at which the refresh began. */
async function refresh(
  options: ForwarderOptions,
  sink: Sink,
  from: Cursor,
  at: SinkPlace,
  limits: BatchLimits,
): Promise<Batch<Cursor, SinkCommit>> {
  const { view, collections } = options
  const behind = at.refreshed ?? undefined
  const [wanted, there] = [view.keys(at.version, limits.items, behind), await sink.keys(limits.items, behind)]
  const keys = new Map([...wanted, ...there].map((key) => [keyText(key), key]))
  // A full page says nothing about what lies behind it.
  const ends = [wanted, there].filter((page) => page.length === limits.items).flatMap((page) => page.at(-1) ?? [])
  let bound = ends.sort(compareKeys)[0]
  const rows: SinkRow[] = []
  let bytes = 0
  for (const key of [...keys.values()].sort(compareKeys)) {
    if (bound !== undefined && compareKeys(key, bound) > 0) break
    if (!Object.hasOwn(collections, key.collection)) continue
    const value = view.get(key, at.version)
    rows.push({ key, value })
    bytes += value === null ? 0 : JSON.stringify(value).length
    if (bytes > limits.bytes) {
      bound = key
      break
    }
  }
  return batchOf(rows, from, { view: view.id, version: at.version, refreshed: bound })
}

function batchOf(rows: readonly SinkRow[], from: Cursor, to: SinkPlace): Batch<Cursor, SinkCommit> {
  return { input: { rows, from, to }, next: to }
}

/** A row that leaves may free what a row that comes needs. */
function deletesFirst(rows: readonly SinkRow[]): readonly SinkRow[] {
  return [...rows.filter(({ value }) => value === null), ...rows.filter(({ value }) => value !== null)]
}

function statusOf(
  pump: PumpState,
  at: Cursor,
  view: View,
  { began, parked }: { readonly began: boolean; readonly parked: readonly Parked[] },
): SinkStatus {
  const head = view.head()
  const whole = at !== undefined && head !== undefined && isReadable(view, at, head) && at.refreshed === undefined
  const cursor = whole ? at.version : 0
  const state = (): SinkStatus['state'] => {
    if (pump.name === 'waiting') return 'failing'
    if (pump.name === 'stopped') return pump.reason === 'taken-over' ? 'fenced' : 'stopped'
    if (!began || head === undefined) return 'starting'
    if (!whole) return 'refreshing'
    return cursor < head ? 'behind' : 'current'
  }
  const error = pump.name === 'waiting' ? (pump.error instanceof Error ? pump.error.message : String(pump.error)) : undefined
  return {
    state: state(),
    cursor,
    lag: Math.max(0, (head ?? 0) - cursor),
    parked: { total: parked.length, first: parked.slice(0, 10) },
    error,
  }
}
