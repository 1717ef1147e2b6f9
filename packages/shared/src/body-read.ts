/**
 * The bodies of frames, read (step 3 of the path). PROTOCOL.md §3 has the grammar, body-write.ts the other direction.
 */
import { ACCESS, KINDS, MODES } from './body-write.ts'
import type { Failure } from './body-write.ts'
import type { ByteReader } from './bytes.ts'
import { errorCode } from './errors.ts'
import { FRAME_TYPES } from './frames.ts'
import type { Frame, OpenFrame, PushFrame, StateFrame } from './frames.ts'
import type { ChainHash, Cursor, IncarnationId, Lineage, Seq } from './ids.ts'
import { DEFAULT_LIMITS, WIRE_LIMITS } from './limits.ts'

const EDIT = DEFAULT_LIMITS.edit
const FRAGMENT = DEFAULT_LIMITS.fragment

/** Undefined for a type that is unknown here. After a fault the frame holds nothing of use and is thrown away by the caller. */
export function readBody(r: ByteReader, type: number): Frame | undefined {
  switch (type) {
    case FRAME_TYPES.hello:
      return {
        type: 'hello',
        revisionMin: r.varUint(),
        revisionMax: r.varUint(),
        agent: r.text(WIRE_LIMITS.agent, 'agent'),
        token: r.text(WIRE_LIMITS.token, 'token'),
      }
    case FRAME_TYPES.auth:
      return { type: 'auth', token: r.text(WIRE_LIMITS.token, 'token') }
    case FRAME_TYPES.open:
      return readOpen(r)
    case FRAME_TYPES.close:
      return { type: 'close', handle: r.varUint() }
    case FRAME_TYPES.push:
      return readPush(r)
    case FRAME_TYPES.presence:
      return { type: 'presence', handle: r.varUint(), awareness: r.blob(WIRE_LIMITS.presence, 'presence') }
    case FRAME_TYPES.ping:
      return { type: 'ping', nonce: r.varUint() }
    case FRAME_TYPES.pong:
      return { type: 'pong', nonce: r.varUint() }
    case FRAME_TYPES.welcome:
      return {
        type: 'welcome',
        revision: r.varUint(),
        heartbeat: r.varUint(),
        window: r.varUint(),
        relay: r.hex16(),
        principal: r.text(WIRE_LIMITS.principal, 'principal'),
      }
    case FRAME_TYPES.opened:
      return {
        type: 'opened',
        ref: r.varUint(),
        handle: r.varUint(),
        lineage: readLineage(r),
        epoch: r.varUint(),
        head: readSeq(r),
        grant: r.oneOf(ACCESS, 'grant'),
        mode: r.oneOf(MODES, 'mode'),
      }
    case FRAME_TYPES.refused:
      return { type: 'refused', ref: r.varUint(), ...readFailure(r) }
    case FRAME_TYPES.state:
      return readState(r)
    case FRAME_TYPES.entries:
      return readEntries(r)
    case FRAME_TYPES.ack: {
      const ack = { type: 'ack', handle: r.varUint(), incarnation: readIncarnation(r), n: r.varUint(), seq: readSeq(r) } as const
      return r.flag('hasHash') ? { ...ack, hash: readHash(r) } : ack
    }
    case FRAME_TYPES.nack:
      return {
        type: 'nack',
        handle: r.varUint(),
        incarnation: readIncarnation(r),
        n: r.varUint(),
        expected: r.varUint(),
        ...readFailure(r),
      }
    case FRAME_TYPES.grant:
      return {
        type: 'grant',
        handle: r.varUint(),
        grant: r.oneOf(ACCESS, 'grant'),
        code: errorCode(r.varUint()),
        message: r.text(WIRE_LIMITS.text, 'message'),
      }
    case FRAME_TYPES.authenticate:
      return { type: 'authenticate', code: errorCode(r.varUint()), deadline: r.varUint(), message: r.text(WIRE_LIMITS.text, 'message') }
    case FRAME_TYPES.authenticated:
      return { type: 'authenticated', principal: r.text(WIRE_LIMITS.principal, 'principal') }
    case FRAME_TYPES.closed:
      return { type: 'closed', handle: r.varUint(), ...readFailure(r) }
    case FRAME_TYPES.goaway:
      return { type: 'goaway', ...readFailure(r) }
    default:
      return undefined
  }
}

function readFailure(r: ByteReader): Failure {
  return { code: errorCode(r.varUint()), retryAfter: r.varUint(), message: r.text(WIRE_LIMITS.text, 'message') }
}

function readOpen(r: ByteReader): OpenFrame {
  const open: { -readonly [K in keyof OpenFrame]: OpenFrame[K] } = {
    type: 'open',
    ref: r.varUint(),
    document: r.text(WIRE_LIMITS.documentId, 'document id'),
  }
  if (r.flag('hasCursor')) {
    const cursor: Cursor = { lineage: readLineage(r), epoch: r.varUint(), seq: readSeq(r), hash: readHash(r) }
    open.cursor = cursor
  }
  if (r.flag('hasResume')) open.resume = { snapshotSeq: readSeq(r), offset: r.varUint() }
  return open
}

function readPush(r: ByteReader): PushFrame {
  const handle = r.varUint()
  const incarnation = readIncarnation(r)
  const lo = r.varUint()
  const hi = r.varUint()
  if (lo < 1 || hi < lo) r.fail(`edits ${lo} to ${hi}`)
  const kind = r.oneOf(KINDS, 'kind')
  const covers: { incarnation: IncarnationId; n: number }[] = []
  for (let left = r.upTo(WIRE_LIMITS.covers, 'coverCount'); left > 0 && r.fault === undefined; left--)
    covers.push({ incarnation: readIncarnation(r), n: r.varUint() })
  const total = r.upTo(EDIT, 'total')
  const offset = r.varUint()
  const update = r.blob(EDIT, 'update')
  if (offset + update.length > total) r.fail('a part that ends behind its whole')
  return { type: 'push', handle, incarnation, lo, hi, kind, covers, total, offset, update }
}

function readState(r: ByteReader): StateFrame {
  const state: StateFrame = {
    type: 'state',
    handle: r.varUint(),
    lineage: readLineage(r),
    epoch: r.varUint(),
    seq: readSeq(r),
    hash: readHash(r),
    total: r.varUint(),
    offset: r.varUint(),
    update: r.blob(FRAGMENT, 'fragment'),
  }
  if (state.offset + state.update.length > state.total) r.fail('a fragment that ends behind its whole')
  return state
}

function readEntries(r: ByteReader): Frame {
  const handle = r.varUint()
  const first = readSeq(r)
  const count = r.upTo(WIRE_LIMITS.entries, 'count')
  const hash = readHash(r)
  const updates: Uint8Array[] = []
  for (let left = count; left > 0 && r.fault === undefined; left--) updates.push(r.blob(r.left, 'update'))
  return { type: 'entries', handle, first, hash, updates }
}

// The brands are put on here and in ids.ts only: these are the bytes they come from.
function readIncarnation(r: ByteReader): IncarnationId {
  return r.hex16() as IncarnationId
}
function readLineage(r: ByteReader): Lineage {
  return r.hex16() as Lineage
}
function readHash(r: ByteReader): ChainHash {
  return r.hex16() as ChainHash
}
function readSeq(r: ByteReader): Seq {
  return r.varUint() as Seq
}
