/**
 * Looks at every frame at the moment it is handed to the network, and compares what it says with what is durable at that moment.
 */
import type { Cursor, DocumentId, IncarnationId } from '@rejoin/shared'
import type { AckFrame, ClientFrame, EntriesFrame, Frame, OpenedFrame, PushFrame, RelayFrame, StateFrame } from '@rejoin/shared/wire'
import { decodeFrames } from '@rejoin/shared/wire'
import type { LogImage } from '#server/storage/memory-disk.js'
import type { History } from './history.ts'

/** What the watch asks of the tab that has the socket. */
export interface Watched {
  readonly name: string
  /** Whether edit n of the incarnation is in the device's store, or may be sent without being there. */
  isStored(document: DocumentId, incarnation: IncarnationId, n: number): boolean
}

/** How often what was seen: a world that never sees a thing proves nothing about it. */
export type Sights = Map<string, number>

interface Open {
  readonly document: DocumentId
  /** The last seq that was given; undefined until a state was. */
  last: number | undefined
  /** Bytes of the state that is being given. */
  received: number
}

interface Asked {
  readonly document: DocumentId
  readonly cursor: Cursor | undefined
}

interface Socket {
  readonly tab: Watched
  readonly asked: Map<number, Asked>
  readonly open: Map<number, Open>
}

/** Everything that was said, judged. The first that was broken is kept in `violation`, since nobody could throw there. */
export class Watch {
  violation: Error | undefined
  readonly sights: Sights = new Map()
  readonly #image: LogImage
  readonly #history: History
  readonly #sockets = new Map<number, Socket>()
  /** A message to many is one object. */
  readonly #decoded = new WeakMap<Uint8Array, readonly Frame[]>()

  constructor(image: LogImage, history: History) {
    this.#image = image
    this.#history = history
  }

  see(what: string): void {
    this.sights.set(what, (this.sights.get(what) ?? 0) + 1)
  }

  broken(error: unknown): void {
    this.violation ??= error instanceof Error ? error : new Error(String(error))
  }

  up(id: number, tab: Watched, bytes: Uint8Array): void {
    let socket = this.#sockets.get(id)
    if (socket === undefined) this.#sockets.set(id, (socket = { tab, asked: new Map(), open: new Map() }))
    try {
      for (const frame of this.#decode(bytes)) this.#said(socket, frame as ClientFrame)
    } catch (error) {
      this.broken(error)
    }
  }

  down(id: number, bytes: Uint8Array): void {
    const socket = this.#sockets.get(id)
    if (socket === undefined) return
    try {
      for (const frame of this.#decode(bytes)) this.#answered(socket, frame as RelayFrame)
    } catch (error) {
      this.broken(error)
    }
  }

  #decode(bytes: Uint8Array): readonly Frame[] {
    const known = this.#decoded.get(bytes)
    if (known !== undefined) return known
    const decoded = decodeFrames(bytes)
    if (decoded.type === 'bad') throw new Error(`a bad frame was sent: ${decoded.reason}`)
    this.#decoded.set(bytes, decoded.frames)
    return decoded.frames
  }

  // What the client says

  #said(socket: Socket, frame: ClientFrame): void {
    if (frame.type === 'open') socket.asked.set(frame.ref, { document: frame.document as DocumentId, cursor: frame.cursor })
    if (frame.type === 'push') this.#pushed(socket, frame)
  }

