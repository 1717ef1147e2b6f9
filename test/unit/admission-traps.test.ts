/**
 * What is known to break naive relays, and the edges of admission's limits.
 */
import * as fc from 'fast-check'
import * as Y from 'yjs'
import { describe, expect, it } from 'vitest'
import { absorb, admit, beginAdmitting, createAdmission, encodeAdmission, absorbTrusted } from '#server/relay/admission.js'
import type { Verdict } from '#server/relay/admission.js'
import { skipJson } from '#server/relay/json.js'
import type { Scan } from '#server/relay/scan.js'
import { utf16Length } from '#server/relay/scan.js'
import { ByteWriter } from '#shared/bytes.js'
import { DEFAULT_LIMITS } from '#shared/limits.js'
import { growth } from '../support/growth.ts'

const limits = DEFAULT_LIMITS
const utf8 = new TextEncoder()

function judge(update: Uint8Array, ...before: readonly Uint8Array[]): Verdict {
  const state = createAdmission()
  for (const each of before) absorbTrusted(state, each)
  return admit(state, update, limits)
}

function refusal(update: Uint8Array, ...before: readonly Uint8Array[]): string {
  const verdict = judge(update, ...before)
  return verdict.type === 'refused' ? verdict.code : verdict.type
}

function updateOf(change: (doc: Y.Doc) => void, clientID = 1): Uint8Array {
  const doc = new Y.Doc()
  doc.clientID = clientID
  doc.transact(() => change(doc))
  return Y.encodeStateAsUpdate(doc)
}

/** An update of its numbers, strings (as varString) and raw bytes. */
function bytes(...parts: readonly (number | string | Uint8Array)[]): Uint8Array {
  const writer = new ByteWriter()
  for (const part of parts) {
    if (typeof part === 'number') writer.varUint(part)
    else if (typeof part === 'string') writer.blob(utf8.encode(part))
    else writer.raw(part)
  }
  return writer.take()
}

/** A string with an origin. */
const leaning = (client: number, clock: number): Uint8Array => bytes(Uint8Array.of(4 | 128), client, clock, 'x')

/** One struct of client 1 at clock 0. */
const struct = (...parts: readonly (number | string | Uint8Array)[]): Uint8Array => bytes(1, 1, 1, 0, ...parts, 0)
const hello = updateOf((doc) => doc.getText('t').insert(0, 'hello'))

const keyed = (length: number): Uint8Array => updateOf((doc) => doc.getMap('m').set('k'.repeat(length), 1))
const nest = (depth: number): object => JSON.parse('['.repeat(depth) + ']'.repeat(depth)) as object
const deep = (depth: number): Uint8Array => updateOf((doc) => doc.getArray('l').push([nest(depth)]))
const embedded = (depth: number): Uint8Array => updateOf((doc) => doc.getText('t').insertEmbed(0, nest(depth)))
const collected = (structs: number): Uint8Array => bytes(1, structs, 1, 0, ...Array<Uint8Array>(structs).fill(Uint8Array.of(0, 1)), 0)

