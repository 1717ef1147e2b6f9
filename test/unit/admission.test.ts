/**
 * Admission against Yjs itself: what it says of an update is what a document does with it.
 */
import * as Y from 'yjs'
import { describe, expect, it } from 'vitest'
import type { Admission } from '#server/relay/admission.js'
import { absorb, absorbTrusted, admit, createAdmission, encodeAdmission, stateVectorOf } from '#server/relay/admission.js'
import { DEFAULT_LIMITS } from '#shared/limits.js'
import type { SaidDeletes } from '../support/admission-oracle.ts'
import { apply, copyOf, fingerprint, noteDeletes, quietDoc, stateVector } from '../support/admission-oracle.ts'
import { forgeUpdate, mutateBytes } from '../support/forged-updates.ts'
import type { Chance } from '../support/histories.ts'
import { below, makeHistory, pick, seeded } from '../support/histories.ts'

const SEEDS = Number(process.env['REJOIN_ADMISSION_SEEDS'] ?? 60)
const MUTATIONS = Number(process.env['REJOIN_ADMISSION_MUTATIONS'] ?? 10_000)
const limits = DEFAULT_LIMITS

describe('admission of random histories', () => {
  it('says what Yjs does, and knows what the document holds', () => {
    const seen = { admitted: 0, nothing: 0, refused: 0, trimmed: 0 }
    for (let seed = 1; seed <= SEEDS; seed++) {
      try {
        deliver(seeded(seed), seen)
      } catch (error) {
        throw new Error(`seed ${seed}`, { cause: error })
      }
    }
    for (const [kind, count] of Object.entries(seen)) expect(count, kind).toBeGreaterThan(SEEDS / 2)
  })
})

describe('admission of what no client would write', () => {
  it('lets nothing through that Yjs would throw at or leave pending, whatever bytes were changed', () => {
    const count = forgeries((chance, { updates }) => mutateBytes(chance, pick(chance, updates)))
    expect(count.admitted).toBeGreaterThan(MUTATIONS / 100)
    expect(count.bad_bytes).toBeGreaterThan(MUTATIONS / 10)
  })

  it('lets nothing through that Yjs would throw at or leave pending, however structs were put together', () => {
    const count = forgeries((chance, { doc }) => forgeUpdate(chance, stateVector(doc)))
    expect(count.admitted).toBeGreaterThan(MUTATIONS / 10)
    expect(count.gap).toBeGreaterThan(MUTATIONS / 200)
    expect(count.thrown ?? 0).toBeLessThan(MUTATIONS / 1000)
  })
})

interface Target {
  readonly doc: Y.Doc
  readonly state: Admission
  /** Some of these the document has. */
  readonly updates: readonly Uint8Array[]
}

/** Offers forged updates to documents of random histories; says how many got which verdict. */
function forgeries(forge: (chance: Chance, target: Target) => Uint8Array): Record<string, number> {
  const count: Record<string, number> = {}
  const perTarget = 100
  for (let seed = 1; seed <= MUTATIONS / perTarget; seed++) {
    const chance = seeded(seed)
    const target = makeTarget(chance)
    for (let n = 0; n < perTarget; n++) {
      const forged = forge(chance, target)
      const verdict = admit(target.state, forged, limits)
      const kind = verdict.type === 'refused' ? verdict.code : verdict.type
      count[kind] = (count[kind] ?? 0) + 1
      if (verdict.type === 'refused') continue
      const copy = copyOf(target.doc)
      const shown = `seed ${seed}, forgery ${n}: ${Buffer.from(forged).toString('hex')}`
      try {
        expect(applyForged(copy, verdict.type === 'admitted' ? verdict.update : EMPTY, count)).toBe('whole')
        if (verdict.type === 'nothing') expect(stateVector(copy)).toEqual(stateVector(target.doc))
        else {
          const after = createAdmission(encodeAdmission(target.state))
          absorbTrusted(after, verdict.update)
          expect(Y.decodeStateVector(stateVectorOf(after))).toEqual(stateVector(copy))
        }
      } catch (error) {
        throw new Error(shown, { cause: error })
      }
    }
  }
  return count
}

const EMPTY = Uint8Array.of(0, 0)

/**
 * The one throw that bytes do not show: a map value of several clocks, which no client writes, was split by a delete of one of them, and then its map is
 * deleted and collected. What the update says is in the document by then, and a document that does not collect does not throw.
 */
