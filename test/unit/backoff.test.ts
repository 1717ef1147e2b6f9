/**
 * How long to wait before trying again: within bounds, spread over all of them, never sooner than the server asked.
 */
import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { backoff } from '#shared/backoff.js'

const chance = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true })

describe('backoff', () => {
  it('lies between what the server asked for and that plus the ceiling of its attempt', () => {
    fc.assert(
      fc.property(fc.nat(), chance, fc.nat(100_000), (attempt, random, atLeast) => {
        const delay = backoff(attempt, () => random, { first: 500, cap: 30_000, atLeast })
        expect(delay).toBeGreaterThanOrEqual(atLeast)
        expect(delay).toBeLessThan(atLeast + Math.min(30_000, 500 * 2 ** Math.min(attempt, 20)))
      }),
    )
  })

  it('doubles its ceiling with each attempt up to the cap, for ever', () => {
    const ceilings = [0, 1, 2, 5, 6, 1e9].map((attempt) => backoff(attempt, () => 0.999_999))
    expect(ceilings).toEqual([499, 999, 1999, 15_999, 29_999, 29_999])
  })

  it('uses all of the time there is: full jitter', () => {
    expect([0, 0.25, 0.5].map((random) => backoff(3, () => random))).toEqual([0, 1000, 2000])
  })
})
