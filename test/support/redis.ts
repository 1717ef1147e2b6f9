/**
 * Looking into a Redis from a test, without the sink's code.
 */
import { createRequire } from 'node:module'
import type * as Redis from '@redis/client'
import type { JsonValue, RecordValue, Schema } from '@rejoin/shared'
import type { Key } from '#server/sinks/sink.js'
import { compareKeys } from '#server/view/view.js'
import { petKey } from './deliveries.ts'

/** By `require`: what runs TypeScript outside of the tests (`npm run conformance`) cannot import this package before it was required. */
const { createClient } = createRequire(import.meta.url)('@redis/client') as typeof Redis

/** Sends commands all at once, and gives their answers in the second revision of the protocol. */
type Send = <T = unknown>(...commands: readonly (readonly string[])[]) => Promise<T[]>

/** Runs commands on one database. */
export async function redisCommands<T = unknown>(url: string, ...commands: readonly (readonly string[])[]): Promise<T[]> {
  return withRedis(url, (send) => send<T>(...commands))
}

async function withRedis<T>(url: string, use: (send: Send) => Promise<T>): Promise<T> {
  const client = createClient({ url, RESP: 2, socket: { reconnectStrategy: false } })
  client.on('error', () => undefined)
  await client.connect()
  try {
    return await use(<U>(...commands: readonly (readonly string[])[]) =>
      Promise.all(commands.map((command) => client.sendCommand<U>([...command]))),
    )
  } finally {
    client.destroy()
  }
}

/** Rows as their reader sees them, by the names of their keys, ordered. Ids above the limit of a name are looked up in the index of the sink `name`. */
export async function redisRows(
  url: string,
  { collections }: Schema,
  as: 'hash' | 'json',
  name: string,
): Promise<{ readonly key: Key; readonly value: RecordValue }[]> {
  return withRedis(url, async (send) => {
    const [names = []] = await send<string[]>(['KEYS', '*'])
    const keys = names.filter((each) => !each.startsWith('rejoin:'))
    const replies = await send<string[] & string>(...keys.map((key) => [as === 'hash' ? 'HGETALL' : 'GET', key]))
    const rows: { key: Key; value: RecordValue }[] = []
    for (const [i, reply] of replies.entries()) {
      const [collection = '', address = ''] = (keys[i] ?? '').split(':')
      const key = address.startsWith('~') ? await longKey(send, name, collection) : keyOf(collection, address)
      // Between the two commands it may have gone.
      if (reply === null || reply.length === 0) continue
      const { rejoin_version: _, ...value } =
        as === 'hash' ? fromHash(reply, collections[collection]?.fields ?? {}) : (JSON.parse(reply) as RecordValue)
      rows.push({ key, value })
    }
    return rows.sort((a, b) => compareKeys(a.key, b.key))
  })
}

function keyOf(collection: string, address: string): Key {
  const [document = '', id = ''] = address.split('/').map(decodeURIComponent)
  return petKey(id, document, collection)
}

async function longKey(send: Send, name: string, collection: string): Promise<Key> {
  const [members = []] = await send<string[]>(['ZRANGE', `rejoin:${name}:keys:${collection}`, '0', '-1'])
  const [document = '', id = ''] = (members.find((member) => member.length > 1000) ?? '').split('\0')
  return petKey(id, document, collection)
}

function fromHash(list: readonly string[], fields: Readonly<Record<string, { readonly kind: string }>>): RecordValue {
  const found = new Map<string, string>()
  for (let i = 0; i < list.length; i += 2) found.set(list[i] ?? '', list[i + 1] ?? '')
  return Object.fromEntries(
    Object.entries(fields).map(([field, { kind }]): [string, JsonValue] => {
      const text = found.get(field)
      if (text === undefined) return [field, null]
      return [field, ['number', 'boolean', 'json'].includes(kind) ? jsonOr(text) : text]
    }),
  )
}

/** A text in a json field stands there without quotes. */
function jsonOr(text: string): JsonValue {
  try {
    return JSON.parse(text) as JsonValue
  } catch {
    return text
  }
}

/** Copies a database; what it gives puts the copy back at one blow, as a server does that comes back with other data. */
export async function redisCopy(url: string): Promise<() => Promise<void>> {
  const copy = await withRedis(url, everything)
  return async () => void (await redisCommands(url, ['MULTI'], ['FLUSHDB'], ...copy, ['EXEC']))
}

/** Commands that make every key again. */
async function everything(send: Send): Promise<readonly (readonly string[])[]> {
  const [keys = []] = await send<string[]>(['KEYS', '*'])
  const commands: string[][] = []
  for (const key of keys) {
    const [type] = await send<string>(['TYPE', key])
    if (type === 'hash') {
      const [fields = []] = await send<string[]>(['HGETALL', key])
      commands.push(['HSET', key, ...fields])
    } else if (type === 'zset') {
      const [members = []] = await send<string[]>(['ZRANGE', key, '0', '-1', 'WITHSCORES'])
      for (let i = 0; i < members.length; i += 2) commands.push(['ZADD', key, members[i + 1] ?? '0', members[i] ?? ''])
    } else if (type === 'stream') {
      const [entries = []] = await send<[string, string[]][]>(['XRANGE', key, '-', '+'])
      for (const [id, fields] of entries) commands.push(['XADD', key, id, ...fields])
    } else throw new Error(`${key} is a ${type}`)
  }
  return commands
}
