/**
 * Where functions and forwarding run: in a process of their own beside the relay, which may be killed, and on the thread that made them when there is no file to load them from.
 */
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import Database from 'better-sqlite3'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import * as Y from 'yjs'
import type { Client, Replica } from '@rejoin/client'
import { createClient, memory } from '@rejoin/client'
import type { Server } from '@rejoin/server'
import { createServer, defineProjection } from '@rejoin/server'
import { sqlite } from '@rejoin/server/sinks/sqlite'
import { collection, defineSchema, number, string } from '@rejoin/shared'
import type { Serving } from '../support/cli.ts'
import { runCli, startForward, startServe } from '../support/cli.ts'
import { until } from '../support/until.ts'

const schema = defineSchema({ pets: collection({ name: string(), age: number() }) })
let folder: string
const clients: Client[] = []
const running: Serving[] = []
const servers: Server[] = []
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'rejoin-elsewhere-'))
})
afterEach(async () => {
  for (const client of clients.splice(0)) await client.close()
  for (const server of servers.splice(0)) await server.close()
  for (const { child, ended } of running.splice(0)) {
    child.kill('SIGKILL')
    await ended
  }
  rmSync(folder, { recursive: true, force: true })
})

async function connect(url: string): Promise<Replica> {
  const client = createClient({ url, store: memory() })
  clients.push(client)
  const replica = client.open('clinic')
  await replica.whenSynced()
  return replica
}
const put = (replica: Replica, id: string, name: string, age = 1) =>
  replica.edit(() =>
    replica.ydoc.getMap('pets').set(
      id,
      new Y.Map<unknown>([
        ['name', name],
        ['age', age],
      ]),
    ),
  )
const rows = (file: string, statement: string): unknown[] => {
  if (!existsSync(join(folder, file))) return []
  const db = new Database(join(folder, file), { readonly: true })
  try {
    return db.prepare(statement).raw().all()
  } catch {
    // The tables are not there yet.
    return []
  } finally {
    db.close()
  }
}

describe('rejoin forward', () => {
  const literal = (module: string): string => JSON.stringify(import.meta.resolve(module))
  const start = async (kind: typeof startServe, ...args: readonly string[]): Promise<Serving> => {
    const serving = await kind(['--data', join(folder, 'data'), ...args], { cwd: folder })
    running.push(serving)
    return serving
  }
  const kill = async (serving: Serving): Promise<void> => {
    serving.child.kill('SIGKILL')
    await serving.ended
  }

  it('keeps the sinks of a relay in another process, goes on where it was killed, and is the only one', async () => {
    writeFileSync(
      join(folder, 'rejoin.config.ts'),
      `import { defineConfig } from ${literal('@rejoin/server')}
       import { sqlite } from ${literal('@rejoin/server/sinks/sqlite')}
       import { collection, defineSchema, number, string } from ${literal('@rejoin/shared')}
       export default defineConfig({
         schema: defineSchema({ pets: collection({ name: string(), age: number() }) }),
         sinks: { mirror: sqlite({ path: 'mirror.db' }) },
       })`,
    )
    const early = await runCli(['forward', '--port', '0', '--data', join(folder, 'data')], { cwd: folder })
    expect([early.code, early.stderr]).toEqual([
      2,
      expect.stringMatching(/there is no log in .*data; start the relay on this folder first/u),
    ])
    const relay = await start(startServe, '--forward', 'elsewhere')
    const clinic = await connect(relay.url)
    await put(clinic, 'rex', 'Rex').wait({ to: 'relay' })
    await expect(put(clinic, 'ida', 'Ida').wait({ to: 'sink:mirror' })).rejects.toMatchObject({ code: 'not_found' })
    expect([existsSync(join(folder, 'data', 'view.db')), (await fetch(`${relay.url}/v1/sinks`)).status]).toEqual([false, 404])

    const first = await start(startForward)
    await until(() => rows('mirror.db', 'SELECT id FROM pets').length === 2)
    const second = await runCli(['forward', '--port', '0', '--data', join(folder, 'data')], { cwd: folder })
    expect([second.code, second.stderr]).toEqual([
      1,
      expect.stringMatching(/rejoin forward, process \d+, keeps the view and the sinks of .*data/u),
    ])
    // What is written while it runs comes without anybody telling it; so does what is written while it does not.
    await put(clinic, 'tom', 'Tom').wait({ to: 'relay' })
    await until(() => rows('mirror.db', 'SELECT id FROM pets').length === 3)
    await kill(first)
    const edit = put(clinic, 'uma', 'Uma')
    await edit.wait({ to: 'relay' })
    const { url } = await start(startForward)
    const receipt = await fetch(`${url}/v1/sinks/mirror?after=${edit.receipt}&timeout=10`)
    expect([receipt.status, await receipt.json()]).toEqual([200, { reached: true }])
    expect(rows('mirror.db', 'SELECT name FROM pets ORDER BY name')).toEqual([['Ida'], ['Rex'], ['Tom'], ['Uma']])
    const verified = await runCli(['sinks', 'verify', 'mirror', '--url', url], { cwd: folder })
    expect([verified.code, verified.stdout]).toEqual([0, expect.stringMatching(/^mirror: equal at version \d+ \(4 rows, 0 parked\)\n$/u)])
    await until(async () => /rejoin_sink_lag_entries\{sink="mirror"\} 0\n/u.test(await (await fetch(`${url}/metrics`)).text()))
    const lines = await (await fetch(`${url}/v1/changes`)).text()
    expect(lines).toContain('"id":"uma"')
  })
})

describe('functions given to createServer', () => {
  it('run on this thread, and what they throw parks a record alone', async () => {
    const threads = new Set<boolean>()
    const card = defineProjection(schema, {
      from: 'pets',
      to: 'cards',
      revision: 1,
      fields: { title: string() },
      select: ({ pet }) => {
        // In the worker this would be another set.
        threads.add(true)
        if (pet.age === 0) throw new Error('too young')
        return { title: `${pet.name}, ${pet.age}` }
      },
    })
    const sinks = { cards: sqlite({ path: join(folder, 'cards.db'), projection: card }) }
    const server = await createServer({ port: 0, data: join(folder, 'data'), schema, sinks })
    servers.push(server)
    const clinic = await connect(server.url)
    const edits = Array.from({ length: 700 }, (_, n) => put(clinic, `p${n + 1}`, `Pet ${n}`, n + 1))
    await edits.at(-1)?.wait({ to: 'sink:cards' })
    expect([rows('cards.db', 'SELECT count(*) FROM cards'), threads.size]).toEqual([[[700]], 1])
    await expect(put(clinic, 'p0', 'Pet 0', 0).wait({ to: 'sink:cards' })).rejects.toMatchObject({
      code: 'sink_parked',
      reason: expect.stringContaining('too young') as string,
    })
    await put(clinic, 'p0', 'Pet 0', 1).wait({ to: 'sink:cards' })
    expect(rows('cards.db', "SELECT title FROM cards WHERE id = 'p0'")).toEqual([['Pet 0, 1']])
  })
})
