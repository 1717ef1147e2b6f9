/**
 * The clinic's relay: documents in DATA, and beside them a SQLite mirror that always equals the records.
 */
import { join } from 'node:path'
import { defineConfig } from '@rejoin/server'
import { sqlite } from '@rejoin/server/sinks/sqlite'
import { schema } from './schema.ts'

const data = process.env['DATA'] ?? 'rejoin-data'

export default defineConfig({
  data,
  schema,
  sinks: { mirror: sqlite({ path: join(data, 'mirror.db') }) },
})
