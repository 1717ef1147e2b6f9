/**
 * The outbox against the relay's rules for pushes, over random histories of loss, refusal and reconnects.
 */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import * as Y from 'yjs'
import type { ErrorCode, IncarnationId } from '@rejoin/shared'
import type { NackFrame } from '@rejoin/shared/wire'
import type { Push } from '#client/outbox.js'
import { MERGE_LIMITS, Outbox } from '#client/outbox.js'
import { hex } from '../support/scripted-relay.ts'

const [own, adopted] = [hex(1) as IncarnationId, hex(2) as IncarnationId]

/** Updates of one Y.Doc, one per edit. */
function edits(count: number, text = 'x'): Uint8Array[] {
  const doc = new Y.Doc()
  const updates: Uint8Array[] = []
  doc.on('update', (update: Uint8Array) => updates.push(update))
  for (let n = 0; n < count; n++) doc.getText('t').insert(0, text)
  return updates
}

const rowsOf = (incarnation: IncarnationId, updates: readonly Uint8Array[], from = 1) =>
  updates.map((update, index) => ({ incarnation, n: from + index, update }))

function boxOf(count: number, text?: string): Outbox {
  const box = new Outbox()
  box.admit(own, true, 0)
  box.add(own, rowsOf(own, edits(count, text)))
  return box
}

function take(box: Outbox, now = 0, room = Infinity): Push {
  const push = box.next(now, room)
  if (push === undefined || push === 'full') throw new Error('nothing to push')
  return push
}

const nack = (incarnation: IncarnationId, n: number, expected: number, code: ErrorCode): NackFrame => ({
  type: 'nack',
  handle: 1,
  incarnation,
  n,
  expected,
  code,
  retryAfter: 0,
  message: code,
})
const bounds = ({ lo, hi }: Push) => [lo, hi]

