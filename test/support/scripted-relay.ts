/**
 * A relay of a hundred lines for tests of the client: it keeps the protocol's order, and answers pushes, opens and greetings as a test scripts it.
 */
import * as Y from 'yjs'
import type { Access, ChainHash, ErrorCode, IncarnationId, Lineage, Seq } from '@rejoin/shared'
import type { AwaitFrame, ClientFrame, Frame, OpenFrame, PushFrame, RelayFrame } from '@rejoin/shared/wire'
import { decodeFrames, encodeFrames } from '@rejoin/shared/wire'
import type { Transport, TransportSocket } from '#client/transports/transport.js'
import { memoryTransport } from '#client/transports/memory.js'

interface Entry {
  readonly update: Uint8Array
  readonly socket: ScriptedSocket | undefined
  readonly incarnation: IncarnationId
  readonly hi: number
}

/** One document: its log, and how far each incarnation is acknowledged. */
export interface ScriptedDocument {
  lineage: Lineage
  epoch: number
  entries: Entry[]
  acked: Map<string, number>
  /** All entries applied. */
  ydoc: Y.Doc
}

/** What a test may decide. Undefined: as a relay does. */
export interface Script {
  /** Answers a push otherwise than by taking it. 'silence' swallows it. */
  push?: (
    frame: PushFrame,
    document: string,
  ) => { readonly code: ErrorCode; readonly retryAfter?: number; readonly expected?: number } | 'silence' | undefined
  open?: (frame: OpenFrame) => RelayFrame | undefined
  hello?: (token: string) => RelayFrame | 'silence' | undefined
  access?: (document: string) => Access
  /** State fragments of this many bytes. */
  fragment?: number
  /** Stop after this many fragments. */
  fragments?: number
  window?: number
  heartbeat?: number
  /** Answers a wait for a sink. @default 'silence' */
  await?: (frame: AwaitFrame) => { readonly code: ErrorCode; readonly message: string } | 'silence'
  /** Swallow pings. */
  deaf?: boolean
}

export class ScriptedRelay {
  script: Script = {}
  /** Refuses to be dialled. */
  down = false
  dials = 0
  readonly documents = new Map<string, ScriptedDocument>()
  readonly sockets = new Set<ScriptedSocket>()
  /** Every frame that clients sent, in order. */
  readonly heard: ClientFrame[] = []

  readonly transport: Transport = memoryTransport((_url, socket) => {
    this.dials += 1
    if (this.down) throw new Error('nobody listens')
    const peer = new ScriptedSocket(this, socket)
    this.sockets.add(peer)
    return {
      opened: () => undefined,
      message: (bytes) => peer.message(bytes),
      closed: () => void this.sockets.delete(peer),
    }
  })

  document(id: string): ScriptedDocument {
    const found = this.documents.get(id)
    if (found !== undefined) return found
    const made: ScriptedDocument = { lineage: hex(id.length + 1) as Lineage, epoch: 1, entries: [], acked: new Map(), ydoc: new Y.Doc() }
    this.documents.set(id, made)
    return made
  }

  /** Ends every socket. */
  drop(code = 1006): void {
    for (const { socket } of [...this.sockets]) socket.close(code, '')
  }

  /** Takes an update as an entry and sends it to whoever is live. */
  append(id: string, update: Uint8Array, incarnation: IncarnationId, hi: number, from?: ScriptedSocket): void {
    const document = this.document(id)
    Y.applyUpdate(document.ydoc, update)
    document.entries.push({ update, socket: from, incarnation, hi })
    for (const socket of this.sockets) socket.follow(id)
  }

  /** An entry of some other client. */
  write(id: string, change: (doc: Y.Doc) => void): void {
    const doc = new Y.Doc()
    Y.applyUpdate(doc, Y.encodeStateAsUpdate(this.document(id).ydoc))
    const before = Y.encodeStateVector(doc)
    change(doc)
    this.append(id, Y.encodeStateAsUpdate(doc, before), hex(9999) as IncarnationId, 1)
  }

