/**
 * What is written to a destination outside the stream of changes, between two commits (step 8 of the path): repairs, and dead letters that an operator sends again.
 */
import { SyncError } from '@rejoin/shared'
import { letterId, lettersOf } from '../sinks/delivery.ts'
import type { DeadLetter, SinkNotes } from '../sinks/notes.ts'
import type { Key, SinkOutcome, SinkPlace, SinkRow } from '../sinks/sink.ts'
import { keyText } from '../view/view.ts'
import type { ForwarderOptions } from './control.ts'
import { deriveActions } from './derive.ts'
import type { Engine } from './engine.ts'
import { rowOf } from './parking.ts'

/** How a job ended for the destination, and what it has to say to who asked. */
export interface JobDone<T> {
  readonly outcome: 'written' | 'lost' | 'fenced'
  readonly value: T
}

export type Job<T> = (engine: Engine) => Promise<JobDone<T>>

type JobParts = Pick<ForwarderOptions, 'view' | 'transform' | 'forward' | 'notes' | 'log'>

/** Writes keys of the destination as T gives them at its place; how many landed. */
export function writeJob(parts: JobParts, keys: readonly Key[], { force }: { readonly force: boolean }): Job<number> {
  const { forward } = parts
  return async (engine) => {
    let landed = 0
    for (let i = 0; i < keys.length; i += forward.batch.items) {
      const { at } = engine.session ?? {}
      if (at === undefined) return { outcome: 'lost', value: landed }
      const { rows, cured } = await rowsFor(parts, keys.slice(i, i + forward.batch.items), at)
      const outcome = await engine.send(deletesFirst(rows), { force, whole: forward.onPoison === 'stop' })
      if (outcome.type === 'fenced' || outcome.type === 'lost') return { outcome: outcome.type, value: landed }
      if (outcome.type === 'refused')
        throw new SyncError('sink_parked', `${outcome.parked[0]?.key.id ?? 'a row'}: ${outcome.parked[0]?.reason ?? 'refused'}`)
      engine.parking.settle(rows, outcome.parked, { version: at.version, freed: [...cured, ...(outcome.landed ?? [])] })
      landed += rows.length - outcome.parked.length
    }
    return { outcome: 'written', value: landed }
  }
}

/** The rows of these keys, null where T gives none. Keys on which select fails are left as they are. */
async function rowsFor(
  { view, transform }: JobParts,
  keys: readonly Key[],
  { version }: SinkPlace,
): Promise<{ readonly rows: readonly SinkRow[]; readonly cured: readonly Key[] }> {
  const sources = new Map<string, Key>()
  for (const key of keys) {
    const target = transform.sources.get(key.collection)
    // By the record's own id too: so is a key named on which select failed.
    for (const source of [transform.sourceOf(key), target && { ...key, collection: target.collection }])
      if (source !== undefined) sources.set(keyText(source), source)
  }
  const made = await transform.rows(
    view,
    [...sources.values()].map((source) => ({ source, version })),
  )
  const values = new Map(made.flatMap(({ rows }) => rows.map(({ key, value }) => [keyText(key), { key, value }] as const)))
  const failed = new Set(made.flatMap(({ poison }) => poison.map(({ key }) => keyText(key))))
  const rows = new Map<string, SinkRow>()
  const cured: Key[] = []
  for (const key of keys) {
    const source = transform.sourceOf(key)
    if (
      !transform.sources.has(key.collection) ||
      failed.has(keyText(key)) ||
      (source !== undefined && failed.has(keyText({ ...source, collection: key.collection })))
    )
      continue
    cured.push(key)
    rows.set(keyText(key), { key, value: values.get(keyText(key))?.value ?? null })
    if (transform.sources.get(key.collection)?.parts !== true) continue
    // A record that failed comes back with all its parts.
    for (const each of made.find(({ source: { document, id } }) => document === key.document && id === key.id)?.rows ?? [])
      if (each.key.collection === key.collection) rows.set(keyText(each.key), each)
  }
  return { rows: [...rows.values()], cured }
}

