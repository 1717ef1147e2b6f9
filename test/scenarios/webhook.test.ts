/**
 * Webhooks against real receivers: what arrives, what counts as confirmed, refused or failed, and where nothing is ever sent.
 */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createServer as createHttpsServer } from 'node:https'
import type { ServerResponse } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { systemClock } from '@rejoin/shared'
import { isNewer, verifyWebhook } from '@rejoin/server/webhook'
import type { WebhookMessage } from '@rejoin/server/webhook'
import { webhook } from '@rejoin/server/sinks/webhook'
import { afterEach, describe, expect, it } from 'vitest'
import type { Delivery } from '#server/sinks/delivery.js'
import type { World } from '#server/sinks/webhook-post.js'
import { createWebhook } from '#server/sinks/webhook.js'
import type { Received, Receiver } from '../support/deliveries.ts'
import { NEVER, at, change, pet, startReceiver } from '../support/deliveries.ts'
import { program, requires } from '../support/requires.ts'
import { createVirtualClock } from '../support/virtual-clock.ts'

const SECRET = `whsec_${Buffer.from('a secret that nobody can guess').toString('base64')}`
const open: { close(): unknown }[] = []

function opened<T extends { close(): unknown }>(it: T): T {
  open.push(it)
  return it
}

function send(url: string, options: Readonly<Record<string, unknown>> = {}, world?: World): Delivery {
  return opened(createWebhook({ url, secret: SECRET, allowPrivate: true, ...options }, world))
}

async function receiver(answer?: (request: Received, response: ServerResponse, count: number) => void): Promise<Receiver> {
  return opened(await startReceiver(answer))
}

function status(...statuses: readonly number[]) {
  return (_: Received, response: ServerResponse, count: number): void => {
    response.writeHead(statuses[Math.min(count, statuses.length) - 1] ?? 500).end('no more of this')
  }
}

const bodies = ({ requests }: Receiver): WebhookMessage[] => requests.map(({ body }) => JSON.parse(body) as WebhookMessage)

afterEach(async () => {
  for (const each of open.splice(0).reverse()) await each.close()
})

