/**
 * A relay in this process with raw protocol peers: what unit tests of the relay drive, frame by frame.
 */
import * as Y from 'yjs'
import type { Cursor, DocumentId, IncarnationId, Limits, Seq } from '@rejoin/shared'
import { DEFAULT_LIMITS, newIncarnationId } from '@rejoin/shared'
import type { ClientFrame, OpenedFrame, PushFrame, RelayFrame } from '@rejoin/shared/wire'
import { decodeFrames, encodeFrames } from '@rejoin/shared/wire'
import type { Log } from '#server/log/log.js'
import type { Authorize } from '#server/relay/grant.js'
import { OPEN_GRANT } from '#server/relay/grant.js'
import type { SocketListener } from '#server/relay/peer.js'
import type { RelayCore, RelayCoreOptions } from '#server/relay/relay.js'
import { createRelayCore } from '#server/relay/relay.js'
import { createMemoryLog } from '#server/storage/memory.js'
import { until } from './until.ts'
import type { VirtualClock } from './virtual-clock.ts'
import { createVirtualClock } from './virtual-clock.ts'

/** A relay and what it told its process. */
export interface TestRelay {
  readonly core: RelayCore
  readonly log: Log
  readonly clock: VirtualClock
  readonly fatal: Error[]
  readonly reports: { readonly what: string; readonly details: Readonly<Record<string, unknown>> }[]
  /** A peer that has said hello and was welcomed. */
  peer(token?: string): Promise<RawPeer>
  /** A peer that has said nothing. */
  silentPeer(): RawPeer
}

export interface TestRelayOptions extends Partial<Pick<RelayCoreOptions, 'compactor' | 'presence' | 'heartbeat'>> {
  readonly log?: Log
  readonly clock?: VirtualClock
  readonly authorize?: Authorize
  readonly limits?: Partial<Limits>
}

export function createTestRelay({
  log = createMemoryLog(),
  authorize = () => Promise.resolve(OPEN_GRANT),
  limits = {},
  clock = createVirtualClock(),
  ...rest
}: TestRelayOptions = {}): TestRelay {
  const fatal: Error[] = []
  const reports: TestRelay['reports'] = []
  const core = createRelayCore({
    log,
    clock,
    random: () => 0.5,
    limits: { ...DEFAULT_LIMITS, ...limits },
    authorize,
    defer: (run) => void setImmediate(run),
    fatal: (error) => void fatal.push(error),
    report: (what, details) => void reports.push({ what, details }),
    ...rest,
  })
  const silentPeer = (): RawPeer => new RawPeer((peer) => core.connect(peer, { url: '/sync', headers: {} }))
  return {
    core,
    log,
    clock,
    fatal,
    reports,
    silentPeer,
    async peer(token = '') {
      const peer = silentPeer()
      peer.send({ type: 'hello', revisionMin: 1, revisionMax: 1, agent: 'test', token })
      await peer.next('welcome')
      return peer
    },
  }
}

type FrameOf<T extends RelayFrame['type']> = RelayFrame & { readonly type: T }

/** One socket's client side. What it has read so far is in `frames`; while it is stalled, what is sent to it stays buffered. */
export class RawPeer {
  readonly frames: RelayFrame[] = []
  closed: { readonly code: number; readonly reason: string } | undefined
  paused = false
  buffered = 0
  #stalled = false
  #taken = 0
  #unread: Uint8Array[] = []
  readonly #listener: SocketListener

  constructor(connect: (socket: RawPeer) => SocketListener) {
    this.#listener = connect(this)
  }

  // What the relay sees of the socket; plain functions, because the relay keeps them.
  send(bytes: Uint8Array): void
  send(...frames: readonly ClientFrame[]): void
  send(...what: readonly (ClientFrame | Uint8Array)[]): void {
    const [first] = what
    if (first instanceof Uint8Array) this.#receive(first)
    else this.sendBytes(encodeFrames(what as readonly ClientFrame[]))
  }

  pause(): void {
    this.paused = true
  }

  resume(): void {
    this.paused = false
  }

  close(code: number, reason: string): void {
    this.closed = { code, reason }
    this.#listener.closed()
  }

  sendBytes(bytes: Uint8Array): void {
    if (this.closed === undefined) this.#listener.message(bytes)
  }

  /** The client reads nothing more until `flow`. */
  stall(): void {
    this.#stalled = true
  }

  flow(): void {
    this.#stalled = false
    const unread = this.#unread
    this.#unread = []
    this.buffered = 0
    for (const bytes of unread) this.#read(bytes)
    if (this.closed === undefined) this.#listener.drained()
  }

  /** The network goes away. */
  lose(): void {
    this.closed = { code: 1006, reason: '' }
    this.#listener.closed()
  }

