/**
 * A relay inside an application's own process: one that cannot be made leaves nothing in the way of the next attempt, and one that runs answers over plain HTTP.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createClient, memory } from '@rejoin/client'
import * as Y from 'yjs'
import { afterAll, describe, expect, it } from 'vitest'
import { collection, defineSchema, string } from '@rejoin/shared'
import type { ServerOptions } from '@rejoin/server'
import { createRelay, createServer } from '@rejoin/server'

const data = mkdtempSync(join(tmpdir(), 'rejoin-embedding-'))
afterAll(() => rmSync(data, { recursive: true, force: true }))

const schema = defineSchema({ pets: collection({ name: string() }) })

describe('a relay that cannot be made', () => {
  it('gives its folder back: with better options the same process makes one there', async () => {
    // A function cannot be handed to the thread that runs sinks, which is found out when the log is open already.
    const sinks = { mirror: { module: 'file:///sink.js', options: { path: () => 'mirror.db' } } } as unknown as ServerOptions['sinks']
    await expect(createRelay({ data, schema, sinks })).rejects.toMatchObject({ name: 'SyncError', code: 'bad_option' })
    const relay = await createRelay({ data, schema })
    await relay.close()
  })
})

describe('a document over plain HTTP', () => {
  it('is put together by the relay that runs: as records, and as one update', async () => {
    const server = await createServer({ port: 0, data, schema })
    const client = createClient({ url: server.url, store: memory() })
    const replica = client.open('clinic')
    await replica.whenLoaded()
    await replica.edit(() => replica.ydoc.getMap('pets').set('rex', new Y.Map([['name', 'Rex']]))).wait()
    const get = (accept: string): Promise<Response> => fetch(`${server.url}/v1/documents/clinic`, { headers: { accept } })
    for (let twice = 0; twice < 2; twice++) {
      const records = await get('application/json')
      expect([records.headers.get('rejoin-seq'), await records.json()]).toEqual([
        '1',
        { collections: { pets: { rex: { name: 'Rex' } } }, violations: [] },
      ])
      const doc = new Y.Doc()
      Y.applyUpdate(doc, new Uint8Array(await (await get('application/octet-stream')).arrayBuffer()))
      expect(doc.getMap('pets').toJSON()).toEqual({ rex: { name: 'Rex' } })
    }
    await client.close()
    await server.close()
  })
})
