/**
 * Redis for tests. It writes nothing to disk unless told to.
 */
import type { Probe } from '../requires.ts'
import { findProgram, requires } from '../requires.ts'
import { ask } from './ask.ts'
import type { TestServer } from './server.ts'
import { startServer, withDatabase } from './server.ts'

export interface RedisServer extends TestServer {
  /** Of database 0. */
  readonly url: string
  /** The URL of an empty database that this server has not given before. */
  database(): string
}

export interface RedisOptions {
  /** Settings as in redis.conf. `{ appendonly: 'yes', appendfsync: 'always' }` makes it keep what it acknowledged. */
  readonly settings?: Readonly<Record<string, string>>
}

const DATABASES = 1024

/** Why there is no Redis here, if so. */
export const redisProbe: Probe = () =>
  findProgram('redis-server') === undefined ? 'no Redis on this machine (apt-get install redis-server)' : undefined

/** `describe` of suites that need Redis. */
export const describeRedis: (suite: string, body: () => void) => void = requires('Redis', redisProbe)

/** Starts an empty Redis. */
export async function startRedis({ settings = {} }: RedisOptions = {}): Promise<RedisServer> {
  const all = { save: '', appendonly: 'no', databases: `${DATABASES}`, ...settings }
  const given = Object.entries(all).flatMap(([name, value]) => [`--${name}`, value])
  const server = await startServer({
    name: 'Redis',
    command: ({ folder, port }) => [
      findProgram('redis-server') ?? 'redis-server',
      ...['--port', `${port}`, '--bind', '127.0.0.1', '--dir', folder],
      ...given,
    ],
    // While it loads its data it answers -LOADING.
    answers: async ({ port }) => (await ask(port, 'PING\r\n')).toString() === '+PONG\r\n',
  })
  const url = `redis://127.0.0.1:${server.port}`
  let last = 0
  const database = (): string => {
    last += 1
    if (last >= DATABASES) throw new Error(`this Redis has given all its ${DATABASES} databases`)
    return withDatabase(url, `${last}`)
  }
  return { ...server, url: `${url}/0`, database }
}
