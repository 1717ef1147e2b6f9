/**
 * Destinations of three kinds in memory, for worlds: one with transactions and a guard, one that takes upserts with external versions, and a channel that is only appended to and applied by whoever reads it.
 * Deliveries may come twice, in another order, late, or be told lost although they came.
 */
import type { RecordValue } from '@rejoin/shared'
import type { Delivery, Refusal } from '#server/sinks/delivery.js'
import { deliverySink } from '#server/sinks/delivery.js'
import type { Key, Sink, SinkContext, SinkPlace, SinkRow } from '#server/sinks/sink.js'
import { compareKeys, keyText } from '#server/sinks/sink.js'
import type { Clock } from '@rejoin/shared'
import type { Chance } from './histories.ts'
import { below } from './histories.ts'
import { createMemoryDestination, openMemorySink } from './memory-sink.ts'

export type ModelName = 'transactional' | 'upsert' | 'channel'

/** One destination, that outlives its sinks. */
export interface SinkModel {
  open(context: SinkContext): Sink
  /** What lies there, or what a reader of the channel has made of it. */
  rows(): ReadonlyMap<string, { readonly key: Key; readonly value: RecordValue }>
  /** Keys that were refused and have not been written since. */
  refused(): ReadonlySet<string>
  /** It was emptied and nobody has looked since: without transactions that is noticed by the next delivery. */
  isWiped(): boolean
  /** The place, where the destination has it itself. */
  place(): SinkPlace | undefined
  /** Emptied under whatever runs; absent where that cannot be. */
  wipe?(): void
  /** Keeps what lies there, to be put back by `restore`. */
  backup?(): void
  restore?(): void
  /** What is late arrives. */
  arrive(): void
}

export interface ModelParts {
  readonly chance: Chance
  readonly clock: Clock
  /** Throws where chance strikes. */
  readonly fail: (where: string) => void
  /** Why a row is refused now. */
  readonly refuse: (key: Key, value: RecordValue | null) => string | undefined
  /** Told of every commit of a destination with transactions. */
  readonly onCommit: () => void
  readonly problems: string[]
}

export function createModel(name: ModelName, parts: ModelParts): SinkModel {
  return name === 'transactional' ? transactional(parts) : name === 'upsert' ? upsert(parts) : channel(parts)
}

interface Stored {
  readonly key: Key
  readonly value: RecordValue | null
  readonly stamp: number
}

/** Stamps of a key never fall. */
function createWatch(problems: string[]) {
  const stamps = new Map<string, number>()
  return {
    see: (rows: ReadonlyMap<string, Stored>): void => {
      for (const [text, { stamp }] of rows) {
        if (stamp < (stamps.get(text) ?? 0)) problems.push(`the stamp of ${text} fell from ${stamps.get(text)} to ${stamp}`)
        stamps.set(text, stamp)
      }
    },
    forget: (): void => stamps.clear(),
  }
}

function transactional({ fail, refuse, onCommit, problems }: ModelParts): SinkModel {
  const destination = createMemoryDestination()
  const watch = createWatch(problems)
  const hook = (at: string | Key, value?: RecordValue | null): string | void => {
    if (typeof at !== 'string') return refuse(at, value ?? null)
    if (at === 'after commit') {
      watch.see(destination.rows)
      onCommit()
    }
    fail(`sink: ${at}`)
  }
  destination.hook = hook
  return {
    open: (context) => openMemorySink(destination, context),
    rows: () => living(destination.rows),
    refused: () => new Set(destination.parked.keys()),
    isWiped: () => false,
    place: () => destination.place,
    wipe: () => {
      Object.assign(destination, createMemoryDestination(), { hook })
      watch.forget()
    },
    arrive: () => {},
  }
}

function living(rows: ReadonlyMap<string, Stored>): ReadonlyMap<string, { readonly key: Key; readonly value: RecordValue }> {
  return new Map([...rows].flatMap(([text, { key, value }]) => (value === null ? [] : [[text, { key, value }]])))
}

/** One that was sent. */
interface Message extends Stored {
  readonly force: boolean
  readonly event: string | undefined
}

