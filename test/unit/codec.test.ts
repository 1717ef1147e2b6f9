/**
 * The codec: every frame survives, every byte string gets an answer, and the bytes of revision 1 never change.
 */
import * as fc from 'fast-check'
import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { createFrameWriter, decodeFrames, encodeFrames } from '#shared/codec.js'
import type { Decoded } from '#shared/codec.js'
import { FRAME_TYPES } from '#shared/frames.js'
import type { Frame, PushFrame } from '#shared/frames.js'
import { fromHex, toHex } from '#shared/ids.js'
import type { ChainHash, IncarnationId, Seq } from '#shared/ids.js'
import { DEFAULT_LIMITS, WIRE_LIMITS } from '#shared/limits.js'
import { anyFrame, frameArbitraries } from '../support/frames.ts'
import { goldenFrames } from '../support/golden.ts'
import { growth } from '../support/growth.ts'

const incarnation = '00112233445566778899aabbccddeeff' as IncarnationId
const push: PushFrame = {
  type: 'push',
  handle: 0,
  incarnation,
  lo: 1,
  hi: 1,
  kind: 'edit',
  covers: [],
  total: 3,
  offset: 0,
  update: new Uint8Array(3),
}

describe('a frame', () => {
  it.each(Object.entries(frameArbitraries))('%s survives being bytes', (_type, arbitrary) => {
    fc.assert(
      fc.property(arbitrary as fc.Arbitrary<Frame>, (frame) => {
        expect(framesOf(decodeFrames(encodeFrames([frame])))).toEqual([frame])
      }),
    )
  })

  it('stands beside others in a message, in order', () => {
    fc.assert(
      fc.property(fc.array(anyFrame, { minLength: 1, maxLength: 10 }), (frames) => {
        expect(framesOf(decodeFrames(encodeFrames(frames)))).toEqual(frames)
      }),
    )
  })

  it('keeps what text decoders like to drop: a byte order mark at the beginning', () => {
    const frame: Frame = { type: 'auth', token: '\ufefftoken' }
    expect(framesOf(decodeFrames(encodeFrames([frame])))).toEqual([frame])
  })

  it('of a later revision may carry more fields: they are passed over', () => {
    fc.assert(
      fc.property(anyFrame, fc.uint8Array({ maxLength: 20 }), (frame, more) => {
        const { type, body } = split(encodeFrames([frame]))
        const longer = join(type, new Uint8Array([...body, ...more]))
        // Two frames: what was added must not shift the next one.
        expect(framesOf(decodeFrames(new Uint8Array([...longer, ...encodeFrames([{ type: 'ping', nonce: 7 }])])))).toEqual([
          frame,
          { type: 'ping', nonce: 7 },
        ])
      }),
    )
  })

  it('of a type unknown here is skipped and counted', () => {
    const unknown = fc.nat(10_000).filter((type) => !(Object.values(FRAME_TYPES) as number[]).includes(type))
    fc.assert(
      fc.property(unknown, fc.uint8Array({ maxLength: 200 }), anyFrame, (type, body, frame) => {
        const message = new Uint8Array([...join(type, body), ...encodeFrames([frame]), ...join(type, body)])
        expect(decodeFrames(message)).toEqual({ type: 'frames', frames: [frame], skipped: 2 })
      }),
    )
  })

  it('that ends before its fields do is a reason, wherever it is cut', () => {
    fc.assert(
      fc.property(anyFrame, fc.nat(), (frame, where) => {
        const { type, body } = split(encodeFrames([frame]))
        if (body.length === 0) return
        const cut = body.subarray(0, where % body.length)
        expect(decodeFrames(join(type, cut)).type).toBe('bad')
        expect(decodeFrames(encodeFrames([frame]).slice(0, -1)).type).toBe('bad')
      }),
    )
  })

  it('has byte fields that are views of the message: nothing is copied', () => {
    const message = encodeFrames([{ type: 'presence', handle: 1, awareness: new Uint8Array(1000) }])
    const [frame] = framesOf(decodeFrames(message))
    expect(frame?.type === 'presence' && frame.awareness.buffer).toBe(message.buffer)
  })
})

