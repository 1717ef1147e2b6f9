/**
 * Sinks as an operator meets them: a relay in a process of its own, with auth, a mirror and a projection in SQLite files, steered from another process by its address and a secret.
 */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import Database from 'better-sqlite3'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import * as Y from 'yjs'
import type { Client, Replica } from '@rejoin/client'
import { createClient, memory } from '@rejoin/client'
import type { SinkReport } from '#server/forwarding/commands.js'
import type { Ended, Serving } from '../support/cli.ts'
import { runCli, startCli, startServe } from '../support/cli.ts'
import { until } from '../support/until.ts'

const folder = mkdtempSync(join(tmpdir(), 'rejoin-sinks-cli-'))
const data = join(folder, 'data')
const jwtSecret = 'a secret of at least thirty-two bytes, for HS256'
const databaseSecret = 'the-password-of-a-database'
/** Everything that any command or relay wrote. */
let written = ''
let serving: Serving
let client: Client
let clinic: Replica
const others: Serving[] = []
const tokens = new Map<string, string>()

const literal = (module: string): string => JSON.stringify(import.meta.resolve(module))
const CONFIG = `
import { readFileSync } from 'node:fs'
import { defineConfig, defineProjection, jwt } from ${literal('@rejoin/server')}
import { postgres } from ${literal('@rejoin/server/sinks/postgres')}
import { sqlite } from ${literal('@rejoin/server/sinks/sqlite')}
import { collection, defineSchema, number, string } from ${literal('@rejoin/shared')}

const schema = defineSchema({ pets: collection({ name: string(), age: number() }) })
const card = defineProjection(schema, {
  from: 'pets', to: 'cards', revision: 1, fields: { title: string() },
  select: ({ pet }) => {
    if (pet.name === 'Endless') for (;;);
    return { title: pet.name + ', ' + pet.age }
  },
})
export default defineConfig({
  schema,
  auth: jwt({ secret: readFileSync('jwt.secret', 'utf8') }),
  sinks: { mirror: sqlite({ path: 'mirror.db' }), cards: sqlite({ path: 'cards.db', projection: card, after: 'mirror' }),
    down: postgres({ url: 'postgres://vet:${databaseSecret}@127.0.0.1:9/clinic' }) },
})
`

async function run(args: readonly string[]): Promise<Ended> {
  const ended = await runCli(args, { cwd: folder })
  written += ended.stdout + ended.stderr
  return ended
}
/** `rejoin sinks …` with the secret of the data folder. */
const sinks = (...args: readonly string[]): Promise<Ended> => run(['sinks', ...args, '--url', serving.url, '--data', data])
const list = async (url = serving.url, folderOf = data): Promise<Record<string, SinkReport>> => {
  const headers = { authorization: `Bearer ${readFileSync(join(folderOf, 'admin-secret'), 'utf8').trim()}` }
  const { sinks: found } = (await (await fetch(`${url}/v1/sinks`, { headers })).json()) as { sinks: SinkReport[] }
  return Object.fromEntries(found.map((report) => [report.name, report]))
}
const stateOf = async (name: string, ...at: Parameters<typeof list>): Promise<string | undefined> => (await list(...at))[name]?.state
const token = async (name: string, ...args: readonly string[]): Promise<string> => {
  const { stdout } = await runCli(['token', '--secret-file', join(folder, 'jwt.secret'), '--sub', name, ...args])
  writeFileSync(join(folder, `${name}.token`), stdout)
  tokens.set(name, stdout.trim())
  return stdout.trim()
}
const rows = (file: string, statement: string): unknown[] => {
  const db = new Database(join(folder, file))
  try {
    return db.prepare(statement).raw().all()
  } finally {
    db.close()
  }
}
const change = (file: string, statement: string): void => {
  const db = new Database(join(folder, file))
  db.exec(statement)
  db.close()
}
/** One edit, once it is in these sinks. */
async function put(id: string, name: string, age: number, ...into: readonly string[]): Promise<void> {
  const edit = clinic.edit(() =>
    clinic.ydoc.getMap('pets').set(
      id,
      new Y.Map<unknown>([
        ['name', name],
        ['age', age],
      ]),
    ),
  )
  await edit.wait({ to: 'relay' })
  for (const sink of into) await edit.wait({ to: `sink:${sink}` })
}

