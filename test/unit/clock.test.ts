/**
 * The platform's clock: a time beyond what a timer can count is not now.
 */
import { afterEach, describe, expect, it, vi } from 'vitest'
import { systemClock } from '@rejoin/shared'

afterEach(() => void vi.useRealTimers())

describe('the clock', () => {
  it('does not take a time beyond its timers for one that has come', () => {
    vi.useFakeTimers()
    const spy = vi.spyOn(globalThis, 'setTimeout')
    systemClock.after(2 ** 40, () => undefined)()
    expect(spy).toHaveBeenCalledWith(expect.any(Function), 2 ** 31 - 1)
  })
})
