/**
 * The Node half of a consumer: a relay of its own, a writer, a reader.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createClient } from '@rejoin/client'
import { sqlite } from '@rejoin/client/sqlite'
import type { Server } from '@rejoin/server'
import { createServer, defineConfig, jwt } from '@rejoin/server'
import { sqlite as mirror } from '@rejoin/server/sinks/sqlite'
import { SyncError } from '@rejoin/shared'
import { nobody, schema } from './schema.js'

const data = mkdtempSync(join(tmpdir(), 'consumer-'))
export const withTokens = defineConfig({ auth: jwt({ secret: 'x'.repeat(32), algorithms: ['HS256'] }) })
const server: Server = await createServer(
  defineConfig({ port: 0, data, schema, sinks: { mirror: mirror({ path: join(data, 'mirror.db') }) } }),
)
const signal = AbortSignal.timeout(10_000)

const writer = createClient({ url: server.url, store: sqlite({ path: join(data, 'writer.db') }) })
const written = writer.open('consumer')
await written.whenLoaded({ signal })
await written.edit(() => written.ydoc.getMap('greetings').set('first', 'hello')).wait({ to: 'relay', signal })

const reader = createClient({ url: server.url, store: sqlite({ path: join(data, 'reader.db') }) })
const read = reader.open('consumer')
await read.whenSynced({ signal })
let refused = ''
try {
  reader.open('')
} catch (error) {
  if (error instanceof SyncError) refused = error.code
}
process.stdout.write(
  JSON.stringify({
    read: read.ydoc.getMap('greetings').get('first'),
    refused,
    fields: Object.keys(nobody),
    storage: writer.status.get().storage.name,
  }),
)

await Promise.all([writer.close(), reader.close()])
await server.close()
rmSync(data, { recursive: true })
