/**
 * The clinic's relay: documents in DATA, and beside them a SQLite mirror that always equals the records.
 */
import { defineConfig } from '@rejoin/server'
import { sqlite } from '@rejoin/server/sinks/sqlite'
import { data, mirror } from './folder.js'
import { schema } from './schema.ts'

export default defineConfig({
  data,
  schema,
  sinks: { mirror: sqlite({ path: mirror }) },
})
