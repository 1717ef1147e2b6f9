/**
 * The port of what the relay itself remembers of one sink (step 8 of the path): what an operator asked for, what was sent to a destination that cannot remember it, dead letters, digests. In `sinks.db`, beside the view.
 *
 * Its methods answer at once and what they write is durable when they return: it lives in the worker that forwards.
 */
import type { JsonValue, RecordValue } from '@rejoin/shared'
import type { Key } from '../view/view.ts'

/** The notes of one sink. */
export interface SinkNotes {
  /** A named value; undefined when it was never set. */
  get(name: string): JsonValue | undefined
  /** Sets or (undefined) forgets named values, together with everything else in the same call. One durable transaction. */
  write(changes: NotesChanges): void
  /** Dead letters in the order they came, at most `limit`, behind `from`; and how many there are. */
  letters(limit: number, from?: string): { readonly total: number; readonly first: readonly DeadLetter[] }
  letter(id: string): DeadLetter | undefined
  /** Keys that were confirmed to lie in a destination that cannot be read back, in order, at most `limit`, behind `from`. */
  keys(limit: number, from?: Key): readonly Key[]
  /** Hash of what was last confirmed under the key. */
  image(key: Key): string | undefined
}

/** Changes to the notes, all or none. */
export interface NotesChanges {
  readonly values?: Readonly<Record<string, JsonValue | undefined>> | undefined
  readonly putLetters?: readonly DeadLetter[] | undefined
  readonly removeLetters?: readonly string[] | undefined
  /** hash null: the key is gone. */
  readonly images?: readonly { readonly key: Key; readonly hash: string | null }[] | undefined
  /** Forgets them first. */
  readonly clear?: 'letters' | 'images' | 'all' | undefined
}

/** What a destination refused, or what waits behind it. */
export interface DeadLetter {
  /** Of the event; with strategy 'state' of the key and version. */
  readonly id: string
  readonly key: Key
  readonly value: RecordValue | null
  readonly version: number
  readonly reason: string
  /** 'refused' by the destination, 'failed' because select failed, or 'held' behind one of those of the same key. */
  readonly state: 'refused' | 'failed' | 'held'
  /** ms since 1970. */
  readonly at: number
  /** The event, when the strategy is 'actions': plain data. */
  readonly event?: JsonValue | undefined
}