/** Strategy 'state': parked keys are tried again. 'actions': blocked keys are, event by event. How many are out. */
export function requeueJob(parts: JobParts, ids: readonly string[] | undefined): Job<number> {
  if (parts.forward.strategy === 'actions') return async (engine) => sendGroups(parts, engine, groupsOf(parts.notes, ids))
  return async (engine) => {
    const wanted = ids === undefined ? undefined : new Set(ids)
    const before = engine.parking.all().filter(({ key }) => wanted === undefined || wanted.has(letterId(key)))
    const { outcome } = await writeJob(
      parts,
      before.map(({ key }) => key),
      { force: false },
    )(engine)
    return { outcome, value: before.filter(({ key }) => !engine.parking.has(key)).length }
  }
}

/** Forgets events; what was held behind a refused one is sent. */
export function discardJob(parts: JobParts, ids: readonly string[] | undefined): Job<number> {
  return async (engine) => {
    const { notes } = parts
    const gone = new Set(ids)
    const letters = [...lettersOf(notes)].filter(({ id }) => ids === undefined || gone.has(id))
    // Before the rest is sent: it may be refused in turn.
    engine.parking.remove(letters)
    const freed = new Set(letters.filter(({ state }) => state !== 'held').map(({ key }) => keyText(key)))
    const groups = groupsOf(notes, undefined).filter(([first]) => first !== undefined && freed.has(keyText(first.key)))
    const { outcome } = await sendGroups(parts, engine, groups)
    return { outcome, value: letters.length }
  }
}

/** Letters by key, each key's in order; of keys that have one of `ids`. */
function groupsOf(notes: SinkNotes, ids: readonly string[] | undefined): readonly (readonly DeadLetter[])[] {
  const wanted = ids === undefined ? undefined : new Set(ids)
  const groups = new Map<string, { readonly letters: DeadLetter[]; isWanted: boolean }>()
  for (const letter of lettersOf(notes)) {
    const group = groups.get(keyText(letter.key)) ?? { letters: [], isWanted: false }
    group.letters.push(letter)
    group.isWanted ||= wanted === undefined || wanted.has(letter.id)
    groups.set(keyText(letter.key), group)
  }
  return [...groups.values()].flatMap(({ letters, isWanted }) => (isWanted ? [letters] : []))
}

async function sendGroups(parts: JobParts, engine: Engine, groups: readonly (readonly DeadLetter[])[]): Promise<JobDone<number>> {
  let sent = 0
  for (const letters of groups) {
    const done = await sendGroup(parts, engine, letters)
    sent += done.value
    if (done.outcome !== 'written') return { outcome: done.outcome, value: sent }
  }
  return { outcome: 'written', value: sent }
}

/** The events of one key, as far as they are taken. */
async function sendGroup(parts: JobParts, engine: Engine, letters: readonly DeadLetter[]): Promise<JobDone<number>> {
  const rows: SinkRow[] = []
  for (const letter of letters) {
    const row = await eventOf(parts, letter)
    if (row === undefined) break
    rows.push(row)
  }
  let reason: string | undefined
  while (rows.length > 0) {
    const outcome: SinkOutcome = await engine.send(rows, { whole: true })
    if (outcome.type === 'fenced' || outcome.type === 'lost') return { outcome: outcome.type, value: 0 }
    if (outcome.type === 'committed') break
    const [first] = outcome.parked
    reason = first?.reason ?? 'refused'
    const index = rows.findIndex(({ event }) => event?.id === first?.event)
    rows.length = Math.max(0, index)
  }
  const [out, stopped] = [letters.slice(0, rows.length), letters[rows.length]]
  engine.parking.remove(out)
  // What stops the key now is no longer behind another.
  if (stopped !== undefined)
    parts.notes.write({
      putLetters: [{ ...stopped, reason: reason ?? stopped.reason, state: stopped.state === 'held' ? 'refused' : stopped.state }],
    })
  return { outcome: 'written', value: out.length }
}

/** The event of a letter; made again when select had failed on it, undefined when it still does, or when that version is not kept any more. */
async function eventOf({ view, transform, log }: JobParts, letter: DeadLetter): Promise<SinkRow | undefined> {
  if (letter.state !== 'failed') return rowOf(letter)
  if (letter.version - 1 < view.oldest()) return undefined
  const { rows, poisoned } = await deriveActions(view, transform, { after: letter.version - 1, upTo: letter.version, log, replay: false })
  return rows.find((row) => keyText(row.key) === keyText(letter.key) && !poisoned.has(row))
}

/** A row that leaves may free what a row that comes needs. */
function deletesFirst(rows: readonly SinkRow[]): readonly SinkRow[] {
  return [...rows.filter(({ value }) => value === null), ...rows.filter(({ value }) => value !== null)]
}