describe('the traps', () => {
  it('a delete set for clocks that are yet to come is a gap', () => {
    expect(refusal(bytes(0, 1, 1, 1, 5, 3), hello)).toBe('gap')
    expect(refusal(bytes(0, 1, 1, 1, 3, 3), hello)).toBe('gap')
    expect(refusal(bytes(0, 1, 9, 1, 0, 1), hello)).toBe('gap')
    expect(refusal(bytes(0, 1, 1, 1, 3, 2), hello)).toBe('admitted')
  })

  it('a struct that uses up all clocks of a client is refused', () => {
    expect(refusal(struct(0, Number.MAX_SAFE_INTEGER))).toBe('bad_bytes')
    expect(refusal(struct(1, 1, 't', 2 ** 31))).toBe('bad_bytes')
    expect(refusal(struct(0, 2 ** 31 - 1))).toBe('admitted')
    expect(refusal(bytes(1, 1, 1, 2 ** 40, 0, 1, 0))).toBe('bad_bytes')
  })

  it('numbers beyond 2^53-1 and padded beyond 8 bytes are refused', () => {
    expect(refusal(bytes(1, 1, Uint8Array.of(255, 255, 255, 255, 255, 255, 255, 16), 0, 0, 1, 0))).toBe('bad_bytes')
    expect(refusal(bytes(1, 1, Number.MAX_SAFE_INTEGER, 0, 0, 1, 0))).toBe('admitted')
    expect(refusal(bytes(1, 1, Uint8Array.of(...Array<number>(200).fill(128), 0), 0, 0, 1, 0))).toBe('bad_bytes')
  })

  it('seven bytes do not make it allocate what they name', () => {
    const before = process.memoryUsage().heapUsed
    for (const update of [
      bytes(1, 2 ** 27, 1, 0),
      bytes(2 ** 40),
      bytes(0, 2 ** 40),
      bytes(0, 1, 1, 2 ** 40),
      struct(8, 2 ** 40),
      struct(8, 1, Uint8Array.of(117), 2 ** 40),
      struct(2, 2 ** 40),
      struct(4, 2 ** 40),
      struct(3, 2 ** 40),
    ]) {
      expect(refusal(update)).toBe('bad_bytes')
    }
    expect(process.memoryUsage().heapUsed - before).toBeLessThan(4_000_000)
  })

  it('the key __proto__ is refused wherever a key may stand', () => {
    const proto = JSON.parse('{"deep":[{"__proto__":1}]}') as object
    for (const update of [
      updateOf((doc) => doc.getMap('m').set('__proto__', 1)),
      updateOf((doc) => doc.getMap('__proto__').set('a', 1)),
      updateOf((doc) => doc.getMap('m').set('a', proto)),
      updateOf((doc) => doc.getText('t').insert(0, 'x', proto)),
      updateOf((doc) => doc.getText('t').insert(0, 'x', JSON.parse('{"__proto__":true}') as object)),
      updateOf((doc) => doc.getText('t').insertEmbed(0, proto)),
      updateOf((doc) => doc.getXmlFragment('x').insert(0, [new Y.XmlElement('__proto__')])),
      struct(2, 1, 't', 1, '{"\\u005f_proto__":1}'),
      struct(5, 1, 't', '[{"__prot\\u006f__" : 1}]'),
    ]) {
      expect(refusal(update)).toBe('bad_key')
    }
    expect(refusal(updateOf((doc) => doc.getMap('m').set('__proto_', '__proto__')))).toBe('admitted')
  })

  it('60 KB of nested values is refused, and nested types do not make it recurse', () => {
    const nested = (tag: number): Uint8Array => bytes(...Array<Uint8Array>(30_000).fill(Uint8Array.of(tag, 1)), 127)
    expect(refusal(struct(8, 1, 't', 1, nested(117)))).toBe('limit')
    expect(refusal(struct(5, 1, 't', '['.repeat(60_000)))).toBe('limit')
    // Each map is the value of the one before it: what admission cannot see across updates, it need not walk either.
    const maps = bytes(1, 9_000, 1, 0, 7, 1, 'm', 1, ...Array.from({ length: 8_999 }, (_, nth) => bytes(7 | 32, 0, 1, nth, 'k', 1)), 0)
    expect(refusal(maps)).toBe('admitted')
  })

  it('what leans on what is not there is a gap, and costs no more the second time', () => {
    const later = bytes(1, 1, 2, 0, leaning(1, 7), 0)
    const refusals = (count: number) => (): void => {
      const state = createAdmission()
      const seen = new Set<string>()
      for (let n = 0; n < count; n++) seen.add(admit(state, later, limits).type)
      expect([[...seen], state.clients.size]).toEqual([['refused'], 0])
    }
    // Quadratic would be 64.
    expect(growth(refusals, 1000, 8)).toBeLessThan(32)
  })

  it('structs that wait for one another in a circle are a gap, those that only cross are not', () => {
    expect(refusal(bytes(2, 1, 2, 0, leaning(1, 0), 1, 1, 0, leaning(2, 0), 0))).toBe('gap')
    expect(refusal(bytes(2, 2, 2, 0, 4, 1, 't', 'a', leaning(1, 1), 2, 1, 0, leaning(2, 0), leaning(1, 0), 0))).toBe('admitted')
    expect(refusal(bytes(1, 1, 1, 0, leaning(1, 0), 0))).toBe('bad_bytes')
    expect(refusal(bytes(1, 1, 1, 0, leaning(1, 5), 0))).toBe('bad_bytes')
  })

  it('100,000 blocks that need one another are judged in linear time', () => {
    const chained = (count: number): (() => void) => {
      const writer = new ByteWriter()
      writer.varUint(count)
      // The highest client leans on nothing, each other one on the next: Yjs begins at the highest, we at the first.
      for (let client = 1; client <= count; client++)
        writer.raw(bytes(1, client, 0, client === count ? bytes(4, 1, 't', 'x') : leaning(client + 1, 0)))
      writer.varUint(0)
      const chain = writer.take()
      return () => {
        expect(admit(createAdmission(), chain, { ...limits, structs: Infinity, clients: count }).type).toBe('admitted')
        expect(admit(createAdmission(), chain, { ...limits, structs: 1000, clients: count })).toMatchObject({
          type: 'refused',
          code: 'limit',
        })
      }
    }
    // Quadratic would be 64.
    expect(growth(chained, 12_500, 8)).toBeLessThan(32)
  })

  it('updates of version 2, bytes behind the end and torn updates are refused', () => {
    const doc = new Y.Doc()
    doc.getText('t').insert(0, 'hello')
    doc.getMap('m').set('a', 1)
    expect(refusal(Y.encodeStateAsUpdateV2(doc))).toBe('bad_bytes')
    expect(refusal(Y.encodeStateAsUpdateV2(new Y.Doc()))).toBe('bad_bytes')
    expect(refusal(bytes(hello, 0))).toBe('bad_bytes')
    for (let end = 0; end < hello.length; end++) expect(refusal(hello.subarray(0, end)), `${end} bytes`).toBe('bad_bytes')
  })

  it('what Yjs cannot hold is refused: empty structs, twice the same client, options that make a subdocument throw', () => {
    expect(refusal(struct(4, 1, 't', ''))).toBe('bad_bytes')
    expect(refusal(struct(0, 0))).toBe('bad_bytes')
    expect(refusal(bytes(0, 1, 1, 1, 2, 0), hello)).toBe('bad_bytes')
    expect(refusal(bytes(2, 1, 1, 0, 0, 1, 1, 1, 1, 0, 1, 0))).toBe('bad_bytes')
    expect(refusal(bytes(0, 2, 1, 1, 0, 1, 1, 1, 1, 1), hello)).toBe('bad_bytes')
    expect(refusal(struct(9, 1, 't', 'guid', Uint8Array.of(126)))).toBe('bad_bytes')
    expect(refusal(struct(9, 1, 't', 'guid', Uint8Array.of(118), 1, 'guid', Uint8Array.of(126)))).toBe('bad_bytes')
    expect(refusal(struct(9, 1, 't', 'guid', Uint8Array.of(118), 1, 'gc', Uint8Array.of(121)))).toBe('admitted')
    expect(refusal(struct(11, 1, 't', 'x'))).toBe('bad_bytes')
    expect(refusal(struct(7, 1, 't', 7))).toBe('bad_bytes')
    expect(refusal(struct(4, 1, 't', bytes(2, Uint8Array.of(0xc0, 0x80))))).toBe('bad_bytes')
  })
})

