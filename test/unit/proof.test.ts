/**
 * Proofs and repairs: what each of the three finds, what is left out, and that nothing is called equal that was not looked at.
 */
import type { DocumentId, RecordValue } from '@rejoin/shared'
import { describe, expect, it } from 'vitest'
import * as Y from 'yjs'
import { defineProjection } from '#server/projection/define.js'
import { createProver } from '#server/forwarding/prover.js'
import { bucketOf } from '#server/sinks/digest.js'
import { keyText } from '#server/view/view.js'
import { PETS, createProofScene, petKey, running } from '../support/proofs.ts'

type Scene = Awaited<ReturnType<typeof createProofScene>>

const setPet =
  (id: string, name: string, age = 1) =>
  (pets: Y.Map<Y.Map<unknown>>) => {
    pets.set(id, new Y.Map(Object.entries({ name, age })))
  }
const lay = ({ destination }: Scene, id: string, value: RecordValue | null, stamp?: number, document?: string): void => {
  const key = petKey(id, document)
  destination.rows.set(keyText(key), { key, value, stamp: stamp ?? destination.rows.get(keyText(key))?.stamp ?? 1 })
}

/** Three pets in two documents, forwarded. */
async function clinic(options?: Parameters<typeof createProofScene>[0]): Promise<Scene> {
  const scene = await createProofScene(options)
  scene.edit(setPet('rex', 'Rex'))
  scene.edit(setPet('mia', 'Mia'))
  scene.edit(setPet('rex', 'Other Rex'), 'zoo' as DocumentId)
  await scene.forwardAll()
  return scene
}

const verify = (scene: Scene, proofs?: Parameters<ReturnType<typeof createProver>['verify']>[0]) =>
  running(scene.clock, createProver(scene.parts).verify(proofs))

