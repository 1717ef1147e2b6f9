/**
 * The Redis sink as a stream of events under the conformance kit.
 */
import { openSink, redis } from '@rejoin/server/sinks/redis'
import type { Conformance, Destination } from '@rejoin/server/testing'
import type { OpenSubject } from '../support/conformance.ts'
import { foldMessages } from '../support/deliveries.ts'
import { redisCommands, redisCopy } from '../support/redis.ts'
import { startRedis } from '../support/servers/redis.ts'

/** Starts a Redis of its own that keeps what it acknowledged, or uses the database at `url`, which has to be empty. */
export const open: OpenSubject = async (given) => {
  const server = given === undefined ? await startRedis({ settings: { appendonly: 'yes', appendfsync: 'no' } }) : undefined
  const url = given ?? server?.url ?? ''
  const under: Conformance = {
    name: 'redis-stream',
    traits: { transactional: false, strategies: ['state', 'actions'], readable: false },
    powers: { fence: true, guard: true, identity: true, cursor: true },
    forward: { strategy: 'actions' },
    mechanism: 'fence, entry and the ids above the cursor in one script: an event is added once; a copy of the cursor beside the stream',
    destination: async () => destinationIn(server === undefined ? url : server.database(), server?.restart),
  }
  const [info = ''] = await redisCommands<string>(url, ['INFO', 'server'])
  return { under, server: `Redis ${/redis_version:(\S+)/u.exec(info)?.[1] ?? ''}`, close: async () => server?.stop() }
}

function destinationIn(url: string, restart: (() => Promise<void>) | undefined): Destination {
  const clear = async (): Promise<void> => void (await redisCommands(url, ['FLUSHDB']))
  return {
    open: (context) => openSink(redis({ url, as: 'stream' }).options, context),
    rows: async () => {
      const both = await redisCommands<[string, string[]][]>(url, ['XRANGE', 'owners', '-', '+'], ['XRANGE', 'pets', '-', '+'])
      return foldMessages(both.flat().map(([, fields]) => fields[5] ?? ''))
    },
    wipe: clear,
    backup: () => redisCopy(url),
    ...(restart === undefined ? {} : { restart }),
    absent: {
      drop: 'events are not written anew',
      poison: 'a stream takes every entry',
      unique: 'a stream has no indexes',
      tamper: 'entries are not read back',
      ...(restart === undefined ? { restart: 'the server is not ours' } : {}),
    },
    close: clear,
  }
}
