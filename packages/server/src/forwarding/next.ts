/**
 * What a sink has to do next (between steps 7 and 8 of the path): the next commit for where it stands, by its strategy, its consistency and what an operator asked for. Reads view, T and notes; writes nothing.
 *
 * A refresh goes over all keys in pages, each as of the version the destination then has, and lets every fourth commit at most have its turn while changes wait: the others are live ones. Live commits write
 * what changed wherever the refresh is; so at every commit all keys up to `refreshed` are as of the place's version, and when there is no page left all are.
 */
import type { Transform } from '../projection/transform.ts'
import type { SinkNotes } from '../sinks/notes.ts'
import type { Forward, Key, Sink, SinkCommit, SinkPlace, SinkRow } from '../sinks/sink.ts'
import type { CutLimits } from '../view/view.ts'
import type { ForwardedView } from './control.ts'
import type { Cut, DerivedState, PoisonedKey } from './derive.ts'
import { chooseCut, deriveActions, deriveState } from './derive.ts'
import { deriveRefresh } from './refresh.ts'

/** One commit and what it is. */
export type Step =
  /** Strategy 'state': T of one version becomes T of another. */
  | { readonly type: 'live'; readonly commit: SinkCommit; readonly derived: DerivedState }
  /** A page of a refresh. */
  | { readonly type: 'page'; readonly commit: SinkCommit; readonly poisoned: readonly PoisonedKey[]; readonly isFirst: boolean }
  /** What changed in (swept.at, swept.to] is written again, as of the place. `rest`: what is left of it then. */
  | { readonly type: 'sweep'; readonly commit: SinkCommit; readonly poisoned: readonly PoisonedKey[]; readonly rest: Sweep | undefined }
  /** Strategy 'actions'. `failed`: events that select failed on, and why. */
  | { readonly type: 'events'; readonly commit: SinkCommit; readonly failed: ReadonlyMap<SinkRow, string> }
  /** The place alone: a beginning, a rewind. */
  | { readonly type: 'move'; readonly commit: SinkCommit; readonly replay?: number | undefined }
  /** It cannot go on by itself. */
  | { readonly type: 'hold'; readonly state: 'cut-off' | 'paused'; readonly reason: string }

/** Keys that changed in (at, to] are to be written again. `begun`: a place that is not whole is so because of it; otherwise a refresh of everything is under way, which does for both. */
export interface Sweep {
  readonly at: number
  readonly to: number
  readonly begun?: boolean
}

/** Where the destination stands. */
export interface Standing {
  readonly at: SinkPlace | undefined
  /** What is written from now on is stamped as high or higher. */
  readonly stamp: number
  /** A commit up to this version may have happened without its cursor. */
  readonly attempted: number | undefined
}

export interface NextParts {
  readonly view: ForwardedView
  readonly transform: Transform
  readonly forward: Forward
  readonly log: string
  readonly notes: SinkNotes
  /** Versions above are not for this sink yet; undefined: none are. */
  readonly ceiling: (() => number | undefined) | undefined
}

/** Of four commits, how many may be pages while changes wait: one. */
const PAGE_EVERY = 4
/** Versions that do not concern the sink are passed over, as many at once, with consistency 'every'. */
const MAX_PASSED = 1_000
/** Beyond so many batches, what may have been attempted is swept and not written in one commit. */
const MAX_ATTEMPT = 4

/** The next step; undefined: nothing to do. `turn` counts commits. */
export async function nextStep(
  parts: NextParts,
  sink: Sink,
  standing: Standing,
  turn: number,
  limits: CutLimits,
): Promise<Step | undefined> {
  const { view, forward } = parts
  const head = topOf(parts)
  if (head === undefined) return undefined
  const { at } = standing
  if (forward.strategy === 'actions') return nextEvents(parts, standing, head, limits)
  if (at === undefined || !isUsable(view, at)) return beginState(parts, sink, standing, limits)
  return nextState(parts, sink, { ...standing, at, head }, turn, limits)
}

/** The highest version that this sink may have. */
function topOf({ view, ceiling }: NextParts): number | undefined {
  const head = view.head()
  if (head === undefined || ceiling === undefined) return head
  const top = ceiling()
  return top === undefined || top < view.oldest() ? undefined : Math.min(head, top)
}

/** Whether the view still has everything since the place, and is the one that the place speaks of. */
export function isUsable(view: ForwardedView, { view: id, version, mark }: SinkPlace): boolean {
  const head = view.head()
  if (id !== view.id || head === undefined || version < view.oldest() || version > head) return false
  return mark === undefined || mark === view.mark(version)
}

function placeAt({ view }: Pick<NextParts, 'view'>, version: number, refreshed?: Key | null): SinkPlace {
  return { view: view.id, version, mark: view.mark(version), ...(refreshed === undefined ? {} : { refreshed }) }
}

