/**
 * An OpenSearch as the destination of tests: what whoever searches it sees, and what its owner may do to it.
 */
import type { JsonValue, RecordValue } from '@rejoin/shared'
import type { Key } from '#server/sinks/sink.js'
import { compareKeys } from '#server/view/view.js'

type Json = Record<string, JsonValue>

/** One request; rejects unless it is answered with 2xx or 404. */
export async function request(url: string, method: string, path: string, body?: unknown): Promise<Json> {
  const text = body === undefined ? undefined : typeof body === 'string' ? body : JSON.stringify(body)
  const type = typeof body === 'string' ? 'application/x-ndjson' : 'application/json'
  const answer = await fetch(url + path, { method, headers: { 'content-type': type }, ...(text === undefined ? {} : { body: text }) })
  const said = (await answer.json()) as Json
  if (!answer.ok && answer.status !== 404) throw new Error(`${method} ${path} ${answer.status}: ${JSON.stringify(said)}`)
  return said
}

export interface Hit {
  readonly _id: string
  readonly _version: number
  readonly _source: Json
}

/** Every document behind an alias or index, tombstones too when it is one that shows them; at most 10,000. */
export async function documents(url: string, index: string): Promise<readonly Hit[]> {
  await request(url, 'POST', `/${index}/_refresh`)
  const found = (await request(url, 'POST', `/${index}/_search`, { size: 10_000, version: true })) as { hits?: { hits: Hit[] } }
  return found.hits?.hits ?? []
}

/** What a search of the alias finds, as rows of the target, ordered by key. */
export async function found(
  url: string,
  alias: string,
  collection = alias,
): Promise<readonly { readonly key: Key; readonly value: RecordValue }[]> {
  const rows = (await documents(url, alias)).map(({ _source: { document, id, rejoin_version: stamp, ...value } }) => {
    if (typeof stamp !== 'number') throw new Error(`${String(id)} has no stamp`)
    return { key: { collection, document, id } as Key, value }
  })
  return rows.sort((a, b) => compareKeys(a.key, b.key))
}
