/**
 * Sinks that deliver, on a whole relay: an edit of a client reaches a webhook, a handler and a file, is tried again after what failed, and no secret is ever said.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createClient, memory } from '@rejoin/client'
import { createServer } from '@rejoin/server'
import type { Logger } from '@rejoin/server'
import { handler } from '@rejoin/server/sinks/handler'
import type { Message } from '@rejoin/server/sinks/handler'
import { jsonl } from '@rejoin/server/sinks/jsonl'
import { nats } from '@rejoin/server/sinks/nats'
import { redis } from '@rejoin/server/sinks/redis'
import { webhook } from '@rejoin/server/sinks/webhook'
import { verifyWebhook } from '@rejoin/server/webhook'
import { collection, defineSchema, string } from '@rejoin/shared'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import * as Y from 'yjs'
import type { Receiver } from '../support/deliveries.ts'
import { startReceiver } from '../support/deliveries.ts'
import { until } from '../support/until.ts'

const schema = defineSchema({ pets: collection({ name: string() }) })
const SECRET = 'the-webhook-secret-of-this-test'

describe('a relay with sinks that deliver', () => {
  let data: string
  let receiver: Receiver
  let answers: (count: number, body: string) => { readonly status: number; readonly body?: string }
  const lines: string[] = []
  const say = (fields: unknown, message: string): void => void lines.push(`${JSON.stringify(fields)} ${message}`)
  const logger: Logger = { debug: say, info: say, warn: say, error: say }

  beforeEach(async () => {
    data = mkdtempSync(join(tmpdir(), 'rejoin-delivered-'))
    answers = () => ({ status: 204 })
    lines.length = 0
    receiver = await startReceiver((request, response, count) => {
      const { status, body = '' } = answers(count, request.body)
      response.writeHead(status).end(body)
    })
  })
  afterEach(async () => {
    await receiver.close()
    rmSync(data, { recursive: true, force: true })
  })

  const edits = async (url: string, ...names: readonly string[]): Promise<void> => {
    const client = createClient({ url, store: memory() })
    const replica = client.open('clinic')
    await replica.whenLoaded()
    for (const name of names) await replica.edit(() => replica.ydoc.getMap('pets').set('rex', new Y.Map([['name', name]]))).wait()
    await client.close()
  }

  const report = async (url: string): Promise<string> => {
    const secret = readFileSync(join(data, 'admin-secret'), 'utf8').trim()
    return (await fetch(`${url}/v1/sinks`, { headers: { authorization: `Bearer ${secret}` } })).text()
  }

  it('tells each of them every edit, in order, with what was before', async () => {
    const path = join(data, 'events.jsonl')
    const handled: Message[] = []
    const server = await createServer({
      port: 0,
      data,
      schema,
      sinks: {
        crm: webhook({ url: receiver.url, secret: SECRET, allowPrivate: true, strategy: 'actions', from: 'beginning' }),
        mail: handler({ strategy: 'actions', from: 'beginning' }, async (changes, { signal }) => {
          expect(signal.aborted).toBe(false)
          if (handled.length === 0 && changes.length > 0 && lines.every((line) => !line.includes('not today'))) throw new Error('not today')
          handled.push(...changes)
        }),
        events: jsonl({ path, strategy: 'actions', from: 'beginning' }),
        now: jsonl({ path: join(data, 'state.jsonl') }),
      },
      logger,
    })
    try {
      // What was there before the view was is taken stock of at once, without its history.
      await until(async () => ((await report(server.url)).match(/"current"/gu)?.length ?? 0) === 4, 'all of them to be current')
      await edits(server.url, 'A', 'B', 'C')
      const told = (messages: readonly Message[]): unknown[] =>
        messages.map(({ type, before, value }) => [type, before?.['name'], value?.['name']])
      const expected = [
        ['record.created', undefined, 'A'],
        ['record.updated', 'A', 'B'],
        ['record.updated', 'B', 'C'],
      ]
      const posted = (): Message[] => receiver.requests.map(({ body }) => JSON.parse(body) as Message)
      const written = (file: string): Message[] =>
        readFileSync(file, 'utf8')
          .split('\n')
          .slice(0, -1)
          .map((line) => JSON.parse(line) as Message)
      await until(() => posted().length === 3 && handled.length === 3 && written(path).length === 3, 'three events everywhere')
      for (const messages of [posted(), handled, written(path)]) expect(told(messages)).toEqual(expected)
      await until(() => written(join(data, 'state.jsonl')).at(-1)?.value?.['name'] === 'C', 'the state')
      const [first] = receiver.requests
      expect(await verifyWebhook({ secret: SECRET, ...(first ?? { headers: {}, body: '' }) })).toMatchObject({ type: 'verified' })
      expect(lines.join('\n')).toContain('not today')
    } finally {
      await server.close()
    }
  })

  it('says what fails without a secret, whatever the receiver repeats', async () => {
    answers = (count) =>
      count === 1 ? { status: 500, body: `do not say ${SECRET} or hidden-header` } : { status: 422, body: `nor ${SECRET}` }
    const server = await createServer({
      port: 0,
      data,
      schema,
      sinks: {
        crm: webhook({
          url: `${receiver.url}?key=hidden-query`,
          secret: SECRET,
          headers: { authorization: 'hidden-header' },
          allowPrivate: true,
        }),
        live: redis({ url: 'redis://me:hidden-redis@127.0.0.1:1/0' }),
        feed: nats({ servers: 'nats://me:hidden-nats@127.0.0.1:1', stream: 'FEED' }),
      },
      logger,
    })
    try {
      await edits(server.url, 'A')
      let said = ''
      await until(async () => {
        said = await report(server.url)
        return /422/u.test(said) && (said.match(/failing/gu)?.length ?? 0) >= 2
      }, 'all three to say what is wrong')
      const everything = [said, ...lines].join('\n')
      expect(everything).toContain('127.0.0.1:1')
      expect(everything).not.toMatch(/hidden-|the-webhook-secret/u)
    } finally {
      await server.close()
    }
  })
})
