/**
 * Records out of shared types: canonical whatever the order of writes, total whatever a stranger wrote.
 */
import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import * as Y from 'yjs'
import { canonicalJson } from '#shared/canonical.js'
import { canonicalDate, MAX_DEPTH, readDocument, readRecord, toPlain } from '#shared/record.js'
import { boolean, collection, date, defineSchema, json, number, richText, string, text } from '#shared/schema.js'

const pets = collection({
  name: string(),
  weight: number(),
  neutered: boolean(),
  dob: date(),
  tags: json(),
  history: text(),
  letter: richText(),
})
const schema = defineSchema({ pets })

describe('a record', () => {
  it('reads as canonical JSON of its collection, keys sorted', () => {
    const record = stored({ weight: 4.2, name: 'Mia', dob: '2020-05-17', neutered: true, tags: { b: [1], a: null }, stranger: 'left out' })
    record.set('history', new Y.Text('coughs'))
    const letter = record.set('letter', new Y.XmlFragment())
    letter.insert(0, [new Y.XmlElement('p')])
    const { value, violations } = readRecord(pets, record)
    expect(violations).toEqual([])
    expect(JSON.stringify(value)).toBe(
      '{"dob":"2020-05-17","history":"coughs","letter":"<p></p>","name":"Mia","neutered":true,"tags":{"a":null,"b":[1]},"weight":4.2}',
    )
  })

  it('has null where nothing was written', () => {
    expect(readRecord(pets, stored({ name: null })).value).toEqual({
      dob: null,
      history: null,
      letter: null,
      name: null,
      neutered: null,
      tags: null,
      weight: null,
    })
    expect(readRecord(pets, stored({ name: null })).violations).toEqual([])
  })

  it('normalises numbers and strings that destinations do not agree on', () => {
    const record = stored({ weight: Number.NaN, tags: [Number.POSITIVE_INFINITY, -0] })
    expect(readRecord(pets, record).value).toMatchObject({ weight: null, tags: [null, 0] })
    expect(Object.is((toPlain([-0]) as number[])[0], 0)).toBe(true)
    expect(toPlain('a\ud800b')).toBe('a\ufffdb')
  })

  it.each<[string, unknown, string]>([
    ['name', 7, 'name: a string, not a number'],
    ['name', new Y.Map(), 'name: a string, not another shared type'],
    ['weight', '4', 'weight: a number, not a string'],
    ['weight', 10n, 'weight: a number, not a bigint'],
    ['neutered', 1, 'neutered: true or false, not a number'],
    ['dob', '2021-02-30', 'dob: an ISO 8601 date, or time with its offset, not a string'],
    ['dob', 0, 'dob: an ISO 8601 date, or time with its offset, not a number'],
    ['tags', new Uint8Array(3), 'tags: bytes has no JSON form'],
    ['history', 'plain', 'history: a Y.Text, not a string'],
    ['letter', [], 'letter: a Y.XmlFragment or Y.Text, not an array'],
  ])('whose %s is %o reads null there and says what does not fit', (field, value, message) => {
    const read = readRecord(pets, stored({ [field]: value }))
    expect(read.value?.[field]).toBeNull()
    expect(read.violations).toEqual([{ field, problem: 'type', message }])
  })

  it('that is no map has no value', () => {
    const doc = new Y.Doc()
    doc.getMap('pets').set('p1', 'nonsense')
    doc.getMap('pets').set('__proto__', new Y.Map())
    doc.getMap('pets').set('p2', new Y.Map([['name', 'Rex']]))
    const read = readDocument(schema, doc)
    expect(Object.keys(read.collections['pets'] ?? {})).toEqual(['p2'])
    expect(read.violations).toEqual([
      { collection: 'pets', id: '__proto__', field: undefined, problem: 'key', message: 'a record whose id is __proto__' },
      { collection: 'pets', id: 'p1', field: undefined, problem: 'type', message: 'a record is a Y.Map, not a string' },
    ])
  })

  it('reads alike on replicas that took the same edits in another order', () => {
    const edits = fc.array(fc.tuple(fc.constantFrom('p1', 'p2'), fc.constantFrom('name', 'weight', 'tags'), fc.jsonValue(), fc.boolean()), {
      maxLength: 20,
    })
    fc.assert(
      fc.property(edits, (list) => {
        const [a, b] = [new Y.Doc(), new Y.Doc()]
        for (const doc of [a, b]) for (const id of ['p1', 'p2']) if (doc === a) doc.getMap('pets').set(id, new Y.Map())
        Y.applyUpdate(b, Y.encodeStateAsUpdate(a))
        for (const [id, field, value, first] of list) ((first ? a : b).getMap('pets').get(id) as Y.Map<unknown>).set(field, value)
        const [ofA, ofB] = [Y.encodeStateAsUpdate(a), Y.encodeStateAsUpdate(b)]
        Y.applyUpdate(a, ofB)
        Y.applyUpdate(b, ofA)
        expect(JSON.stringify(readDocument(schema, a))).toBe(JSON.stringify(readDocument(schema, b)))
      }),
      { numRuns: 50 },
    )
  })

  it('of anything at all is read without a throw', () => {
    const any = fc.anything({ withBigInt: true, withDate: true, withMap: true, withTypedArray: true, withNullPrototype: true, maxDepth: 4 })
    fc.assert(
      fc.property(fc.constantFrom(...Object.keys(pets.fields)), any, (field, value) => {
        // Held, not stored: what Yjs would refuse to encode must not hurt either.
        const map = { get: (name: string) => (name === field ? value : undefined) }
        Object.setPrototypeOf(map, Y.Map.prototype)
        expect(() => JSON.stringify(readRecord(pets, map))).not.toThrow()
      }),
    )
  })
})