describe('the limits', () => {
  /** One struct each of the Yjs clients from..to. */
  const crowd = (from: number, to: number): Uint8Array => {
    const writer = new ByteWriter()
    writer.varUint(to - from + 1)
    for (let client = from; client <= to; client++) writer.raw(bytes(1, client, 0, 4, 1, 't', 'x'))
    writer.varUint(0)
    return writer.take()
  }

  it('of Yjs client ids hold for an update and for a document, whose clients go on', () => {
    expect([refusal(crowd(1, 10_000)), refusal(crowd(1, 10_001))]).toEqual(['admitted', 'limit'])
    const state = createAdmission()
    absorbTrusted(state, crowd(1, 100_000))
    const verdict = admit(state, crowd(100_000, 100_001), limits)
    expect(verdict).toMatchObject({ type: 'refused', code: 'limit' })
    expect(admit(state, bytes(1, 1, 7, 1, 4, 1, 't', 'y', 0), limits).type).toBe('admitted')
  })

  it('hold at their edges', () => {
    expect([refusal(keyed(256)), refusal(keyed(257))]).toEqual(['admitted', 'bad_key'])
    expect([refusal(deep(32)), refusal(deep(33))]).toEqual(['admitted', 'limit'])
    expect([refusal(embedded(32)), refusal(embedded(33))]).toEqual(['admitted', 'limit'])
    expect([refusal(collected(32_768)), refusal(collected(32_769))]).toEqual(['admitted', 'limit'])
    const small = { ...limits, edit: hello.length }
    expect(admit(createAdmission(), hello, small).type).toBe('admitted')
    expect(admit(createAdmission(), hello, { ...small, edit: hello.length - 1 })).toMatchObject({ type: 'refused', code: 'too_large' })
  })

  it('of 10,000 records of 4 fields in one transaction are not reached', () => {
    const records = updateOf((doc) => {
      for (let n = 0; n < 10_000; n++)
        doc.getMap('pets').set(
          `pet-${n}-0123456789`,
          new Y.Map(
            Object.entries({
              name: `Rex the ${n}th`,
              species: 'labrador retriever',
              born: `2019-03-${n}`,
              owner: `owner-${n}-0123456789`,
            }),
          ),
        )
    })
    expect(refusal(records)).toBe('admitted')
  })
})

