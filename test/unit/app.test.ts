/**
 * The relay over plain HTTP: health, numbers, and whole documents, put together away from the main thread.
 */
import { afterAll, describe, expect, it } from 'vitest'
import * as Y from 'yjs'
import type { DocumentId, ErrorCode, Seq } from '@rejoin/shared'
import { SyncError, collection, defineSchema, newIncarnationId, string, systemClock } from '@rejoin/shared'
import { createDocumentReader } from '#server/documents/read.js'
import { createApp } from '#server/http/app.js'
import type { AppParts } from '#server/http/app.js'
import { createMetrics } from '#server/http/metrics.js'
import { createCompactionWork } from '#server/log/work.js'
import { createMemoryLog } from '#server/storage/memory.js'
import { crowdUpdate } from '../support/forged-updates.ts'

const schema = defineSchema({ pets: collection({ name: string() }) })
const log = createMemoryLog()
const { state } = createCompactionWork({ reader: log, admissionOf: () => new Uint8Array() })
const documents = createDocumentReader({ state, schema, clock: systemClock })
afterAll(() => documents.close())

const failures: SyncError[] = []
let pushes = 0
let unready: ErrorCode | undefined
const parts: AppParts = {
  documents,
  authorize: async ({ token }) => {
    if (token === 'old') throw new SyncError('expired', 'the token is over')
    if (token === '') throw new SyncError('unauthorized', 'no token was given')
    return { principal: token, documents: { 'clinic*': 'read', 'Klinik/*': 'write', secret: 'none' } }
  },
  origin: { type: 'listed', origins: ['https://app.example'] },
  metrics: createMetrics([
    { name: 'rejoin_pushes_total', help: 'Pushes taken.', type: 'counter', read: () => pushes },
    {
      name: 'rejoin_nacks_total',
      help: 'Pushes refused, by code.',
      type: 'counter',
      label: 'code',
      read: () => ({ gap: 2, too_large: 1 }),
    },
  ]),
  unready: () => unready,
  failed: (error) => failures.push(error),
}
const app = createApp(parts)
const get = (path: string, headers: Record<string, string> = { authorization: 'Bearer alice' }, method = 'GET'): Promise<Response> =>
  Promise.resolve(app.request(`http://relay.example${path}`, { headers, method }))
const errorOf = async (response: Response): Promise<{ code: string; message: string; hint: string }> =>
  ((await response.json()) as { error: { code: string; message: string; hint: string } }).error

async function write(document: string, edits: number): Promise<Y.Doc> {
  const doc = new Y.Doc()
  const id = document as DocumentId
  const incarnation = newIncarnationId()
  await log.open(id)
  for (let n = 1; n <= edits; n++) {
    const before = Y.encodeStateVector(doc)
    doc.getMap('pets').set(`p${n}`, new Y.Map([['name', `Rex ${n}`]]))
    await log.append([
      {
        document: id,
        seq: n as Seq,
        incarnation,
        lo: n,
        hi: n,
        covers: [],
        actor: 'alice',
        at: 0,
        update: Y.encodeStateAsUpdate(doc, before),
      },
    ])
  }
  return doc
}

