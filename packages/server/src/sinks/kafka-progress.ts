/**
 * What a Kafka sink keeps of itself in the cluster (step 8 of the path): in a compacted topic, written in the same transaction as the messages, its place, its fence, the log it is written from, and what is parked.
 */
import type { JsonValue } from '@rejoin/shared'
import type { Link, Outgoing } from './kafka-link.ts'
import type { Key, Parked, SinkPlace } from './sink.ts'
import { keyText } from './sink.ts'

/** The record. */
export interface Progress {
  readonly log: string
  readonly fence: number
  readonly place: SinkPlace | undefined
  /** The highest version that messages carry. */
  readonly stamp: number
  /** What decides how messages look: when it changes, everything is written again. */
  readonly declared: string
  /** Topic → its id. */
  readonly topics: Readonly<Record<string, string>>
}

/** A sink's records. */
export interface Notebook {
  readonly progress: Progress | undefined
  readonly parked: readonly Parked[]
}

/** Configs of the topic: small segments, so that little has to be read to find the last record. */
export const PROGRESS_CONFIGS = { 'cleanup.policy': 'compact', 'segment.bytes': '16777216', 'min.cleanable.dirty.ratio': '0.1' } as const

export async function readNotebook(link: Link, topic: string, sink: string, from = 0n): Promise<Notebook> {
  let progress: Progress | undefined
  const parked = new Map<string, Parked>()
  await link.read(
    topic,
    ({ key, value }) => {
      const [name, collection, document, id] = partsOf(key.toString('utf8'))
      if (name !== sink) return
      const said = value === null ? undefined : (JSON.parse(value.toString('utf8')) as Readonly<Record<string, JsonValue>>)
      if (collection === undefined) progress = said === undefined ? undefined : progressOf(said)
      else if (document !== undefined && id !== undefined) {
        const found: Key = { collection, document: document as Key['document'], id }
        if (said === undefined) parked.delete(keyText(found))
        else parked.set(keyText(found), { key: found, reason: said['reason'] as string })
      }
    },
    from,
  )
  return { progress, parked: [...parked.values()] }
}

/** The message that moves it. null: the sink is no more. */
export function progressMessage(topic: string, sink: string, progress: Progress | null): Outgoing {
  const value = progress === null ? null : Buffer.from(JSON.stringify({ ...progress, place: progress.place ?? null }))
  return { topic, partition: 0, key: Buffer.from(JSON.stringify([sink])), value }
}

/** The message that parks a key, or with null lets it go. */
export function parkedMessage(topic: string, sink: string, { collection, document, id }: Key, reason: string | null): Outgoing {
  const key = Buffer.from(JSON.stringify([sink, collection, document, id]))
  return { topic, partition: 0, key, value: reason === null ? null : Buffer.from(JSON.stringify({ reason })) }
}

function partsOf(text: string): readonly (string | undefined)[] {
  try {
    const parts: unknown = JSON.parse(text)
    return Array.isArray(parts) && parts.every((part) => typeof part === 'string') ? parts : []
  } catch {
    return []
  }
}

function progressOf({ log, fence, place, stamp, declared, topics }: Readonly<Record<string, JsonValue>>): Progress {
  return {
    log: log as string,
    fence: fence as number,
    place: place === null ? undefined : (place as unknown as SinkPlace),
    stamp: stamp as number,
    declared: declared as string,
    topics: topics as Readonly<Record<string, string>>,
  }
}
