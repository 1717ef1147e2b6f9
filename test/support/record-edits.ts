/**
 * Random edits of records, as applications and strangers make them: several devices, concurrent, deleting, replacing, nesting, reusing ids.
 */
import type { RecordValue, Schema } from '@rejoin/shared'
import { boolean, collection, date, defineSchema, json, number, readDocument, richText, string, text } from '@rejoin/shared'
import * as Y from 'yjs'
import type { Chance } from './histories.ts'
import { below, pick } from './histories.ts'

export const RECORDS: Schema = defineSchema({
  owners: collection({ name: string() }),
  pets: collection({ name: string(), age: number(), alive: boolean(), born: date(), extra: json(), note: text(), story: richText() }),
})

const IDS = ['1', '2', '3', '__proto__', "it's", '']
const SCALARS: readonly unknown[] = [
  'Rex',
  'Mia',
  3,
  4.5,
  true,
  false,
  null,
  undefined,
  NaN,
  '2020-05-17',
  '2020-05-17T10:00:00+02:00',
  '2020-02-31',
  new Uint8Array([1]),
  { b: 1, a: [2, { c: 3 }] },
  [1, '\u0000'],
]
const FIELDS = ['name', 'age', 'alive', 'born', 'extra', 'note', 'story', 'unknown']

/** One transaction of a device. */
export function editRecords(doc: Y.Doc, chance: Chance): void {
  doc.transact(() => {
    for (let n = 1 + below(chance, 4); n > 0; n--) editOnce(doc, chance)
  })
}

function editOnce(doc: Y.Doc, chance: Chance): void {
  const records = doc.getMap(pick(chance, ['pets', 'pets', 'owners', 'undeclared']))
  const id = pick(chance, IDS)
  const record = records.get(id)
  const roll = below(chance, 12)
  if (roll === 0) records.delete(id)
  else if (roll === 1) records.set(id, pick(chance, SCALARS.slice(0, 6)))
  else if (roll === 2) doc.getText('elsewhere').insert(0, 'x')
  else if (roll <= 4 || !(record instanceof Y.Map)) records.set(id, newRecord(chance))
  else editField(record, pick(chance, FIELDS), roll, chance)
}

function editField(record: Y.Map<unknown>, field: string, roll: number, chance: Chance): void {
  const value: unknown = record.get(field)
  if (value instanceof Y.Text) {
    if (value.length > 0 && roll < 7) value.delete(0, 1)
    else value.insert(value.length, pick(chance, ['a', '😀', '\n']), roll > 9 ? { bold: true } : {})
  } else if (value instanceof Y.XmlFragment) value.insert(0, [new Y.XmlElement('p')])
  else if (value instanceof Y.Map) nest(value, chance)
  else if (value instanceof Y.Array) {
    if (value.length > 2) value.delete(0, 1)
    else value.push([pick(chance, SCALARS.slice(0, 6))])
  } else if (roll === 5) record.delete(field)
  else record.set(field, newValue(field, chance))
}

/** Changes something somewhere below, so that the change lies deep under its record. */
function nest(map: Y.Map<unknown>, chance: Chance): void {
  let at = map
  for (let depth = below(chance, 4); depth > 0; depth--) {
    const child = at.get('child')
    if (!(child instanceof Y.Map)) break
    at = child
  }
  const roll = below(chance, 6)
  if (roll < 2) at.set('child', new Y.Map([['n', 1]]))
  else if (roll === 2) at.delete('child')
  else at.set('n', below(chance, 5))
}

function newRecord(chance: Chance): Y.Map<unknown> {
  const record = new Y.Map<unknown>()
  for (const field of FIELDS) if (chance() < 0.6) record.set(field, newValue(field, chance))
  return record
}

function newValue(field: string, chance: Chance): unknown {
  if (chance() < 0.25) return pick(chance, SCALARS)
  if (field === 'note') return new Y.Text('note')
  if (field === 'story') return chance() < 0.5 ? new Y.XmlFragment() : new Y.Text('story')
  if (field === 'extra')
    return chance() < 0.5 ? new Y.Map<unknown>([['child', new Y.Map([['n', 0]])]]) : Y.Array.from<number | string>([1, 'x'])
  if (field === 'age') return below(chance, 9)
  return field === 'alive' ? chance() < 0.5 : pick(chance, ['Rex', 'Mia', '2020-05-17'])
}

/** A stranger's update: lists where the records are. */
export function strangeUpdate(): Uint8Array {
  const doc = new Y.Doc()
  doc.getArray('pets').push(['not', 'a', 'record', new Y.Map([['name', 'x']])])
  return Y.encodeStateAsUpdate(doc)
}

/** Collection and id → canonical JSON: what the records of a document are, read by other code than the projector's. */
export function recordsOf(doc: Y.Doc, schema: Schema = RECORDS): Map<string, string> {
  const found = new Map<string, string>()
  for (const [name, records] of Object.entries(readDocument(schema, doc).collections)) {
    for (const [id, value] of Object.entries<RecordValue>(records)) found.set(`${name}/${id}`, JSON.stringify(value))
  }
  return found
}