describe('a message', () => {
  it('of random bytes gets an answer', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 400 }), (bytes) => {
        expect(decodeFrames(bytes).type).toMatch(/^(frames|bad)$/u)
      }),
      { numRuns: 5000 },
    )
  })

  it('with mutated bytes gets an answer, and what was read can be written again', () => {
    const mutation = fc.record({ at: fc.nat(), byte: fc.oneof(fc.nat(255), fc.constantFrom(0, 127, 128, 255)) })
    fc.assert(
      fc.property(
        fc.array(anyFrame, { minLength: 1, maxLength: 4 }),
        fc.array(mutation, { minLength: 1, maxLength: 6 }),
        (frames, mutations) => {
          const bytes = encodeFrames(frames)
          for (const { at, byte } of mutations) bytes[at % bytes.length] = byte
          const decoded = decodeFrames(bytes)
          if (decoded.type === 'bad') expect(decoded.reason).not.toBe('')
          else if (decoded.frames.length > 0) expect(framesOf(decodeFrames(encodeFrames(decoded.frames)))).toEqual(decoded.frames)
        },
      ),
      { numRuns: 5000 },
    )
  })

  it.each([
    ['nothing', new Uint8Array(0), /empty/u],
    ['a length beyond the message', new Uint8Array([1, 200, 1, 0]), /behind its message/u],
    ['a number beyond 2^53-1', new Uint8Array([7, 8, 255, 255, 255, 255, 255, 255, 255, 31]), /2\^53/u],
    ['a number that never ends', new Uint8Array([7, 60, ...Array.from({ length: 60 }, () => 128)]), /2\^53/u],
    ['a flag that is neither', join(FRAME_TYPES.open, new Uint8Array([0, 1, 97, 2, 0])), /cursor is 2/u],
    ['an unknown kind', pushBody({ kind: 9 }), /kind is 9/u],
    ['edits that begin at 0', pushBody({ lo: 0 }), /edits 0 to 1/u],
    ['edits that end before they begin', pushBody({ lo: 3 }), /edits 3 to 1/u],
    ['a part that ends behind its whole', pushBody({ offset: 4 }), /behind its whole/u],
    ['bytes that are no UTF-8', join(FRAME_TYPES.auth, new Uint8Array([2, 0xc3, 0x28])), /UTF-8/u],
    ['a surrogate in UTF-8', join(FRAME_TYPES.auth, new Uint8Array([3, 0xed, 0xa0, 0x80])), /UTF-8/u],
    [
      'a token of 16 KiB and one byte',
      join(FRAME_TYPES.auth, new Uint8Array([...varUint(WIRE_LIMITS.token + 1), ...new Uint8Array(WIRE_LIMITS.token + 1)])),
      /token is 16385/u,
    ],
    [
      'a document id of 257 bytes',
      join(FRAME_TYPES.open, new Uint8Array([0, ...varUint(257), ...new Uint8Array(260)])),
      /document is 257/u,
    ],
    [
      'presence of 64 KiB and one byte',
      encodeFrames([{ type: 'presence', handle: 0, awareness: new Uint8Array(WIRE_LIMITS.presence + 1) }]),
      /awareness is 65537/u,
    ],
    ['a whole of 16 MiB and one byte', encodeFrames([{ ...push, total: DEFAULT_LIMITS.edit + 1 }]), /total is 16777217/u],
  ])('with %s is bad, and says why', (_what, bytes, reason) => {
    const decoded = decodeFrames(bytes)
    expect(decoded.type === 'bad' ? decoded.reason : 'frames').toMatch(reason)
  })

  it('of 1 MiB is read, of one byte more is not', () => {
    const overhead = filled(DEFAULT_LIMITS.message - 100).length - (DEFAULT_LIMITS.message - 100)
    const edge = filled(DEFAULT_LIMITS.message - overhead)
    expect(edge.length).toBe(DEFAULT_LIMITS.message)
    expect(decodeFrames(edge).type).toBe('frames')
    expect(decodeFrames(filled(DEFAULT_LIMITS.message - overhead + 1)).type).toBe('bad')
    expect(decodeFrames(edge, { maxMessage: 64 * 1024 }).type).toBe('bad')
  })

  it('announces lists that it does not hold: nothing is allocated for them', () => {
    const head = [...varUint(0), ...new Uint8Array(16), 1, 1, 0]
    expect(decodeFrames(join(FRAME_TYPES.push, new Uint8Array([...head, ...varUint(1001)])))).toMatchObject({
      type: 'bad',
      reason: 'frame 5: covers is 1001, at most 1000',
    })
    expect(decodeFrames(join(FRAME_TYPES.push, new Uint8Array([...head, ...varUint(1000)])))).toMatchObject({
      type: 'bad',
      reason: 'frame 5: the bytes end before the fields do',
    })
    const entries = [0, 1, ...varUint(10_001), ...new Uint8Array(16)]
    expect(decodeFrames(join(FRAME_TYPES.entries, new Uint8Array(entries)))).toMatchObject({
      type: 'bad',
      reason: 'frame 36: count is 10001, at most 10000',
    })
  })

  it('has at most 65,536 frames', () => {
    expect(decodeFrames(pings(WIRE_LIMITS.frames)).type).toBe('frames')
    expect(decodeFrames(pings(WIRE_LIMITS.frames + 1)).type).toBe('bad')
  })

  it('from a client is refused at the first frame that only a relay sends, and the other way round', () => {
    const entries = encodeFrames([{ type: 'entries', handle: 1, first: 1 as Seq, hash: incarnation as string as ChainHash, updates: [] }])
    expect(decodeFrames(entries, { from: 'relay' }).type).toBe('frames')
    expect(decodeFrames(entries, { from: 'client' })).toEqual({ type: 'bad', reason: 'a frame of type 36, which no client sends' })
    expect(decodeFrames(encodeFrames([push]), { from: 'client' }).type).toBe('frames')
    expect(decodeFrames(encodeFrames([push]), { from: 'relay' })).toEqual({
      type: 'bad',
      reason: 'a frame of type 5, which no relay sends',
    })
    fc.assert(
      fc.property(anyFrame, (frame) => {
        const sides = [decodeFrames(encodeFrames([frame]), { from: 'client' }), decodeFrames(encodeFrames([frame]), { from: 'relay' })].map(
          ({ type }) => type,
        )
        const both = frame.type === 'presence' || frame.type === 'ping' || frame.type === 'pong'
        expect(sides.filter((type) => type === 'frames')).toHaveLength(both ? 2 : 1)
      }),
    )
  })

  it('from a client, as dear as one can be, costs in proportion to its bytes', () => {
    const covers = Array.from({ length: WIRE_LIMITS.covers }, () => ({ incarnation, n: 1 }))
    // Eighths of a message that is as large as one may be.
    const dear = (eighths: number): readonly Uint8Array[] => [
      new Uint8Array((DEFAULT_LIMITS.message / 8) * eighths),
      new Uint8Array((DEFAULT_LIMITS.message / 8) * eighths).fill(128),
      encodeFrames(Array.from({ length: 7 * eighths }, () => ({ ...push, covers }))),
      encodeFrames(
        Array.from({ length: 31_250 * eighths }, () => ({ type: 'presence', handle: 1, awareness: new Uint8Array(0) }) as const),
      ),
      encodeFrames(
        Array.from(
          { length: 11 * eighths },
          () =>
            ({
              type: 'entries',
              handle: 1,
              first: 1 as Seq,
              hash: incarnation as string as ChainHash,
              updates: Array.from({ length: 10_000 }, () => new Uint8Array(0)),
            }) as const,
        ),
      ),
    ]
    const decoding = (eighths: number): (() => void) => {
      const messages = dear(eighths)
      return () => {
        for (const bytes of messages) decodeFrames(bytes, { from: 'client' })
      }
    }
    // Measured: 55 to 120 ms for all five of the largest. Quadratic would be 64.
    expect(growth(decoding, 1, 8)).toBeLessThan(32)
  })
})