/** The destination is new, or is not where the view can go on from. */
async function beginState(parts: NextParts, sink: Sink, { at, stamp }: Standing, limits: CutLimits): Promise<Step | undefined> {
  const { view, forward, notes } = parts
  // What lies there may be of another history, in which the same versions meant other rows: everything is written as of a version above all of them.
  if (stamp > 0 && (view.head() ?? 0) <= stamp) view.raise(stamp + 1)
  const version = topOf(parts)
  if (version === undefined || (stamp > 0 && version <= stamp)) return undefined
  const hasBegun = at !== undefined || notes.get('began') === true
  const asked = notes.get('refresh') === true || sweepOf(notes) !== undefined
  if (forward.mode === 'changes' && hasBegun && !asked)
    return {
      type: 'hold',
      state: 'cut-off',
      reason: `${whyNot(parts, at)}; it has mode 'changes', so that only an operator refreshes it: refresh it, or rewind it to 'now'`,
    }
  if (!hasBegun && forward.from === 'beginning') return { type: 'move', commit: move(at, placeAt(parts, view.oldest())) }
  if (!hasBegun && (forward.from === 'now' || forward.mode === 'changes'))
    return { type: 'move', commit: move(at, placeAt(parts, version)) }
  return page(parts, sink, at, placeAt(parts, version, null), limits)
}

function whyNot({ view }: NextParts, at: SinkPlace | undefined): string {
  if (at === undefined) return 'the destination has lost its place'
  if (at.view !== view.id) return 'the destination stands in another view of the log'
  if (at.version < view.oldest()) return `the destination stands at version ${at.version} and the oldest that is kept is ${view.oldest()}`
  return 'the destination holds versions of another history of this log'
}

function move(from: SinkPlace | undefined, to: SinkPlace): SinkCommit {
  return { rows: [], from, to }
}

interface Usable extends Standing {
  readonly at: SinkPlace
  readonly head: number
}

async function nextState(parts: NextParts, sink: Sink, standing: Usable, turn: number, limits: CutLimits): Promise<Step | undefined> {
  const { forward, notes } = parts
  const { at, head } = standing
  const isAsked = notes.get('refresh') === true
  const swept = sweepOf(notes)
  const isWhole = at.refreshed === undefined && !isAsked && swept === undefined
  if (forward.mode === 'refresh-once' && isWhole)
    return { type: 'hold', state: 'paused', reason: "mode 'refresh-once': it has been refreshed" }
  const waits = at.version < head && forward.mode !== 'refresh-once'
  const isUnsure = standing.attempted !== undefined && standing.attempted > at.version
  if (!isWhole && !isUnsure && (!waits || turn % PAGE_EVERY === 0)) {
    // Where no changes follow it is made as of now.
    if (isAsked)
      return page(parts, sink, at, forward.mode === 'refresh-once' ? placeAt(parts, head, null) : { ...at, refreshed: null }, limits)
    if (swept !== undefined && isBySweep(at, swept)) return sweep(parts, at, swept, limits)
    return page(parts, sink, at, at, limits)
  }
  return live(parts, standing, limits)
}

/** Everything as of the version of `place`, behind its `refreshed`. */
async function page(parts: NextParts, sink: Sink, from: SinkPlace | undefined, place: SinkPlace, limits: CutLimits): Promise<Step> {
  const { view, transform } = parts
  const { rows, poisoned, refreshed } = await deriveRefresh(view, transform, {
    version: place.version,
    behind: place.refreshed ?? null,
    limits,
    keys: (limit, behind) => sink.keys(limit, behind),
  })
  const isFirst = place.refreshed === null || place.refreshed === undefined
  return { type: 'page', commit: { rows, from, to: placeAt(parts, place.version, refreshed) }, poisoned, isFirst }
}

/** A piece of what changed in a stretch of versions, whatever lies there. */
async function sweep(parts: NextParts, at: SinkPlace, { at: from, to: end }: Sweep, limits: CutLimits): Promise<Step> {
  const { view, transform } = parts
  const to = Math.min(end, at.version)
  // What was trimmed meanwhile cannot be told from what did not change.
  if (from < view.oldest()) return { type: 'sweep', commit: move(at, { ...at, refreshed: null }), poisoned: [], rest: undefined }
  const cut = chooseCut(view, transform, from, limits)
  const isLast = cut.to >= to || cut.to <= from
  const sources = transform.affected(view, view.dirty(from, isLast ? to : cut.to), at.version)
  const { rows, poisoned } = await deriveState(view, transform, {
    from: Math.min(from, at.version),
    to: at.version,
    attempted: at.version + 1,
    sources,
  })
  const commit = {
    rows: rows.map(({ key, value }) => ({ key, value })),
    from: at,
    to: placeAt(parts, at.version, isLast ? undefined : null),
  }
  return { type: 'sweep', commit, poisoned, rest: isLast ? undefined : { at: cut.to, to: end, begun: true } }
}

