/**
 * A change of a record as others read it (beside step 8 of the path): as plain JSON, as a CloudEvent, or in Debezium's envelope.
 */
import type { RecordValue } from '@rejoin/shared'
import type { Key, VersionEntry } from '../view/view.ts'

/** 'json': our own · 'cloudevents': CloudEvents 1.0, structured mode · 'debezium': before, after, source, op, ts_ms. */
export type ChangeFormat = 'json' | 'cloudevents' | 'debezium'

/** One change. */
export interface RecordFact {
  readonly log: string
  readonly entry: VersionEntry
  /** Place among the changes of the entry. */
  readonly index: number
  readonly key: Key
  readonly before: RecordValue | null
  readonly after: RecordValue | null
  /** From which one continues behind it. */
  readonly cursor: string
  /** When it is read, in ms since 1970. */
  readonly now: number
}

/** One line of JSON. */
export function changeText(format: ChangeFormat, fact: RecordFact): string {
  return JSON.stringify(FORMATS[format](fact))
}

const FORMATS: Readonly<Record<ChangeFormat, (fact: RecordFact) => object>> = {
  json: (fact) => ({ cursor: fact.cursor, ...contentOf(fact) }),

  cloudevents: (fact) => ({
    specversion: '1.0',
    id: idOf(fact),
    source: `urn:rejoin:log:${fact.log}`,
    type: `rejoin.record.${opOf(fact)}`,
    subject: [fact.key.collection, fact.key.document, fact.key.id].map(encodeURIComponent).join('/'),
    ...(isStock(fact) ? {} : { time: new Date(fact.entry.at).toISOString() }),
    datacontenttype: 'application/json',
    // Extensions: order of one document's events is kept within a partition; the cursor is the feed's own.
    partitionkey: fact.key.document,
    cursor: fact.cursor,
    data: contentOf(fact),
  }),

  debezium: (fact) => ({
    before: rowOf(fact.key, fact.before),
    after: rowOf(fact.key, fact.after),
    source: {
      version: '1',
      connector: 'rejoin',
      name: fact.log,
      ts_ms: fact.entry.at,
      snapshot: String(isStock(fact)),
      db: fact.key.document,
      table: fact.key.collection,
      sequence: JSON.stringify([String(fact.entry.version), String(fact.index)]),
      cursor: fact.cursor,
    },
    op: isStock(fact) && fact.before === null ? 'r' : { create: 'c', update: 'u', delete: 'd' }[opOf(fact)],
    ts_ms: fact.now,
  }),
}

function contentOf(fact: RecordFact): object {
  const { partition, position, epoch, seq, actor, at, version } = fact.entry
  const { collection, document, id } = fact.key
  return {
    event: idOf(fact),
    op: opOf(fact),
    collection,
    document,
    id,
    before: fact.before,
    after: fact.after,
    version,
    actor,
    at: isStock(fact) ? null : new Date(at).toISOString(),
    origin: { partition, position, epoch, seq },
  }
}

/** Of the event: the same after a restart, another feed, or a view that was made anew. */
function idOf({ log, entry, index }: RecordFact): string {
  return [log, entry.epoch, encodeURIComponent(entry.document), entry.seq, index, 1].join('/')
}

/** When the view takes stock of a document as a whole, nobody knows who did it when. */
function isStock({ entry }: RecordFact): boolean {
  return entry.at === 0
}

function opOf({ before, after }: RecordFact): 'create' | 'update' | 'delete' {
  return before === null ? 'create' : after === null ? 'delete' : 'update'
}

function rowOf({ document, id }: Key, value: RecordValue | null): RecordValue | null {
  return value === null ? null : { document, id, ...value }
}