describe('a writer', () => {
  it('gives what encodeFrames gives, however often it is used', () => {
    const writer = createFrameWriter()
    fc.assert(
      fc.property(fc.array(anyFrame, { minLength: 1, maxLength: 5 }), (frames) => {
        for (const frame of frames) writer.write(frame)
        const length = writer.length
        const taken = writer.take()
        expect(taken).toEqual(encodeFrames(frames))
        expect(taken.length).toBe(length)
        expect(writer.length).toBe(0)
      }),
    )
  })

  it('writes nothing of a frame that cannot go on the wire', () => {
    const writer = createFrameWriter()
    writer.write({ type: 'ping', nonce: 1 })
    expect(() => writer.write({ type: 'hello', revisionMin: 1, revisionMax: 1, agent: 'x'.repeat(257), token: '' })).toThrow(
      'the agent is 257 bytes, at most 256 go on the wire',
    )
    expect(() => writer.write({ type: 'ping', nonce: -1 })).toThrow(/-1 is not a number the wire carries/u)
    expect(() => writer.write({ ...push, incarnation: 'nonsense' as IncarnationId })).toThrow(/hexadecimal/u)
    expect(writer.take()).toEqual(encodeFrames([{ type: 'ping', nonce: 1 }]))
  })

  it('cuts a message that is too long, at a character', () => {
    fc.assert(
      fc.property(fc.nat(3), fc.constantFrom('a', 'é', '€', '🐢'), (shift, character) => {
        const long = 'x'.repeat(shift) + character.repeat(1200)
        const [frame] = framesOf(decodeFrames(encodeFrames([{ type: 'goaway', code: 'internal', retryAfter: 0, message: long }])))
        const cut = frame?.type === 'goaway' ? frame.message : ''
        expect(long.startsWith(cut)).toBe(true)
        expect(new TextEncoder().encode(cut).length).toBeGreaterThan(WIRE_LIMITS.text - 4)
      }),
    )
  })
})

