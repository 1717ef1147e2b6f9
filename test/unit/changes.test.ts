/**
 * The feed of changes: every change once and in order behind a cursor, in each format, for whom may see it, and no faster than it is read.
 */
import { beforeEach, describe, expect, it } from 'vitest'
import type { DocumentId, ErrorCode, Position, RecordValue, Seq } from '@rejoin/shared'
import { ERRORS, SyncError } from '@rejoin/shared'
import type { ChangesPage, ChangesRequest } from '#server/forwarding/changes.js'
import { createWaiting, readChanges } from '#server/forwarding/changes.js'
import { createApp } from '#server/http/app.js'
import type { ChangeFeeds } from '#server/http/changes.js'
import { createChangeFeeds } from '#server/http/changes.js'
import { createMetrics } from '#server/http/metrics.js'
import type { Grant } from '#server/relay/grant.js'
import { createMemoryView } from '#server/storage/view-memory.js'
import type { ViewStore } from '#server/view/view.js'
import { until } from '../support/until.ts'
import type { VirtualClock } from '../support/virtual-clock.ts'
import { createVirtualClock } from '../support/virtual-clock.ts'

const LOG = 'b'.repeat(32)
const NOTHING = { entries: [], documents: [], places: [], misfits: [] }
const ADMIN: Grant = { principal: 'root', documents: {}, admin: true }

type Change = readonly [id: string, value: RecordValue | null]

let view: ViewStore
let clock: VirtualClock
let version = 0

function newView(id: string): ViewStore {
  const made = createMemoryView(id.padStart(32, '0'))
  made.commit({ ...NOTHING, source: { log: LOG, schema: '{}' }, settled: true })
  version = 0
  return made
}

/** One entry of `document`. */
function write(document: string, ...changes: readonly Change[]): void {
  version++
  const entry = {
    version,
    partition: 0,
    position: version as Position,
    epoch: 1,
    seq: version as Seq,
    document: document as DocumentId,
    actor: 'alice',
    at: Date.UTC(2026, 4, 17, 8, 0, version),
    settled: true,
    changes: changes.map(([id, value]) => ({ collection: 'pets', id, value })),
  }
  view.commit({ ...NOTHING, entries: [entry] })
}

const read = (request: Partial<ChangesRequest> = {}): ChangesPage =>
  readChanges(view, { after: 'oldest', format: 'json', limit: 100, characters: 1 << 20, ...request }, { log: LOG, now: 5 })
const codeOf = (run: () => unknown): ErrorCode | undefined => {
  try {
    run()
  } catch (error) {
    return (error as SyncError).code
  }
  return undefined
}

beforeEach(() => {
  view = newView('1')
  clock = createVirtualClock()
})

interface Line {
  readonly op: string
  readonly id: string
  readonly before: RecordValue | null
  readonly after: RecordValue | null
}
const shown = (text: string): string => {
  const { op, id, before, after } = JSON.parse(text) as Line
  return `${op} ${id} ${JSON.stringify(before)}→${JSON.stringify(after)}`
}

