/**
 * The clinic's devices: real clients with a store of their own, on which somebody never stops editing, with or without a network.
 */
import { randomInt, randomUUID } from 'node:crypto'
import { join } from 'node:path'
import type { Client, Edit, Replica } from '@rejoin/client'
import { createClient } from '@rejoin/client'
import { sqlite } from '@rejoin/client/sqlite'
import * as Y from 'yjs'
import type { schema } from '../schema.ts'
import type { Cable } from './cable.ts'
import { layCable } from './cable.ts'

/** Two clinics, a document each. Every device has both. */
export const DOCUMENTS = ['clinic-north', 'clinic-south'] as const
const NAMES = ['Biscuit', 'Pepper', 'Otto', 'Clover', 'Figaro', 'Nala', 'Moritz', "O'Malley", 'Zoë', 'Søren', '豆豆', 'Rex']
const OWNERS = ['Mina Okafor', 'Jon Lindqvist', 'Rosa Amaral', 'Ada Byrne', 'Chidi Eze', 'Freya Holm']
const CITIES = ['Bristol', 'Leeds', 'Utrecht', 'Porto', 'Gdańsk', 'Kyōto']
const KINDS = ['Dog', 'Cat', 'Rabbit', 'Bird']
/** A pet of this name is never deleted: the story looks for it later. */
export const SURVIVOR = 'Lazarus'
/** Between two edits of a device, in ms: at least, at most. */
const PACE = [20, 110] as const
type Collection = keyof typeof schema.collections
type Records = Y.Map<Y.Map<unknown>>

export class Device {
  readonly name: string
  readonly client: Client
  readonly cable: Cable
  /** Its last edit of each document. */
  readonly last = new Map<number, Edit<unknown>>()
  /** Is told of each edit that somebody makes. */
  edited: ((edit: Edit<unknown>) => void) | undefined
  made = 0
  acknowledged = 0
  /** What went wrong; nothing should. */
  readonly problems: string[] = []
  readonly #replicas: readonly Replica[]
  #timer: NodeJS.Timeout | undefined
  #resting = false

  constructor(name: string, client: Client, cable: Cable) {
    this.name = name
    this.client = client
    this.cable = cable
    this.#replicas = DOCUMENTS.map((document) => client.open(document))
  }

  /** Edits of this device that the relay has not acknowledged. */
  get pending(): number {
    return this.client.status.get().pending.relay
  }

  async load(): Promise<void> {
    await Promise.all(this.#replicas.map((replica) => replica.whenLoaded()))
  }

  /** Somebody begins to type. */
  begin(): void {
    if (this.#resting) return
    this.#timer = setTimeout(
      () => {
        const edit = this.edit(anyChange())
        this.edited?.(edit)
        this.begin()
      },
      randomInt(...PACE),
    )
  }

  rest(): void {
    this.#resting = true
    clearTimeout(this.#timer)
  }

  /** One edit in one of the clinics. */
  edit<Result>(change: (pets: Records, owners: Records) => Result, which = randomInt(DOCUMENTS.length)): Edit<Result> {
    const replica = this.#replicas[which] ?? this.#open(which)
    const edit = replica.edit(() => change(replica.ydoc.getMap('pets'), replica.ydoc.getMap('owners')))
    this.made += 1
    this.last.set(which, edit)
    edit.wait({ to: 'relay' }).then(
      () => (this.acknowledged += 1),
      (error: unknown) => this.problems.push(`${this.name}: ${String(error)}`),
    )
    return edit
  }

  /** Every record of a collection on this device: document/id → fields. */
  records(collection: Collection): Map<string, Readonly<Record<string, unknown>>> {
    return new Map(
      DOCUMENTS.flatMap((document, which) =>
        [...this.#open(which).ydoc.getMap<Y.Map<unknown>>(collection)].map(
          ([id, record]) => [`${document}/${id}`, record.toJSON()] as const,
        ),
      ),
    )
  }

  async close(): Promise<void> {
    this.rest()
    await this.client.close()
    this.cable.close()
  }

  #open(which: number): Replica {
    const replica = this.#replicas[which]
    if (replica === undefined) throw new Error(`there is no document ${which}`)
    return replica
  }
}

/** A device with its store in `folder`, on a cable of its own to the relay. */
export async function startDevice(name: string, folder: string, relayPort: number): Promise<Device> {
  const cable = await layCable(relayPort)
  const store = sqlite({ path: join(folder, `${name.replaceAll(/\W+/gu, '-')}.db`) })
  const device = new Device(name, createClient({ url: cable.url, store }), cable)
  await device.load()
  return device
}

/** Adds a pet, of one of the owners there are, and returns its id. */
export function addPet(pets: Records, owners: Records, name: string = pick(NAMES)): string {
  const id = randomUUID()
  const dob = `${randomInt(2008, 2026)}-0${randomInt(1, 10)}-1${randomInt(10)}`
  pets.set(
    id,
    new Y.Map<unknown>(Object.entries({ name, kind: pick(KINDS), dob, ownerId: pick([...owners.keys()]), weight: randomInt(2, 400) / 10 })),
  )
  return id
}

/** What somebody at a clinic does next. */
function anyChange(): (pets: Records, owners: Records) => void {
  const dice = randomInt(100)
  return (pets, owners) => {
    const owner = owners.get(pick([...owners.keys()]))
    const petId = pick([...pets.keys()])
    const pet = pets.get(petId)
    if (owner === undefined || owners.size < 4) addOwner(owners)
    else if (pet === undefined || dice < 25) addPet(pets, owners)
    else if (dice < 55) pet.set('weight', randomInt(2, 400) / 10)
    else if (dice < 70) pet.set('ownerId', pick([...owners.keys()]))
    else if (dice < 85) owner.set('city', pick(CITIES))
    else if (dice < 88) addOwner(owners)
    else if (dice < 90) owners.delete(pick([...owners.keys()]))
    else if (pet.get('name') !== SURVIVOR) pets.delete(petId)
  }
}

function addOwner(owners: Records): void {
  const name = pick(OWNERS)
  const email = `${name.split(' ')[0]?.toLowerCase()}@example.org`
  owners.set(randomUUID(), new Y.Map<unknown>(Object.entries({ name, email, city: pick(CITIES) })))
}

/** One of them; an id that is none when there are none. */
function pick(items: readonly string[]): string {
  return items.length === 0 ? '' : (items[randomInt(items.length)] ?? '')
}
