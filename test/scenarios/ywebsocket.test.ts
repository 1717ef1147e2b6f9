/**
 * The stranger: unmodified y-websocket providers on the relay, by themselves and beside a Rejoin client.
 */
import { createClient, memory } from '@rejoin/client'
import { createServer, jwt } from '@rejoin/server'
import { SignJWT } from 'jose'
import { describe, expect, it, vi } from 'vitest'
import { WebSocket } from 'ws'
import { WebsocketProvider } from 'y-websocket'
import * as Y from 'yjs'
import { startServe } from '../support/cli.ts'
import { until } from '../support/until.ts'
import { inFolder } from '../support/wire-client.ts'

const SECRET = 'a secret of the tests that is long enough'
const closing: (() => unknown)[] = []

/** What `run` opened is closed before its folder goes. */
function inWorld(run: (folder: string) => Promise<void>): Promise<void> {
  return inFolder(async (folder) => {
    try {
      await run(folder)
    } finally {
      for (const close of closing.splice(0).toReversed()) await close()
    }
  })
}

interface Stranger {
  readonly doc: Y.Doc
  readonly provider: WebsocketProvider
  readonly text: Y.Text
}

/** A stock client. Tabs do not talk to one another here: everything goes over the relay. */
function stranger(
  url: string,
  document = 'room',
  options: { params?: Record<string, string>; protocols?: string[]; doc?: Y.Doc } = {},
): Stranger {
  const { doc = new Y.Doc(), ...rest } = options
  const provider = new WebsocketProvider(`${url.replace('http', 'ws')}/y`, document, doc, {
    WebSocketPolyfill: WebSocket as never,
    disableBc: true,
    maxBackoffTime: 100,
    ...rest,
  })
  closing.push(() => provider.destroy())
  return { doc, provider, text: doc.getText('text') }
}

async function serve(folder: string, options: Parameters<typeof createServer>[0] = {}): Promise<string> {
  const server = await createServer({ port: 0, data: folder, ...options })
  closing.push(() => server.close())
  return server.url
}

function synced(...all: readonly Stranger[]): Promise<unknown> {
  return until(() => all.every(({ provider }) => provider.synced), 'all to be synced')
}

function equal(...all: readonly { readonly doc: Y.Doc }[]): Promise<unknown> {
  const state = ({ doc }: { doc: Y.Doc }): string => JSON.stringify([doc.getText('text').toDelta(), doc.getMap('map').toJSON()])
  return until(() => new Set(all.map(state)).size === 1, 'all to be equal')
}

/** The head of the document's log. */
async function headOf(url: string, document = 'room'): Promise<number> {
  const answer = await fetch(`${url}/v1/documents/${document}`)
  return Number(answer.headers.get('rejoin-seq') ?? 0)
}

/** `path` asked for as a WebSocket: the HTTP status of the answer. */
function upgradeStatus(url: string, path: string): Promise<number> {
  return new Promise((resolve) => {
    const socket = new WebSocket(url.replace('http', 'ws') + path)
    socket.on('unexpected-response', (_request, response) => {
      resolve(response.statusCode ?? 0)
      socket.terminate()
    })
    socket.on('open', () => {
      resolve(101)
      socket.terminate()
    })
    socket.on('error', () => undefined)
  })
}

function token(docs: Record<string, string>, sub = 'alice', ttl = '1h'): Promise<string> {
  return new SignJWT({ docs })
    .setProtectedHeader({ alg: 'HS256' })
    .setSubject(sub)
    .setExpirationTime(ttl)
    .sign(new TextEncoder().encode(SECRET))
}

describe('unmodified y-websocket clients', () => {
  it('edit together, and a newcomer gets everything', () =>
    inWorld(async (folder) => {
      const url = await serve(folder)
      const [a, b] = [stranger(url, 'clinic/ünï'), stranger(url, 'clinic/ünï')]
      await synced(a, b)
      a.text.insert(0, 'hello')
      b.doc.getMap('map').set('of', 'b')
      await equal(a, b)
      b.text.delete(0, 1)
      a.text.format(0, 2, { bold: true })
      await equal(a, b)
      const late = stranger(url, 'clinic/ünï')
      await synced(late)
      await equal(a, b, late)
      expect(late.text.toString()).toBe('ello')
    }))

  it('see one another, and see one another leave', () =>
    inWorld(async (folder) => {
      const url = await serve(folder)
      const [a, b] = [stranger(url), stranger(url)]
      const seen = (of: Stranger, other: Stranger): unknown => of.provider.awareness.getStates().get(other.doc.clientID)
      a.provider.awareness.setLocalState({ name: 'a' })
      b.provider.awareness.setLocalState({ name: 'b' })
      await until(() => seen(a, b) !== undefined && seen(b, a) !== undefined, 'both to be seen')
      expect([seen(a, b), seen(b, a)]).toEqual([
        { name: 'b', principal: 'anonymous' },
        { name: 'a', principal: 'anonymous' },
      ])
      a.provider.disconnect()
      await until(() => seen(b, a) === undefined, 'a to be gone')
    }))

  it('bring what they edited apart when they come back, and a reconnect without edits makes no entry', () =>
    inWorld(async (folder) => {
      const url = await serve(folder)
      const [a, b] = [stranger(url), stranger(url)]
      await synced(a, b)
      a.text.insert(0, 'one two three')
      for (let at = 0; at < 6; at++) a.text.delete(at, 1)
      await equal(a, b)
      a.provider.disconnect()
      a.text.insert(0, 'apart ')
      a.text.delete(8, 2)
      b.text.insert(b.text.length, ' together')
      a.provider.connect()
      await equal(a, b)
      const head = await headOf(url)
      for (const { provider } of [a, b]) {
        provider.disconnect()
        provider.connect()
      }
      await synced(a, b)
      // Its answer to our step1, with the whole delete set in it, went before this edit.
      a.text.insert(0, '!')
      b.text.insert(0, '?')
      await equal(a, b)
      expect(await headOf(url)).toBe(head + 2)
    }))

  it('go on after the relay was killed and started again', () =>
    inWorld(async (folder) => {
      const first = await startServe(['--data', folder])
      const { port } = new URL(first.url)
      const [a, b] = [stranger(first.url), stranger(first.url)]
      await synced(a, b)
      a.text.insert(0, 'before')
      await equal(a, b)
      first.child.kill('SIGKILL')
      await first.ended
      a.text.insert(6, ' meanwhile')
      b.text.insert(0, 'and ')
      const second = await startServe(['--data', folder, '--port', port])
      closing.push(() => second.child.kill('SIGKILL'))
      await equal(a, b)
      expect(a.text.toString()).toBe('and before meanwhile')
      const late = stranger(second.url)
      await synced(late)
      await equal(a, late)
    }))

  it('and Rejoin clients edit the same document and see one another', () =>
    inWorld(async (folder) => {
      const url = await serve(folder)
      const client = createClient({ url, store: memory() })
      closing.push(() => client.close())
      const replica = client.open('room')
      await replica.whenLoaded()
      const a = stranger(url)
      a.text.insert(0, 'from the stranger')
      const own = { doc: replica.ydoc }
      await equal(a, own)
      const edit = replica.edit(() => replica.ydoc.getText('text').insert(0, 'ours and '))
      await edit.wait({ to: 'relay' })
      await equal(a, own)
      a.provider.awareness.setLocalState({ name: 'stranger' })
      replica.presence.awareness.setLocalState({ name: 'ours' })
      const states = (awareness: { getStates(): Map<number, unknown> }, id: number): unknown => awareness.getStates().get(id)
      await until(
        () =>
          states(a.provider.awareness, replica.ydoc.clientID) !== undefined &&
          states(replica.presence.awareness, a.doc.clientID) !== undefined,
        'both to be seen',
      )
    }))
})