describe('the feed', () => {
  it('has each change once, in order, with what was there before', () => {
    write('a', ['rex', { n: 1 }], ['tom', { n: 1 }])
    write('a', ['rex', { n: 2 }])
    write('b')
    write('a', ['tom', null])
    const { changes, ended } = read()
    expect(ended).toBe(true)
    expect(changes.map(({ text }) => shown(text))).toEqual([
      'create rex null→{"n":1}',
      'create tom null→{"n":1}',
      'update rex {"n":1}→{"n":2}',
      'delete tom {"n":1}→null',
    ])
  })

  it('continues behind every cursor that it ever gave, in the middle of an edit as well, in pages of any size', () => {
    for (let n = 1; n <= 5; n++) write('a', ...Array.from({ length: n }, (_, i): Change => [`r${i}`, { n }]))
    const all = read().changes.map(({ text }) => text)
    expect(all.length).toBe(15)
    for (const limit of [1, 2, 4, 7]) {
      const found: string[] = []
      for (let after = 'oldest', ended = false; !ended;) {
        const page = read({ after, limit })
        found.push(...page.changes.map(({ text }) => text))
        ;({ cursor: after, ended } = page)
      }
      expect(found).toEqual(all)
    }
    for (const [i, { cursor }] of read().changes.entries())
      expect(read({ after: cursor }).changes.map(({ text }) => text)).toEqual(all.slice(i + 1))
    expect(read({ after: 'now' }).changes).toEqual([])
    expect(read({ characters: 1 }).changes.length).toBe(1)
  })

  it('refuses with cut_off a cursor of another view, of what is not kept, and of a history that is not its own', () => {
    write('a', ['rex', { n: 1 }])
    const early = read().cursor
    for (let n = 2; n <= 20; n++) write('a', ['rex', { n }])
    const late = read().cursor
    view.trim(15, 1000)
    expect(codeOf(() => read({ after: early }))).toBe('cut_off')
    expect(codeOf(() => read({ after: late }))).toBeUndefined()
    view = newView('1')
    // Restored from an older copy, and went another way to the same version.
    for (let n = 1; n <= 20; n++) write('a', ['tom', { n }])
    expect(codeOf(() => read({ after: late }))).toBe('cut_off')
    view = newView('2')
    expect(codeOf(() => read({ after: late }))).toBe('cut_off')
    for (const after of ['', 'x', '../..', Buffer.from('[1,2,3,4]').toString('base64url'), 'a'.repeat(5000)])
      expect(codeOf(() => read({ after }))).toBe('bad_option')
    expect(ERRORS.cut_off.http).toBe(410)
  })

  it('gives events the same ids whatever was read before', () => {
    write('klinik/ü', ['rex', { n: 1 }], ['tom', { n: 1 }])
    const ids = (pages: readonly ChangesPage[]): unknown[] =>
      pages.flatMap(({ changes }) => changes.map(({ text }) => (JSON.parse(text) as { id: string }).id))
    const first = read({ format: 'cloudevents', limit: 1 })
    const expected = [`${LOG}/1/klinik%2F%C3%BC/1/0/1`, `${LOG}/1/klinik%2F%C3%BC/1/1/1`]
    expect(ids([first, read({ format: 'cloudevents', after: first.cursor })])).toEqual(expected)
    expect(ids([read({ format: 'cloudevents' })])).toEqual(expected)
  })

  it('speaks CloudEvents in structured mode, and the envelope of Debezium', () => {
    write('a', ['rex', { n: 1 }])
    write('a', ['rex', null])
    const [first] = read({ format: 'cloudevents' }).changes
    expect(JSON.parse(first?.text ?? '')).toMatchObject({
      specversion: '1.0',
      source: `urn:rejoin:log:${LOG}`,
      type: 'rejoin.record.create',
      subject: 'pets/a/rex',
      time: '2026-05-17T08:00:01.000Z',
      datacontenttype: 'application/json',
      data: { op: 'create', before: null, after: { n: 1 }, actor: 'alice' },
    })
    expect(read({ format: 'debezium' }).changes.map(({ text }) => JSON.parse(text) as unknown)).toMatchObject([
      {
        op: 'c',
        before: null,
        after: { document: 'a', id: 'rex', n: 1 },
        source: { connector: 'rejoin', table: 'pets', db: 'a' },
        ts_ms: 5,
      },
      { op: 'd', before: { document: 'a', id: 'rex', n: 1 }, after: null },
    ])
  })
})