describe('a proof', () => {
  it('says equal when rows, projection and view were asked and all hold, and is remembered', async () => {
    const scene = await clinic()
    const prover = createProver(scene.parts)
    const result = await running(scene.clock, prover.verify())
    expect(result).toMatchObject({
      sink: 'warehouse',
      version: 3,
      rows: 3,
      parked: { total: 0, first: [] },
      proofs: { rows: 'equal', projection: 'equal', view: 'equal' },
      equal: true,
      differences: { total: 0, first: [] },
      reasons: [],
    })
    expect(prover.last()).toEqual(result)
    expect(createProver(scene.parts).last()).toEqual(result)
  })

  it('never says equal when it was not asked for all three', async () => {
    const scene = await clinic()
    for (const [proofs, verdicts] of [
      [['rows'], { rows: 'equal', projection: 'not asked', view: 'not asked' }],
      [['projection'], { rows: 'not asked', projection: 'equal', view: 'not asked' }],
      [['view'], { rows: 'not asked', projection: 'not asked', view: 'equal' }],
      [['rows', 'view'], { rows: 'equal', projection: 'not asked', view: 'equal' }],
    ] as const)
      expect(await verify(scene, { proofs })).toMatchObject({ proofs: verdicts, equal: false })
  })

  it('finds what a hand changed, removed and added, each by its key', async () => {
    const scene = await clinic()
    lay(scene, 'rex', { name: 'by hand', age: 1 })
    lay(scene, 'mia', null)
    lay(scene, 'left', { name: 'left over', age: 1 }, 2)
    lay(scene, 'tom', { name: 'a stranger', age: 1 }, 0)
    const { proofs, equal, differences } = await verify(scene)
    expect({ proofs, equal }).toEqual({ proofs: { rows: 'different', projection: 'equal', view: 'equal' }, equal: false })
    expect(differences.total).toBe(4)
    const found = Object.fromEntries(differences.first.map(({ key, what }) => [key?.id, what]))
    expect(found).toEqual({ rex: 'differs', mia: 'missing', left: 'surplus', tom: 'stranger' })
    expect(differences.first.every(({ key, bucket }) => key !== undefined && bucket === bucketOf(key))).toBe(true)
  })

  it('leaves strangers out where they are to be ignored', async () => {
    const scene = await clinic({ forward: { strangers: 'ignore' } })
    lay(scene, 'tom', { name: 'a stranger', age: 1 }, 0)
    expect(await verify(scene)).toMatchObject({ equal: true, rows: 3 })
    lay(scene, 'mia', null)
    expect((await verify(scene)).differences).toMatchObject({ total: 1, first: [{ what: 'missing' }] })
  })

  it('takes parked keys out on both sides, and lists them', async () => {
    const scene = await clinic()
    scene.destination.hook = (at) => (typeof at === 'object' && at.id === 'rex' ? 'too long' : undefined)
    scene.edit(setPet('rex', 'R'.repeat(100)))
    await scene.forwardAll()
    const result = await verify(scene)
    expect(result).toMatchObject({ equal: true, parked: { total: 1, first: [{ key: petKey('rex'), reason: 'too long' }] } })
    lay(scene, 'mia', { name: 'by hand', age: 1 })
    expect((await verify(scene)).differences).toMatchObject({ total: 1, first: [{ what: 'differs', key: petKey('mia') }] })
  })

  it('finds T that no longer gives what it gave', async () => {
    let suffix = ''
    const projection = defineProjection(PETS, {
      from: 'pets',
      revision: 1,
      fields: PETS.collections['pets']?.fields ?? {},
      select: ({ pet }) => ({ name: `${String(pet.name)}${suffix}`, age: 1 }),
    })
    const scene = await clinic({ projections: [projection] })
    expect(await verify(scene)).toMatchObject({ equal: true })
    suffix = '!'
    const result = await verify(scene)
    expect(result.proofs).toEqual({ rows: 'equal', projection: 'different', view: 'equal' })
    expect(result.reasons.join()).toMatch(/not pure/u)
  })

  it('makes T again when no digest of that version was kept, and says so', async () => {
    const scene = await clinic()
    scene.kept.clear()
    const result = await verify(scene)
    expect(result).toMatchObject({ equal: true })
    expect(result.reasons.join()).toMatch(/no digest/u)
    lay(scene, 'mia', null)
    expect((await verify(scene)).differences).toMatchObject({ total: 1, first: [{ what: 'missing', key: petKey('mia') }] })
    expect((await verify(scene, { proofs: ['projection'] })).proofs.projection).toBe('cannot')
  })

  it('finds a record of the view that the log does not give, whatever lies in the destination', async () => {
    const scene = await clinic()
    const state = scene.view.document('clinic' as DocumentId)
    if (state === undefined) throw new Error('no document')
    const origin = { partition: 0, position: 9 as never, epoch: 1, seq: 9 as never, document: 'clinic' as DocumentId, actor: '', at: 0 }
    const changes = [
      { collection: 'pets', id: 'rex', value: { name: 'Wrong', age: 1 } },
      { collection: 'pets', id: 'mia', value: null },
      { collection: 'pets', id: 'ghost', value: { name: 'Ghost', age: 1 } },
    ]
    scene.view.commit({ entries: [{ ...origin, version: 9, changes, settled: true }], documents: [state], places: [], misfits: [] })
    await scene.forwardAll()
    const result = await verify(scene)
    expect(result.proofs).toEqual({ rows: 'equal', projection: 'equal', view: 'different' })
    const found = Object.fromEntries(result.differences.first.map(({ key, what }) => [key?.id, what]))
    expect(found).toEqual({ rex: 'differs', mia: 'missing', ghost: 'surplus' })
  })

  it('waits for a view that is behind the log, and does not call it wrong', async () => {
    const scene = await clinic()
    const doc = scene.docs.get('clinic' as DocumentId)
    doc?.doc.getMap('pets').set('new', new Y.Map([['name', 'New']]))
    if (doc !== undefined) doc.seq++
    const result = await verify(scene)
    expect(result.proofs.view).toBe('cannot')
    expect(result.reasons.join()).toMatch(/does not keep up/u)
  })

  it('says why it cannot: strategy actions, a destination under way, one that cannot be read back', async () => {
    const acting = await clinic({ forward: { strategy: 'actions' } })
    expect(await verify(acting)).toMatchObject({ proofs: { rows: 'cannot', projection: 'cannot', view: 'equal' }, equal: false })
    const fresh = await createProofScene()
    expect((await verify(fresh)).reasons.join()).toMatch(/still to be written/u)
    const scene = await clinic()
    const blind = { ...scene.parts, open: async () => ({ ...(await scene.parts.open()), proof: undefined }) }
    const result = await running(scene.clock, createProver(blind).verify())
    expect(result).toMatchObject({ proofs: { rows: 'cannot', projection: 'cannot' }, equal: false })
    expect(result.reasons).toEqual(['this destination cannot be read back'])
  })

  it('finds records of a document that the log no longer knows', async () => {
    const scene = await clinic()
    scene.docs.delete('zoo' as DocumentId)
    const result = await verify(scene)
    expect(result.differences).toMatchObject({ total: 1, first: [{ proof: 'view', what: 'surplus', document: 'zoo' }] })
  })

  it('holds rows that were written meanwhile against their own stamp', async () => {
    const scene = await clinic()
    const twin = Array.from({ length: 20_000 }, (_, i) => `t${i}`).find((id) => bucketOf(petKey(id)) === bucketOf(petKey('mia'))) ?? ''
    scene.edit(setPet(twin, 'Twin'))
    await scene.forwardAll()
    lay(scene, 'mia', { name: 'by hand', age: 1 })
    // Between the survey and the rows, the forwarder goes on.
    let surveyed = 0
    const open = async () => {
      const sink = await scene.parts.open()
      const { proof } = sink
      if (proof === undefined) throw new Error('no proof')
      return {
        ...sink,
        proof: {
          ...proof,
          survey: async (how: { strangers: boolean }) => {
            const survey = await proof.survey(how)
            if (surveyed++ === 0) {
              scene.edit(setPet('rex', 'Rex II'))
              scene.edit((pets) => pets.delete('mia'))
              scene.edit(setPet('new', 'New'))
              scene.edit(setPet(twin, 'Twin II'))
              await scene.forwardAll()
            }
            return survey
          },
        },
      }
    }
    const result = await running(scene.clock, createProver({ ...scene.parts, open }).verify())
    // What was wrong is gone, and everything that lies there now is right.
    expect(result).toMatchObject({ equal: true, version: 8, rows: 4 })
    expect(surveyed).toBeGreaterThan(1)
  })

  it('is given up by its signal, and by the end of the prover', async () => {
    const scene = await clinic()
    const prover = createProver(scene.parts)
    await expect(running(scene.clock, prover.verify({ signal: AbortSignal.abort() }))).rejects.toThrow(/aborted/u)
    await running(scene.clock, prover.stop())
    await expect(prover.verify()).rejects.toThrow(/aborted/u)
  })

  it('is made by itself as often as was asked, slowly', async () => {
    const scene = await clinic({ forward: { verifyEvery: 60_000 } })
    const prover = createProver(scene.parts)
    await scene.clock.advance(59_000)
    expect(prover.last()).toBeUndefined()
    await scene.clock.advance(5_000)
    expect(prover.last()).toMatchObject({ equal: true })
    lay(scene, 'mia', null)
    await scene.clock.advance(70_000)
    expect(prover.last()).toMatchObject({ equal: false, differences: { total: 1 } })
    await running(scene.clock, prover.stop())
    expect(scene.clock.waiting).toBe(0)
  })
})