describe('a y-websocket message above its limit', () => {
  const MIB = 1024 * 1024

  it('is one that a client sends: a document above it is served whole to whoever comes', () =>
    inWorld(async (folder) => {
      const url = await serve(folder)
      const writer = stranger(url)
      await synced(writer)
      for (const part of ['a', 'b', 'c']) {
        const head = await headOf(url)
        writer.text.insert(0, part.repeat(6 * MIB))
        await until(async () => (await headOf(url)) > head, 'the part to be durable')
      }
      const late = stranger(url)
      await synced(late)
      expect(late.text.length).toBe(18 * MIB)
      late.text.insert(0, 'and from here')
      await until(() => writer.text.length === late.text.length, 'the edit to arrive')
      late.provider.disconnect()
      late.provider.connect()
      await synced(late)
    }))

  it('ends the socket with a code at which the client does not dial for ever, and others go on', () =>
    inWorld(async (folder) => {
      const url = await serve(folder)
      const other = stranger(url)
      await synced(other)
      const codes: number[] = []
      const large = new Y.Doc()
      large.getText('text').insert(0, 'x'.repeat(17 * MIB))
      const { provider } = stranger(url, 'room', { doc: large })
      provider.on('connection-close', (event) => void (event && codes.push(event.code)))
      await until(() => codes.length > 0, 'the socket to be ended')
      expect(codes).toEqual([4413])
      expect([provider.shouldConnect, other.provider.wsconnected]).toEqual([false, true])
    }))
})

describe('at the door of /y/', () => {
  it('is refused over HTTP whoever has no grant, and let in by query or subprotocol', () =>
    inWorld(async (folder) => {
      const url = await serve(folder, { auth: jwt({ secret: SECRET }) })
      const write = await token({ 'room*': 'write' })
      expect(await upgradeStatus(url, '/y/room')).toBe(401)
      expect(await upgradeStatus(url, '/y/room?token=nonsense')).toBe(401)
      expect(await upgradeStatus(url, `/y/other?token=${write}`)).toBe(403)
      expect(await upgradeStatus(url, `/y/room?token=${write}`)).toBe(101)
      expect(await upgradeStatus(url, '/y/')).toBe(400)
      expect(await upgradeStatus(url, '/y/%ff')).toBe(400)
      expect(await upgradeStatus(url, '/elsewhere')).toBe(404)
      const [a, b] = [stranger(url, 'room', { params: { token: write } }), stranger(url, 'room', { protocols: ['yjs', `token.${write}`] })]
      await synced(a, b)
      a.text.insert(0, 'x')
      await equal(a, b)
      expect(b.provider.ws?.protocol).toBe('yjs')
    }))

  it('takes nothing from whoever may only read', () =>
    inWorld(async (folder) => {
      // y-websocket writes that permission was denied.
      const told = vi.spyOn(console, 'warn').mockReturnValue()
      closing.push(() => told.mockRestore())
      const url = await serve(folder, { auth: jwt({ secret: SECRET }) })
      const writer = stranger(url, 'room', { params: { token: await token({ room: 'write' }) } })
      const reader = stranger(url, 'room', { params: { token: await token({ room: 'read' }, 'bob') } })
      await synced(writer, reader)
      reader.text.insert(0, 'not to be seen')
      writer.text.insert(0, 'written')
      await until(() => reader.text.toString().includes('written'), 'the reader to read')
      const late = stranger(url, 'room', { params: { token: await token({ room: 'read' }, 'eve') } })
      await synced(late)
      expect([late.text.toString(), writer.text.toString()]).toEqual(['written', 'written'])
      expect(told).toHaveBeenCalledOnce()
    }))
})
