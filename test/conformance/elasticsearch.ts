/**
 * The Elasticsearch sink under the conformance kit.
 */
import { CONFORMANCE_SCHEMA, POISON } from '@rejoin/server/testing'
import type { Conformance, Destination, StoredRow } from '@rejoin/server/testing'
import { elasticsearch, openSink } from '@rejoin/server/sinks/elasticsearch'
import type { OpenSubject } from '../support/conformance.ts'
import type { Hit } from '../support/elasticsearch-sink.ts'
import { documents, found, request } from '../support/elasticsearch-sink.ts'
import { startOpensearch } from '../support/servers/opensearch.ts'
import { until } from '../support/until.ts'

const TARGETS = Object.keys(CONFORMANCE_SCHEMA.collections)
const SINKS = 'rejoin-sinks'

/** A node that runs the pipelines of an index's owner too. */
export const INGESTING = { settings: { 'node.roles': 'cluster_manager,data,ingest' } } as const

/** Cases that do not apply, and why. */
export const EXEMPT: Readonly<Record<string, string>> = {
  'frozen forwarder': 'before each request',
  'unique index in the way': 'an index has no unique fields',
  'two rows swap unique values': 'an index has no unique fields',
}

/** Starts an OpenSearch of its own, or uses the one at `url`, in indices of its own. */
export const open: OpenSubject = async (given) => {
  const server = given === undefined ? await startOpensearch(INGESTING) : undefined
  const url = given ?? server?.url ?? ''
  const restart =
    server === undefined
      ? undefined
      : async (): Promise<void> => {
          await server.kill()
          await server.restart()
        }
  // A shard costs files on the disk; one is enough for a test.
  if (server !== undefined)
    await request(url, 'PUT', '/_index_template/one', {
      index_patterns: ['*'],
      template: { settings: { number_of_shards: 1, number_of_replicas: 0 } },
    })
  const under: Conformance = {
    name: 'elasticsearch',
    traits: { transactional: false, strategies: ['state'], readable: true },
    powers: {
      fence: 'it is looked at before each request, not inside of it: a cluster has no transactions',
      guard: true,
      identity: true,
      cursor: true,
    },
    mechanism: 'each document carries our version as its own (external_gte), deleted ones stay as tombstones; a copy of the cursor beside',
    destination: async () => destinationIn(url, restart),
  }
  const { version } = (await request(url, 'GET', '/')) as { version?: { number?: string; distribution?: string } }
  const close = async (): Promise<void> => {
    await server?.kill()
    await server?.stop()
  }
  return { under, server: `${version?.distribution === 'opensearch' ? 'OpenSearch' : 'Elasticsearch'} ${version?.number}`, close }
}

let made = 0

function destinationIn(url: string, restart: (() => Promise<void>) | undefined): Destination {
  const prefix = `rejoin-conformance-${process.pid}-${++made}`
  const aliasOf = (target: string): string => `${prefix}-${target}`
  const wipe = async (): Promise<void> => {
    const indices = Object.keys(await request(url, 'GET', `/${prefix}-*/_alias`)).filter((index) => index.startsWith(prefix))
    for (const index of [...indices, SINKS]) await request(url, 'DELETE', `/${index}`)
  }
  return {
    open: (context) => openSink(elasticsearch({ node: url, index: `${prefix}-{collection}` }).options, context),
    rows: async () => {
      const all: StoredRow[] = []
      for (const [target, { fields }] of Object.entries(CONFORMANCE_SCHEMA.collections)) {
        for (const { key, value } of await found(url, aliasOf(target), target))
          all.push({ key, value: Object.fromEntries(Object.keys(fields).map((field) => [field, value[field] ?? null])) })
      }
      return all
    },
    wipe,
    drop: async (target) => void (await request(url, 'DELETE', `/${aliasOf(target)}-1`)),
    backup: async () => {
      const copies: { readonly index: string; readonly body: unknown; readonly documents: readonly Hit[] }[] = []
      for (const index of [SINKS, ...TARGETS.map((target) => `${aliasOf(target)}-1`)]) {
        const { aliases, mappings } = (await request(url, 'GET', `/${index}`))[index] as { aliases: unknown; mappings: unknown }
        copies.push({ index, body: { aliases, mappings }, documents: await documents(url, index) })
      }
      return async () => {
        await wipe()
        for (const copy of copies) {
          // A forwarder that runs meanwhile may make it anew at once.
          await until(async () => {
            await request(url, 'DELETE', `/${copy.index}`)
            return request(url, 'PUT', `/${copy.index}`, copy.body).then(
              () => true,
              () => false,
            )
          }, `${copy.index} to be put back`)
          const lines = copy.documents.flatMap(({ _id, _version, _source }) => [
            JSON.stringify({ index: { _index: copy.index, _id, version: _version, version_type: 'external' } }),
            JSON.stringify(_source),
          ])
          if (lines.length > 0) await request(url, 'POST', '/_bulk', `${lines.join('\n')}\n`)
        }
      }
    },
    ...(restart === undefined ? {} : { restart }),
    poison: async () => {
      const name = `${prefix}-poison`
      const index = { default_pipeline: name }
      await request(url, 'PUT', `/_ingest/pipeline/${name}`, {
        processors: [{ fail: { if: `ctx.name == '${POISON}'`, message: 'not allowed' } }],
      })
      await request(url, 'PUT', `/_index_template/${name}`, {
        index_patterns: [`${aliasOf('pets')}-*`],
        priority: 1_000,
        template: { settings: { index: { ...index, number_of_shards: 1, number_of_replicas: 0 } } },
      })
      await request(url, 'PUT', `/${aliasOf('pets')}-1/_settings`, { index })
      return async () => {
        await request(url, 'DELETE', `/_index_template/${name}`)
        await request(url, 'PUT', `/${aliasOf('pets')}-1/_settings`, { index: { default_pipeline: null } })
        await request(url, 'DELETE', `/_ingest/pipeline/${name}`)
      }
    },
    tamper: async ({ collection, document, id }, field, value) => {
      const address = encodeURIComponent(`${encodeURIComponent(document)}/${encodeURIComponent(id)}`)
      await request(url, 'POST', `/${aliasOf(collection)}-1/_update/${address}`, { doc: { [field]: value } })
    },
    absent: {
      unique: 'an index has no unique fields',
      ...(restart === undefined ? { restart: 'the server is not ours' } : {}),
    },
    close: wipe,
  }
}
