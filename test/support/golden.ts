/**
 * The frames behind test/golden/frames-v1.json: one or more of every type, with every optional field both ways.
 */
import type { Frame } from '#shared/frames.js'
import type { ChainHash, IncarnationId, Lineage, Seq } from '#shared/ids.js'

const incarnation = '000102030405060708090a0b0c0d0e0f' as IncarnationId
const other = 'f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff' as IncarnationId
const lineage = '101112131415161718191a1b1c1d1e1f' as Lineage
const hash = '202122232425262728292a2b2c2d2e2f' as ChainHash
const seq = (value: number): Seq => value as Seq
const bytes = (length: number): Uint8Array => Uint8Array.from({ length }, (_, i) => i % 251)

/** Name → frame, in the order of the file. */
export const goldenFrames: Readonly<Record<string, Frame>> = {
  hello: { type: 'hello', revisionMin: 1, revisionMax: 3, agent: 'rejoin/0.1.0', token: 'e30.e30.sig' },
  helloWithoutToken: { type: 'hello', revisionMin: 1, revisionMax: 1, agent: '', token: '' },
  auth: { type: 'auth', token: 'fresh' },
  open: { type: 'open', ref: 1, document: 'clinic-42' },
  openWithCursor: { type: 'open', ref: 128, document: 'Klinik/Zürich 🐈', cursor: { lineage, epoch: 2, seq: seq(300), hash } },
  openWithResume: { type: 'open', ref: 2, document: 'd', resume: { snapshotSeq: seq(9), offset: 262_144 } },
  openWithBoth: {
    type: 'open',
    ref: 3,
    document: 'd',
    cursor: { lineage, epoch: 1, seq: seq(0), hash },
    resume: { snapshotSeq: seq(1), offset: 0 },
  },
  close: { type: 'close', handle: 5 },
  push: { type: 'push', handle: 5, incarnation, lo: 1, hi: 1, kind: 'edit', covers: [], total: 4, offset: 0, update: bytes(4) },
  pushPart: {
    type: 'push',
    handle: 5,
    incarnation,
    lo: 7,
    hi: 9,
    kind: 'edit',
    covers: [],
    total: 1_000_000,
    offset: 500_000,
    update: bytes(200),
  },
  pushState: {
    type: 'push',
    handle: 5,
    incarnation,
    lo: 1,
    hi: 1,
    kind: 'state',
    covers: [
      { incarnation: other, n: 0 },
      { incarnation, n: 2 ** 40 },
    ],
    total: 2,
    offset: 0,
    update: bytes(2),
  },
  presence: { type: 'presence', handle: 5, awareness: bytes(6) },
  ping: { type: 'ping', nonce: 0 },
  pong: { type: 'pong', nonce: Number.MAX_SAFE_INTEGER },
  await: { type: 'await', ref: 9, handle: 5, seq: seq(300), sink: 'warehouse' },
  welcome: { type: 'welcome', revision: 1, heartbeat: 15_000, window: 262_144, relay: hash, principal: 'alice' },
  opened: { type: 'opened', ref: 1, handle: 5, lineage, epoch: 1, head: seq(0), grant: 'write', mode: 'full' },
  openedResumed: { type: 'opened', ref: 1, handle: 5, lineage, epoch: 1, head: seq(300), grant: 'read', mode: 'resumed' },
  openedReplaced: { type: 'opened', ref: 1, handle: 5, lineage, epoch: 1, head: seq(1), grant: 'none', mode: 'replaced' },
  refused: { type: 'refused', ref: 1, code: 'bad_document', retryAfter: 0, message: 'a document id is not empty' },
  state: { type: 'state', handle: 5, lineage, epoch: 1, seq: seq(12), hash, total: 700_000, offset: 262_144, update: bytes(3) },
  stateEmpty: { type: 'state', handle: 5, lineage, epoch: 1, seq: seq(0), hash, total: 0, offset: 0, update: bytes(0) },
  entries: { type: 'entries', handle: 5, first: seq(13), hash, updates: [bytes(3), bytes(0), bytes(130)] },
  ack: { type: 'ack', handle: 5, incarnation, n: 1, seq: seq(14), hash },
  ackAgain: { type: 'ack', handle: 5, incarnation, n: 1, seq: seq(14) },
  nack: { type: 'nack', handle: 5, incarnation, n: 4, expected: 2, code: 'gap', retryAfter: 0, message: '' },
  grant: { type: 'grant', handle: 5, grant: 'read', code: 'forbidden', message: 'the grant was lowered' },
  authenticate: { type: 'authenticate', code: 'expired', deadline: 10_000, message: 'the token ends soon' },
  authenticated: { type: 'authenticated', principal: 'alice' },
  closed: { type: 'closed', handle: 5, code: 'replaced', retryAfter: 0, message: 'deleted' },
  reached: { type: 'reached', ref: 9, code: 'ok', message: '' },
  reachedParked: { type: 'reached', ref: 10, code: 'sink_parked', message: 'pets/rex: a name is not unique' },
  goaway: { type: 'goaway', code: 'draining', retryAfter: 2500, message: 'the relay is being restarted' },
}