describe('GET /v1/documents/<id>', () => {
  it('is the whole document as Yjs bytes, and the seq that it stands at', async () => {
    const doc = await write('clinic-1', 3)
    const response = await get('/v1/documents/clinic-1')
    expect([
      response.status,
      response.headers.get('content-type'),
      response.headers.get('rejoin-seq'),
      response.headers.get('cache-control'),
    ]).toEqual([200, 'application/octet-stream', '3', 'no-store'])
    const copy = new Y.Doc()
    Y.applyUpdate(copy, new Uint8Array(await response.arrayBuffer()))
    expect(copy.getMap('pets').toJSON()).toEqual(doc.getMap('pets').toJSON())
    expect(Y.encodeStateVector(copy)).toEqual(Y.encodeStateVector(doc))
  })

  it('is its records with Accept: application/json', async () => {
    await write('clinic-2', 1)
    const response = await get('/v1/documents/clinic-2', { authorization: 'bearer alice', accept: 'application/json' })
    expect([response.status, response.headers.get('content-type'), response.headers.get('rejoin-seq')]).toEqual([
      200,
      'application/json',
      '1',
    ])
    expect(await response.json()).toEqual({ collections: { pets: { p1: { name: 'Rex 1' } } }, violations: [] })
  })

  it('names the document by the rest of the path, percent-decoded once', async () => {
    await write('Klinik/Zürich %2F 🐈', 1)
    expect((await get(`/v1/documents/${encodeURIComponent('Klinik/Zürich %2F 🐈')}`)).status).toBe(200)
    expect((await get('/v1/documents/Klinik/Z%C3%BCrich%20%252F%20%F0%9F%90%88')).status).toBe(200)
    expect((await get('/v1/documents/Klinik/Z%C3%BCrich%20%2F%20%F0%9F%90%88')).status).toBe(404)
  })

  it.each<[string, Record<string, string>, number, string, RegExp]>([
    ['clinic-1', {}, 401, 'unauthorized', /no token was given/u],
    ['clinic-1', { authorization: 'Bearer old' }, 401, 'expired', /over/u],
    ['clinic-1', { authorization: 'Basic alice' }, 401, 'unauthorized', /no token/u],
    ['secret', { authorization: 'Bearer alice' }, 403, 'forbidden', /alice may not read "secret"/u],
    ['clinic-none', { authorization: 'Bearer alice' }, 404, 'not_found', /nobody has written to "clinic-none"/u],
    ['clinic-none', { authorization: 'Bearer alice', accept: 'application/json' }, 404, 'not_found', /nobody has written/u],
    ['', { authorization: 'Bearer alice' }, 400, 'bad_document', /not empty/u],
    ['%zz', { authorization: 'Bearer alice' }, 400, 'bad_document', /percent-encoded/u],
    ['a%0Ab', { authorization: 'Bearer alice' }, 400, 'bad_document', /control characters/u],
    ['x'.repeat(257), { authorization: 'Bearer alice' }, 400, 'bad_document', /at most 256 bytes/u],
  ])('%s with %o is an error of the table', async (document, headers, status, code, message) => {
    const response = await get(`/v1/documents/${document}`, headers)
    const error = await errorOf(response)
    expect([response.status, error.code]).toEqual([status, code])
    expect(error.message).toMatch(message)
    expect(error.hint).not.toBe('')
    expect(response.headers.get('www-authenticate')).toBe(status === 401 ? 'Bearer' : null)
  })

  it('has no collections without a schema', async () => {
    const bytesOnly = createApp({ ...parts, documents: { state: (document) => documents.state(document) } })
    const response = await bytesOnly.request('http://relay.example/v1/documents/clinic-1', {
      headers: { authorization: 'Bearer a', accept: 'application/json' },
    })
    expect([response.status, (await errorOf(response)).message]).toEqual([
      404,
      'this relay has no schema and so knows no collections; accept application/octet-stream',
    ])
  })

  it('answers many at once, one after the other, and refuses what is too many', async () => {
    const narrow = createDocumentReader({ state, schema, clock: systemClock, maxWaiting: 3 })
    await write('clinic-3', 2)
    const asked = await Promise.allSettled(Array.from({ length: 5 }, () => narrow.state('clinic-3' as DocumentId)))
    expect(asked.map(({ status }) => status)).toEqual(['fulfilled', 'fulfilled', 'fulfilled', 'rejected', 'rejected'])
    expect((await narrow.state('clinic-3' as DocumentId))?.seq).toBe(2)
    await narrow.close()
    await expect(narrow.state('clinic-3' as DocumentId)).rejects.toMatchObject({ code: 'draining' })
  })

  it('gives up a document that takes too long, answers the others, and refuses it at once when it is asked for again', async () => {
    const brisk = createDocumentReader({ state, schema, clock: systemClock, patience: 1_000 })
    const crowd = 'clinic-crowd' as DocumentId
    await write('clinic-good', 2)
    await log.open(crowd)
    const fields = { incarnation: newIncarnationId(), lo: 1, hi: 1, covers: [], actor: 'mallory', at: 0 }
    await log.append([{ document: crowd, seq: 1 as Seq, ...fields, update: crowdUpdate(60_000) }])
    const [slow, behindItself, good] = await Promise.allSettled([
      brisk.collections?.(crowd),
      brisk.collections?.(crowd),
      brisk.collections?.('clinic-good' as DocumentId),
    ])
    expect([slow, behindItself]).toMatchObject([{ reason: { code: 'overloaded' } }, { reason: { code: 'overloaded' } }])
    expect(good).toMatchObject({ status: 'fulfilled', value: { seq: 2 } })
    const begun = performance.now()
    await expect(brisk.collections?.(crowd)).rejects.toMatchObject({ code: 'overloaded' })
    expect(performance.now() - begun).toBeLessThan(500)
    await brisk.close()
  }, 20_000)

  it('tells a peer nothing of a fault of our own, and the operator all', async () => {
    const broken = createApp({ ...parts, documents: { state: () => Promise.reject(new Error('/secret/path/of.db is corrupt')) } })
    const response = await broken.request('http://relay.example/v1/documents/clinic-1', { headers: { authorization: 'Bearer a' } })
    const text = await response.text()
    expect([response.status, text.includes('secret')]).toEqual([500, false])
    expect(failures.at(-1)?.reason).toBe('/secret/path/of.db is corrupt')
  })
})

