/**
 * Arbitrary frames for property tests: every type, every field at and around its edges.
 */
import * as fc from 'fast-check'
import { ERRORS } from '#shared/errors.js'
import type { ErrorCode } from '#shared/errors.js'
import type { Frame } from '#shared/frames.js'
import type { ChainHash, IncarnationId, Lineage, Seq } from '#shared/ids.js'
import { toHex } from '#shared/ids.js'
import { WIRE_LIMITS } from '#shared/limits.js'

/** Objects with the prototype of literals, as the codec makes them. */
const record = ((model: never, options?: object) => fc.record(model, { ...options, noNullPrototype: true })) as typeof fc.record

const uint = fc.oneof(fc.nat(200), fc.maxSafeNat(), fc.constantFrom(0, 127, 128, 16_383, 16_384, 2 ** 32, Number.MAX_SAFE_INTEGER))
const seq = uint.map((value) => value as Seq)
const hex16 = fc.uint8Array({ minLength: 16, maxLength: 16 }).map(toHex)
const incarnation = hex16.map((value) => value as IncarnationId)
const lineage = hex16.map((value) => value as Lineage)
const hash = hex16.map((value) => value as ChainHash)
const bytes = fc.uint8Array({ maxLength: 300 })
const code = fc.constantFrom(...(Object.keys(ERRORS) as ErrorCode[]))
const grant = fc.constantFrom('none' as const, 'read' as const, 'write' as const)
const text = (max: number) =>
  fc
    .oneof(fc.string({ maxLength: max }), fc.string({ unit: 'binary', maxLength: max }))
    .filter((value) => new TextEncoder().encode(value).length <= max)
const message = text(WIRE_LIMITS.text)
const principal = text(WIRE_LIMITS.principal)
const failure = { code, retryAfter: uint, message }
/** A piece of a whole: where it begins, and how long the whole is. */
const piece = fc
  .tuple(bytes, fc.nat(5000), fc.nat(5000))
  .map(([update, offset, behind]) => ({ update, offset, total: offset + update.length + behind }))
const range = fc.tuple(fc.integer({ min: 1, max: 2 ** 40 }), fc.nat(1000)).map(([lo, more]) => ({ lo, hi: lo + more }))
const covers = fc.array(record({ incarnation, n: uint }), { maxLength: 5 })
const cursor = record({ lineage, epoch: uint, seq, hash })
const is = <T extends Frame['type']>(type: T) => fc.constant(type)

/** Frame name → arbitrary frames of that type. */
export const frameArbitraries: { readonly [Type in Frame['type']]: fc.Arbitrary<Extract<Frame, { type: Type }>> } = {
  hello: record({ type: is('hello'), revisionMin: uint, revisionMax: uint, agent: text(WIRE_LIMITS.agent), token: text(2000) }),
  auth: record({ type: is('auth'), token: text(2000) }),
  open: record(
    { type: is('open'), ref: uint, document: text(WIRE_LIMITS.documentId), cursor, resume: record({ snapshotSeq: seq, offset: uint }) },
    { requiredKeys: ['type', 'ref', 'document'] },
  ),
  close: record({ type: is('close'), handle: uint }),
  push: fc
    .tuple(record({ handle: uint, incarnation, kind: fc.constantFrom('edit' as const, 'state' as const), covers }), range, piece)
    .map(([rest, edits, part]) => ({ type: 'push' as const, ...rest, ...edits, ...part })),
  presence: record({ type: is('presence'), handle: uint, awareness: bytes }),
  ping: record({ type: is('ping'), nonce: uint }),
  pong: record({ type: is('pong'), nonce: uint }),
  await: record({ type: is('await'), ref: uint, handle: uint, seq, sink: text(WIRE_LIMITS.sink) }),
  reached: record({ type: is('reached'), ref: uint, code, message }),
  welcome: record({ type: is('welcome'), revision: uint, heartbeat: uint, window: uint, relay: hex16, principal }),
  opened: record({
    type: is('opened'),
    ref: uint,
    handle: uint,
    lineage,
    epoch: uint,
    head: seq,
    grant,
    mode: fc.constantFrom('resumed' as const, 'full' as const, 'replaced' as const),
  }),
  refused: record({ type: is('refused'), ref: uint, ...failure }),
  state: fc
    .tuple(record({ handle: uint, lineage, epoch: uint, seq, hash }), piece)
    .map(([rest, part]) => ({ type: 'state' as const, ...rest, ...part })),
  entries: record({ type: is('entries'), handle: uint, first: seq, hash, updates: fc.array(bytes, { maxLength: 8 }) }),
  ack: record(
    { type: is('ack'), handle: uint, incarnation, n: uint, seq, hash },
    { requiredKeys: ['type', 'handle', 'incarnation', 'n', 'seq'] },
  ),
  nack: record({ type: is('nack'), handle: uint, incarnation, n: uint, expected: uint, ...failure }),
  grant: record({ type: is('grant'), handle: uint, grant, code, message }),
  authenticate: record({ type: is('authenticate'), code, deadline: uint, message }),
  authenticated: record({ type: is('authenticated'), principal }),
  closed: record({ type: is('closed'), handle: uint, ...failure }),
  goaway: record({ type: is('goaway'), ...failure }),
}

/** Any frame. */
export const anyFrame: fc.Arbitrary<Frame> = fc.oneof(...Object.values(frameArbitraries))