  pushes(kind: PushFrame['kind'] = 'edit'): PushFrame[] {
    return this.heard.filter((frame): frame is PushFrame => frame.type === 'push' && frame.kind === kind)
  }
}

export function hashAt(document: ScriptedDocument, seq: number): ChainHash {
  return hex(seq + document.epoch * 1_000_000) as ChainHash
}

class ScriptedSocket {
  readonly socket: TransportSocket
  readonly #relay: ScriptedRelay
  readonly #handles = new Map<number, { readonly id: string; sent: number }>()
  readonly #parts = new Map<number, Uint8Array[]>()
  readonly #deaf = new Set<string>()
  readonly #present = new Map<number, Uint8Array>()

  constructor(relay: ScriptedRelay, socket: TransportSocket) {
    this.#relay = relay
    this.socket = socket
  }

  send(...frames: RelayFrame[]): void {
    if (frames.length > 0) this.socket.send(encodeFrames(frames))
  }

  message(bytes: Uint8Array): void {
    const decoded = decodeFrames(bytes)
    if (decoded.type === 'bad') throw new Error(decoded.reason)
    for (const frame of decoded.frames) {
      this.#relay.heard.push(frame as ClientFrame)
      this.#take(frame)
    }
  }

  handleOf(id: string): number {
    for (const [handle, open] of this.#handles) if (open.id === id) return handle
    throw new Error(`"${id}" is not open`)
  }

  /** Sends what follows, entry by entry, acks in place of own ones. */
  follow(id: string): void {
    for (const [handle, open] of this.#handles) {
      if (open.id !== id) continue
      const document = this.#relay.document(id)
      for (; open.sent < document.entries.length; open.sent++) {
        const entry = document.entries[open.sent] as Entry
        const seq = (open.sent + 1) as Seq
        const hash = hashAt(document, seq)
        if (entry.socket === this) this.send({ type: 'ack', handle, incarnation: entry.incarnation, n: entry.hi, seq, hash })
        else this.send({ type: 'entries', handle, first: seq, hash, updates: [entry.update] })
      }
    }
  }

  #take(frame: Frame): void {
    const { script } = this.#relay
    switch (frame.type) {
      case 'hello': {
        const answer = script.hello?.(frame.token)
        if (answer === 'silence') return
        this.send(
          answer ?? {
            type: 'welcome',
            revision: 1,
            heartbeat: script.heartbeat ?? 30_000,
            window: script.window ?? 262_144,
            relay: hex(1),
            principal: 'test',
          },
        )
        return
      }
      case 'open':
        this.#open(frame)
        return
      case 'close':
        this.#handles.delete(frame.handle)
        return
      case 'push':
        this.#push(frame)
        return
      case 'ping':
        if (script.deaf !== true) this.send({ type: 'pong', nonce: frame.nonce })
        return
      case 'await': {
        const answer = script.await?.(frame) ?? 'silence'
        if (answer !== 'silence') this.send({ type: 'reached', ref: frame.ref, ...answer })
        return
      }
      case 'presence':
        this.#present.set(frame.handle, frame.awareness)
        for (const other of this.#relay.sockets) {
          const id = this.#handles.get(frame.handle)?.id
          if (other !== this && id !== undefined && [...other.#handles.values()].some((open) => open.id === id))
            other.send({ ...frame, handle: other.handleOf(id) })
        }
        return
      default:
    }
  }

  #open(frame: OpenFrame): void {
    const { script } = this.#relay
    const scripted = script.open?.(frame)
    if (scripted !== undefined) {
      this.send(scripted)
      return
    }
    const document = this.#relay.document(frame.document)
    const handle = this.#handles.size + 1
    const { cursor } = frame
    const head = document.entries.length as Seq
    const grant = script.access?.(frame.document) ?? 'write'
    const proved =
      cursor !== undefined &&
      cursor.lineage === document.lineage &&
      cursor.epoch === document.epoch &&
      cursor.seq <= head &&
      cursor.hash === hashAt(document, cursor.seq)
    const mode = cursor !== undefined && cursor.lineage !== document.lineage ? 'replaced' : proved ? 'resumed' : 'full'
    this.send({ type: 'opened', ref: frame.ref, handle, lineage: document.lineage, epoch: document.epoch, head, grant, mode })
    if (mode === 'replaced') return
    this.#handles.set(handle, { id: frame.document, sent: proved ? cursor.seq : head })
    if (mode === 'full') this.#sendState(handle, document, frame)
    this.follow(frame.document)
    for (const other of this.#relay.sockets) {
      for (const [theirs, awareness] of other.#present)
        if (other.#handles.get(theirs)?.id === frame.document) this.send({ type: 'presence', handle, awareness })
    }
  }

  #sendState(handle: number, document: ScriptedDocument, { resume }: OpenFrame): void {
    const { script } = this.#relay
    const state = document.entries.length === 0 ? new Uint8Array() : Y.encodeStateAsUpdate(document.ydoc)
    const seq = document.entries.length as Seq
    const size = script.fragment ?? 262_144
    let left = script.fragments ?? Infinity
    const start = resume?.snapshotSeq === seq ? resume.offset : 0
    for (let offset = start; (offset < state.length || offset === 0) && left > 0; offset += size, left--) {
      this.send({
        type: 'state',
        handle,
        lineage: document.lineage,
        epoch: document.epoch,
        seq,
        hash: hashAt(document, seq),
        total: state.length,
        offset,
        update: state.subarray(offset, offset + size),
      })
    }
  }

  #push(frame: PushFrame): void {
    const id = this.#handles.get(frame.handle)?.id
    if (id === undefined) return
    const parts = frame.offset === 0 ? [] : (this.#parts.get(frame.handle) ?? [])
    parts.push(frame.update)
    this.#parts.set(frame.handle, parts)
    if (frame.offset + frame.update.length < frame.total) return
    const update = Uint8Array.from(parts.flatMap((part) => [...part]))
    const document = this.#relay.document(id)
    const acked = document.acked.get(frame.incarnation) ?? 0
    const key = `${frame.handle}/${frame.incarnation}`
    if (this.#deaf.has(key) && frame.lo > acked + 1) return
    this.#deaf.delete(key)
    const verdict = this.#relay.script.push?.(frame, id)
    if (verdict === 'silence') return
    const nack = (code: ErrorCode, expected: number, retryAfter = 0): void => {
      this.#deaf.add(key)
      this.send({
        type: 'nack',
        handle: frame.handle,
        incarnation: frame.incarnation,
        n: frame.lo,
        expected,
        code,
        retryAfter,
        message: `scripted ${code}`,
      })
    }
    const ack = (n: number): void =>
      this.send({ type: 'ack', handle: frame.handle, incarnation: frame.incarnation, n, seq: document.entries.length as Seq })
    if (verdict !== undefined) return nack(verdict.code, verdict.expected ?? acked + 1, verdict.retryAfter)
    if (frame.lo > acked + 1) return nack('gap', acked + 1)
    if (frame.hi <= acked) return ack(acked)
    const trial = new Y.Doc()
    Y.applyUpdate(trial, Y.encodeStateAsUpdate(document.ydoc))
    const before = canonical(trial)
    Y.applyUpdate(trial, update)
    if (trial.store.pendingStructs !== null || trial.store.pendingDs !== null) return nack('gap', acked + 1)
    document.acked.set(frame.incarnation, frame.hi)
    for (const { incarnation, n } of frame.covers) document.acked.set(incarnation, Math.max(n, document.acked.get(incarnation) ?? 0))
    if (canonical(trial) === before) return ack(frame.hi)
    this.#relay.append(id, update, frame.incarnation, frame.hi, this)
  }
}

/** What two replicas that converged have in common: content, state vector and delete set. */
export function canonical(doc: Y.Doc): string {
  return Buffer.from(Y.encodeStateAsUpdate(doc)).toString('base64')
}

/** 32 hexadecimal digits of a number. */
export function hex(number: number): string {
  return number.toString(16).padStart(32, '0')
}
