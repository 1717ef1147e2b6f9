/**
 * The clinic's one document on this device, and every edit that the app makes to it.
 */
import { createClient } from '@rejoin/client'
import * as Y from 'yjs'
import { schema } from '../schema.ts'

const relay = document.querySelector<HTMLMetaElement>('meta[name=rejoin-relay]')?.content ?? ''

export const client = createClient({ url: relay.startsWith('http') ? relay : 'http://127.0.0.1:4400', schema })
export const replica = client.open('clinic')

/** The fields of one record, as the forms show them. */
export type Values = Readonly<Record<string, string | number>>
export type CollectionName = keyof typeof schema.collections

/** A named top-level map of records: id → Y.Map of fields. */
export function collectionOf(name: CollectionName): Y.Map<Y.Map<unknown>> {
  return replica.ydoc.getMap(name)
}

/** The note that everybody writes on together. */
export function note(): Y.XmlFragment {
  return replica.ydoc.getXmlFragment('note')
}

/** Adds a record and returns its id. */
export function addRecord(name: CollectionName, values: Values): string {
  const id = crypto.randomUUID()
  replica.edit(() => {
    collectionOf(name).set(id, new Y.Map(Object.entries(values)))
  })
  return id
}

/** Sets one field; `undefined` takes it away. */
export function setField(name: CollectionName, id: string, field: string, value: string | number | undefined): void {
  replica.edit(() => {
    const record = collectionOf(name).get(id)
    if (value === undefined) record?.delete(field)
    else record?.set(field, value)
  })
}

export function removeRecord(name: CollectionName, id: string): void {
  replica.edit(() => {
    collectionOf(name).delete(id)
  })
}

/** A first look at the app: three owners and their animals, in one edit. */
export function addExamples(): void {
  const day = (years: number, month: string): string => `${new Date().getFullYear() - years}-${month}`
  replica.edit(() => {
    const mina = addRecord('owners', { name: 'Mina Okafor', phone: '020 7946 0312', email: 'mina@example.org', city: 'Bristol' })
    const jon = addRecord('owners', { name: 'Jon Lindqvist', phone: '020 7946 0877', email: 'jon@example.org', city: 'Leeds' })
    const rosa = addRecord('owners', { name: 'Rosa Amaral', phone: '020 7946 0145', email: 'rosa@example.org', city: 'Bristol' })
    addRecord('pets', { name: 'Biscuit', kind: 'Dog', dob: day(6, '04-12'), ownerId: mina, weight: 23.4 })
    addRecord('pets', { name: 'Pepper', kind: 'Cat', dob: day(3, '09-02'), ownerId: mina, weight: 4.1 })
    addRecord('pets', { name: 'Otto', kind: 'Dog', dob: day(11, '01-27'), ownerId: jon, weight: 31 })
    addRecord('pets', { name: 'Clover', kind: 'Rabbit', dob: day(2, '06-18'), ownerId: rosa, weight: 2.2 })
    addRecord('pets', { name: 'Figaro', kind: 'Bird', dob: day(8, '11-05'), ownerId: rosa, weight: 0.09 })
  })
}