  /** P5: nothing leaves the device that the device would not remember having sent. */
  #pushed({ tab, open }: Socket, { handle, incarnation, lo, hi, kind, offset, total, update }: PushFrame): void {
    if (offset > 0 || update.length < total) this.see('a push in parts')
    if (offset > 0) return
    this.see(kind === 'state' ? 'a state push' : hi > lo ? 'a merged push' : 'a push')
    const document = open.get(handle)?.document
    if (kind === 'state' || document === undefined) return
    for (let n = lo; n <= hi; n++) {
      if (!tab.isStored(document, incarnation, n))
        throw new Error(`P5: ${tab.name} sent edit ${n} of ${incarnation} in ${document}, which its device has not stored`)
    }
  }

  // What the relay says

  #answered(socket: Socket, frame: RelayFrame): void {
    switch (frame.type) {
      case 'opened':
        this.#opened(socket, frame)
        return
      case 'nack':
        this.see(`nack ${frame.code}`)
        return
      case 'refused':
        this.see(`refused ${frame.code}`)
        return
      case 'goaway':
        this.see(`goaway ${frame.code}${frame.code === 'bad_frame' ? frame.message : ''}`)
        return
      case 'closed':
        this.see(`closed ${frame.code}`)
        socket.open.delete(frame.handle)
        return
      case 'grant':
        this.see(`grant ${frame.grant}`)
        return
      case 'authenticate':
        this.see('authenticate')
        return
      default:
    }
    const open = 'handle' in frame ? socket.open.get(frame.handle) : undefined
    if (open === undefined) return
    if (frame.type === 'state') this.#state(open, frame)
    if (frame.type === 'entries') this.#entries(open, frame)
    if (frame.type === 'ack') this.#acked(open, frame)
  }

  /** P8: whoever may go on from a cursor has what the log has up to there. */
  #opened({ asked, open }: Socket, { ref, handle, mode, head }: OpenedFrame): void {
    const question = asked.get(ref)
    if (question === undefined) throw new Error(`an answer to question ${ref}, which nobody asked`)
    asked.delete(ref)
    const { document, cursor } = question
    this.see(`opened ${mode}${mode === 'full' && cursor !== undefined ? ' in spite of a cursor' : ''}`)
    if (this.#history.hashAt(document, head) === undefined) throw new Error(`P8: ${document} was opened at ${head}, which is not durable`)
    if (mode === 'resumed' && (cursor === undefined || this.#history.hashAt(document, cursor.seq) !== cursor.hash)) {
      throw new Error(`P8: a cursor at ${cursor?.seq} of ${document} was taken for proved, and is of another history`)
    }
    open.set(handle, { document, last: mode === 'resumed' ? cursor?.seq : undefined, received: 0 })
  }

  #state(open: Open, { seq, hash, total, offset, update }: StateFrame): void {
    const { document, last } = open
    if (this.#history.hashAt(document, seq) !== hash) throw new Error(`P8: a state of ${document} at ${seq} has another hash than the log`)
    const { snapshot } = this.#image.documents.get(document) ?? {}
    const entry = last !== undefined && seq === last + 1 ? this.#history.entry(document, seq)?.update : undefined
    this.see(last === undefined ? 'a first state' : entry?.length === total ? 'an entry in pieces' : 'a state in between')
    if (
      snapshot?.seq === seq &&
      snapshot.update.length === total &&
      !(entry?.length === total) &&
      !holds(snapshot.update, offset, update)
    ) {
      throw new Error(`P7: a state of ${document} at ${seq} is not the snapshot's`)
    }
    if (entry?.length === total && snapshot?.seq !== seq && !holds(entry, offset, update))
      throw new Error(`P7: pieces of entry ${seq} of ${document} are not its own`)
    if (offset !== 0 && offset !== open.received && open.received !== 0)
      throw new Error(`P6: a state of ${document} goes on at ${offset} after ${open.received}`)
    open.received = offset + update.length
    if (open.received < total) return
    open.received = 0
    open.last = seq
  }

  /** P1 and P6: each entry once, in order, as the log has it and not before it does. */
  #entries(open: Open, { first, updates, hash }: EntriesFrame): void {
    const { document } = open
    this.#follows(open, first)
    updates.forEach((update, at) => {
      const entry = this.#history.entry(document, first + at)
      if (entry === undefined) throw new Error(`P1: entry ${first + at} of ${document} was given before it was durable`)
      if (entry.update.length !== update.length || !holds(entry.update, 0, update))
        throw new Error(`P6: entry ${first + at} of ${document} was given with other bytes`)
    })
    open.last = first + updates.length - 1
    if (this.#history.hashAt(document, open.last) !== hash)
      throw new Error(`P8: the hash given with entry ${open.last} of ${document} is not the log's`)
  }

  /** P1 and P2: what is acknowledged is durable, and was this edit. */
  #acked(open: Open, { incarnation, n, seq, hash }: AckFrame): void {
    const { document } = open
    if (this.#history.ackedOf(document, incarnation) < n)
      throw new Error(`P1: edit ${n} of ${incarnation} in ${document} was acknowledged before it was durable`)
    if (hash === undefined) {
      this.see('an ack without a hash')
      return
    }
    this.#follows(open, seq)
    open.last = seq
    const entry = this.#history.entry(document, seq)
    if (entry?.hash !== hash || entry.incarnation !== incarnation || entry.hi !== n)
      throw new Error(`P6: an ack of edit ${n} of ${incarnation} stands in the place of another entry, ${seq} of ${document}`)
  }

  #follows({ document, last }: Open, first: number): void {
    if (last === undefined) throw new Error(`P6: entries of ${document} from ${first} on came before the state`)
    if (first !== last + 1) throw new Error(`P6: ${first} of ${document} was given after ${last}`)
  }
}

function holds(whole: Uint8Array, offset: number, part: Uint8Array): boolean {
  return Buffer.compare(whole.subarray(offset, offset + part.length), part) === 0
}
