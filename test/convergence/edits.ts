/**
 * What people do to a document of the world. Every edit leaves a mark of its own, so that a lost one or a doubled one is seen.
 */
import * as Y from 'yjs'
import type { Chance } from './chance.ts'

const LETTERS = 'abcdefghij'
const RECORDS = ['r1', 'r2', 'r3', 'r4']
const FIELDS = ['name', 'age', 'kind']

/** One random edit, in the transaction of the caller. */
export function scribble(doc: Y.Doc, mark: string, chance: Chance): void {
  doc.getArray<string>('marks').push([mark])
  const strokes = 1 + chance.below(3)
  for (let i = 0; i < strokes; i++) {
    const draw = chance.below(10)
    if (draw < 4) type(doc.getText('text'), chance)
    else if (draw < 8) change(doc.getMap<Y.Map<unknown>>('records'), mark, chance)
    else if (draw < 9) format(doc.getText('text'), chance)
    else shuffle(doc.getArray<number>('list'), chance)
  }
}

function type(text: Y.Text, chance: Chance): void {
  const at = chance.below(text.length + 1)
  if (chance.maybe(0.3) && text.length > at) text.delete(at, 1 + chance.below(Math.min(5, text.length - at)))
  else text.insert(at, Array.from({ length: 1 + chance.below(6) }, () => chance.pick([...LETTERS])).join(''))
}

function format(text: Y.Text, chance: Chance): void {
  if (text.length < 2) return
  const at = chance.below(text.length - 1)
  text.format(at, 1 + chance.below(text.length - at), { bold: chance.maybe(0.5) ? true : null })
}

function change(records: Y.Map<Y.Map<unknown>>, mark: string, chance: Chance): void {
  const id = chance.pick(RECORDS)
  const record = records.get(id)
  if (record === undefined) records.set(id, new Y.Map([['name', mark]]))
  else if (chance.maybe(0.2)) records.delete(id)
  else record.set(chance.pick(FIELDS), chance.maybe(0.5) ? mark : chance.below(100))
}

function shuffle(list: Y.Array<number>, chance: Chance): void {
  if (list.length > 0 && chance.maybe(0.4)) list.delete(chance.below(list.length), 1)
  else list.insert(chance.below(list.length + 1), [chance.below(1000)])
}

/** Everything a document shows, in an order that does not depend on how it came to be. */
export function canonical(doc: Y.Doc): string {
  return JSON.stringify({
    marks: doc.getArray('marks').toJSON(),
    text: doc.getText('text').toDelta(),
    records: sorted(doc.getMap('records').toJSON()),
    list: doc.getArray('list').toJSON(),
  })
}

function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(
    Object.entries(value)
      .toSorted(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, inner]) => [key, sorted(inner)]),
  )
}

/** State vector and delete set, comparable as text. */
export function structure(doc: Y.Doc): string {
  const vector = [...Y.decodeStateVector(Y.encodeStateVector(doc))].toSorted(([a], [b]) => a - b)
  return JSON.stringify({ vector, deletes: deletesOf(Y.encodeStateAsUpdate(doc)) })
}

/** The delete set of an update, comparable as text. */
export function deletesOf(update: Uint8Array): string {
  const { ds } = Y.decodeUpdate(update)
  return JSON.stringify([...ds.clients].map(([client, ranges]) => [client, merged(ranges)]).toSorted((a, b) => Number(a[0]) - Number(b[0])))
}

function merged(ranges: readonly { readonly clock: number; readonly len: number }[]): readonly (readonly [number, number])[] {
  const out: [number, number][] = []
  for (const { clock, len } of ranges.toSorted((a, b) => a.clock - b.clock)) {
    const last = out.at(-1)
    if (last !== undefined && last[1] >= clock) last[1] = Math.max(last[1], clock + len)
    else out.push([clock, clock + len])
  }
  return out
}
