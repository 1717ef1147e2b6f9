/**
 * Seeded chance: one seed, one world.
 */
import type { Random, RandomBytes } from '@rejoin/shared'

/** Draws of one seeded stream. */
export interface Chance {
  readonly random: Random
  readonly bytes: RandomBytes
  /** An integer in [0, below). */
  below(below: number): number
  /** True with this probability. */
  maybe(probability: number): boolean
  pick<T>(items: readonly T[]): T
  /** A stream of its own, so that one part of the world does not disturb the draws of another. */
  fork(): Chance
}

/** sfc32: small, fast, passes PractRand (Chris Doty-Humphrey). */
export function createChance(seed: number): Chance {
  let a = 0x9e3779b9
  let b = 0x243f6a88
  let c = seed | 0
  let counter = 1
  const next = (): number => {
    const sum = (a + b + counter) | 0
    counter = (counter + 1) | 0
    a = b ^ (b >>> 9)
    b = (c + (c << 3)) | 0
    c = ((c << 21) | (c >>> 11)) + sum
    return sum >>> 0
  }
  for (let i = 0; i < 12; i++) next()
  const random = (): number => next() / 4294967296
  const below = (limit: number): number => Math.floor(random() * limit)
  return {
    random,
    below,
    bytes: (length) => Uint8Array.from({ length }, () => next() & 255),
    maybe: (probability) => random() < probability,
    pick: (items) => items[below(items.length)] as (typeof items)[number],
    fork: () => createChance(next()),
  }
}
