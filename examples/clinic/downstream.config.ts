/**
 * The clinic with what lies downstream of it: its records in a Postgres, a card for each pet beside them, and a SQLite mirror. `npm run example:downstream` starts it.
 */
import { defineConfig, defineProjection, ref } from '@rejoin/server'
import { postgres } from '@rejoin/server/sinks/postgres'
import { sqlite } from '@rejoin/server/sinks/sqlite'
import { string } from '@rejoin/shared'
import { data, mirror } from './folder.js'
import { schema } from './schema.ts'

const petCard = defineProjection(schema, {
  from: 'pets',
  to: 'pet_cards',
  join: { owner: ref('ownerId', 'owners') },
  fields: { name: string(), kind: string(), owner: string(), city: string() },
  revision: 1,
  select: ({ pet, owner }) => ({ name: pet.name, kind: pet.kind, owner: owner?.name, city: owner?.city }),
})

const url = process.env['DATABASE_URL']

export default defineConfig({
  data,
  schema,
  sinks: {
    warehouse: postgres({ url, tables: 'auto' }), // a table per collection: pets, owners
    cards: postgres({ url, tables: 'auto', projection: petCard }), // the table pet_cards: when an owner moves, so do all their pets
    mirror: sqlite({ path: mirror }),
  },
})