describe('the outbox', () => {
  it('merges neighbours that were never sent, and what was sent stays as it was', () => {
    const box = boxOf(5)
    const first = take(box)
    expect(bounds(first)).toEqual([1, 5])
    box.add(own, rowsOf(own, edits(2), 6))
    box.rewind()
    expect(bounds(take(box))).toEqual([1, 5])
    expect(bounds(take(box))).toEqual([6, 7])
    expect(box.next(0, Infinity)).toBeUndefined()
  })

  it('cuts a push by structs, by bytes and by rows', () => {
    const doc = new Y.Doc()
    let update = new Uint8Array()
    doc.on('update', (bytes: Uint8Array) => (update = bytes as Uint8Array<ArrayBuffer>))
    const wide = Array.from({ length: 3 }, (_, row) => {
      doc.transact(() => {
        for (let k = 0; k < 2000; k++) doc.getMap('m').set(`${row}/${k}`, k)
      })
      return update
    })
    const box = new Outbox()
    box.admit(own, true, 0)
    box.add(own, rowsOf(own, wide))
    expect(bounds(take(box))).toEqual([1, 2])
    expect(bounds(take(boxOf(3, 'y'.repeat(100_000))))).toEqual([1, 2])
    expect(bounds(take(boxOf(MERGE_LIMITS.rows + 10)))).toEqual([1, MERGE_LIMITS.rows])
  })

  it('sends adopted edits before its own', () => {
    const box = boxOf(1)
    box.admit(adopted, false, 3)
    box.add(adopted, rowsOf(adopted, edits(2), 4))
    expect(take(box)).toMatchObject({ incarnation: adopted, lo: 4, hi: 5 })
    expect(take(box)).toMatchObject({ incarnation: own, lo: 1, hi: 1 })
    expect(box.covers()).toEqual([{ incarnation: adopted, n: 3 }])
  })

  it('finds the one to refuse by sending what was merged one by one', () => {
    const box = boxOf(3)
    take(box)
    expect(box.nacked(nack(own, 1, 1, 'bad_bytes'), 0, () => 0)).toEqual({ type: 'again' })
    expect(bounds(take(box))).toEqual([1, 1])
    expect(bounds(take(box))).toEqual([2, 2])
    expect(box.acked(own, 1)).toBe(1)
    expect(box.nacked(nack(own, 2, 2, 'bad_bytes'), 7, () => 0)).toMatchObject({
      type: 'refused',
      row: { n: 2, refused: { code: 'bad_bytes', at: 7 } },
    })
    expect(box.next(0, Infinity)).toBeUndefined()
    expect(box.count()).toEqual({ pending: 1, refused: 1, free: 0 })
    expect(box.refusedOf(own, 3)?.n).toBe(2)
    expect(box.refusedOf(own, 1)).toBeUndefined()
    expect(box.retry(own, 2)?.refused).toBeUndefined()
    expect(bounds(take(box))).toEqual([2, 2])
    expect(bounds(take(box))).toEqual([3, 3])
  })

  it('closes a gap at once, and gives time to what leans on what has not come', () => {
    const box = boxOf(4)
    box.nacked(nack(own, 1, 1, 'gap'), 0, () => 0)
    expect(bounds(take(box))).toEqual([1, 4])
    expect(box.nacked(nack(own, 1, 1, 'gap'), 0, () => 0.5)).toEqual({ type: 'again' })
    expect(box.next(0, Infinity)).toBeUndefined()
    expect(box.due(0)).toBe(125)
    expect(bounds(take(box, 125))).toEqual([1, 1])
    expect(bounds(take(box, 125))).toEqual([2, 2])
    expect(box.nacked(nack(own, 2, 1, 'gap'), 125, () => 0)).toEqual({ type: 'again' })
    expect(bounds(take(box, 1000))).toEqual([1, 1])
  })

  it('says so when the relay asks for edits that are no longer here', () => {
    const box = boxOf(3)
    take(box)
    box.acked(own, 3)
    box.add(own, rowsOf(own, edits(1), 4))
    take(box)
    expect(box.nacked(nack(own, 4, 2, 'gap'), 0, () => 0)).toEqual({ type: 'lost' })
  })

  it('believes no ack beyond what was sent', () => {
    const box = boxOf(2)
    expect(box.acked(own, 2)).toBe(0)
    take(box)
    expect(box.acked(own, 9)).toBe(2)
  })

  it('waits for room, but not for ever with a push that is larger than the window', () => {
    const box = boxOf(3, 'y'.repeat(200_000))
    expect(box.next(0, 100_000)).toBe('full')
    expect(bounds(take(box))).toEqual([1, 1])
  })

  it('sends every edit once in effect, in order, within the window, whatever the network does', () => {
    const updates = edits(40)
    const step = fc.oneof(
      { weight: 4, arbitrary: fc.constant('push' as const) },
      { weight: 3, arbitrary: fc.constant('answer' as const) },
      { weight: 3, arbitrary: fc.constant('edit' as const) },
      fc.constant('drop' as const),
      fc.constant('busy' as const),
    )
    fc.assert(
      fc.property(fc.array(step, { maxLength: 200 }), fc.integer({ min: 20, max: 400 }), (history, window) => {
        const box = new Outbox()
        box.admit(own, true, 0)
        const relay = new RelayModel()
        let [made, now] = [0, 0]
        const room = () => (box.flying === 0 ? Infinity : window - box.flying)
        const run = (kind: (typeof history)[number]): void => {
          now += 20_000
          if (kind === 'edit' && made < updates.length) box.add(own, rowsOf(own, updates.slice(made, ++made), made))
          if (kind === 'push') {
            const push = box.next(now, room())
            if (push !== undefined && push !== 'full') relay.take(push)
            expect(box.flying <= window || relay.wire.length === 1).toBe(true)
          }
          if (kind === 'answer') relay.answer(box, now, false)
          if (kind === 'busy') relay.answer(box, now, true)
          if (kind === 'drop') {
            relay.drop()
            box.rewind()
          }
        }
        for (const kind of history) run(kind)
        for (let turns = 0; relay.acked < made; turns++) {
          expect(turns).toBeLessThan(1000)
          run('push')
          run('answer')
        }
        while (relay.wire.length > 0) run('answer')
        // An ack that was lost with its socket is given again.
        for (let turns = 0; !box.isEmpty(own) && turns < 100; turns++) {
          run('push')
          run('answer')
        }
        expect(box.count()).toEqual({ pending: 0, refused: 0, free: 0 })
        expect(box.flying).toBe(0)
        const doc = new Y.Doc()
        for (const update of relay.log) {
          Y.applyUpdate(doc, update)
          expect(doc.store.pendingStructs).toBeNull()
        }
        expect(doc.getText('t').length).toBe(made)
      }),
      { numRuns: 300 },
    )
  })
})

/** The table of PROTOCOL.md §5 for one incarnation on one socket at a time. */
class RelayModel {
  wire: Push[] = []
  acked = 0
  readonly log: Uint8Array[] = []
  #deaf = false
  #last = 0

  take(push: Push): void {
    // On one socket each push follows the last, unless a nack or a new socket sent it back.
    if (!this.#deaf && this.#last > 0) expect(push.lo).toBeLessThanOrEqual(this.#last + 1)
    this.#last = push.hi
    this.wire.push(push)
  }

  answer(box: Outbox, now: number, busy: boolean): void {
    const push = this.wire.shift()
    if (push === undefined) return
    if (this.#deaf && push.lo > this.acked + 1) return
    this.#deaf = false
    const refuse = (code: ErrorCode): void => {
      this.#deaf = true
      box.nacked(nack(own, push.lo, this.acked + 1, code), now, () => 0.5)
    }
    if (push.lo > this.acked + 1) return refuse('gap')
    if (busy && push.hi > this.acked) return refuse('overloaded')
    if (push.hi > this.acked) {
      this.log.push(push.update)
      this.acked = push.hi
    }
    box.acked(own, this.acked)
  }

  drop(): void {
    // What was under way may have been taken, and its ack is lost.
    for (const push of this.wire) {
      if (push.lo !== this.acked + 1 || this.#deaf) break
      this.log.push(push.update)
      this.acked = push.hi
    }
    this.wire = []
    this.#deaf = false
    this.#last = 0
  }
}