describe('a repair', () => {
  it('writes what is wrong and only that, and proves it', async () => {
    const scene = await clinic()
    lay(scene, 'rex', { name: 'by hand', age: 1 }, 1_000_000)
    lay(scene, 'mia', null)
    lay(scene, 'left', { name: 'left over', age: 1 }, 2)
    const written: string[] = []
    const hook = scene.destination.hook
    scene.destination.hook = (at) => {
      if (typeof at === 'object') written.push(at.id)
      return hook(at)
    }
    const { repaired, before, after } = await running(scene.clock, createProver(scene.parts).repair())
    expect({ repaired, before: before.equal, after: after.equal }).toEqual({ repaired: 3, before: false, after: true })
    expect(written.sort()).toEqual(['left', 'mia', 'rex'])
    expect(scene.destination.rows.get(keyText(petKey('rex')))?.value).toEqual({ name: 'Rex', age: 1 })
  })

  it('writes what T gives now where T changed unnoticed, and counts anew', async () => {
    let suffix = ''
    const projection = defineProjection(PETS, {
      from: 'pets',
      revision: 1,
      fields: PETS.collections['pets']?.fields ?? {},
      select: ({ pet }) => ({ name: `${String(pet.name)}${suffix}`, age: 1 }),
    })
    const scene = await clinic({ projections: [projection] })
    suffix = '!'
    const { repaired, after } = await running(scene.clock, createProver(scene.parts).repair())
    expect({ repaired, equal: after.equal }).toEqual({ repaired: 3, equal: true })
    expect(scene.destination.rows.get(keyText(petKey('rex')))?.value).toEqual({ name: 'Rex!', age: 1 })
  })

  it('lets strangers be, unless they are to be deleted', async () => {
    for (const strangers of ['report', 'delete'] as const) {
      const scene = await clinic({ forward: { strangers } })
      lay(scene, 'tom', { name: 'a stranger', age: 1 }, 0)
      const { repaired, after } = await running(scene.clock, createProver(scene.parts).repair())
      expect({ repaired, equal: after.equal }).toEqual(
        strangers === 'delete' ? { repaired: 1, equal: true } : { repaired: 0, equal: false },
      )
    }
  })

  it('does nothing where nothing is wrong, and ends where writing does not help', async () => {
    const scene = await clinic()
    expect(await running(scene.clock, createProver(scene.parts).repair())).toMatchObject({ repaired: 0, after: { equal: true } })
    lay(scene, 'mia', null)
    const parts = { ...scene.parts, forwarder: { ...scene.parts.forwarder, write: async () => undefined } }
    expect(await running(scene.clock, createProver(parts).repair())).toMatchObject({ repaired: 1, after: { equal: false } })
  })

  it('mends a destination of which nothing is right', async () => {
    const scene = await createProofScene()
    scene.edit((pets) => {
      for (let i = 0; i < 2_050; i++) pets.set(`p${i}`, new Y.Map([['name', `n${i}`]]))
    })
    await scene.forwardAll()
    scene.destination.rows.clear()
    const { repaired, before, after } = await running(scene.clock, createProver(scene.parts).repair())
    expect(before.differences.total).toBeGreaterThan(100)
    expect(before.differences.first).toHaveLength(100)
    expect({ repaired, equal: after.equal }).toEqual({ repaired: 2_050, equal: true })
  })
})
