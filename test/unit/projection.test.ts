/**
 * T: what select returns is normalised or refused, what is defined is checked, and what depends on what is known.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { SyncError, boolean, canonicalJson, collection, date, defineSchema, json, number, string, text } from '@rejoin/shared'
import type { DocumentId, JsonValue } from '@rejoin/shared'
import fc from 'fast-check'
import { afterEach, describe, expect, it } from 'vitest'
import { deriveState } from '#server/forwarding/derive.js'
import { defineProjection, ref } from '#server/projection/define.js'
import { runSelect } from '#server/projection/select.js'
import { compileTransform, refsOf } from '#server/projection/transform.js'
import { createMemoryView } from '#server/storage/view-memory.js'
import { openSqliteView } from '#server/storage/view-sqlite.js'
import type { Key, ViewStore } from '#server/view/view.js'
import { compareKeys, keyText } from '#server/view/view.js'
import { CLINIC, PROJECTIONS, entryOf, histories, truthOf, withEntries } from '../support/projections.ts'

const KEY: Key = { collection: 'pets', document: 'd' as DocumentId, id: '1' }
const select = (
  given: (input: Readonly<Record<string, unknown>>) => unknown,
  parts = false,
  fields?: Parameters<typeof runSelect>[0]['fields'],
) => runSelect({ select: given, parts, fields }, [{ key: KEY, input: {} }])[0]

describe('what select returns', () => {
  it('becomes canonical JSON: equal rows have equal text', () => {
    const row = { b: -0, a: [Number.NaN, undefined, Infinity], c: undefined, d: { z: 'x\ud800', y: 1 }, nul: 'a\u0000b' }
    const made = select(() => row)
    expect(made).toEqual({
      rows: [{ part: undefined, value: { a: [null, null, null], b: 0, d: { y: 1, z: 'x\ufffd' }, nul: 'a\u0000b' } }],
    })
    expect(JSON.stringify(made)).toBe('{"rows":[{"value":{"a":[null,null,null],"b":0,"d":{"y":1,"z":"x\ufffd"},"nul":"a\\u0000b"}}]}')
    fc.assert(
      fc.property(
        // A key that no row may have, see below.
        fc.dictionary(fc.string(), fc.jsonValue({ maxDepth: 3 })).filter((row) => !JSON.stringify(row).includes('__proto__')),
        (value) => {
          const outcome = select(() => value)
          if (outcome === undefined || 'error' in outcome) throw new Error(outcome?.error)
          const text = JSON.stringify(outcome.rows[0]?.value)
          expect(JSON.stringify(JSON.parse(canonicalJson(JSON.parse(text))))).toBe(text)
        },
      ),
      { numRuns: 200 },
    )
  })

  it('has every declared field, in their order, of their kinds', () => {
    const fields = { name: string(), n: number(), ok: boolean(), born: date(), any: json(), note: text() }
    const given = { n: 1, name: 'Rex', born: '2020-05-17T10:00:00+02:00', any: { x: [1] } }
    expect(select(() => given, false, fields)).toEqual({
      rows: [{ part: undefined, value: { name: 'Rex', n: 1, ok: null, born: '2020-05-17T08:00:00.000Z', any: { x: [1] }, note: null } }],
    })
    const wrong: readonly (readonly [object, RegExp])[] = [
      [{ name: 5 }, /^name is declared as string\(\) and is a number$/u],
      [{ n: '5' }, /^n is declared as number\(\) and is a string$/u],
      [{ ok: 1 }, /^ok is declared as boolean\(\)/u],
      [{ born: 'yesterday' }, /^born is declared as date\(\) and is a string$/u],
      [{ note: ['x'] }, /^note is declared as text\(\) and is a list$/u],
      [{ colour: 'red' }, /"colour", which fields does not declare/u],
    ]
    for (const [row, reason] of wrong) expect(select(() => row, false, fields)).toEqual({ error: expect.stringMatching(reason) as unknown })
  })

  it('is refused, record by record, where it is no row, and says why without saying the value', async () => {
    const cases: readonly (readonly [() => unknown, RegExp])[] = [
      [() => 'secret', /a row is an object of fields; select returned a string/u],
      [() => [{ name: 'secret' }], /parts: true/u],
      [() => new Map([['secret', 1]]), /plain object|no JSON form/u],
      [() => ({ when: new Date(0) }), /an object has no JSON form/u],
      [() => ({ f: () => 'secret' }), /a function has no JSON form/u],
      [() => ({ n: 5n }), /a bigint has no JSON form/u],
      [() => ({ bytes: new Uint8Array(3) }), /bytes has no JSON form/u],
      [() => JSON.parse('{"__proto__": {"secret": 1}}') as unknown, /__proto__/u],
      [() => Promise.reject(new Error('secret')), /returned a promise/u],
      [
        () => {
          throw new Error('x'.repeat(9_999))
        },
        /^x{500}$/u,
      ],
    ]
    for (const [given, reason] of cases) {
      const outcome = select(given)
      expect(outcome).toEqual({ error: expect.stringMatching(reason) as unknown })
      expect(JSON.stringify(outcome)).not.toContain('secret')
    }
    // What the promise rejected with must not have ended the process.
    await new Promise((resolve) => setImmediate(resolve))
    const parts: readonly (readonly [unknown, RegExp])[] = [
      [{ name: 'x' }, /no list/u],
      [[{ value: {} }], /a part is named by a string/u],
      [[{ part: 'a/b', value: {} }], /without '\/'/u],
      [[{ part: '', value: {} }], /a part is named/u],
      [
        [
          { part: 'a', value: {} },
          { part: 'a', value: {} },
        ],
        /the part "a" twice/u,
      ],
      [[null], /a part is named/u],
    ]
    for (const [given, reason] of parts) expect(select(() => given, true)).toEqual({ error: expect.stringMatching(reason) as unknown })
    expect(select(() => null, true)).toEqual({ rows: [] })
  })

  it('fails for the record that it fails for, and for no other', () => {
    const pick = ({ pet }: Readonly<Record<string, unknown>>): unknown => ({ name: (pet as { name: string }).name.toUpperCase() })
    const inputs = [{ name: 'a' }, {}, { name: 'b' }].map((pet) => ({ key: KEY, input: { pet } }))
    const outcomes = runSelect({ select: pick, parts: false, fields: undefined }, inputs)
    expect(outcomes.map((each) => ('error' in each ? 'error' : each.rows[0]?.value['name']))).toEqual(['A', 'error', 'B'])
  })
})

describe('a definition', () => {
  const schema = defineSchema({
    pets: collection({ name: string(), ownerId: string(), age: number() }),
    owners: collection({ city: string() }),
    s: collection({ x: string() }),
  })
  const base = { from: 'pets', revision: 1, select: () => null } as const
  const define = (options: object): string => {
    try {
      defineProjection(schema, { ...base, ...options })
      return 'defined'
    } catch (error) {
      return error instanceof SyncError && error.code === 'bad_option' ? error.reason : String(error)
    }
  }

  it('names what is wrong with it', () => {
    const wrong: readonly (readonly [object, RegExp])[] = [
      [{ from: 'vets' }, /from: "vets" is no collection of the schema, which has pets, owners, s$/u],
      [{ from: 'toString' }, /is no collection/u],
      [{ revison: 2 }, /does not know revison; it takes from, to, as/u],
      [{ revision: 0 }, /revision: a whole number/u],
      [{ revision: undefined }, /revision/u],
      [{ revision: 1.5 }, /revision/u],
      [{ to: 'pet cards' }, /"pet cards": a name is/u],
      [{ to: 'rejoin_cursor' }, /rejoin_/u],
      [{ fields: { id: string() } }, /has its document and its id already/u],
      [{ fields: { name: 'string' } }, /is not made by string/u],
      [{ fields: {} }, /has no fields/u],
      [{ as: 'document' }, /as: document is what select is given/u],
      [{ as: 'a b' }, /as: "a b" is no name/u],
      [{ join: { pet: ref('ownerId', 'owners') } }, /join: pet is the record itself/u],
      [{ join: { id: ref('ownerId', 'owners') } }, /join: id is what select is given/u],
      [{ join: { owner: ref('ownerId', 'vets') } }, /join\.owner: "vets" is no collection/u],
      [{ join: { owner: ref('age', 'owners') } }, /pets\.age has to be a field of kind string\(\)/u],
      [{ join: { owner: ref('__proto__', 'owners') } }, /has to be a field/u],
      [{ join: { owner: ref('ownerId', 'owners', { document: { field: 'age' } }) } }, /pets\.age has to be/u],
      [{ join: { owner: ref('ownerId', 'owners', { document: '' }) } }, /document/u],
      [{ join: { owner: 'ownerId' } }, /is made by ref/u],
      [{ select: undefined }, /select: a function/u],
      [{ where: true }, /where: a function/u],
      [{ parts: 1 }, /parts: true or false/u],
    ]
    for (const [options, reason] of wrong) expect(define(options), JSON.stringify(options)).toMatch(reason)
    expect(define({})).toBe('defined')
  })

  it('calls the record by the name of one', () => {
    const names = (['pets', 'owners', 's'] as const).map((from) => defineProjection(schema, { from, revision: 1, select: () => null }).as)
    expect(names).toEqual(['pet', 'owner', 's'])
  })

  it('changes its revision with what it says, and its source with its functions', () => {
    const compiled = (options: object) => compileTransform(schema, [defineProjection(schema, { ...base, ...options })])
    const first = compiled({})
    for (const options of [
      { revision: 2 },
      { to: 'x' },
      { fields: { name: string() } },
      { join: { o: ref('ownerId', 'owners') } },
      { parts: true },
    ])
      expect(compiled(options).revision, JSON.stringify(options)).not.toBe(first.revision)
    const other = compiled({ select: () => ({}) })
    expect([other.revision, other.source === first.source]).toEqual([first.revision, false])
    expect(compiled({ where: () => true }).source).not.toBe(first.source)
    expect(compiled({}).source).toBe(first.source)
    expect(compileTransform(schema, []).revision).not.toBe(compileTransform(CLINIC, []).revision)
  })

  it('is refused by a schema that lacks what it reads', () => {
    expect(() => compileTransform(CLINIC, [defineProjection(schema, { ...base, from: 's' })])).toThrow(
      /"s", which the schema does not declare/u,
    )
  })

  it('whose where gives no truth value fails for that record', () => {
    const projection = defineProjection(schema, { ...base, where: (() => Promise.resolve(false)) as never })
    expect(runSelect(projection, [{ key: KEY, input: {} }])).toEqual([{ error: 'where returned something that is neither true nor false' }])
  })
})

describe('T', () => {
  it('gives what brute force gives, and knows every record that a change may concern', async () => {
    await fc.assert(
      fc.asyncProperty(histories, fc.constantFrom(...PROJECTIONS), fc.nat(11), async (entries, projections, at) => {
        const view = withEntries(createMemoryView('0'.repeat(32)), entries)
        const transform = compileTransform(CLINIC, projections)
        const to = entries.length
        const from = at % to
        const [before, after] = [truthOf(entries, from, projections), truthOf(entries, to, projections)]
        const affected = transform.affected(view, view.dirty(from, to), to)
        expect(affected).toEqual([...affected].sort(compareKeys))
        const known = new Set(affected.map(keyText))
        expect(known.size, 'each once').toBe(affected.length)
        for (const [text, { key }] of [...before.rows, ...after.rows]) {
          if (before.rows.get(text)?.text === after.rows.get(text)?.text) continue
          const source = transform.sourceOf(key)
          expect(source && known.has(keyText(source)), text).toBe(true)
        }
        for (const { source, rows } of await transform.rows(
          view,
          affected.map((source) => ({ source, version: to })),
        )) {
          for (const { key, value } of rows) expect(after.rows.get(keyText(key))?.text).toBe(canonicalJson(value))
          const own = [...after.rows.values()].filter(({ key }) => keyText(transform.sourceOf(key) ?? key) === keyText(source))
          expect(rows.length).toBe(own.length)
        }
      }),
      { numRuns: 150 },
    )
  })

  it('asks for functions elsewhere in one batch for each projection', async () => {
    const calls: (readonly [number, number])[] = []
    const projections = PROJECTIONS[5] ?? []
    const transform = compileTransform(CLINIC, projections, async (index, inputs) => {
      calls.push([index, inputs.length])
      // As it crosses to another thread.
      return structuredClone(runSelect(projections[index] as (typeof projections)[number], structuredClone(inputs)))
    })
    const pets = Array.from({ length: 9 }, (_, i) => ({
      collection: 'pets',
      id: String(i),
      value: { name: 'Rex', ownerId: 'o', tags: ['x'] },
    }))
    const view = withEntries(createMemoryView('0'.repeat(32)), [
      entryOf(1, 'a', [...pets, { collection: 'owners', id: 'o', value: { city: 'Ulm' } }]),
    ])
    const state = await deriveState(view, transform, { from: 0, to: 1 })
    expect(calls).toEqual([
      [0, 9],
      [1, 9],
      [2, 9],
      [3, 9],
      [4, 1],
    ])
    expect(state.rows.length).toBe(
      truthOf([entryOf(1, 'a', [...pets, { collection: 'owners', id: 'o', value: { city: 'Ulm' } }])], 1, projections).rows.size,
    )
  })

  it('shares a joined record between thousands of calls, so that none may change it', async () => {
    const projection = defineProjection(CLINIC, {
      from: 'pets',
      join: { owner: ref('ownerId', 'owners') },
      revision: 1,
      select: ({ owner }) => {
        if (owner !== undefined) (owner as { city: string }).city = 'Atlantis'
        return {}
      },
    })
    const view = withEntries(createMemoryView('0'.repeat(32)), [
      entryOf(1, 'a', [
        { collection: 'pets', id: '1', value: { ownerId: 'o' } },
        { collection: 'owners', id: 'o', value: { city: 'Ulm' } },
      ]),
    ])
    const { poisoned } = await deriveState(view, compileTransform(CLINIC, [projection]), { from: 0, to: 1 })
    expect(poisoned[0]?.reason).toMatch(/read only|not extensible/u)
  })
})

describe('a view in SQLite', () => {
  const folders: string[] = []
  const opened: ViewStore[] = []
  const open = (): ViewStore => {
    const folder = mkdtempSync(join(tmpdir(), 'rejoin-projection-'))
    folders.push(folder)
    const view = openSqliteView(join(folder, 'view.db'))
    opened.push(view)
    return view
  }
  afterEach(() => {
    for (const view of opened.splice(0)) view.close()
    for (const folder of folders.splice(0)) rmSync(folder, { recursive: true })
  })
  const cards = compileTransform(CLINIC, PROJECTIONS[1] ?? [])
  const pet = (id: string, ownerId: string | null, name = 'Rex') => ({
    collection: 'pets',
    id,
    value: { name, ownerId } satisfies Record<string, JsonValue>,
  })
  const owner = (id: string, city: string | null) => ({ collection: 'owners', id, value: city === null ? null : { city } })
  const cities = async (view: ViewStore, from: number, to: number): Promise<readonly string[]> =>
    (await deriveState(view, cards, { from, to })).rows.map(({ key, value }) => `${key.document}/${key.id} ${String(value?.['city'])}`)

  it("finds the owner's 10,000 pets, and nobody else's, without looking at everything", async () => {
    const many = Array.from({ length: 50_000 }, (_, i) => pet(String(i), i % 5 === 0 ? 'jill' : 'jack'))
    const view = open()
    view.prepareRefs(refsOf(PROJECTIONS[1] ?? []))
    withEntries(view, [entryOf(1, 'a', [...many, owner('jill', 'Ulm'), owner('jack', 'Ulm')]), entryOf(2, 'a', [owner('jill', 'Bonn')])])
    const start = performance.now()
    const affected = cards.affected(view, view.dirty(1, 2), 2)
    const took = performance.now() - start
    expect(affected.length).toBe(10_000)
    // Some 15 ms when nothing else runs.
    expect(took, 'ms for 10,000 dependents').toBeLessThan(1_000)
    const { rows } = await deriveState(view, cards, { from: 1, to: 2 })
    expect(rows.length).toBe(10_000)
    expect(rows.every(({ value, before }) => value?.['city'] === 'Bonn' && before?.['city'] === 'Ulm')).toBe(true)
  })

  it('the owner is deleted: the pets stay, without a city; an owner who comes back brings it back', async () => {
    const view = withEntries(open(), [
      entryOf(1, 'a', [pet('1', 'jill'), pet('2', 'jill'), pet('3', 'jack'), owner('jill', 'Ulm')]),
      entryOf(2, 'a', [owner('jill', null)]),
      entryOf(3, 'a', [owner('jack', 'Bonn')]),
      entryOf(4, 'a', [owner('jill', 'Ulm')]),
    ])
    expect(await cities(view, 0, 1)).toEqual(['a/1 Ulm', 'a/2 Ulm', 'a/3 null'])
    expect(await cities(view, 1, 2)).toEqual(['a/1 null', 'a/2 null'])
    expect(await cities(view, 2, 3)).toEqual(['a/3 Bonn'])
    expect(await cities(view, 1, 4), 'came back unchanged').toEqual(['a/3 Bonn'])
  })

  it('pet 1 in two clinics: pet 1 of one is not pet 1 of the other', async () => {
    const view = withEntries(open(), [
      entryOf(1, 'north', [pet('1', 'jill', 'Rex'), owner('jill', 'Ulm')]),
      entryOf(2, 'south', [pet('1', 'jill', 'Tom'), owner('jill', 'Bonn')]),
      entryOf(3, 'south', [owner('jill', 'Kiel')]),
      entryOf(4, 'north', [{ collection: 'pets', id: '1', value: null }]),
    ])
    expect(await cities(view, 0, 2)).toEqual(['north/1 Ulm', 'south/1 Bonn'])
    expect(await cities(view, 2, 3)).toEqual(['south/1 Kiel'])
    expect(await cities(view, 3, 4)).toEqual(['north/1 undefined'])
  })
})
