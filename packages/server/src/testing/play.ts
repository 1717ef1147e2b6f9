/**
 * How a case of the conformance kit is told (beside the path): what it needs, and the little that stories have in common.
 */
import { SyncError } from '@rejoin/shared'
import type { Conformance, Destination } from './destination.ts'
import type { Change, Runner, Scene } from './scene.ts'
import { openScene, pause, pet } from './scene.ts'

/** One case. Resolves with undefined when the sink holds it, with a reason when it does not apply; rejects otherwise. */
export interface Case {
  readonly name: string
  readonly guarantee: string
  readonly run: (under: Conformance) => Promise<string | undefined>
}

export type Story = (scene: Scene, under: Conformance) => Promise<void>

/** What a case needs of the sink or the destination. */
export interface Needs {
  readonly powers?: readonly (keyof Conformance['powers'])[]
  readonly destination?: readonly Exclude<keyof Destination, 'absent'>[]
  /** Strategy 'state' only, and why. */
  readonly state?: string
}

/** Pets of every story. */
export const HERE: readonly string[] = ['rex', 'mia', 'tom', 'ida', 'leo']

/** All of them, each named by its id and the suffix. */
export function everyone(suffix = ''): readonly Change[] {
  return HERE.map((id) => pet(id, `${id}${suffix}`))
}

/** Makes a case of a story. */
export function play(name: string, guarantee: string, needs: Needs, story: Story): Case {
  return {
    name,
    guarantee,
    run: async (under) => {
      const claimed = needs.powers?.map((power) => under.powers[power]).find((power) => typeof power === 'string')
      if (typeof claimed === 'string') return claimed
      const strategy = under.forward?.strategy ?? under.traits.strategies[0]
      if (needs.state !== undefined && strategy === 'actions') return `strategy 'actions': ${needs.state}`
      const scene = await openScene(under)
      try {
        const absent = needs.destination?.find((way) => scene.destination[way] === undefined)
        if (absent !== undefined) return scene.destination.absent?.[absent] ?? `this destination gives no way to ${absent}`
        await story(scene, under)
        return undefined
      } finally {
        await scene.close()
      }
    },
  }
}

/** A commit that is held on its way. */
export interface HeldCommit {
  readonly isReached: () => boolean
  /** It was released, and whatever it answered has been heard. */
  readonly isOver: () => boolean
  release(): void
}

/** The runner's next commit stops on its way, as in a process that is frozen, until it is released. */
export function hold(runner: Runner): HeldCommit {
  let [isReached, isOver] = [false, false]
  let release = (): void => {}
  const released = new Promise<void>((resolve) => {
    release = resolve
  })
  runner.trouble.beforeCommit = async (commit) => {
    if (commit.rows.length === 0) return
    delete runner.trouble.beforeCommit
    isReached = true
    await released
    void pause(100).then(() => {
      isOver = true
    })
  }
  return { isReached: () => isReached, isOver: () => isOver, release: () => release() }
}

/** Throws where they are not. */
export function same(found: unknown, expected: unknown): void {
  const [a, b] = [found, expected].map((value) => JSON.stringify(sorted(value)))
  if (a !== b) throw new SyncError('internal', `found ${a}, expected ${b}`)
}

function sorted(value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value ?? null
  return Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1))
}