describe('what a receiver gets', () => {
  it('is signed: verifyWebhook tells it from what a stranger sends, from what was changed, and from what is old', async () => {
    const there = await receiver()
    await send(there.url).deliver([pet('rex', { name: 'Rex 😀' })], { to: at(7) }, NEVER)
    const [request] = there.requests
    if (request === undefined) throw new Error('nothing came')
    const { headers, body } = request
    expect(await verifyWebhook({ secret: SECRET, headers, body })).toMatchObject({
      type: 'verified',
      id: headers['webhook-id'],
      message: { type: 'record.state', version: 7, collection: 'pets', document: 'clinic', record: 'rex', value: { name: 'Rex 😀' } },
    })
    expect(await verifyWebhook({ secret: ['another secret of some length', SECRET], headers, body: Buffer.from(body) })).toMatchObject({
      type: 'verified',
    })
    expect(await verifyWebhook({ secret: 'another secret of some length', headers, body })).toMatchObject({ type: 'refused' })
    expect(await verifyWebhook({ secret: SECRET, headers, body: body.replace('Rex', 'Tex') })).toMatchObject({ type: 'refused' })
    expect(await verifyWebhook({ secret: SECRET, headers: { ...headers, 'webhook-id': 'msg_2' }, body })).toMatchObject({ type: 'refused' })
    expect(await verifyWebhook({ secret: SECRET, headers, body, now: Date.now() + 301_000 })).toMatchObject({
      reason: expect.stringContaining('300 s') as string,
    })
    expect(await verifyWebhook({ secret: SECRET, headers: new Headers({ 'webhook-id': 'x' }), body })).toMatchObject({ type: 'refused' })
  })

  it('is signed as the published example of the scheme says', async () => {
    const headers = {
      'webhook-id': 'msg_p5jXN8AQM9LWM0D4loKWxJek',
      'webhook-timestamp': '1614265330',
      'webhook-signature': 'v1a,nonsense v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=',
    }
    const secret = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'
    const signed = { secret, headers, body: '{"test": 2432232314}', now: 1_614_265_330_000 }
    expect(await verifyWebhook(signed)).toMatchObject({ type: 'verified' })
  })

  it('is signed with each of several secrets, so that either end can change first', async () => {
    const there = await receiver()
    await send(there.url, { secret: [SECRET, 'the next secret, also long'] }).deliver([pet('rex', null)], { to: at(1) }, NEVER)
    for (const secret of [SECRET, 'the next secret, also long']) {
      expect(await verifyWebhook({ secret, ...(there.requests[0] ?? { headers: {}, body: '' }) })).toMatchObject({ type: 'verified' })
    }
  })

  it('says of an event what happened, before and after, and has one id whenever it comes', async () => {
    const there = await receiver()
    const rows = [change('rex', 3, { name: 'A' }, { name: 'B' }), change('mia', 4, { name: 'M' }, null)]
    for (const sender of [send(there.url), send(there.url)]) await sender.deliver(rows, { to: at(9) }, NEVER)
    const [first, second, ...again] = bodies(there)
    expect(first).toMatchObject({
      type: 'record.updated',
      version: 3,
      value: { name: 'B' },
      before: { name: 'A' },
      event: { actor: 'jill', seq: 3, replay: false },
    })
    expect(second).toMatchObject({ type: 'record.deleted', version: 4, value: null, before: { name: 'M' } })
    expect(again).toEqual([first, second])
    const ids = there.requests.map(({ headers }) => headers['webhook-id'])
    expect(ids.slice(2)).toEqual(ids.slice(0, 2))
    expect(ids[0]).not.toBe(ids[1])
  })

  it('can be put in order by its reader: Jill and Jack, processed in reverse', async () => {
    const there = await receiver()
    const sender = send(there.url)
    await sender.deliver([pet('rex', { name: 'Jill' })], { to: at(1) }, NEVER)
    await sender.deliver([pet('rex', { name: 'Jack' })], { to: at(2) }, NEVER)
    let stored: { readonly version: number; readonly value: unknown } | undefined
    for (const message of bodies(there).reverse()) if (isNewer(stored, message)) stored = message
    expect(stored?.value).toEqual({ name: 'Jack' })
    expect(isNewer(2, { version: 2 })).toBe(false)
  })
})

