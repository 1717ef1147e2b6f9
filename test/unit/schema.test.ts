/**
 * Declaring collections: what is wrong is named where it is declared, and a schema is plain data.
 */
import { describe, expect, expectTypeOf, it } from 'vitest'
import { boolean, collection, date, defineSchema, json, number, richText, schemaProblem, string, text } from '#shared/schema.js'
import type { JsonValue, RecordOf, Schema } from '#shared/schema.js'

const schema = defineSchema({
  pets: collection({
    name: string(),
    weight: number(),
    neutered: boolean(),
    dob: date(),
    tags: json(),
    history: text(),
    letter: richText(),
  }),
  owners: collection({ name: string() }),
})

describe('defineSchema', () => {
  it('gives frozen plain data that crosses to a worker as it is', () => {
    expect(structuredClone(schema)).toEqual(schema)
    expect(schema.collections.pets.fields.dob).toEqual({ kind: 'date' })
    expect(
      [schema, schema.collections, schema.collections.pets, schema.collections.pets.fields, schema.collections.pets.fields.dob].every(
        Object.isFrozen,
      ),
    ).toBe(true)
    expect(schemaProblem(structuredClone(schema))).toBeUndefined()
  })

  it('infers the records', () => {
    expectTypeOf<RecordOf<typeof schema, 'pets'>>().toEqualTypeOf<{
      readonly name: string | null
      readonly weight: number | null
      readonly neutered: boolean | null
      readonly dob: string | null
      readonly tags: JsonValue | null
      readonly history: string | null
      readonly letter: string | null
    }>()
    expectTypeOf<keyof typeof schema.collections>().toEqualTypeOf<'pets' | 'owners'>()
    expectTypeOf(schema).toExtend<Schema>()
    // @ts-expect-error a field is made by one of the kinds
    expect(() => defineSchema({ pets: collection({ name: 'string' }) })).toThrow()
  })

  it.each<[string, () => unknown, string]>([
    ['no collection', () => defineSchema({}), 'there is no collection in it'],
    ['a collection without fields', () => defineSchema({ pets: collection({}) }), 'collection pets has no fields'],
    ['an empty name', () => defineSchema({ '': collection({ a: string() }) }), 'collection "": a name is 1 to 63 letters'],
    [
      'a name with a space',
      () => defineSchema({ pets: collection({ 'full name': string() }) }),
      'field pets."full name": a name is 1 to 63 letters',
    ],
    ['a name of 64 letters', () => defineSchema({ ['x'.repeat(64)]: collection({ a: string() }) }), 'a name is 1 to 63 letters'],
    [
      'the prototype as a collection',
      () => defineSchema({ ['__proto__']: collection({ a: string() }) }),
      'collection "__proto__": a name that every JavaScript object has',
    ],
    [
      'the prototype as a field',
      () => defineSchema({ pets: collection({ ['__proto__']: string() }) }),
      'field pets."__proto__": a name that every JavaScript object has',
    ],
    [
      'an inherited name',
      () => defineSchema({ pets: collection({ constructor: string() }) }),
      'field pets."constructor": a name that every JavaScript object has',
    ],
    ['id', () => defineSchema({ pets: collection({ id: string() }) }), 'field pets.id: every record has its document and its id already'],
    [
      'document',
      () => defineSchema({ pets: collection({ Document: string() }) }),
      'field pets.Document: every record has its document and its id already',
    ],
    ['our own prefix', () => defineSchema({ rejoin_pets: collection({ a: string() }) }), 'names that begin with rejoin_'],
    [
      'names that differ by case',
      () => defineSchema({ pets: collection({ name: string(), Name: string() }) }),
      '"Name" differs from "name" by case only',
    ],
    [
      'a kind that was not called',
      () => defineSchema({ pets: collection({ name: string as never }) }),
      'field pets.name is not made by string(), number(), boolean(), date(), json(), text() or richText(); call it',
    ],
    [
      'an unknown kind',
      () => defineSchema({ pets: collection({ name: { kind: 'int' } as never }) }),
      'field pets.name has the unknown kind "int"',
    ],
    ['a collection that is none', () => defineSchema({ pets: { name: string() } as never }), 'pets is not made by collection({ … })'],
  ])('names %s', (_what, declare, message) => {
    expect(declare).toThrow(message)
    expect(declare).toThrow(expect.objectContaining({ name: 'SyncError', code: 'bad_option' }) as Error)
  })

  it('is told from what is none', () => {
    for (const value of [undefined, null, 7, 'x', {}, { collections: null }])
      expect(schemaProblem(value)).toBe('a schema is made by defineSchema({ name: collection({ … }) })')
  })
})