function applyForged(doc: Y.Doc, update: Uint8Array, count: Record<string, number>): 'whole' | 'pending' {
  const uncollected = new Y.Doc({ gc: false })
  Y.applyUpdate(uncollected, Y.encodeStateAsUpdate(doc))
  try {
    return apply(doc, update)
  } catch (error) {
    if (!(error instanceof Error) || error.stack?.includes('at ContentType.gc') !== true) throw error
    count['thrown'] = (count['thrown'] ?? 0) + 1
    return apply(uncollected, update)
  }
}

function makeTarget(chance: Chance): Target {
  const { updates } = makeHistory(chance, 2, 12)
  const doc = quietDoc(chance() < 0.7)
  const state = createAdmission()
  for (const update of updates.slice(0, Math.ceil(updates.length * 0.7))) {
    Y.applyUpdate(doc, update)
    absorbTrusted(state, update)
  }
  return { doc, state, updates }
}

/** One history, delivered out of order, in batches and again, to an admission state and to a document that holds what it admitted. */
function deliver(chance: Chance, seen: { admitted: number; nothing: number; refused: number; trimmed: number }): void {
  const { updates, extras } = makeHistory(chance, 2 + below(chance, 3), 15 + below(chance, 40))
  const doc = quietDoc(chance() < 0.7)
  const state = createAdmission()
  const said: SaidDeletes = new Map()
  for (const update of deliveries(
    chance,
    updates,
    extras.map((extra) => extra.update),
  )) {
    const copy = copyOf(doc)
    const whole = apply(copy, update) === 'whole'
    const before = stateVector(doc)
    const verdict = admit(state, update, limits)
    seen[verdict.type]++
    if (verdict.type === 'refused') {
      expect(verdict).toMatchObject({ code: 'gap' })
      expect(whole, 'what Yjs takes whole is not a gap').toBe(false)
      continue
    }
    expect(whole, 'what is admitted leaves nothing pending').toBe(true)
    const added = noteDeletes(said, before, update)
    if (verdict.type === 'nothing') {
      expect(added || !equal(before, stateVector(copy))).toBe(false)
      expect(fingerprint(copy)).toEqual(fingerprint(doc))
      continue
    }
    expect(added || !equal(before, stateVector(copy))).toBe(true)
    if (verdict.update !== update) seen.trimmed++
    expect(apply(doc, verdict.update)).toBe('whole')
    expect(fingerprint(doc)).toEqual(fingerprint(copy))
    expect(new Set(verdict.clients)).toEqual(
      new Set([...stateVector(doc)].filter(([client, clock]) => before.get(client) !== clock).map(([client]) => client)),
    )
    absorb(state, verdict)
    expect(Y.decodeStateVector(stateVectorOf(state))).toEqual(stateVector(doc))
    expect(deletesOf(state)).toEqual(said)
    expect(admit(state, verdict.update, limits)).toMatchObject({ type: 'nothing' })
  }
  expect(encodeAdmission(createAdmission(encodeAdmission(state)))).toEqual(encodeAdmission(state))
  // What a snapshot says is what its entries said, and what Yjs deleted by itself.
  const folded = createAdmission()
  absorbTrusted(folded, Y.encodeStateAsUpdate(doc))
  expect(stateVectorOf(folded)).toEqual(stateVectorOf(state))
  const known = deletesOf(folded)
  for (const [client, clocks] of said) expect([...clocks].filter((clock) => known.get(client)?.has(clock) !== true)).toEqual([])
}

/** Mostly in order, some too early, some twice, some merged; all of them in the end. */
function* deliveries(chance: Chance, updates: readonly Uint8Array[], extras: readonly Uint8Array[]): Iterable<Uint8Array> {
  const waiting = [...updates]
  while (waiting.length > 0) {
    const roll = chance()
    if (roll < 0.6) yield waiting.shift() as Uint8Array
    else if (roll < 0.7) yield pick(chance, waiting)
    else if (roll < 0.8) yield pick(chance, updates)
    else if (roll < 0.9 && extras.length > 0) yield pick(chance, extras)
    else yield Y.mergeUpdates(waiting.splice(0, 1 + below(chance, 6)))
  }
  yield* updates
  yield* extras
}

function deletesOf(state: Admission): SaidDeletes {
  const all: SaidDeletes = new Map()
  for (const [client, { deleted }] of state.clients) {
    if (deleted === undefined) continue
    const clocks = new Set<number>()
    for (let i = 0; i < deleted.count; i++)
      for (let clock = deleted.pairs[2 * i] as number; clock < (deleted.pairs[2 * i + 1] as number); clock++) clocks.add(clock)
    all.set(client, clocks)
  }
  return all
}

function equal(a: ReadonlyMap<number, number>, b: ReadonlyMap<number, number>): boolean {
  return a.size === b.size && [...a].every(([client, clock]) => b.get(client) === clock)
}
