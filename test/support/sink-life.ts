/**
 * One life of a sink: edits, crashes and commands by chance, and in the end peace, when the destination has to equal T of the documents.
 */
import { canonicalJson } from '@rejoin/shared'
import { expect } from 'vitest'
import * as Y from 'yjs'
import type { ForwardOptions } from '#server/sinks/spec.js'
import { forwardOf } from '#server/sinks/spec.js'
import { keyText } from '#server/view/view.js'
import { createForwardingWorld } from './forwarding-world.ts'
import type { Chance } from './histories.ts'
import { below, pick, seeded } from './histories.ts'
import { CLINIC, shownOf } from './projections.ts'
import type { ModelName } from './sink-models.ts'

const IDS = ['1', '1-1', '1/1', 'o', 'p']
const VALUES: Readonly<Record<string, readonly unknown[]>> = {
  name: ['Rex', 'bad', 'hidden', 'Tom', 'no'],
  ownerId: ['o', 'p', '1'],
  clinic: ['a', 'b'],
  tags: [[], ['x'], ['x', 'y'], ['y', '-']],
  city: ['Ulm', 'Bonn'],
}

/** One transaction of a device of the clinic. */
function editClinic(doc: Y.Doc, chance: Chance): void {
  doc.transact(() => {
    for (let n = 1 + below(chance, 3); n > 0; n--) {
      const [name, fields] = pick(chance, [['pets', ['name', 'ownerId', 'clinic', 'tags']] as const, ['owners', ['city']] as const])
      const records = doc.getMap(name)
      const id = pick(chance, IDS)
      const record = records.get(id)
      const valueOf = (field: string): unknown => pick(chance, VALUES[field] ?? [])
      if (chance() < 0.25) records.delete(id)
      else if (record instanceof Y.Map && chance() < 0.6) {
        const field = pick(chance, fields)
        record.set(field, valueOf(field))
      } else records.set(id, new Y.Map(fields.map((field) => [field, valueOf(field)])))
    }
  })
}

/** The same record there and back again: what was sent last and what is to be sent may be equal, and what came in between not. */
function flip(doc: Y.Doc, chance: Chance): void {
  const owners = doc.getMap<unknown>('owners')
  const owner = owners.get('o')
  const city = pick(chance, ['Ulm', 'Bonn'])
  if (owner instanceof Y.Map && chance() < 0.7) owner.set('city', city)
  else if (owner instanceof Y.Map) owners.delete('o')
  else owners.set('o', new Y.Map([['city', city]]))
}

export interface Case {
  readonly seed: number
  readonly model: ModelName
  readonly options: ForwardOptions
}

const TRAITS = { strategies: ['state', 'actions'], readable: true } as const

/** One history: edits, crashes, and in the end peace. Rejects with what was wrong. */
export async function live({ seed, model: name, options }: Case, trace?: (what: string) => void): Promise<void> {
  const chance = seeded(seed)
  const forward = forwardOf(name, { ...TRAITS, transactional: name === 'transactional' }, options)
  const isState = forward.strategy === 'state'
  let picky = chance() < 0.3
  const isSmall = chance() < 0.4
  const world = createForwardingWorld({
    chance,
    schema: CLINIC,
    projections: forward.projections,
    forward,
    model: name,
    edit: isSmall ? flip : editClinic,
    ...(isSmall ? { documents: 1 } : {}),
    trace,
    refuse: (_, value) => (picky && value?.['name'] === 'no' ? 'it says no' : undefined),
  })
  const { model } = world
  // Where little differs, much has to happen before two mistakes meet.
  world.trouble.level = below(chance, 3) * 0.08 + (isSmall ? 0.12 : 0)
  world.start()
  for (let step = 4 + below(chance, isSmall ? 30 : 14); step > 0; step--) {
    const roll = below(chance, 40)
    trace?.(`${roll}`)
    if (roll < 22) await world.edit()
    else if (roll < 24) await world.compact()
    else if (roll === 24) await world.stop()
    else if (roll === 25) world.kill()
    else if (roll === 26) world.killProjector()
    else if (roll === 27 && isState) model.wipe?.()
    else if ((roll === 28 || (roll > 37 && isSmall)) && isState) {
      await world.stop()
      // A request that is under way does not outlive the rebuilding of a view.
      model.arrive()
      world.loseView()
    } else if (roll === 29) world.trim()
    else if (roll === 30) model.backup?.()
    else if (roll === 31 && isState) {
      await world.stop()
      model.restore?.()
    } else if (roll === 32) model.arrive()
    else if (roll === 33) picky = !picky
    else if (roll === 34) void command(world.forwarder?.refresh())
    else if (roll === 35 && isState) void command(world.forwarder?.rewind(pick(chance, ['oldest', 'now'] as const)))
    else if (roll === 36) void command(world.forwarder?.pause())
    else world.start()
    if (world.forwarder !== undefined && chance() < 0.3) void command(world.forwarder.resume())
    if (chance() < 0.6) await world.clock.advance(below(chance, 200))
  }
  await endInPeace(world, () => {
    picky = false
  })
}

/** What an operator asks for may be refused; the history goes on. */
async function command(asked: Promise<unknown> | undefined): Promise<void> {
  await asked?.catch(() => undefined)
}

async function endInPeace(world: ReturnType<typeof createForwardingWorld>, allow: () => void): Promise<void> {
  world.trouble.level = 0
  allow()
  world.start()
  await world.clock.advance(10)
  void command(world.forwarder?.resume())
  await world.clock.advance(70_000)
  void command(world.forwarder?.requeue())
  await world.clock.advance(70_000)
  // Select fails on what it was given then, whatever it gets now.
  const failing = world.notes.letters(1_000).first.filter(({ state }) => state === 'failed')
  void command(world.forwarder?.discard(failing.map(({ id }) => id)))
  await world.clock.advance(70_000)
  world.model.arrive()
  const truth = world.expected()
  const failed = new Set(world.forwarder?.parked().map(({ key }) => keyText(key)))
  const rows = [...world.model.rows().values()].map(({ key, value }) => ({ key, text: canonicalJson(value) }))
  expect(world.problems).toEqual([])
  expect(world.forwarder?.status()).toMatchObject({ state: 'current', lag: { entries: 0 } })
  // What select fails on stays as it was; nothing else is parked any more.
  expect([...failed].filter((key) => !truth.poisoned.has(key))).toEqual([])
  const hidden = new Set([...truth.poisoned, ...world.partsOf(truth, truth.poisoned)])
  expect(shownOf(rows, hidden)).toEqual(shownOf(truth.rows.values(), hidden))
  const digest = world.digestProblem()
  expect(digest).toBeUndefined()
  await world.stop()
}
