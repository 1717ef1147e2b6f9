/**
 * Software of other people reads what we publish: a stock Kafka Connect with Debezium's JDBC sink, as the docs show it, keeps a Postgres table equal to the pets. Takes 20 s, so it runs with REJOIN_CAMPAIGN=connect or REJOIN_TEST=all only.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, it } from 'vitest'
import * as Y from 'yjs'
import type { Client, Replica } from '@rejoin/client'
import { createClient, memory } from '@rejoin/client'
import type { Serving } from '../support/cli.ts'
import { startServe } from '../support/cli.ts'
import { sql } from '../support/postgres-sink.ts'
import { requires } from '../support/requires.ts'
import { describeConnect, startConnect } from '../support/servers/connect.ts'
import type { ConnectServer } from '../support/servers/connect.ts'
import { describeKafka, startKafka } from '../support/servers/kafka.ts'
import { describePostgres, startPostgres } from '../support/servers/postgres.ts'
import type { TestServer } from '../support/servers/server.ts'
import { until } from '../support/until.ts'

const literal = (module: string): string => JSON.stringify(import.meta.resolve(module))
const configOf = (brokers: string, fields: string): string => `
import { defineConfig } from ${literal('@rejoin/server')}
import { kafka } from ${literal('@rejoin/server/sinks/kafka')}
import { boolean, collection, defineSchema, json, number, string } from ${literal('@rejoin/shared')}

export default defineConfig({
  schema: defineSchema({ pets: collection({ ${fields} }) }),
  sinks: { stream: kafka({ brokers: '${brokers}', topic: '{collection}', envelope: 'debezium' }) },
})
`
const FIELDS = 'name: string(), age: number(), alive: boolean(), extra: json()'

type Pet = Readonly<Record<string, unknown>>

/** Two Java servers and a database for one test. */
const isWanted = process.env['REJOIN_CAMPAIGN'] === 'connect' || process.env['REJOIN_TEST'] === 'all'
const describeCampaign = requires('20 s', () => (isWanted ? undefined : 'it runs with REJOIN_CAMPAIGN=connect or REJOIN_TEST=all'))

