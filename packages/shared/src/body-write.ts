/**
 * The bodies of frames, written (step 3 of the path). PROTOCOL.md §3 has the grammar, body-read.ts the other direction.
 */
import type { ByteWriter } from './bytes.ts'
import type { ErrorCode } from './errors.ts'
import { ERRORS } from './errors.ts'
import type { Access, Frame, OpenFrame, OpenMode, PushFrame, PushKind, StateFrame } from './frames.ts'
import { WIRE_LIMITS } from './limits.ts'

/** On the wire: the place in the list. */
export const ACCESS: readonly [Access, ...Access[]] = ['none', 'read', 'write']
export const MODES: readonly [OpenMode, ...OpenMode[]] = ['resumed', 'full', 'replaced']
export const KINDS: readonly [PushKind, ...PushKind[]] = ['edit', 'state']

/** What frames that tell of a failure have in common. */
export interface Failure {
  readonly code: ErrorCode
  readonly retryAfter: number
  readonly message: string
}

/** Writes what stands behind a frame's type and length. */
export function writeBody(w: ByteWriter, frame: Frame): void {
  switch (frame.type) {
    case 'hello':
      w.varUint(frame.revisionMin)
      w.varUint(frame.revisionMax)
      w.text(frame.agent, WIRE_LIMITS.agent, 'agent')
      return w.text(frame.token, WIRE_LIMITS.token, 'token')
    case 'auth':
      return w.text(frame.token, WIRE_LIMITS.token, 'token')
    case 'open':
      return writeOpen(w, frame)
    case 'close':
      return w.varUint(frame.handle)
    case 'push':
      return writePush(w, frame)
    case 'presence':
      w.varUint(frame.handle)
      return w.blob(frame.awareness)
    case 'ping':
    case 'pong':
      return w.varUint(frame.nonce)
    case 'welcome':
      w.varUint(frame.revision)
      w.varUint(frame.heartbeat)
      w.varUint(frame.window)
      w.hex16(frame.relay)
      return w.text(frame.principal, WIRE_LIMITS.principal, 'principal')
    case 'opened':
      w.varUint(frame.ref)
      w.varUint(frame.handle)
      w.hex16(frame.lineage)
      w.varUint(frame.epoch)
      w.varUint(frame.head)
      w.byte(ACCESS.indexOf(frame.grant))
      return w.byte(MODES.indexOf(frame.mode))
    case 'refused':
      w.varUint(frame.ref)
      return writeFailure(w, frame)
    case 'state':
      return writeState(w, frame)
    case 'entries':
      w.varUint(frame.handle)
      w.varUint(frame.first)
      w.varUint(frame.updates.length)
      w.hex16(frame.hash)
      for (const update of frame.updates) w.blob(update)
      return
    case 'ack':
      w.varUint(frame.handle)
      w.hex16(frame.incarnation)
      w.varUint(frame.n)
      w.varUint(frame.seq)
      w.byte(frame.hash === undefined ? 0 : 1)
      if (frame.hash !== undefined) w.hex16(frame.hash)
      return
    case 'nack':
      w.varUint(frame.handle)
      w.hex16(frame.incarnation)
      w.varUint(frame.n)
      w.varUint(frame.expected)
      return writeFailure(w, frame)
    case 'grant':
      w.varUint(frame.handle)
      w.byte(ACCESS.indexOf(frame.grant))
      w.varUint(ERRORS[frame.code].number)
      return w.clipped(frame.message, WIRE_LIMITS.text)
    case 'authenticate':
      w.varUint(ERRORS[frame.code].number)
      w.varUint(frame.deadline)
      return w.clipped(frame.message, WIRE_LIMITS.text)
    case 'authenticated':
      return w.text(frame.principal, WIRE_LIMITS.principal, 'principal')
    case 'closed':
      w.varUint(frame.handle)
      return writeFailure(w, frame)
    case 'goaway':
      return writeFailure(w, frame)
  }
}

function writeFailure(w: ByteWriter, failure: Failure): void {
  w.varUint(ERRORS[failure.code].number)
  w.varUint(failure.retryAfter)
  w.clipped(failure.message, WIRE_LIMITS.text)
}

function writeOpen(w: ByteWriter, frame: OpenFrame): void {
  w.varUint(frame.ref)
  w.text(frame.document, WIRE_LIMITS.documentId, 'document id')
  w.byte(frame.cursor === undefined ? 0 : 1)
  if (frame.cursor !== undefined) {
    w.hex16(frame.cursor.lineage)
    w.varUint(frame.cursor.epoch)
    w.varUint(frame.cursor.seq)
    w.hex16(frame.cursor.hash)
  }
  w.byte(frame.resume === undefined ? 0 : 1)
  if (frame.resume !== undefined) {
    w.varUint(frame.resume.snapshotSeq)
    w.varUint(frame.resume.offset)
  }
}

function writePush(w: ByteWriter, frame: PushFrame): void {
  w.varUint(frame.handle)
  w.hex16(frame.incarnation)
  w.varUint(frame.lo)
  w.varUint(frame.hi)
  w.byte(KINDS.indexOf(frame.kind))
  w.varUint(frame.covers.length)
  for (const cover of frame.covers) {
    w.hex16(cover.incarnation)
    w.varUint(cover.n)
  }
  w.varUint(frame.total)
  w.varUint(frame.offset)
  w.blob(frame.update)
}

function writeState(w: ByteWriter, frame: StateFrame): void {
  w.varUint(frame.handle)
  w.hex16(frame.lineage)
  w.varUint(frame.epoch)
  w.varUint(frame.seq)
  w.hex16(frame.hash)
  w.varUint(frame.total)
  w.varUint(frame.offset)
  w.blob(frame.update)
}