describe('plain JSON', () => {
  it('equals what JSON itself would keep', () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        expect(toPlain(value)).toEqual(JSON.parse(JSON.stringify(value).replaceAll('-0,', '0,'), reviveZero))
      }),
    )
  })

  it('of nested shared types is what they hold', () => {
    const map = new Y.Doc().getMap('m')
    const inner = map.set('list', new Y.Array<unknown>())
    inner.push([1, new Y.Text('x'), new Y.Map([['k', 'v']])])
    expect(toPlain(map)).toEqual({ list: [1, 'x', { k: 'v' }] })
  })

  it('ends where it is too deep, and stays total ten thousand levels down', () => {
    const problems: string[] = []
    let deep: unknown = 'bottom'
    for (let i = 0; i < 10_000; i++) deep = i % 2 === 0 ? [deep] : { deep }
    const plain = toPlain(deep, (problem) => problems.push(problem))
    expect(problems).toEqual(['depth'])
    expect(JSON.stringify(plain).match(/[[{]/gu)).toHaveLength(MAX_DEPTH)
    expect(canonicalJson(deep)).toHaveLength(5000 * '[]'.length + 5000 * '{"deep":}'.length + '"bottom"'.length)
  })

  it('keeps no prototype of a stranger', () => {
    const problems: string[] = []
    const hostile = { ok: 1, ...Object.fromEntries([['x', 2]]) }
    Object.defineProperty(hostile, '__proto__', { value: { admin: true }, enumerable: true })
    const plain = toPlain(hostile, (problem) => problems.push(problem))
    expect([plain, problems]).toEqual([{ ok: 1, x: 2 }, ['key']])
    expect(Object.getPrototypeOf(plain)).toBe(Object.prototype)
  })

  it('has one spelling whatever the order of keys', () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        expect(canonicalJson(reversed(value))).toBe(canonicalJson(value))
        expect(JSON.parse(canonicalJson(value), reviveZero)).toEqual(JSON.parse(JSON.stringify(value), reviveZero))
      }),
    )
    expect(canonicalJson({ b: undefined, a: [undefined, () => 0, 10n], 10: 1, 9: '\ud800' })).toBe(
      '{"10":1,"9":"\ufffd","a":[null,null,null]}',
    )
  })
})

