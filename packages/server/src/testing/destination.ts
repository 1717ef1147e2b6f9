/**
 * What the conformance kit asks of a sink's author (beside the path): a destination, and what can be done to it.
 */
import type { RecordValue, Schema } from '@rejoin/shared'
import { collection, defineSchema, number, string } from '@rejoin/shared'
import type { Key, Sink, SinkContext, SinkTraits } from '../sinks/sink.ts'
import type { ForwardOptions } from '../sinks/spec.ts'

/** Records of the cases. */
export const CONFORMANCE_SCHEMA: Schema = defineSchema({
  owners: collection({ name: string() }),
  pets: collection({ name: string(), age: number(), city: string() }),
})

/** Name of a pet that `Destination.poison` refuses. */
export const POISON = 'poison'

/** The sink under test, and how to come by a destination for it. */
export interface Conformance {
  /** Of the sink, as it stands in the docs: 'postgres'. */
  readonly name: string
  readonly traits: SinkTraits
  readonly powers: Powers
  /** As an application would write them; without projection. @default what the sink's function would take */
  readonly forward?: ForwardOptions | undefined
  /** How it keeps what it promises, in a sentence for the docs: 'rows, cursor and fence in one transaction'. */
  readonly mechanism: string
  /** How long the destination may take to be what it should be, in ms. @default 20,000 */
  readonly patience?: number | undefined
  /** A new and empty destination, asked for by each case. */
  readonly destination: () => Promise<Destination>
}

/** What a sink claims. A string says why not, and is printed where a case is left out for it. */
export interface Powers {
  /** A forwarder that was followed by another changes nothing any more. */
  readonly fence: true | string
  /** A row with a lower stamp never replaces one with a higher: what comes late, or twice, changes nothing. */
  readonly guard: true | string
  /** The destination knows from which log it is written, and is refused to others. */
  readonly identity: true | string
  /** The cursor, or a copy of it, lies in the destination: one that is wiped or restored from a copy is noticed. */
  readonly cursor: true | string
  /** What lies there can be listed by the destination itself: also rows that a restored relay knows nothing of are found. @default true */
  readonly keys?: true | string | undefined
}

/** One destination, and what can be done to it. What is absent makes cases not applicable; `absent` says why. */
export interface Destination {
  /** Opens the sink on it, as the relay would: `(context) => openSink(options, context)`. */
  open(context: SinkContext): Promise<Sink>
  /** What its reader sees now. Of a stream of events: its fold, newest version by key. */
  rows(): Promise<readonly StoredRow[]>
  /** Removes everything that Rejoin made there, bookkeeping included. */
  wipe?(): Promise<void>
  /** Removes the table, index or topic of one target. */
  drop?(target: string): Promise<void>
  /** Takes a copy of everything; what it gives puts the copy back, over what is there then. */
  backup?(): Promise<() => Promise<void>>
  /** Ends the server, however, and starts it again on the same data and address. */
  restart?(): Promise<void>
  /** From now on a row of `pets` whose name is POISON is refused for good; what it gives ends that. */
  poison?(): Promise<() => Promise<void>>
  /** From now on no two rows of the target may have the same value in the field. */
  unique?(target: string, field: string): Promise<void>
  /** What the next write does, happens; its answer is lost on the way. Where absent, the kit throws the answer away itself. */
  loseReply?(): Promise<void>
  /** Changes a row behind Rejoin's back, as a person would. */
  tamper?(key: Key, field: string, value: string): Promise<void>
  /** Why something above is absent. */
  readonly absent?: Readonly<Partial<Record<keyof Destination, string>>> | undefined
  /** Frees what it holds, such as a database of this name. */
  close(): Promise<void>
}

/** A row as it lies there. */
export interface StoredRow {
  readonly key: Key
  /** Every field of the target, null included. */
  readonly value: RecordValue
}