/** Sends rows so that anything may become of them; what was told lost may have come, or come later. */
function createLine({ chance, fail, refuse }: ModelParts, take: (message: Message) => void) {
  const late: Message[] = []
  const refused = new Set<string>()
  const arrive = (): void => {
    for (const message of late.splice(0)) take(message)
  }
  const deliver: Delivery['deliver'] = async (rows, { to, force }, signal) => {
    fail('sink: before a delivery')
    const refusals: Refusal[] = []
    const sent: Message[] = []
    for (const row of rows) {
      const reason = refuse(row.key, row.value)
      if (reason === undefined) sent.push(messageOf(row, to, force === true))
      else refusals.push({ row, reason })
    }
    // Side by side they overtake each other; within a call each key comes once.
    sent.sort(() => chance() - 0.5)
    for (const message of sent) {
      if (chance() < 0.05) await Promise.resolve()
      signal.throwIfAborted()
      try {
        fail('sink: a delivery')
      } catch (error) {
        // It is not known what became of this one.
        if (chance() < 0.5) late.push(message)
        throw error
      }
      take(message)
      refused.delete(keyText(message.key))
      if (chance() < 0.1) take(message)
    }
    fail('sink: after a delivery')
    for (const { row } of refusals) refused.add(keyText(row.key))
    if (below(chance, 3) === 0) arrive()
    return refusals
  }
  return { deliver, arrive, refused, lose: () => late.splice(0) }
}

function messageOf({ key, value, event }: SinkRow, to: SinkPlace, force: boolean): Message {
  return { key, value, stamp: event?.version ?? to.version, force, event: event?.id }
}

function upsert(parts: ModelParts): SinkModel {
  const { fail, problems, chance, clock } = parts
  const watch = createWatch(problems)
  let rows = new Map<string, Stored>()
  let copy: { place: SinkPlace | undefined; isNew: boolean } = { place: undefined, isNew: true }
  let kept: { readonly rows: typeof rows; readonly copy: typeof copy } | undefined
  const line = createLine(parts, ({ key, value, stamp, force }) => {
    const text = keyText(key)
    if (force || (rows.get(text)?.stamp ?? 0) <= stamp) rows.set(text, { key, value, stamp })
    watch.see(rows)
  })
  const keepsCopy = chance() < 0.5
  const delivery: Delivery = {
    begin: async () => {
      fail('sink: begin')
      const begun = {
        place: copy.place,
        isNew: copy.isNew || (keepsCopy && copy.place === undefined),
        stamp: Math.max(0, ...[...rows.values()].map(({ stamp }) => stamp)),
      }
      copy = { ...copy, isNew: false }
      return begun
    },
    check: async () => (copy.isNew ? 'lost' : undefined),
    deliver: async (...args) => (copy.isNew ? 'lost' : line.deliver(...args)),
    ...(keepsCopy
      ? {
          moved: async (place: SinkPlace) => {
            fail('sink: before the copy')
            copy = { ...copy, place }
          },
        }
      : {}),
    keys: async (limit, from) => {
      fail('sink: keys')
      const keys = [...living(rows).values()].map(({ key }) => key).sort(compareKeys)
      return keys.filter((key) => from === undefined || compareKeys(key, from) > 0).slice(0, limit)
    },
    close: async () => {},
  }
  return {
    open: (context) => deliverySink(delivery, context, clock),
    rows: () => living(rows),
    refused: () => line.refused,
    isWiped: () => copy.isNew,
    place: () => undefined,
    wipe: () => {
      rows = new Map()
      copy = { place: undefined, isNew: true }
      // A late one would be a stranger there.
      line.lose()
      line.refused.clear()
      watch.forget()
    },
    ...(keepsCopy
      ? {
          backup: () => {
            kept = { rows: new Map(rows), copy }
          },
          restore: () => {
            if (kept === undefined) return
            line.lose()
            rows = new Map(kept.rows)
            copy = kept.copy
            watch.forget()
          },
        }
      : {}),
    arrive: line.arrive,
  }
}

function channel(parts: ModelParts): SinkModel {
  const { chance, clock } = parts
  const messages: Message[] = []
  const line = createLine(parts, (message) => void messages.push(message))
  const delivery: Delivery = {
    begin: async () => {
      parts.fail('sink: begin')
      return {}
    },
    deliver: line.deliver,
    close: async () => {},
  }
  return {
    open: (context) => deliverySink(delivery, context, clock),
    // A reader that applies by version, whatever the order in which it got them.
    rows: () => {
      const rows = new Map<string, Stored>()
      for (const message of chance() < 0.5 ? messages : messages.toReversed()) {
        const text = keyText(message.key)
        if ((rows.get(text)?.stamp ?? -1) < message.stamp) rows.set(text, message)
      }
      return living(rows)
    },
    refused: () => line.refused,
    isWiped: () => false,
    place: () => undefined,
    arrive: line.arrive,
  }
}
