/**
 * A relay inside an application's own process: what it is given cannot be meant, and the next attempt finds nothing in its way.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { collection, defineSchema, string } from '@rejoin/shared'
import type { ServerOptions } from '@rejoin/server'
import { createRelay } from '@rejoin/server'

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
