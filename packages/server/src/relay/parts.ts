/**
 * Puts the parts of a push together (step 3 of the path), pure: one push at a time a socket, each part where the one before ended.
 */
import type { IncarnationId } from '@rejoin/shared'
import type { PushFrame, PushKind } from '@rejoin/shared/wire'

/** A push with all its parts. */
export interface WholePush {
  readonly incarnation: IncarnationId
  readonly lo: number
  readonly hi: number
  readonly kind: PushKind
  readonly covers: PushFrame['covers']
  readonly update: Uint8Array
}

/** A push whose last part has not come. */
export interface Parts {
  readonly first: PushFrame
  /** What has come, with room behind it: one buffer, so that many small parts cost no more than a few large ones. */
  update: Uint8Array
  length: number
}

/** What a frame makes of the parts before it. */
export type Assembly =
  | { readonly type: 'whole'; readonly push: WholePush }
  | { readonly type: 'more'; readonly parts: Parts }
  | { readonly type: 'bad'; readonly reason: string }

/** What a push counts beside its bytes, and each of its covers: what the relay keeps to answer it. */
const PUSH_WEIGHT = 64
const NOTHING = new Uint8Array(0)

/** What a push counts towards the window, in bytes. */
export function weightOf({ update, covers }: { readonly update: Uint8Array; readonly covers: readonly unknown[] }): number {
  return update.length + PUSH_WEIGHT * (1 + covers.length)
}

/** Takes a push frame behind `parts`, which it adds to. Parts are copied: a view would keep its whole message alive until the last part has come. */
export function takePart(parts: Parts | undefined, frame: PushFrame): Assembly {
  if (parts === undefined) {
    if (frame.offset !== 0) return { type: 'bad', reason: 'a part of a push that did not begin' }
    if (frame.update.length === frame.total) return { type: 'whole', push: wholeOf(frame, frame.update) }
    if (frame.update.length === 0) return { type: 'bad', reason: 'a part of a push that holds nothing' }
    return { type: 'more', parts: { first: { ...frame, update: NOTHING }, update: frame.update.slice(), length: frame.update.length } }
  }
  if (!follows(parts, frame)) return { type: 'bad', reason: 'a part of a push that does not follow the part before' }
  add(parts, frame)
  return parts.length < frame.total
    ? { type: 'more', parts }
    : { type: 'whole', push: wholeOf(parts.first, parts.update.subarray(0, parts.length)) }
}

function follows({ first, length }: Parts, frame: PushFrame): boolean {
  const { handle, incarnation, lo, hi, kind, total, offset, update } = frame
  const same = handle === first.handle && incarnation === first.incarnation && lo === first.lo && hi === first.hi && kind === first.kind
  return same && total === first.total && offset === length && update.length > 0 && length + update.length <= total
}

function wholeOf({ incarnation, lo, hi, kind, covers }: PushFrame, update: Uint8Array): WholePush {
  return { incarnation, lo, hi, kind, covers, update }
}

/** Grows by doubling, never beyond the total, which a sender might name and not send. */
function add(parts: Parts, { update, total }: PushFrame): void {
  const length = parts.length + update.length
  if (length > parts.update.length) {
    const roomier = new Uint8Array(Math.min(total, Math.max(length, parts.update.length * 2)))
    roomier.set(parts.update.subarray(0, parts.length))
    parts.update = roomier
  }
  parts.update.set(update, parts.length)
  parts.length = length
}
