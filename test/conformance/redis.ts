/**
 * The Redis sink under the conformance kit.
 */
import { openSink, redis } from '@rejoin/server/sinks/redis'
import { CONFORMANCE_SCHEMA } from '@rejoin/server/testing'
import type { Conformance, Destination } from '@rejoin/server/testing'
import type { OpenSubject } from '../support/conformance.ts'
import { redisCommands, redisCopy, redisRows } from '../support/redis.ts'
import { startRedis } from '../support/servers/redis.ts'
import { addressOf } from '#server/sinks/message.js'

/** Starts a Redis of its own that keeps what it acknowledged, or uses the database at `url`, which has to be empty. */
export const open: OpenSubject = async (given) => {
  const server = given === undefined ? await startRedis({ settings: { appendonly: 'yes', appendfsync: 'no' } }) : undefined
  const url = given ?? server?.url ?? ''
  const under: Conformance = {
    name: 'redis',
    traits: { transactional: false, strategies: ['state', 'actions'], readable: true },
    powers: { fence: true, guard: true, identity: true, cursor: true },
    mechanism: 'fence, guard, row and highest version in one script; a copy of the cursor beside the rows',
    destination: async () => destinationIn(server === undefined ? url : server.database(), server?.restart),
  }
  const [info = ''] = await redisCommands<string>(url, ['INFO', 'server'])
  return { under, server: `Redis ${/redis_version:(\S+)/u.exec(info)?.[1] ?? ''}`, close: async () => server?.stop() }
}

function destinationIn(url: string, restart: (() => Promise<void>) | undefined): Destination {
  const clear = async (): Promise<void> => void (await redisCommands(url, ['FLUSHDB']))
  return {
    open: (context) => openSink(redis({ url }).options, context),
    rows: () => redisRows(url, CONFORMANCE_SCHEMA, 'hash', 'conformance'),
    wipe: clear,
    backup: () => redisCopy(url),
    ...(restart === undefined ? {} : { restart }),
    tamper: async (key, field, value) =>
      void (await redisCommands(url, ['HSET', `${key.collection}:${addressOf(key, 1024)}`, field, value])),
    absent: {
      drop: 'the rows of a target are keys of their own, which nobody drops together',
      poison: 'Redis has no constraints',
      unique: 'Redis has no unique indexes',
      ...(restart === undefined ? { restart: 'the server is not ours' } : {}),
    },
    close: clear,
  }
}
