/**
 * A watched value: stable snapshots, every listener told, and an iterator that never holds more than the latest.
 */
import { describe, expect, it } from 'vitest'
import { createReadable } from '#shared/readable.js'
import { uncaught } from '../support/uncaught.ts'

describe('a readable', () => {
  it('tells the value now, and each later value to who subscribed', () => {
    const { readable, set } = createReadable(1)
    const { get, subscribe } = readable
    const seen: number[] = []
    const end = subscribe((value) => seen.push(value))
    set(2)
    set(3)
    end()
    set(4)
    expect([seen, get()]).toEqual([[2, 3], 4])
  })

  it('keeps one snapshot until it changes, and tells nobody of the same value', () => {
    const first = { pending: 0 }
    const { readable, set } = createReadable(first)
    let told = 0
    readable.subscribe(() => told++)
    set(first)
    expect([readable.get() === first, told]).toEqual([true, 0])
  })

  it('calls one function twice when it subscribed twice', () => {
    const { readable, set } = createReadable(0)
    let told = 0
    const listener = (): void => void told++
    const end = readable.subscribe(listener)
    readable.subscribe(listener)
    set(1)
    end()
    end()
    set(2)
    expect(told).toBe(3)
  })

  it('tells nobody an old value when a listener sets a newer one', () => {
    const { readable, set } = createReadable(0)
    const seen: number[] = []
    readable.subscribe((value) => {
      if (value === 1) set(2)
    })
    readable.subscribe((value) => seen.push(value))
    set(1)
    expect(seen).toEqual([2])
  })

  it('does not call a listener that was ended by an earlier one', () => {
    const { readable, set } = createReadable(0)
    let told = 0
    readable.subscribe(() => end())
    const end = readable.subscribe(() => told++)
    set(1)
    expect(told).toBe(0)
  })

  it('calls the other listeners when one throws, and the fault is seen as uncaught', async () => {
    const { readable, set } = createReadable(0)
    let told = 0
    const faults = await uncaught(async () => {
      readable.subscribe(() => {
        throw new Error('of the application')
      })
      readable.subscribe(() => told++)
      set(1)
    })
    expect([told, String(faults[0])]).toEqual([1, 'Error: of the application'])
  })
})

describe('its iterator', () => {
  it('gives the value now, then each later one, and the latest to a slow reader', async () => {
    const { readable, set } = createReadable('a')
    const iterator = readable[Symbol.asyncIterator]()
    expect(await iterator.next()).toEqual({ done: false, value: 'a' })
    const waiting = iterator.next()
    set('b')
    expect(await waiting).toEqual({ done: false, value: 'b' })
    set('c')
    set('d')
    expect(await iterator.next()).toEqual({ done: false, value: 'd' })
  })

  it('ends with `break`, and a read that waits ends too', async () => {
    const { readable, set } = createReadable(0)
    for await (const value of readable) {
      expect(value).toBe(0)
      break
    }
    const iterator = readable[Symbol.asyncIterator]()
    await iterator.next()
    const waiting = iterator.next()
    await iterator.return?.()
    set(1)
    expect(await waiting).toEqual({ done: true, value: undefined })
    expect(await iterator.next()).toEqual({ done: true, value: undefined })
  })
})