describe('the state', () => {
  it('survives being stored, and refuses bytes that are not its own', () => {
    const state = createAdmission()
    for (const update of [hello, bytes(0, 1, 1, 2, 0, 1, 3, 1), updateOf((doc) => doc.getText('t').insert(0, 'x'), 2 ** 40)])
      absorbTrusted(state, update)
    const encoded = encodeAdmission(state)
    expect(encodeAdmission(createAdmission(encoded))).toEqual(encoded)
    expect(createAdmission(new Uint8Array(0)).clients.size).toBe(0)
    for (let end = 1; end < encoded.length; end++)
      expect(() => createAdmission(encoded.subarray(0, end))).toThrow(/stored admission state/u)
    expect(() => createAdmission(bytes(7, 0))).toThrow(/stored admission state/u)
  })

  it('is not changed by a verdict, and takes it only once', () => {
    const state = createAdmission()
    const verdict = admit(state, hello, limits)
    if (verdict.type !== 'admitted') throw new Error(verdict.type)
    expect(state.clients.size).toBe(0)
    absorb(state, verdict)
    expect(() => absorb(state, verdict)).toThrow(/had changed/u)
  })

  it('gives a large update the same verdict in slices', () => {
    const big = updateOf((doc) => {
      doc.getText('t').insert(0, 'lorem ipsum 😀 '.repeat(50_000))
      doc.getArray('l').push(Array.from({ length: 100_000 }, (_, n) => ({ n, nested: [n] })))
    })
    const state = createAdmission()
    absorbTrusted(
      state,
      updateOf((doc) => doc.getText('t').insert(0, 'lorem')),
    )
    const admitting = beginAdmitting(state, big, limits)
    let steps = 1
    let verdict = admitting.step()
    for (; verdict === undefined; steps++) verdict = admitting.step()
    expect(steps).toBeGreaterThan(10)
    const whole = admit(state, big, limits)
    if (verdict.type !== 'admitted' || whole.type !== 'admitted') throw new Error(verdict.type)
    expect(Buffer.compare(verdict.update, whole.update)).toBe(0)
    expect(verdict.change).toEqual(whole.change)
  })
})

describe('strings', () => {
  it('are JSON where JSON.parse says so', () => {
    const texts = fc.oneof(
      fc.json(),
      fc.string(),
      fc.stringMatching(/^[\s{}[\]",:\\u0-9a-fE+\-.truefalsn]{0,20}$/u),
      fc.json().map((text) => text.replace(/[",:]/u, ' ')),
    )
    fc.assert(
      fc.property(texts, (text) => {
        expect(isJson(text)).toBe(parses(text))
      }),
      { numRuns: 3000 },
    )
  })

  it('are as long as Yjs counts them, and UTF-8 where TextDecoder says so', () => {
    const strict = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
    const lengthOf = (raw: Uint8Array): number => {
      try {
        return strict.decode(raw).length
      } catch {
        return -1
      }
    }
    const raws = fc.oneof(
      fc.uint8Array({ maxLength: 8 }),
      fc.string({ unit: 'binary' }).map((text) => utf8.encode(text)),
      fc
        .array(fc.constantFrom(0xe0, 0xed, 0xf0, 0xf4, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc1, 0xc2, 0x41), { maxLength: 6 })
        .map((list) => Uint8Array.from(list)),
    )
    fc.assert(
      fc.property(raws, (raw) => {
        expect(utf16Length(raw, 0, raw.length)).toBe(lengthOf(raw))
      }),
      { numRuns: 5000 },
    )
  })
})

function isJson(text: string): boolean {
  const raw = bytes(text)
  const scan: Scan = { bytes: raw, pos: 0, end: raw.length, fault: undefined }
  skipJson(scan, { depth: 1000, key: 10_000 }, false)
  return scan.fault === undefined || scan.fault.code === 'bad_key'
}

function parses(text: string): boolean {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}