describe('an answer', () => {
  it('of 2xx confirms, also when its body never ends', async () => {
    const there = await receiver((_, response) => {
      response.writeHead(200).write('and so on')
      setImmediate(() => response.write('x'.repeat(100_000)))
    })
    expect(await send(there.url).deliver([pet('rex', {})], { to: at(1) }, NEVER)).toEqual([])
  })

  it('of 410 or another 4xx refuses the row for good, with its first words and without our secrets; the others go on', async () => {
    const there = await receiver((_, response, count) => {
      if (count > 2) response.writeHead(204).end()
      else response.writeHead(count === 1 ? 410 : 422).end(`no\n${SECRET} token-1234 thanks${'!'.repeat(9000)}`)
    })
    const rows = [pet('a', {}), pet('b', {}), pet('c', {})]
    const refused = await send(there.url, { headers: { Authorization: 'token-1234' } }).deliver(rows, { to: at(1) }, NEVER)
    expect(refused).toEqual([
      { row: rows[0], reason: expect.stringMatching(/^410: no ••• ••• thanks!/u) as string },
      { row: rows[1], reason: expect.stringMatching(/^422/u) as string },
    ])
    expect(there.requests).toHaveLength(3)
  })

  it.each([401, 403, 408, 425, 429, 500, 503])(
    'of %i confirms nothing and refuses nothing; only what was not taken is sent again',
    async (code) => {
      const there = await receiver(status(204, code, 204))
      const sender = send(there.url)
      const rows = [pet('a', {}), pet('b', {}), pet('c', {})]
      await expect(sender.deliver(rows, { to: at(1) }, NEVER)).rejects.toThrow(`${code}`)
      expect(await sender.deliver(rows, { to: at(1) }, NEVER)).toEqual([])
      expect(bodies(there).map(({ record }) => record)).toEqual(['a', 'b', 'b', 'c'])
    },
  )

  it('with Retry-After is obeyed, up to five minutes', async () => {
    const clock = createVirtualClock()
    const there = await receiver((_, response, count) => {
      if (count > 1) response.writeHead(204).end()
      else response.writeHead(503, { 'retry-after': '100000' }).end()
    })
    const sender = send(there.url, {}, { clock, resolve: async () => [] })
    await expect(sender.deliver([pet('a', {})], { to: at(1) }, NEVER)).rejects.toThrow('503')
    const second = sender.deliver([pet('a', {})], { to: at(1) }, NEVER)
    await clock.advance(299_000)
    expect(there.requests).toHaveLength(1)
    await clock.advance(1000)
    expect(await second).toEqual([])
  })

  it('of 5xx refuses after as many attempts as the option says', async () => {
    const there = await receiver(status(500))
    const sender = send(there.url, { attempts: 2 })
    await expect(sender.deliver([pet('a', {})], { to: at(1) }, NEVER)).rejects.toThrow('500')
    expect(await sender.deliver([pet('a', {})], { to: at(1) }, NEVER)).toMatchObject([{ reason: '500: no more of this' }])
  })

  it('with a redirect is not followed, wherever it leads', async () => {
    const other = await receiver()
    const there = await receiver((_, response) => response.writeHead(307, { location: other.url }).end())
    await expect(send(there.url).deliver([pet('a', {})], { to: at(1) }, NEVER)).rejects.toThrow(/redirect \(307\)/u)
    expect(other.requests).toEqual([])
  })

  it('that does not come ends in time, and so does one that was given up', async () => {
    const there = await receiver(() => undefined)
    await expect(send(there.url, { timeout: 0.05 }).deliver([pet('a', {})], { to: at(1) }, NEVER)).rejects.toThrow('within 50 ms')
    const given = new AbortController()
    const delivery = send(there.url).deliver([pet('a', {})], { to: at(1) }, given.signal)
    given.abort()
    await expect(delivery).rejects.toMatchObject({ code: 'aborted' })
  })

  it('that was lost leads to the same message again, and a change back is sent like any other', async () => {
    const there = await receiver((_, response, count) => {
      if (count === 1) response.destroy()
      else response.writeHead(204).end()
    })
    const sender = send(there.url)
    await expect(sender.deliver([pet('a', { name: 'B' })], { to: at(2) }, NEVER)).rejects.toThrow('cannot be reached')
    await sender.deliver([pet('a', { name: 'A' })], { to: at(3) }, NEVER)
    expect(bodies(there).map(({ value }) => value)).toEqual([{ name: 'B' }, { name: 'A' }])
  })

  it('keeps the connection for the next message', async () => {
    const there = await receiver(status(200))
    const sender = send(there.url)
    for (let i = 1; i <= 5; i++) await sender.deliver([pet('a', {})], { to: at(i) }, NEVER)
    expect(there.connections()).toBe(1)
  })
})