/** What changed up to a cut. */
async function live(parts: NextParts, { at, head, attempted }: Usable, limits: CutLimits): Promise<Step | undefined> {
  const { view, transform, forward } = parts
  let cut = forward.consistency === 'every' ? everyCut(parts, at.version, head) : chooseCut(view, transform, at.version, limits)
  if (cut.to > head) cut = cutAt(parts, at.version, head)
  if (attempted !== undefined && attempted > at.version && attempted !== cut.to) {
    // Rows may lie there as of `attempted`: a cursor below it would say what is not so. To the very same version: what lies there is then of two versions only.
    const to = Math.min(attempted, view.head() ?? attempted)
    if (attempted > view.cut(at.version, most(limits))) {
      const swept = sweepOf(parts.notes)
      const rest =
        at.refreshed === undefined || isBySweep(at, swept)
          ? { at: Math.min(at.version, swept?.at ?? at.version), to, begun: true }
          : undefined
      return { type: 'sweep', commit: move(at, placeAt(parts, to, null)), poisoned: [], rest }
    }
    cut = cutAt(parts, at.version, to)
  }
  if (cut.to <= at.version) return undefined
  const derived = await deriveState(view, transform, { ...cut, from: at.version, attempted })
  return { type: 'live', commit: { rows: derived.rows, from: at, to: placeAt(parts, cut.to, at.refreshed) }, derived }
}

function most({ items, bytes }: CutLimits): CutLimits {
  return { items: items * MAX_ATTEMPT, bytes: bytes * MAX_ATTEMPT }
}

/** Whether the place is not whole because of the sweep, or still is. */
function isBySweep({ refreshed }: SinkPlace, swept: Sweep | undefined): boolean {
  return swept !== undefined && (refreshed === undefined || swept.begun === true)
}

function cutAt({ view, transform }: NextParts, after: number, to: number): Cut {
  return { to, sources: to <= after ? [] : transform.affected(view, view.dirty(after, to), to) }
}

/** One version; those that do not concern the sink are passed over. */
function everyCut(parts: NextParts, after: number, head: number): Cut {
  let cut: Cut = { to: after, sources: [] }
  for (let passed = 0; passed < MAX_PASSED && cut.sources.length === 0; passed++) {
    const to = parts.view.cut(cut.to, { items: 0, bytes: 0 })
    if (to <= cut.to || to > head) break
    cut = cutAt(parts, after, to)
  }
  return cut
}

/** Strategy 'actions'. */
async function nextEvents(parts: NextParts, { at, attempted }: Standing, head: number, limits: CutLimits): Promise<Step | undefined> {
  const { view, transform, forward, notes, log } = parts
  const rewound = notes.get('rewind')
  if (typeof rewound === 'number') {
    const to = Math.min(Math.max(rewound, view.oldest()), head)
    const before = at !== undefined && isUsable(view, at) ? at.version : head
    return { type: 'move', commit: move(at, placeAt(parts, to)), replay: Math.max(before, numberOf(notes.get('replay'))) }
  }
  if (at === undefined && notes.get('began') !== true)
    return { type: 'move', commit: move(at, placeAt(parts, forward.from === 'beginning' ? view.oldest() : head)) }
  if (at === undefined || !isUsable(view, at)) {
    const reason = `${whyNot(parts, at)}: events may be missing; rewind it to 'oldest', which sends again what is kept, or to 'now', which leaves out what came in between`
    return { type: 'hold', state: 'cut-off', reason }
  }
  const replay = numberOf(notes.get('replay'))
  const isReplay = at.version < replay
  let to = forward.consistency === 'every' ? everyCut(parts, at.version, head).to : Math.min(view.cut(at.version, limits), head)
  // What may have come is sent again as it was; more than some batches of it in batches, and the sink is not whole until then.
  if (attempted !== undefined && attempted > at.version && attempted <= view.cut(at.version, most(limits))) to = Math.min(attempted, head)
  if (isReplay) to = Math.min(to, replay)
  if (to <= at.version) return undefined
  const { rows, poisoned } = await deriveActions(view, transform, { after: at.version, upTo: to, log, replay: isReplay })
  return { type: 'events', commit: { rows, from: at, to: placeAt(parts, to) }, failed: poisoned }
}

/** What is still to be swept. */
export function sweepOf(notes: SinkNotes): Sweep | undefined {
  const found = notes.get('sweep')
  return found === undefined || found === null ? undefined : (found as unknown as Sweep)
}

function numberOf(json: unknown): number {
  return typeof json === 'number' ? json : 0
}
