/**
 * What the clinic keeps, declared once: the app reads it for its forms, the relay for its view and its mirror.
 */
import { collection, date, defineSchema, number, string } from '@rejoin/shared'

export const schema = defineSchema({
  pets: collection({ name: string(), kind: string(), dob: date(), ownerId: string(), weight: number() }),
  owners: collection({ name: string(), phone: string(), email: string(), city: string() }),
})
