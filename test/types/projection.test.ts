/**
 * What the compiler knows of a projection: fields, references and rows by the schema.
 */
import { collection, date, defineSchema, number, string } from '@rejoin/shared'
import type { DocumentId } from '@rejoin/shared'
import { defineProjection, ref } from '@rejoin/server'
import { describe, expect, expectTypeOf, it } from 'vitest'

const schema = defineSchema({
  pets: collection({ name: string(), kind: string(), ownerId: string(), clinic: string(), dob: date(), weight: number() }),
  owners: collection({ name: string(), city: string() }),
})

describe('a projection', () => {
  it('gives select the record by its singular name, joined records by theirs, and the key', () => {
    const petCard = defineProjection(schema, {
      from: 'pets',
      join: { owner: ref('ownerId', 'owners') },
      revision: 1,
      where: ({ pet }) => pet.name !== null,
      select: ({ pet, owner, document, id }) => {
        expectTypeOf(pet.weight).toEqualTypeOf<number | null>()
        expectTypeOf(pet.id).toEqualTypeOf<string>()
        expectTypeOf(owner?.city).toEqualTypeOf<string | null | undefined>()
        expectTypeOf(document).toEqualTypeOf<DocumentId>()
        expectTypeOf(id).toEqualTypeOf<string>()
        // @ts-expect-error pets have no such field
        void pet.colour
        // @ts-expect-error it may be missing: a left join
        void owner.city
        return { name: pet.name, kind: pet.kind, city: owner?.city ?? null }
      },
    })
    expect(petCard).toMatchObject({ to: 'pets', from: 'pets', as: 'pet', revision: 1, parts: false })
  })

  it('knows a name of its own, references into other documents, and declared fields', () => {
    const one = defineProjection(schema, {
      from: 'pets',
      to: 'cards',
      as: 'animal',
      join: { owner: ref('ownerId', 'owners', { document: { field: 'clinic' } }), vet: ref('ownerId', 'owners', { document: 'staff' }) },
      fields: { name: string(), born: date() },
      revision: 2,
      select: ({ animal, vet }) => ({ name: vet?.name ?? animal.name, born: animal.dob }),
    })
    expect(one.join['owner']).toEqual({ field: 'ownerId', collection: 'owners', document: { field: 'clinic' } })
    expect(one.join['vet']).toEqual({ field: 'ownerId', collection: 'owners', document: { id: 'staff' } })
  })

  it('takes parts only where it says so', () => {
    const parts = defineProjection(schema, {
      from: 'owners',
      to: 'words',
      fields: { word: string() },
      parts: true,
      revision: 1,
      select: ({ owner }) => (owner.name ?? '').split(' ').map((word, i) => ({ part: String(i), value: { word } })),
    })
    expect(parts.parts).toBe(true)
  })

  it('refuses at compile time what it refuses when it is defined', () => {
    // @ts-expect-error no such collection
    expect(() => defineProjection(schema, { from: 'vets', revision: 1, select: () => null })).toThrow(/"vets" is no collection/u)
    const toVets = { from: 'pets', revision: 1, join: { vet: ref('ownerId', 'vets') }, select: () => null } as const
    // @ts-expect-error the reference leads to no collection
    expect(() => defineProjection(schema, toVets)).toThrow(/"vets" is no collection/u)
    const byVet = { from: 'pets', revision: 1, join: { owner: ref('vetId', 'owners') }, select: () => null } as const
    // @ts-expect-error pets have no such field
    expect(() => defineProjection(schema, byVet)).toThrow(/pets\.vetId has to be a field of kind string/u)
    defineProjection(schema, {
      from: 'pets',
      fields: { name: string() },
      revision: 1,
      // @ts-expect-error a number is no string
      select: ({ pet }) => ({ name: pet.weight }),
    })
    defineProjection(schema, {
      from: 'pets',
      revision: 1,
      // @ts-expect-error a list without parts: true
      select: ({ pet }) => [{ part: '1', value: { name: pet.name } }],
    })
    // @ts-expect-error a promise is no row
    defineProjection(schema, { from: 'pets', fields: { name: string() }, revision: 1, select: async ({ pet }) => ({ name: pet.name }) })
  })
})