describe('the golden frames of revision 1', () => {
  const golden = JSON.parse(readFileSync(new URL('../golden/frames-v1.json', import.meta.url), 'utf8')) as Record<string, string>

  it('are still written byte for byte', () => {
    const written = Object.fromEntries(Object.entries(goldenFrames).map(([name, frame]) => [name, toHex(encodeFrames([frame]))]))
    const { unknown: _skipped, ...known } = golden
    expect(written).toEqual(known)
  })

  it('are still read, and name every type', () => {
    for (const [name, frame] of Object.entries(goldenFrames))
      expect(framesOf(decodeFrames(fromHex(golden[name] ?? ''))), name).toEqual([frame])
    expect(new Set(Object.values(goldenFrames).map(({ type }) => type))).toEqual(new Set(Object.keys(FRAME_TYPES)))
  })

  it('hold one of an unknown type, which is skipped', () => {
    expect(decodeFrames(fromHex(Object.values(golden).join('')))).toMatchObject({
      type: 'frames',
      frames: Object.values(goldenFrames),
      skipped: 1,
    })
  })
})

function framesOf(decoded: Decoded): readonly Frame[] {
  if (decoded.type === 'bad') throw new Error(decoded.reason)
  return decoded.frames
}

function varUint(value: number): number[] {
  return value < 128 ? [value] : [(value % 128) | 128, ...varUint(Math.floor(value / 128))]
}

function join(type: number, body: Uint8Array): Uint8Array {
  return new Uint8Array([...varUint(type), ...varUint(body.length), ...body])
}

/** Type and body of a message of one frame. Types of revision 1 take one byte. */
function split(message: Uint8Array): { type: number; body: Uint8Array } {
  let at = 1
  while ((message[at] ?? 0) >= 128) at++
  return { type: message[0] ?? 0, body: message.subarray(at + 1) }
}

/** A push whose fields the writer itself would not write. */
function pushBody({ lo = 1, kind = 0, offset = 0 }: { lo?: number; kind?: number; offset?: number }): Uint8Array {
  return join(FRAME_TYPES.push, new Uint8Array([0, ...new Uint8Array(16), lo, 1, kind, 0, 3, offset, 3, 1, 2, 3]))
}

function filled(length: number): Uint8Array {
  return encodeFrames([{ ...push, total: length, update: new Uint8Array(length) }])
}

function pings(count: number): Uint8Array {
  return new Uint8Array(Array.from({ length: count }, () => [FRAME_TYPES.ping, 1, 0]).flat())
}
