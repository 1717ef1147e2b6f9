/** The configuration of the relay that forward-relay.ts starts: none, one or five sinks. */
import { join } from 'node:path'
import { collection, defineSchema, number, string } from '@rejoin/shared'
import type { SinkSpec } from '@rejoin/server'
import { defineConfig } from '@rejoin/server'
import { jsonl } from '@rejoin/server/sinks/jsonl'
import { postgres } from '@rejoin/server/sinks/postgres'
import { sqlite } from '@rejoin/server/sinks/sqlite'

const { BENCH_FOLDER: folder = '.', BENCH_URL: url, BENCH_SINKS: count = '0' } = process.env

const all: Readonly<Record<string, SinkSpec>> = {
  warehouse: postgres({ url, schema: 'bench' }),
  copy: postgres({ url, schema: 'bench_copy' }),
  mirror: sqlite({ path: join(folder, 'mirror.db') }),
  second: sqlite({ path: join(folder, 'second.db') }),
  lines: jsonl({ path: join(folder, 'lines') }),
}

export default defineConfig({
  schema: defineSchema({ pets: collection({ name: string(), kind: string(), sentAt: number() }) }),
  sinks: Object.fromEntries(Object.entries(all).slice(0, Number(count))),
})