describe('an address that is not of the public internet', () => {
  const world = (...answers: string[]): World => ({
    clock: systemClock,
    resolve: async () => [
      { address: answers.length > 1 ? (answers.shift() ?? '') : (answers[0] ?? ''), family: answers[0]?.includes(':') ? 6 : 4 },
    ],
  })
  const closed = { allowPrivate: false }

  it.each(['127.0.0.1', '[::1]', '[::ffff:127.0.0.1]', '0x7f.1', '2130706433', '169.254.169.254', 'localhost'])(
    'as %s is refused before a connection',
    async (host) => {
      const there = await receiver()
      const sender = send(`http://${host}:${there.port}/`, closed)
      await expect(sender.deliver([pet('a', {})], { to: at(1) }, NEVER)).rejects.toThrow('not of the public internet')
      expect(there.connections()).toBe(0)
    },
  )

  it('is refused where a public name leads to it, also when the name said something else a moment ago', async () => {
    const there = await receiver()
    const names = world('93.184.215.14', '127.0.0.1')
    // What a check beforehand would have seen.
    expect(await names.resolve('hooks.example')).toMatchObject([{ address: '93.184.215.14' }])
    const sender = send(`http://hooks.example:${there.port}/`, closed, names)
    for (let i = 0; i < 2; i++) await expect(sender.deliver([pet('a', {})], { to: at(1) }, NEVER)).rejects.toThrow('127.0.0.1')
    expect(there.connections()).toBe(0)
  })

  it('is let through with allowPrivate, by name', async () => {
    const there = await receiver()
    await send(`http://hooks.example:${there.port}/`, {}, world('127.0.0.1')).deliver([pet('a', {})], { to: at(1) }, NEVER)
    expect(there.requests[0]?.headers.host).toBe(`hooks.example:${there.port}`)
  })
})

const describeOpenssl = requires('openssl', program('openssl'))

describeOpenssl('over TLS', () => {
  it('the certificate must be of the name in the URL', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'rejoin-webhook-'))
    const [keyFile, certFile] = [join(folder, 'key.pem'), join(folder, 'cert.pem')]
    const made = [
      'req',
      '-x509',
      '-newkey',
      'ec',
      '-pkeyopt',
      'ec_paramgen_curve:prime256v1',
      '-nodes',
      '-days',
      '2',
      '-subj',
      '/CN=hooks.example',
    ]
    execFileSync('openssl', [...made, '-addext', 'subjectAltName=DNS:hooks.example', '-keyout', keyFile, '-out', certFile], {
      stdio: 'ignore',
    })
    const [key, cert] = [readFileSync(keyFile), readFileSync(certFile, 'utf8')]
    rmSync(folder, { recursive: true })
    const there = opened(await startReceiver(undefined, (listener) => createHttpsServer({ key, cert }, listener)))
    const world: World = { clock: systemClock, resolve: async () => [{ address: '127.0.0.1', family: 4 }], ca: cert }
    expect(await send(`https://hooks.example:${there.port}/`, {}, world).deliver([pet('a', {})], { to: at(1) }, NEVER)).toEqual([])
    const other = send(`https://else.example:${there.port}/`, {}, world)
    await expect(other.deliver([pet('a', {})], { to: at(1) }, NEVER)).rejects.toThrow('ERR_TLS_CERT_ALTNAME_INVALID')
    expect(there.requests).toHaveLength(1)
  })
})

describe('the options', () => {
  const url = 'https://example.org/hook'

  it('are plain data for the worker, with lanes for many keys', () => {
    const spec = webhook({ url, secret: SECRET, strategy: 'actions', from: 'now' })
    expect(spec.forward).toMatchObject({ lanes: 4, consistency: 'key', batch: { items: 100 }, strategy: 'actions' })
    expect(structuredClone(spec.options)).toEqual(spec.options)
    expect(webhook({ url, secret: SECRET, consistency: 'every' }).forward.lanes).toBe(1)
  })

  it.each([
    [{ url, secret: undefined }, 'secret is missing'],
    [{ url, secret: 'short' }, 'less than 16 bytes'],
    [{ url, secret: 'whsec_%%%%' }, 'not base64'],
    [{ url: 'ftp://example.org', secret: SECRET }, 'https:// or http://'],
    [{ url: 'https://me:hunter2@example.org', secret: SECRET }, 'user name or password'],
    [{ url, secret: SECRET, headers: { 'Webhook-Id': 'x' } }, 'set by the sink itself'],
    [{ url, secret: SECRET, headers: { authorization: 'hunter2\r\nx: y' } }, 'visible ASCII'],
  ])('are refused in words that repeat no secret: %#', (options, words) => {
    const refusal = (): unknown => webhook(options)
    expect(refusal).toThrow(words)
    expect(refusal).not.toThrow(/hunter2|short|%%%%/u)
  })
})
