/**
 * What an Elasticsearch sink keeps of itself in the cluster (step 8 of the path): one document with the log it is written from, its fence, and a copy of its place.
 */
import type { JsonValue } from '@rejoin/shared'
import { SyncError } from '@rejoin/shared'
import type { Ask, Body } from './elasticsearch-http.ts'
import { objectOf, textOf } from './elasticsearch-http.ts'
import type { Key, SinkPlace } from './sink.ts'

const INDEX = 'rejoin-sinks'
/** Tries against somebody who writes the document at the same time. */
const TRIES = 5

/** The document. */
export interface Notebook {
  readonly log: string
  readonly fence: number
  readonly place: SinkPlace | undefined
  /** The highest stamp that was sent. */
  readonly stamp: number
  /** Written index → its uuid: one that was dropped, or restored from a snapshot, has another. */
  readonly uuids: Readonly<Record<string, string>>
}

/** As it lies there, and where it stood when it was read. */
interface Found {
  readonly notebook: Notebook
  readonly query: string
}

export interface CursorDocument {
  read(): Promise<Notebook | undefined>
  /** Replaces it by what `next` makes of it; `next` may give undefined to leave it. Rejects when others write it all the time. */
  change(next: (notebook: Notebook | undefined) => Notebook | undefined): Promise<Notebook | undefined>
  drop(): Promise<void>
}

export function createCursorDocument(ask: Ask, sink: string): CursorDocument {
  const path = `/${INDEX}/_doc/${encodeURIComponent(`rejoin-cursor-${sink}`)}`
  const find = async (): Promise<Found | undefined> => {
    const { status, body } = await ask({ method: 'GET', path, expect: [404] })
    if (status === 404 || body['found'] !== true) return undefined
    return {
      notebook: notebookOf(objectOf(body['_source'])),
      query: `if_seq_no=${Number(body['_seq_no'])}&if_primary_term=${Number(body['_primary_term'])}`,
    }
  }
  const make = (): Promise<unknown> =>
    ask({
      method: 'PUT',
      path: `/${INDEX}`,
      // Nobody searches it; one copy beside, where there is another machine.
      body: { settings: { number_of_shards: 1, auto_expand_replicas: '0-1' }, mappings: { enabled: false } },
      expect: [400],
    })
  return {
    read: async () => (await find())?.notebook,
    change: async (next) => {
      for (let i = 0; i < TRIES; i++) {
        const found = await find()
        const notebook = next(found?.notebook)
        if (notebook === undefined) return undefined
        if (found === undefined) await make()
        const { status } = await ask({
          method: 'PUT',
          path: `${path}?${found?.query ?? 'op_type=create'}`,
          body: bodyOf(notebook),
          expect: [409],
        })
        if (status !== 409) return notebook
      }
      throw new SyncError('overloaded', `sink ${sink}: others write its document in ${INDEX} all the time`)
    },
    drop: async () => {
      await ask({ method: 'DELETE', path: `${path}?refresh=true`, expect: [404] })
      const { status, body } = await ask({ method: 'GET', path: `/${INDEX}/_count`, expect: [404] })
      if (status !== 404 && body['count'] === 0) await ask({ method: 'DELETE', path: `/${INDEX}`, expect: [404] })
    },
  }
}

/** What tells each of these indices, or what an alias stands for, from a later one of its name, and from itself before a snapshot was restored over it. */
export async function uuidsOf(ask: Ask, indices: readonly string[]): Promise<Readonly<Record<string, string>>> {
  const filter = 'filter_path=*.settings.index.uuid,*.settings.index.history_uuid'
  const { body } = await ask({ method: 'GET', path: `/${indices.join(',')}/_settings?ignore_unavailable=true&${filter}` })
  return Object.fromEntries(
    Object.entries(body).map(([index, value]) => {
      const { uuid, history_uuid: history } = objectOf(objectOf(objectOf(value)['settings'])['index'])
      return [index, typeof history === 'string' ? `${textOf(uuid)}/${history}` : textOf(uuid)]
    }),
  )
}

function bodyOf({ place, ...rest }: Notebook): Body {
  return { ...rest, place: place === undefined ? null : { ...place } } as Record<string, JsonValue>
}

function notebookOf({ log, fence, stamp, uuids, place }: Body): Notebook {
  return {
    log: textOf(log),
    fence: Number(fence),
    stamp: Number(stamp),
    uuids: objectOf(uuids) as Readonly<Record<string, string>>,
    place: place === null || place === undefined ? undefined : placeOf(objectOf(place)),
  }
}

function placeOf({ view, version, mark, refreshed }: Body): SinkPlace {
  return {
    view: textOf(view),
    version: Number(version),
    ...(typeof mark === 'string' ? { mark } : {}),
    ...(refreshed === undefined ? {} : { refreshed: refreshed as Key | null }),
  }
}