beforeAll(async () => {
  writeFileSync(join(folder, 'jwt.secret'), `${jwtSecret}\n`)
  writeFileSync(join(folder, 'rejoin.config.ts'), CONFIG)
  const [vet] = await Promise.all([
    token('vet', '--doc', '*=write'),
    token('operator', '--admin'),
    token('nurse', '--doc', 'clinic-*=write'),
  ])
  serving = await startServe(['--data', data], { cwd: folder })
  client = createClient({ url: serving.url, store: memory(), token: vet })
  clinic = client.open('clinic')
  await clinic.whenSynced()
  // What the view takes stock of when it is made is no change.
  await until(async () => {
    const { mirror, cards } = await list()
    return mirror?.state === 'current' && cards?.state === 'current'
  })
  await put('rex', 'Rex', 3, 'mirror', 'cards')
})
afterAll(async () => {
  await client.close()
  for (const { child, ended } of [serving, ...others]) {
    child.kill('SIGKILL')
    await ended
  }
  rmSync(folder, { recursive: true, force: true })
})

describe('rejoin sinks', () => {
  it('is for who can read the secret in the data folder, or has a token with admin', async () => {
    expect(statSync(join(data, 'admin-secret')).mode & 0o777).toBe(0o600)
    const at = ['sinks', 'list', '--url', serving.url]
    const [secret, operator, nurse, nobody, noRelay] = await Promise.all([
      run([...at, '--data', data]),
      run([...at, '--token-file', 'operator.token']),
      run([...at, '--token-file', 'nurse.token']),
      run(at),
      run(['sinks', 'verify', 'mirror', '--url', 'http://127.0.0.1:9']),
    ])
    expect([secret.code, operator.code, operator.stdout.slice(0, 4)]).toEqual([0, 0, 'SINK'])
    expect(secret.stdout).toMatch(
      /^SINK +KIND +STATE +CURSOR +LAG +ROWS\/S +PARKED +DEAD +LAST PROOF\nmirror +sqlite +current +1 +0 +\d+ +0 +0 +none\ncards +sqlite +current /u,
    )
    expect([nurse.code, nurse.stderr]).toEqual([
      2,
      expect.stringMatching(/nurse is no administrator.*--token-file with a token that has admin/u),
    ])
    expect([nobody.code, nobody.stderr]).toEqual([2, expect.stringMatching(/no token was given.*--token-file/u)])
    expect([noRelay.code, noRelay.stderr]).toEqual([
      2,
      expect.stringMatching(/no relay answers at http:\/\/127\.0\.0\.1:9 .*rejoin serve/u),
    ])
    const statuses = ['', 'nurse', 'operator'].map(async (name) => {
      const headers = { authorization: `Bearer ${tokens.get(name) ?? ''}` }
      const answers = await Promise.all([
        fetch(`${serving.url}/v1/sinks`, { headers }),
        fetch(`${serving.url}/v1/sinks/mirror/pause`, { method: 'POST', headers, body: '{"x":1}' }),
        fetch(`${serving.url}/v1/sinks/nope/pause`, { method: 'POST', headers }),
        fetch(`${serving.url}/v1/sinks/mirror/explode`, { method: 'POST', headers }),
      ])
      return answers.map(({ status }) => status)
    })
    expect(await Promise.all(statuses)).toEqual([
      [401, 401, 401, 401],
      [403, 403, 403, 403],
      [200, 400, 404, 404],
    ])
  })

  it('verify prints that a sink is equal, or what differs; repair mends it', async () => {
    const equal = await sinks('verify', 'mirror')
    expect([equal.code, equal.stdout]).toEqual([0, expect.stringMatching(/^mirror: equal at version \d+ \(1 rows, 0 parked\)\n$/u)])
    change('mirror.db', "UPDATE pets SET name = 'Somebody else'")
    const different = await sinks('verify', 'mirror')
    expect([different.code, different.stdout]).toEqual([
      1,
      expect.stringMatching(/^mirror: NOT EQUAL at version \d+[^\n]*\n {2}rows: different\n[\s\S]*differs {2}pets clinic\/rex\n$/u),
    ])
    expect((await list())['mirror']?.proof).toMatchObject({ equal: false })
    const repaired = await sinks('repair', 'mirror')
    expect([repaired.code, repaired.stdout]).toEqual([0, expect.stringMatching(/^mirror: 1 row repaired\nmirror: equal at version/u)])
    expect(rows('mirror.db', 'SELECT name FROM pets')).toEqual([['Rex']])
    const [rowsOnly, wrong] = await Promise.all([sinks('verify', 'mirror', '--proof', 'rows'), sinks('verify', 'miror')])
    expect([rowsOnly.code, rowsOnly.stdout]).toEqual([0, expect.stringMatching(/^mirror: the proof of rows holds at version/u)])
    expect([wrong.code, wrong.stderr]).toEqual([2, expect.stringContaining('there is no sink "miror"')])
  })

  it('pause holds a sink, and who waits for it is told; resume goes on', async () => {
    expect((await sinks('pause', 'mirror')).stdout).toMatch(/^mirror: paused at version/u)
    await put('rex', 'Rex', 4)
    const waiting = clinic.edit(() => clinic.ydoc.getMap('pets').set('tom', new Y.Map<unknown>([['name', 'Tom']])))
    await expect(waiting.wait({ to: 'sink:mirror' })).rejects.toMatchObject({ code: 'sink_paused' })
    await until(async () => (await list())['mirror']?.lag.entries === 2)
    // The other one may not pass it.
    expect(rows('cards.db', 'SELECT title FROM cards')).toEqual([['Rex, 3']])
    const { stdout } = await sinks('list')
    expect(stdout).toMatch(/mirror +sqlite +paused +\d+ +2 entries, \d+ s, \d+ B/u)
    await sinks('resume', 'mirror')
    await waiting.wait({ to: 'sink:mirror' })
    await waiting.wait({ to: 'sink:cards' })
    expect(rows('cards.db', 'SELECT title FROM cards ORDER BY id')).toEqual([['Rex, 4'], ['Tom, null']])
  })

  it('GET /v1/sinks/<name>?after=<receipt> waits for what a user has just written', async () => {
    const edit = clinic.edit(() => clinic.ydoc.getMap('pets').set('ida', new Y.Map<unknown>([['name', 'Ida']])))
    await edit.wait({ to: 'relay' })
    const ask = async (name: string, sink = 'mirror'): Promise<[number, unknown]> => {
      const headers = { authorization: `Bearer ${tokens.get(name) ?? ''}` }
      const response = await fetch(`${serving.url}/v1/sinks/${sink}?after=${edit.receipt}&timeout=10`, { headers })
      return [response.status, await response.json()]
    }
    expect(await ask('vet')).toMatchObject([200, { reached: true }])
    expect(await ask('nurse')).toMatchObject([403, { error: { code: 'forbidden' } }])
    expect(await ask('vet', 'nope')).toMatchObject([404, { error: { code: 'not_found' } }])
  })

  it('plan tells what would change, refresh and rewind write again, drop removes all, resume makes it anew', async () => {
    change('mirror.db', "UPDATE pets SET name = 'x' WHERE id = 'rex'; DELETE FROM pets WHERE id = 'tom'")
    expect((await sinks('plan', 'mirror')).stdout).toMatch(
      /^mirror: the destination is as it should be \(current\)\na refresh would change 2 rows of 3\n$/u,
    )
    await sinks('refresh', 'mirror')
    await until(() => JSON.stringify(rows('mirror.db', 'SELECT name FROM pets ORDER BY id')) === '[["Ida"],["Rex"],["Tom"]]')
    change('mirror.db', "DELETE FROM pets WHERE id = 'tom'")
    const [rewound, unclear] = await Promise.all([
      sinks('rewind', 'mirror', '--to', 'oldest'),
      sinks('rewind', 'mirror', '--to', 'yesterday'),
    ])
    expect(rewound.code).toBe(0)
    expect([unclear.code, unclear.stderr]).toEqual([2, expect.stringContaining("rewind: to is 'oldest', 'now', a version, or a time")])
    await until(() => rows('mirror.db', 'SELECT name FROM pets').length === 3)
    expect((await sinks('drop', 'mirror')).stdout).toMatch(/^mirror: paused at version 0/u)
    expect(rows('mirror.db', "SELECT name FROM sqlite_schema WHERE type = 'table'")).toEqual([])
    expect((await sinks('plan', 'mirror')).stdout).toMatch(
      /^mirror: \d+ statements? \(paused\)\n {2}CREATE TABLE[\s\S]*a refresh would change 3 rows of 3\n$/u,
    )
    await sinks('resume', 'mirror')
    await until(
      () =>
        rows('mirror.db', "SELECT name FROM sqlite_schema WHERE name = 'pets'").length === 1 &&
        rows('mirror.db', 'SELECT * FROM pets').length === 3,
    )
  })

  it('dead lists what a destination refuses, and tries it again', async () => {
    change('mirror.db', "CREATE TRIGGER no BEFORE UPDATE ON pets WHEN new.name = 'Bad' BEGIN SELECT raise(ABORT, 'no bad pets'); END")
    await put('rex', 'Bad', 4)
    await expect(
      clinic.edit(() => clinic.ydoc.getMap('pets').set('rex', new Y.Map<unknown>([['name', 'Bad']]))).wait({ to: 'sink:mirror' }),
    ).rejects.toMatchObject({
      code: 'sink_parked',
    })
    const [dead, verified] = await Promise.all([sinks('dead', 'mirror'), sinks('verify', 'mirror')])
    expect(dead.stdout).toMatch(/^ID +RECORD +STATE +SINCE +REASON\n\S+ +pets clinic\/rex +refused +\S+ +no bad pets\n$/u)
    expect([verified.code, verified.stdout]).toEqual([
      0,
      expect.stringMatching(/^mirror: equal at version \d+ \(\d+ rows, 1 parked\)\n {2}parked pets clinic\/rex: no bad pets\n$/u),
    ])
    change('mirror.db', 'DROP TRIGGER no')
    // The mirror notices that somebody changed its tables, and begins again: until then it says so.
    const requeued = await until(async () => {
      const ended = await sinks('dead', 'mirror', '--requeue')
      return ended.code === 0 && ended.stdout
    })
    expect(requeued).toBe('mirror: 1 dead letter tried again\n')
    expect((await sinks('dead', 'mirror')).stdout).toBe('mirror: no dead letters\n')
    expect(rows('mirror.db', "SELECT name FROM pets WHERE id = 'rex'")).toEqual([['Bad']])
  })

  it('adopt takes a destination over that another log wrote', async () => {
    const elsewhere = join(folder, 'elsewhere')
    mkdirSync(elsewhere)
    writeFileSync(
      join(elsewhere, 'rejoin.config.ts'),
      CONFIG.replace(/auth:.*\n/u, '')
        .replace("'mirror.db'", "'../mirror.db'")
        .replace(/, cards:[^]*?\) \},\n\}\)/u, ' },\n})'),
    )
    const other = await startServe(['--data', join(elsewhere, 'data')], { cwd: elsewhere })
    others.push(other)
    const at = [other.url, join(elsewhere, 'data')] as const
    await until(async () => (await stateOf('mirror', ...at)) === 'failing')
    const listed = await run(['sinks', 'list', '--url', other.url])
    expect(listed.stdout).toMatch(/mirror: .*mirrors the log [0-9a-f]{32}.*rejoin sinks adopt/u)
    await run(['sinks', 'adopt', 'mirror', '--url', other.url])
    await until(async () => (await stateOf('mirror', ...at)) === 'current')
    expect(rows('mirror.db', 'SELECT * FROM pets')).toEqual([])
    // What wrote there before keeps away.
    await until(async () => ['fenced', 'failing'].includes((await stateOf('mirror')) ?? ''))
  })
})

