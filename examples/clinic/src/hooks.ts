/**
 * The little that stands between Rejoin and React: values that change, as values.
 */
import type { Readable } from '@rejoin/shared'
import { useEffect, useMemo, useState, useSyncExternalStore } from 'react'
import type { Awareness } from 'y-protocols/awareness'
import * as Y from 'yjs'
import { replica } from './clinic.ts'

/** The current value of a `Readable`, such as `client.status`. */
export function useReadable<T>(readable: Readable<T>): T {
  return useSyncExternalStore(readable.subscribe, readable.get)
}

/** One record: its id and whatever fields it has. */
export interface Entry {
  readonly id: string
  readonly fields: Readonly<Record<string, unknown>>
}

/** Every record of a collection, ordered by name. */
export function useRecords(collection: Y.Map<Y.Map<unknown>>): readonly Entry[] {
  const readable = useMemo(() => watchRecords(collection), [collection])
  return useSyncExternalStore(readable.subscribe, readable.get)
}

function watchRecords(collection: Y.Map<Y.Map<unknown>>): { get: () => readonly Entry[]; subscribe: (changed: () => void) => () => void } {
  let entries: readonly Entry[] | undefined
  return {
    get: () => (entries ??= readRecords(collection)),
    subscribe: (changed) => {
      const seen = (): void => {
        entries = undefined
        changed()
      }
      // What changed between the first reading and now was seen by nobody.
      entries = undefined
      collection.observeDeep(seen)
      return () => collection.unobserveDeep(seen)
    },
  }
}

const byName = new Intl.Collator(undefined, { sensitivity: 'base', numeric: true })

function readRecords(collection: Y.Map<Y.Map<unknown>>): readonly Entry[] {
  const entries = [...collection].flatMap(([id, record]) =>
    record instanceof Y.Map ? [{ id, fields: Object.fromEntries(record.entries()) }] : [],
  )
  return entries.toSorted((a, b) => byName.compare(textOf(a, 'name'), textOf(b, 'name')) || (a.id < b.id ? -1 : 1))
}

/** A field as text; absent ones are empty. */
export function textOf(entry: Entry | undefined, field: string): string {
  const value = entry?.fields[field]
  return typeof value === 'string' || typeof value === 'number' ? String(value) : ''
}

/** Somebody who has the clinic open: a person in one tab. */
export interface Peer {
  readonly clientId: number
  readonly id: string
  readonly name: string
  readonly color: string
  /** Where they are, as `pets/<id>`. */
  readonly place: string
}

/** Everybody who is here, oneself included, by client id. */
export function usePeers(): readonly Peer[] {
  const { awareness } = replica.presence
  const readable = useMemo(() => watchPeers(awareness), [awareness])
  return useSyncExternalStore(readable.subscribe, readable.get)
}

function watchPeers(awareness: Awareness): { get: () => readonly Peer[]; subscribe: (changed: () => void) => () => void } {
  let peers: readonly Peer[] | undefined
  return {
    get: () => (peers ??= readPeers(awareness.getStates())),
    subscribe: (changed) => {
      const seen = (): void => {
        peers = undefined
        changed()
      }
      peers = undefined
      awareness.on('change', seen)
      return () => awareness.off('change', seen)
    },
  }
}

/** Presence is what others wrote: nothing in it is taken for granted. */
function readPeers(states: ReadonlyMap<number, { readonly [key: string]: unknown }>): readonly Peer[] {
  const peers: Peer[] = []
  for (const [clientId, state] of states) {
    const user = state['user']
    if (typeof user !== 'object' || user === null) continue
    const { id, name, color } = user as Record<string, unknown>
    if (typeof name !== 'string' || typeof color !== 'string' || !/^#[0-9a-f]{6}$/iu.test(color)) continue
    peers.push({
      clientId,
      id: typeof id === 'string' ? id : String(clientId),
      name: name.slice(0, 40),
      color,
      place: typeof state['place'] === 'string' ? state['place'] : '',
    })
  }
  return peers.toSorted((a, b) => a.clientId - b.clientId)
}

/** Where the app is: `#/pets/<id>`, so that a reload, a bookmark and the back button all work. */
export interface Place {
  readonly section: 'pets' | 'owners' | 'note'
  readonly id: string
}

export function usePlace(): Place {
  const hash = useSyncExternalStore(onHashChange, () => location.hash)
  return useMemo(() => {
    const [section, id = ''] = hash.replace(/^#\/?/u, '').split('/')
    return { section: section === 'owners' || section === 'note' ? section : 'pets', id }
  }, [hash])
}

function onHashChange(changed: () => void): () => void {
  addEventListener('hashchange', changed)
  return () => removeEventListener('hashchange', changed)
}

/** The time, once a second while `running`. */
export function useNow(running: boolean): number {
  const [now, setNow] = useState(() => Date.now())
  useEffect(() => {
    if (!running) return undefined
    const timer = setInterval(() => setNow(Date.now()), 1000)
    return () => clearInterval(timer)
  }, [running])
  return now
}
