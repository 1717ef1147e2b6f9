/**
 * What a document remembers of incarnations (step 4): bounded in memory, and in what remembering one more costs.
 */
import { describe, expect, it } from 'vitest'
import { newIncarnationId } from '@rejoin/shared'
import type { IncarnationId, Seq } from '@rejoin/shared'
import { ASKED, Numbering } from '#server/relay/numbering.js'
import { createMemoryLog } from '#server/storage/memory.js'
import { growth } from '../support/growth.ts'
import { createTestRelay, push } from '../support/relay.ts'
import { until } from '../support/until.ts'

const id = (n: number): IncarnationId => n.toString(16).padStart(32, '0') as IncarnationId

describe('the incarnations of a document', () => {
  it('are forgotten, the least used first, and found again', () => {
    const numbering = new Numbering()
    for (let n = 0; n < 5000; n++) {
      numbering.ask(id(n))
      numbering.found(id(n), { n: 1, seq: 1 as Seq })
      expect(numbering.get(id(0))).toMatchObject({ taken: 1 })
    }
    expect(numbering.size).toBeLessThanOrEqual(1000)
    expect(numbering.get(id(1))).toBeUndefined()
    expect(numbering.ask(id(1))).toBe(true)
  })

  it('stay while they are asked for, up to a bound, and are few again afterwards', () => {
    const numbering = new Numbering()
    for (let n = 0; n < ASKED; n++) {
      expect(numbering.mayAsk(id(n))).toBe(true)
      numbering.ask(id(n))
    }
    expect(numbering.mayAsk(id(ASKED))).toBe(false)
    expect(numbering.mayAsk(id(7))).toBe(true)
    for (let n = 0; n < ASKED; n++) numbering.found(id(n), undefined)
    expect(numbering.size).toBe(ASKED)
    for (let n = ASKED; n < 3 * ASKED; n++) {
      expect(numbering.mayAsk(id(n))).toBe(true)
      numbering.ask(id(n))
      numbering.found(id(n), undefined)
    }
    expect(numbering.size).toBeLessThanOrEqual(1000)
  })

  it('cost the same each, however many are in use', () => {
    const taking = (count: number) => (): void => {
      const numbering = new Numbering()
      for (let n = 0; n < count; n++) numbering.take(id(n), 1)
      expect(numbering.size).toBe(count)
      for (let n = 0; n < count; n++) numbering.settle(id(n), 1, 1 as Seq)
      expect(numbering.size).toBe(0)
    }
    // A look at all of them each time would be 64.
    expect(growth(taking, 6000, 8)).toBeLessThan(32)
  })
})

describe('a flood of incarnations', () => {
  it('is put off beyond the bound, each told once, and the others are taken', async () => {
    const log = createMemoryLog()
    const held: (() => void)[] = []
    const relay = createTestRelay({
      log: {
        ...log,
        find: async (...args) => {
          await new Promise<void>((resolve) => held.push(resolve))
          return log.find(...args)
        },
      },
    })
    const peer = await relay.peer()
    const { handle } = await peer.open('d')
    const late = newIncarnationId()
    for (let n = 0; n < ASKED; n++) peer.send(push(handle, id(n), 1, new Uint8Array(1)))
    peer.send(push(handle, late, 1, new Uint8Array(1)), push(handle, late, 2, new Uint8Array(1)))
    expect(await peer.next('nack')).toMatchObject({ incarnation: late, code: 'too_many', n: 1, expected: 1, retryAfter: 2000 })
    for (const release of held) release()
    await until(() => peer.all('nack').length === ASKED + 1)
    expect(peer.all('nack').filter(({ incarnation }) => incarnation === late)).toHaveLength(1)
  })
})