  /** The next frame of a type that was not taken by an earlier call, in order; frames of other types before it are passed over. */
  next<T extends RelayFrame['type']>(...types: readonly [T, ...T[]]): Promise<FrameOf<T>> {
    return until(
      () => {
        while (this.#taken < this.frames.length) {
          const frame = this.frames[this.#taken++]
          if (frame !== undefined && (types as readonly string[]).includes(frame.type)) return frame as FrameOf<T>
        }
        return undefined
      },
      `a frame ${types.join(' or ')}; there were ${this.frames.map(({ type }) => type).join(' ')}`,
      3000,
    )
  }

  all<T extends RelayFrame['type']>(type: T): FrameOf<T>[] {
    return this.frames.filter((frame): frame is FrameOf<T> => frame.type === type)
  }

  async open(document: string, cursor?: Cursor, resume?: { readonly snapshotSeq: Seq; readonly offset: number }): Promise<OpenedFrame> {
    this.send({ type: 'open', ref: 1, document, cursor, resume })
    return this.next('opened')
  }

  #receive(bytes: Uint8Array): void {
    if (this.closed !== undefined) return
    if (this.#stalled) {
      this.#unread.push(bytes)
      this.buffered += bytes.length
    } else this.#read(bytes)
  }

  #read(bytes: Uint8Array): void {
    const decoded = decodeFrames(bytes.slice())
    if (decoded.type === 'bad') throw new Error(`the relay sent a bad message: ${decoded.reason}`)
    this.frames.push(...(decoded.frames as RelayFrame[]))
  }
}

/** A push frame; what is not given is that of one small edit. */
export function push(handle: number, incarnation: IncarnationId, n: number, update: Uint8Array, more: Partial<PushFrame> = {}): PushFrame {
  return { type: 'push', handle, incarnation, lo: n, hi: n, kind: 'edit', covers: [], total: update.length, offset: 0, update, ...more }
}

/** A device's document that hands out the update of each edit. */
export class Writer {
  readonly doc: Y.Doc = new Y.Doc()
  readonly incarnation: IncarnationId = newIncarnationId()
  n = 0
  readonly #updates: Uint8Array[] = []

  /** The update of one edit, and its number. */
  edit(change: (doc: Y.Doc) => void = (doc) => doc.getText('t').insert(0, 'x')): { readonly n: number; readonly update: Uint8Array } {
    const updates: Uint8Array[] = []
    const keep = (update: Uint8Array): void => void updates.push(update)
    this.doc.on('update', keep)
    this.doc.transact(() => change(this.doc))
    this.doc.off('update', keep)
    const update = updates.length === 1 ? (updates[0] as Uint8Array) : Y.mergeUpdates(updates)
    this.#updates.push(update)
    return { n: ++this.n, update }
  }

  /** The edits lo..hi as one update. */
  between(lo: number, hi: number): Uint8Array {
    return Y.mergeUpdates(this.#updates.slice(lo - 1, hi))
  }

  /** One edit as a push frame. */
  push(handle: number, change?: (doc: Y.Doc) => void): PushFrame {
    const { n, update } = this.edit(change)
    return push(handle, this.incarnation, n, update)
  }
}

/** What a peer was given of a document, checked to be gap-free: seq → the entry's update, or undefined where its own ack stood. `state` frames set the place. */
export function streamOf(
  peer: RawPeer,
  handle: number,
): { readonly first: number; readonly last: number; readonly updates: readonly Uint8Array[]; readonly seqs: readonly number[] } {
  let seq: number | undefined
  let first = 0
  const updates: Uint8Array[] = []
  const seqs: number[] = []
  const follow = (next: number, frame: RelayFrame): void => {
    if (seq !== undefined && next !== seq + 1) throw new Error(`seq ${next} in ${frame.type} after ${seq}`)
    if (seq === undefined) first = next
    seq = next
    seqs.push(next)
  }
  for (const frame of peer.frames as (RelayFrame & { handle?: number })[]) {
    if (frame.handle !== handle) continue
    if (frame.type === 'state') {
      updates.push(frame.update)
      seq = frame.seq
    } else if (frame.type === 'entries') {
      frame.updates.forEach((update, i) => {
        follow(frame.first + i, frame)
        updates.push(update)
      })
    } else if (frame.type === 'ack' && frame.hash !== undefined) follow(frame.seq, frame)
  }
  return { first, last: seq ?? 0, updates, seqs }
}

/** Everything the log holds of a document, as entries. */
export async function entriesOf(log: Log, document: string) {
  const read = await log.read({ document: document as DocumentId, after: 0 as Seq }, Infinity)
  if (read === 'trimmed') throw new Error('the log was trimmed')
  return read
}