describe('a date', () => {
  it.each([
    ['2020-05-17', '2020-05-17'],
    ['2020-05-17T10:00Z', '2020-05-17T10:00:00.000Z'],
    ['2020-05-17T10:00:00.123456+02:00', '2020-05-17T08:00:00.123Z'],
    ['2024-02-29', '2024-02-29'],
    ['2023-02-29', undefined],
    ['2021-02-30T00:00:00Z', undefined],
    ['2020-05-17T10:00', undefined],
    ['2020-05-17T25:00Z', undefined],
    ['9999-12-31T23:59:59-01:00', undefined],
    ['17.5.2020', undefined],
    ['', undefined],
  ])('%s reads as %s', (written, read) => {
    expect(canonicalDate(written)).toBe(read)
  })

  it('is its own canonical form', () => {
    fc.assert(
      fc.property(fc.date({ min: new Date(0), max: new Date('9999-12-31'), noInvalidDate: true }), (day) => {
        expect(canonicalDate(day.toISOString())).toBe(day.toISOString())
      }),
    )
  })
})

describe('rich text', () => {
  it('is XML with everything escaped and sorted', () => {
    const fragment = new Y.Doc().getXmlFragment('note')
    const paragraph = new Y.XmlElement('p')
    fragment.insert(0, [paragraph, new Y.XmlElement('"><script>')])
    paragraph.setAttribute('style', 'a<b')
    paragraph.setAttribute('class', 'x')
    const words = new Y.XmlText()
    paragraph.insert(0, [words])
    words.insert(0, 'a < b')
    words.format(0, 1, { link: { href: '"/"' }, bold: true })
    words.insertEmbed(5, { image: 'x.png' })
    expect(readRecord(collection({ note: richText() }), holding('note', fragment)).value?.['note']).toBe(
      '<p class="x" style="a&lt;b"><bold><link href="&quot;/&quot;">a</link></bold> &lt; b<embed>{&quot;image&quot;:&quot;x.png&quot;}</embed></p>' +
        '<element name="&quot;&gt;&lt;script&gt;"></element>',
    )
  })

  it('as formatted Y.Text reads alike', () => {
    const words = new Y.Doc().getText('t')
    words.insert(0, 'ab')
    words.format(1, 1, { color: 'red' })
    expect(readRecord(collection({ note: richText() }), holding('note', words)).value?.['note']).toBe('a<color value="red">b</color>')
  })

  it('five thousand levels deep, or a hundred and thirty thousand siblings wide, does not overflow the stack', () => {
    const fragment = new Y.Doc().getXmlFragment('note')
    let into: Y.XmlFragment = fragment
    for (let i = 0; i < 5000; i++) {
      const child = new Y.XmlElement('p')
      into.insert(0, [child])
      into = child
    }
    fragment.insert(
      1,
      Array.from({ length: 130_000 }, () => new Y.XmlText()),
    )
    const note = readRecord(collection({ note: richText() }), holding('note', fragment)).value?.['note']
    expect(typeof note === 'string' && note.length).toBe(5000 * 7)
  })
})

function stored(fields: Readonly<Record<string, unknown>>): Y.Map<unknown> {
  const record = new Y.Doc().getMap('pets').set('p1', new Y.Map<unknown>())
  for (const [name, value] of Object.entries(fields)) record.set(name, value)
  return record
}

/** A record whose one field is a top-level type, which tests can fill more easily. */
function holding(field: string, type: unknown): unknown {
  return Object.setPrototypeOf({ get: (name: string) => (name === field ? type : undefined) }, Y.Map.prototype)
}

function reversed(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(reversed)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(
    Object.entries(value)
      .toReversed()
      .map(([key, child]) => [key, reversed(child)]),
  )
}

function reviveZero(_key: string, value: unknown): unknown {
  return Object.is(value, -0) ? 0 : value
}
