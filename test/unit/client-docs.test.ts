/**
 * The examples of the client's pages run as they stand, against a scripted relay.
 */
import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { cryptoRandom, systemClock } from '@rejoin/shared'
import type { Client, ClientOptions } from '#client/client.js'
import { assembleClient } from '#client/assembly.js'
import { memory } from '#client/stores/memory.js'
import { sqlite } from '#client/stores/sqlite.js'
import { ScriptedRelay } from '../support/scripted-relay.ts'
import { root } from '../support/sources.ts'

const folder = join(root, 'packages/client/docs')
const clients: Client[] = []
afterEach(async () => {
  await Promise.all(clients.splice(0).map((client) => client.close()))
})

const AsyncFunction = (async () => undefined).constructor as new (...source: string[]) => (...values: unknown[]) => Promise<void>

describe('the pages of the client', () => {
  it.each(readdirSync(folder).filter((name) => name.endsWith('.md')))('%s: its examples run', async (name) => {
    const page = readFileSync(join(folder, name), 'utf8')
    const code = [...page.matchAll(/^```js\n(.*?)^```$/gmsu)].map(([, block]) => block ?? '').join('\n')
    const place = mkdtempSync(join(tmpdir(), 'rejoin-docs-'))
    const relay = new ScriptedRelay()
    relay.script.await = () => ({ code: 'ok', message: '' })
    const printed: unknown[][] = []
    const names = {
      createClient: (options: ClientOptions) => {
        const client = assembleClient(options, {
          clock: systemClock,
          random: Math.random,
          randomBytes: cryptoRandom,
          transport: relay.transport,
          wake: () => () => undefined,
        })
        clients.push(client)
        return client
      },
      memory,
      sqlite: ({ path }: { path: string }) => sqlite({ path: join(place, path) }),
      console: { log: (...values: unknown[]) => void printed.push(values) },
    }
    try {
      await new AsyncFunction(...Object.keys(names), code.replaceAll(/^import .*$/gmu, ''))(...Object.values(names))
      expect(clients.length).toBeGreaterThan(0)
    } finally {
      await Promise.all(clients.splice(0).map((client) => client.close()))
      rmSync(place, { recursive: true, force: true })
    }
  })
})