describe('the rest', () => {
  it('/healthz says that the process lives, /readyz whether it serves', async () => {
    expect([(await get('/healthz')).status, (await get('/readyz')).status]).toEqual([200, 200])
    unready = 'draining'
    const response = await get('/readyz')
    expect([
      (await get('/healthz')).status,
      response.status,
      (await errorOf(response)).code,
      (await get('/v1/documents/clinic-1')).status,
    ]).toEqual([200, 503, 'draining', 503])
    unready = undefined
  })

  it('/metrics shows plain numbers as they are now, and counts nothing twice', async () => {
    pushes = 5
    await get('/metrics')
    const text = await (await get('/metrics')).text()
    expect(text).toContain('# TYPE rejoin_pushes_total counter\nrejoin_pushes_total 5\n')
    expect(text).toContain('rejoin_nacks_total{code="gap"} 2\nrejoin_nacks_total{code="too_large"} 1\n')
    expect(text).toMatch(/process_resident_memory_bytes \d+/u)
  })

  it('what is not there is said in the same form', async () => {
    const response = await get('/nowhere')
    expect([response.status, (await errorOf(response)).code]).toEqual([404, 'not_found'])
  })

  it('a page that is not listed is refused, one that is may read the answer', async () => {
    const evil = await get('/healthz', { origin: 'https://evil.example' })
    expect([evil.status, (await errorOf(evil)).code, evil.headers.get('access-control-allow-origin')]).toEqual([403, 'forbidden', null])
    const good = await get('/v1/documents/clinic-1', { origin: 'https://app.example', authorization: 'Bearer alice' })
    expect([
      good.status,
      good.headers.get('access-control-allow-origin'),
      good.headers.get('access-control-expose-headers'),
      good.headers.get('vary'),
    ]).toEqual([200, 'https://app.example', 'Rejoin-Seq, Rejoin-Cursor', 'Accept, Origin'])
    const preflight = await get(
      '/v1/documents/clinic-1',
      { origin: 'https://app.example', 'access-control-request-method': 'GET' },
      'OPTIONS',
    )
    expect([preflight.status, preflight.headers.get('access-control-allow-headers')]).toEqual([204, 'Authorization, Last-Event-ID'])
    // An error can be read by the page as well.
    const refused = await get('/v1/documents/secret', { origin: 'https://app.example', authorization: 'Bearer alice' })
    expect([refused.status, refused.headers.get('access-control-allow-origin')]).toEqual([403, 'https://app.example'])
  })

  it('without auth, a name that is not loopback is refused before anything else', async () => {
    const local = createApp({ ...parts, origin: { type: 'loopback' } })
    expect((await local.request('http://rebound.example/healthz', { headers: { host: 'rebound.example' } })).status).toBe(403)
    expect((await local.request('http://127.0.0.1:4400/healthz', { headers: { host: '127.0.0.1:4400' } })).status).toBe(200)
  })
})
