/**
 * The real servers that other suites need: they start, answer, stand still, come back, and leave nothing behind.
 */
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { fileURLToPath } from 'node:url'
import { createConnection } from 'mysql2/promise'
import pg from 'pg'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { ask } from '../support/servers/ask.ts'
import { describeMariadb, startMariadb } from '../support/servers/mariadb.ts'
import { describeNats, startNats } from '../support/servers/nats.ts'
import { makePlace } from '../support/servers/place.ts'
import { describePostgres, startPostgres } from '../support/servers/postgres.ts'
import { isAlive, isStopped, processTree } from '../support/servers/processes.ts'
import { describeRedis, startRedis } from '../support/servers/redis.ts'
import type { TestServer } from '../support/servers/server.ts'
import { until, within } from '../support/until.ts'

type Served = TestServer & { readonly url: string }

describePostgres('PostgreSQL for tests', () => {
  lives(startPostgres, selectFromPostgres, (server) => {
    it('gives each test a database of its own', async () => {
      const [one, other] = await Promise.all([server().database(), server().database()])
      expect(one).not.toBe(other)
      expect([await selectFromPostgres(one), await selectFromPostgres(other)]).toEqual([1, 1])
    })
  })

  it('ends with the process that started it, also when that is killed, and the next start removes the folder', async () => {
    const { starter, servers } = await run('postgres')
    // More than one: its children are not in its process group.
    expect(servers.length).toBeGreaterThan(3)
    expect(foldersOf(starter)).toHaveLength(1)
    const ended = once(starter, 'exit')
    starter.kill('SIGKILL')
    await ended
    await until(() => !servers.some(isAlive), 'the server to end after its starter')
    rmSync((await makePlace()).folder, { recursive: true })
    expect(foldersOf(starter)).toEqual([])
  })
})

describeMariadb('MariaDB for tests', () => {
  lives(startMariadb, async (url) => {
    const connection = await createConnection(url)
    try {
      const [rows] = await connection.query('SELECT 1 AS one')
      return rows
    } finally {
      connection.destroy()
    }
  })
})

describeRedis('Redis for tests', () => {
  lives(startRedis, (_url, port) => ask(port, 'PING\r\n'))

  it('is stopped by Ctrl-C on `npm run servers`, which removes its folder', async () => {
    const { starter, servers } = await run('redis')
    const ended = once(starter, 'exit')
    starter.kill('SIGINT')
    expect(await ended).toEqual([0, null])
    expect(servers.some(isAlive)).toBe(false)
    expect(foldersOf(starter)).toEqual([])
  })
})

describeNats('NATS for tests', () => lives(startNats, (_url, port) => ask(port, '')))

// Kafka, Connect and OpenSearch run by the same mechanism, take seconds to start, and are started by the suites of their sinks.

/** What every server does, and `more` before its end. The cases share one server and follow each other. */
function lives<S extends Served>(
  start: () => Promise<S>,
  question: (url: string, port: number) => Promise<unknown>,
  more?: (server: () => S) => void,
): void {
  let server: S
  beforeAll(async () => {
    server = await start()
  })
  afterAll(() => server.stop())
  const asked = (): Promise<unknown> => question(server.url, server.port)

  it('answers, and no process of it belongs to root', async () => {
    expect(await asked()).toBeTruthy()
    expect(server.processes().map((pid) => statSync(`/proc/${pid}`).uid)).not.toContain(0)
    expect(server.processes()).not.toEqual([])
  })

  it('stands still while frozen and goes on when thawed', async () => {
    await server.freeze()
    expect(server.processes().every(isStopped)).toBe(true)
    const answer = asked()
    await expect(within(answer, 'a frozen server', 100)).rejects.toThrow('no answer')
    await server.thaw()
    expect(await answer).toBeTruthy()
  })

  it('comes back at the same address after a crash', async () => {
    const before = server.processes()
    await server.kill()
    expect(before.some(isAlive)).toBe(false)
    await expect(asked()).rejects.toThrow()
    await server.restart()
    expect(await asked()).toBeTruthy()
  })

  more?.(() => server)

  it('leaves no process and no folder behind', async () => {
    const before = server.processes()
    // Also one that stands still can be stopped.
    await server.freeze()
    await server.stop()
    expect(before.some(isAlive)).toBe(false)
    expect(existsSync(server.folder)).toBe(false)
  })
}

async function selectFromPostgres(url: string): Promise<unknown> {
  const client = new pg.Client(url)
  client.on('error', () => undefined)
  try {
    await client.connect()
    const { rows } = await client.query<{ one: number }>('SELECT 1 AS one')
    return rows[0]?.one
  } finally {
    await client.end()
  }
}

/** `npm run servers -- <name>` without npm between; resolves when the server runs. */
async function run(name: string): Promise<{ starter: ChildProcess; servers: readonly number[] }> {
  const script = fileURLToPath(new URL('../support/servers/run.ts', import.meta.url))
  const starter = spawn(process.execPath, ['--import', 'jiti/register', script, name], { stdio: ['ignore', 'pipe', 'inherit'] })
  let output = ''
  starter.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()))
  await until(() => output.includes('# Ctrl-C'), 'the server to run', 30_000)
  expect(output).toMatch(/^export [A-Z]+_URL=[a-z]+:\/\/\S+:\d+\/\w+\n#/u)
  return { starter, servers: processTree(starter.pid ?? 0).slice(1) }
}

function foldersOf({ pid }: ChildProcess): string[] {
  return readdirSync(tmpdir()).filter((name) => name.startsWith(`rejoin-server-${pid}-`))
}
