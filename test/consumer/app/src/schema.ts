/**
 * What the consumer declares.
 */
import type { RecordOf } from '@rejoin/shared'
import { collection, date, defineSchema, number, string } from '@rejoin/shared'

export const schema = defineSchema({ pets: collection({ name: string(), dob: date(), weight: number() }) })
export type Pet = RecordOf<typeof schema, 'pets'>
export const nobody: Pet = { name: null, dob: null, weight: null }