describeCampaign('a stock Kafka Connect', () => {
  describePostgres('with PostgreSQL', () => {
    describeKafka('and Kafka', () => {
      describeConnect('and Kafka Connect', () => {
        it(
          'keeps a table equal to the pets through creates, updates, deletes, a kill of the forwarder and an additive migration',
          story,
          180_000,
        )
      })
    })
  })

  const folder = mkdtempSync(join(tmpdir(), 'rejoin-connect-'))
  const servers: TestServer[] = []
  let serving: Serving | undefined
  let client: Client | undefined
  afterAll(async () => {
    await client?.close()
    serving?.child.kill('SIGKILL')
    await serving?.ended
    for (const server of servers.reverse()) {
      await server.kill()
      await server.stop()
    }
    rmSync(folder, { recursive: true, force: true })
  })

  const started = async <S extends TestServer>(server: Promise<S>): Promise<S> => {
    servers.push(await server)
    return server
  }

  async function story(): Promise<void> {
    const [postgres, kafka] = await Promise.all([started(startPostgres({ settings: { fsync: 'off' } })), started(startKafka())])
    const database = await postgres.database()
    const serve = async (fields: string, ...args: readonly string[]): Promise<Serving> => {
      writeFileSync(join(folder, 'rejoin.config.ts'), configOf(kafka.url, fields))
      serving = await startServe(['--data', join(folder, 'data'), ...args], { cwd: folder })
      return serving
    }
    const { url } = await serve(FIELDS)
    const port = new URL(url).port
    client = createClient({ url, store: memory() })
    const clinic = client.open('clinic')
    await clinic.whenSynced()
    await put(clinic, 'rex', { name: 'Rex', age: 3.5, alive: true, extra: { a: [1, 'x'] } }).wait({ to: 'sink:stream' })
    const connect = await started(startConnect({ brokers: kafka.url, topics: ['pets'], database }))
    expectDocs(connect)

    const equal = async (what: string, ...columns: readonly string[]): Promise<void> => {
      await until(
        async () => sameText(await tableOf(database, columns)) === sameText(petsOf(clinic, columns)),
        `the table after ${what}`,
        60_000,
      )
    }
    const all = ['name', 'age', 'alive', 'extra']
    await equal('the first pet', ...all)

    for (let i = 0; i < 60; i++) put(clinic, `p${i}`, { name: `pet ${i}`, age: i / 3, alive: i % 2 === 0, extra: i % 3 === 0 ? null : [i] })
    for (let i = 0; i < 60; i += 2) put(clinic, `p${i}`, { name: `renamed ${i}`, age: null, alive: null, extra: 'text' })
    for (let i = 0; i < 60; i += 5) remove(clinic, `p${i}`)
    await equal('creates, updates and deletes', ...all)

    // Killed while it publishes: what it did not commit nobody sees, what it committed is not published anew.
    for (let i = 0; i < 200; i++) put(clinic, `q${i}`, { name: `q ${i}`, age: i, alive: true, extra: null })
    const last = put(clinic, 'q199', { name: 'last', age: 0, alive: false, extra: {} })
    await last.wait({ to: 'relay' })
    serving?.child.kill('SIGKILL')
    await serving?.ended
    for (let i = 0; i < 200; i += 3) remove(clinic, `q${i}`)
    await serve(FIELDS, '--port', port)
    await equal('a kill of the forwarder', ...all)

    serving?.child.kill('SIGTERM')
    await serving?.ended
    await serve(`${FIELDS}, weight: number()`, '--port', port)
    put(clinic, 'rex', { name: 'Rex', age: 4, alive: true, extra: null, weight: 12.25 })
    await equal('an additive migration', ...all, 'weight')
    expect(await sql(database, 'SELECT count(*)::integer AS pets FROM pets')).toEqual([{ pets: petsOf(clinic, all).length }])
    expect(await sql(database, "SELECT name, weight FROM pets WHERE document = 'clinic' AND id = 'rex'")).toEqual([
      { name: 'Rex', weight: 12.25 },
    ])
  }
})

function put(clinic: Replica, id: string, pet: Pet): ReturnType<Replica['edit']> {
  return clinic.edit(() => clinic.ydoc.getMap('pets').set(id, new Y.Map(Object.entries(pet))))
}

function remove(clinic: Replica, id: string): void {
  clinic.edit(() => clinic.ydoc.getMap('pets').delete(id))
}

type Rows = readonly (readonly unknown[])[]

/** What the client has. */
function petsOf(clinic: Replica, columns: readonly string[]): Rows {
  const pets: [string, Pet][] = Object.entries(clinic.ydoc.getMap('pets').toJSON())
  return pets.map(([id, pet]) => ['clinic', id, ...columns.map((column) => pet[column] ?? null)])
}

/** What Connect wrote; none while there is no such table or column. */
async function tableOf(database: string, columns: readonly string[]): Promise<Rows> {
  const rows = await sql(database, 'SELECT * FROM pets').catch(() => [])
  return rows.map((row) => [row['document'], row['id'], ...columns.map((column) => row[column] ?? null)])
}

function sameText(rows: Rows): string {
  return rows
    .map((row) => JSON.stringify(row))
    .sort()
    .join('\n')
}

/** The two files in the docs are the two that run here, but for addresses, names and folders. */
function expectDocs(connect: ConnectServer): void {
  const page = readFileSync(new URL('../../packages/server/docs/sink-kafka.md', import.meta.url), 'utf8')
  const own = /^(bootstrap\.servers|offset\.storage\.|name|connection\.|#)/u
  for (const file of ['worker.properties', 'sink.properties']) {
    const [, shown = ''] = new RegExp(`<!-- connect: ${file} -->\\n\`\`\`properties\\n([^\`]*)\`\`\``, 'u').exec(page) ?? []
    const lines = shown.split('\n').filter((line) => line !== '' && !own.test(line))
    expect(lines.length, file).toBeGreaterThan(4)
    expect(readFileSync(join(connect.folder, file), 'utf8').split('\n')).toEqual(expect.arrayContaining(lines))
  }
}