describe('rejoin tail', () => {
  it('prints changes as they come, in each format, and ends at the last one when it is told to', async () => {
    const tail = startCli(['tail', '--url', serving.url, '--data', data], { cwd: folder })
    let age = 0
    const line = await until(async () => {
      // An edit that changes no field is no change.
      await put('uma', 'Uma', ++age)
      return tail.output.stdout.split('\n').find((each) => each.includes('"uma"'))
    })
    expect(JSON.parse(line)).toMatchObject({ collection: 'pets', document: 'clinic', id: 'uma', actor: 'vet' })
    tail.child.kill('SIGINT')
    await tail.ended
    const at = ['tail', '--url', serving.url, '--data', data, '--after', 'oldest', '--no-follow']
    const [plain, events, envelopes] = await Promise.all([
      run(at),
      run([...at, '--format', 'cloudevents']),
      run([...at, '--format', 'debezium']),
    ])
    const parsed = [plain, events, envelopes].map(({ stdout }) => JSON.parse(stdout.slice(0, stdout.indexOf('\n'))) as unknown)
    expect(parsed).toMatchObject([
      { op: 'create', id: 'rex', before: null, after: { name: 'Rex', age: 3 } },
      { specversion: '1.0', type: 'rejoin.record.create', data: { after: { name: 'Rex', age: 3 } } },
      { op: 'c', before: null, after: { document: 'clinic', id: 'rex', name: 'Rex' } },
    ])
  })
})

describe('functions of the config file', () => {
  it('run in the worker: one that never ends costs its record alone, and the sink says which', async () => {
    await sinks('adopt', 'mirror')
    await put('rex', 'Endless', 1)
    await put('zoe', 'Zoe', 5)
    await until(() => rows('cards.db', "SELECT title FROM cards WHERE id = 'zoe'").length === 1, 'the other record', 20_000)
    const { cards } = await list()
    expect(cards?.parked.first.map(({ key, reason }) => `${key.id}: ${reason}`)).toEqual([
      expect.stringMatching(/^rex: the projection "cards" took longer than 1000 ms/u),
    ])
    expect(serving.output.stderr).toContain('a function of the config file takes too long')
  })
})

describe('what was written', () => {
  it('holds no secret and no token', () => {
    written += serving.output.stdout + serving.output.stderr
    const secret = readFileSync(join(data, 'admin-secret'), 'utf8').trim()
    expect(secret).toMatch(/^[0-9a-f]{64}$/u)
    for (const hidden of [secret, jwtSecret, databaseSecret, ...tokens.values()]) expect(written).not.toContain(hidden)
    expect(written.length).toBeGreaterThan(1000)
  })
})
