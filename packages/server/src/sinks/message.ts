/**
 * How rows look outside, for destinations that take messages and texts for keys (step 8 of the path): one JSON shape for webhook, handler, JSON lines and streams, and one spelling of a key.
 */
import { createHash } from 'node:crypto'
import type { RecordValue } from '@rejoin/shared'
import type { Key } from '../view/view.ts'
import type { SinkEvent, SinkPlace, SinkRow } from './sink.ts'

/** One row as JSON. */
export interface Message {
  /** The same whenever this message is sent again: of the event, or of key and version. */
  readonly id: string
  /** `record.state`: what the record is as of the version, null when it is gone. The others: what happened to it. */
  readonly type: 'record.state' | 'record.created' | 'record.updated' | 'record.deleted'
  /** Of two messages about one key, the one with the higher version is newer. */
  readonly version: number
  readonly collection: string
  readonly document: string
  /** Id of the record. */
  readonly record: string
  /** null: it is gone. */
  readonly value: RecordValue | null
  /** What the record was before the event, or as of the last version that the destination was told of; absent where that is not known. */
  readonly before?: RecordValue | null
  /** Of strategy 'actions': which edit it was. */
  readonly event?: MessageEvent
}

/** Where an event comes from. */
export interface MessageEvent {
  /** Whether it is sent again because an operator rewound the sink. */
  readonly replay: boolean
  /** Who wrote it, and when the relay took it, in ms since 1970. */
  readonly actor: string
  readonly at: number
  /** Which entry of the log. */
  readonly document: string
  readonly epoch: number
  readonly seq: number
  readonly partition: number
  readonly position: number
}

const TYPES = { create: 'record.created', update: 'record.updated', delete: 'record.deleted' } as const satisfies Readonly<
  Record<SinkEvent['op'], Message['type']>
>

/** The message about a row of a commit to `place`. */
export function messageOf({ key, value, event, before }: SinkRow, { view, version }: SinkPlace): Message {
  const { collection, document, id } = key
  const where = { collection, document, record: id, value }
  if (event !== undefined) {
    const { actor, at, epoch, seq, partition, position } = event.origin
    return {
      id: event.id,
      type: TYPES[event.op],
      version: event.version,
      ...where,
      before: event.before,
      event: { replay: event.replay, actor, at, document: event.origin.document, epoch, seq, partition, position },
    }
  }
  const state = { id: [view, version, collection, document, id].join('/'), type: 'record.state', version, ...where } as const
  return before === undefined ? state : { ...state, before }
}

/**
 * A key inside its collection as one text of visible ASCII: `<document>/<id>`, each percent-encoded, so that no two keys share one. Longer than `limit`: `~` and the SHA-256 of both in hex, so the key itself has to stand in the row.
 */
export function addressOf({ document, id }: Pick<Key, 'document' | 'id'>, limit: number): string {
  // A lone surrogate has no UTF-8; the hash tells such ids apart by their UTF-16.
  if (!/\p{Surrogate}/u.test(document + id)) {
    const text = `${encodeURIComponent(document)}/${encodeURIComponent(id)}`
    if (text.length <= limit && !text.startsWith('~')) return text
  }
  return `~${createHash('sha256').update(`${document.length}/${document}/${id}`, 'utf16le').digest('hex')}`
}