describe('GET /v1/changes', () => {
  let grant: Grant
  let feeds: ChangeFeeds
  let app: ReturnType<typeof createApp>
  let pages = 0
  let broken: SyncError | undefined
  const waiting = createWaiting((ms, run) => clock.after(ms, run))

  beforeEach(() => {
    grant = ADMIN
    pages = 0
    broken = undefined
    feeds = createChangeFeeds({
      authorize: () => Promise.resolve(grant),
      clock,
      maxFeeds: 3,
      read: async (request, signal) => {
        pages++
        if (broken !== undefined) throw broken
        const page = read(request)
        if (page.changes.length > 0 || request.wait === 0) return page
        await waiting.wait(request.wait, signal)
        signal.throwIfAborted()
        return read({ ...request, after: page.cursor })
      },
    })
    app = createApp({
      authorize: () => Promise.resolve(grant),
      origin: { type: 'any' },
      metrics: createMetrics([]),
      changes: feeds,
      unready: () => undefined,
      failed: () => undefined,
    })
  })
  const get = (query = '', headers: Record<string, string> = {}): Promise<Response> =>
    Promise.resolve(app.request(`http://relay.test/v1/changes${query}`, { headers }))
  /** Chunks as they come. */
  const reading = (response: Response): { next: () => Promise<string | undefined>; cancel: () => Promise<void> } => {
    const reader = (response.body as ReadableStream<Uint8Array>).getReader()
    return {
      next: async () => {
        const { value } = await reader.read()
        return value && new TextDecoder().decode(value)
      },
      cancel: () => reader.cancel(),
    }
  }

  it('ends lines at the last change, and says where to go on', async () => {
    write('a', ['rex', { n: 1 }])
    const response = await get()
    expect([response.status, response.headers.get('content-type')]).toEqual([200, 'application/x-ndjson'])
    expect((await response.text()).trim().split('\n').map(shown)).toEqual(['create rex null→{"n":1}'])
    const cursor = response.headers.get('rejoin-cursor')
    write('a', ['rex', { n: 2 }], ['tom', { n: 1 }])
    expect((await (await get(`?after=${cursor}`)).text()).trim().split('\n').map(shown)).toEqual([
      'update rex {"n":1}→{"n":2}',
      'create tom null→{"n":1}',
    ])
    expect((await (await get('?limit=1')).text()).trim().split('\n').length).toBe(1)
  })

  it('follows as server-sent events with ids, says that it is there, and honours Last-Event-ID', async () => {
    write('a', ['rex', { n: 1 }])
    const response = await get('', { accept: 'text/event-stream' })
    expect(response.headers.get('content-type')).toBe('text/event-stream')
    const feed = reading(response)
    const [, id = '', data = ''] = /^id: (\S+)\ndata: (.+)\n\n$/u.exec((await feed.next()) ?? '') ?? []
    expect([id, shown(data)]).toEqual([read().cursor, 'create rex null→{"n":1}'])
    const alive = feed.next()
    await clock.advance(20_000)
    expect(await alive).toBe(`id: ${id}\n: alive\n\n`)
    const next = feed.next()
    write('a', ['rex', { n: 2 }])
    await until(() => {
      waiting.wake()
      return pages >= 3
    })
    expect(await next).toContain('"n":2')
    await feed.cancel()
    const again = reading(await get('?after=oldest', { accept: 'text/event-stream', 'last-event-id': id }))
    expect(await again.next()).toContain('"op":"update"')
    await again.cancel()
  })

  it('answers a batch of CloudEvents', async () => {
    write('a', ['rex', { n: 1 }], ['tom', { n: 1 }])
    const response = await get('?limit=1', { accept: 'application/cloudevents-batch+json' })
    expect(response.headers.get('content-type')).toBe('application/cloudevents-batch+json')
    expect(await response.json()).toMatchObject([{ specversion: '1.0', subject: 'pets/a/rex' }])
    const rest = await get(`?after=${response.headers.get('rejoin-cursor')}`, { accept: 'application/cloudevents-batch+json' })
    expect(await rest.json()).toMatchObject([{ subject: 'pets/a/tom' }])
  })

  it('reads no page that the reader has not asked for, and forgets a reader that takes nothing', async () => {
    for (let n = 1; n <= 1200; n++) write('a', ['rex', { n }])
    const feed = reading(await get())
    await clock.advance(60_000)
    expect(pages).toBe(1)
    await feed.next()
    await feed.next()
    expect(pages).toBe(2)
    await clock.advance(301_000)
    await expect(feed.next()).rejects.toThrow('the reader takes nothing')
    expect(pages).toBe(2)
  })

  it('leaves out what the grant may not read, and goes on behind it', async () => {
    for (let n = 1; n <= 600; n++) write('secret', ['rex', { n }])
    write('open', ['tom', { n: 1 }])
    grant = { principal: 'reader', documents: { '*': 'read', secret: 'none' } }
    const lines = (await (await get()).text()).split('\n').filter((line) => line !== '')
    expect(lines.map(shown)).toEqual(['create tom null→{"n":1}'])
  })

  it('is for who may read every document', async () => {
    grant = { principal: 'alice', documents: { 'clinic-*': 'write' } }
    const response = await get()
    expect([response.status, await response.json()]).toMatchObject([403, { error: { code: 'forbidden' } }])
  })

  it('ends when the grant is taken back, and follows another', async () => {
    write('a', ['rex', { n: 1 }])
    const feed = reading(await get('?follow=1'))
    await feed.next()
    const next = feed.next()
    feeds.regrant('somebody else', null)
    feeds.regrant('root', null)
    expect(await next).toContain('"code":"forbidden"')
    expect(await feed.next()).toBeUndefined()
  })

  it('ends when the grant is over', async () => {
    grant = { ...ADMIN, expiresAt: clock.now() + 10_000 }
    const feed = reading(await get('?follow=1'))
    expect(await feed.next()).toBe('\n')
    const next = feed.next()
    await clock.advance(15_000)
    expect(await next).toBe('\n')
    expect(await feed.next()).toContain('"code":"expired"')
  })

  it('opens no more feeds than it may, and counts those that ended', async () => {
    const open = await Promise.all([1, 2, 3].map(() => get('?follow=1')))
    expect((await get('?follow=1')).status).toBe(429)
    await reading(open[0] as Response).cancel()
    expect((await get()).status).toBe(200)
  })

  it('says inside the stream what went wrong after it began', async () => {
    const feed = reading(await get('?follow=1'))
    await feed.next()
    broken = new SyncError('cut_off', 'the changes behind this cursor are not kept any more')
    expect(JSON.parse((await feed.next()) ?? '')).toMatchObject({ error: { code: 'cut_off', hint: ERRORS.cut_off.hint } })
    expect(await feed.next()).toBeUndefined()
  })

  it.each(['?afer=1', '?limit=0', '?limit=x', '?format=xml', '?after=none'])('refuses %s with 400', async (query) => {
    expect((await get(query)).status).toBe(400)
  })
})
