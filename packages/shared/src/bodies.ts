/**
 * The body of every frame, as a table that both directions go by (step 3 of the path). PROTOCOL.md §3 is the same table; a test compares the two.
 */
import type { Access, Frame } from './frames.ts'
import type { Field } from './fields.ts'
import { blob, code, group, id16, list, message, oneOf, optional, readList, recurring16, string, upTo, varUint } from './fields.ts'
import type { ChainHash, IncarnationId, Lineage, Seq } from './ids.ts'
import { DEFAULT_LIMITS, WIRE_LIMITS } from './limits.ts'

/** What stands behind a frame's type and length. */
export type Body<T extends Frame['type']> = Omit<Extract<Frame, { readonly type: T }>, 'type'>

// The brands are put on here and in ids.ts only: these are the bytes they come from.
const incarnation = recurring16 as Field<IncarnationId>
const lineage = id16 as Field<Lineage>
const hash = id16 as Field<ChainHash>
const seq = varUint as Field<Seq>

const token = string(WIRE_LIMITS.token)
const principal = string(WIRE_LIMITS.principal)
const grant = oneOf<Access>('none', 'read', 'write')
const nonce = group({ nonce: varUint })

const update = blob(DEFAULT_LIMITS.edit)
/** The one body whose count does not stand before its list. */
const entries: Field<Body<'entries'>> = {
  write(writer, { handle: to, first, updates, hash: last }) {
    writer.varUint(to)
    writer.varUint(first)
    writer.varUint(updates.length)
    writer.hex16(last)
    for (const one of updates) writer.blob(one)
  },
  read(reader) {
    const to = reader.varUint()
    const first = seq.read(reader, 'first')
    const count = reader.upTo(WIRE_LIMITS.entries, 'count')
    const last = hash.read(reader, 'hash')
    return { handle: to, first, hash: last, updates: readList(reader, update, count, 'update') }
  },
}

/** Wire order is the order of the properties. */
export const BODIES: { readonly [T in Frame['type']]: Field<Body<T>> } = {
  hello: group({ revisionMin: varUint, revisionMax: varUint, agent: string(WIRE_LIMITS.agent), token }),
  auth: group({ token }),
  open: group({
    ref: varUint,
    document: string(WIRE_LIMITS.documentId),
    cursor: optional(group({ lineage, epoch: varUint, seq, hash })),
    resume: optional(group({ snapshotSeq: seq, offset: varUint })),
  }),
  close: group({ handle: varUint }),
  push: group(
    {
      handle: varUint,
      incarnation,
      lo: varUint,
      hi: varUint,
      kind: oneOf('edit', 'state'),
      covers: list(group({ incarnation, n: varUint }), WIRE_LIMITS.covers),
      total: upTo(DEFAULT_LIMITS.edit),
      offset: varUint,
      update,
    },
    (push) => (push.lo < 1 || push.hi < push.lo ? `edits ${push.lo} to ${push.hi}` : overrun(push)),
  ),
  presence: group({ handle: varUint, awareness: blob(WIRE_LIMITS.presence) }),
  ping: nonce,
  pong: nonce,
  await: group({ ref: varUint, handle: varUint, seq, sink: string(WIRE_LIMITS.sink) }),
  welcome: group({ revision: varUint, heartbeat: varUint, window: varUint, relay: id16, principal }),
  opened: group({ ref: varUint, handle: varUint, lineage, epoch: varUint, head: seq, grant, mode: oneOf('resumed', 'full', 'replaced') }),
  refused: group({ ref: varUint, code, retryAfter: varUint, message }),
  state: group<Body<'state'>>(
    { handle: varUint, lineage, epoch: varUint, seq, hash, total: varUint, offset: varUint, update: blob(DEFAULT_LIMITS.fragment) },
    overrun,
  ),
  entries,
  ack: group({ handle: varUint, incarnation, n: varUint, seq, hash: optional(hash) }),
  nack: group({ handle: varUint, incarnation, n: varUint, expected: varUint, code, retryAfter: varUint, message }),
  grant: group({ handle: varUint, grant, code, message }),
  authenticate: group({ code, deadline: varUint, message }),
  authenticated: group({ principal }),
  closed: group({ handle: varUint, code, retryAfter: varUint, message }),
  goaway: group({ code, retryAfter: varUint, message }),
  reached: group({ ref: varUint, code, message }),
}

/** What travels in parts. */
type Part = Pick<Body<'state'>, 'total' | 'offset' | 'update'>

function overrun(part: Part): string | undefined {
  return part.offset + part.update.length > part.total ? 'a part that ends behind its whole' : undefined
}
