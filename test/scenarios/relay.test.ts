/**
 * The relay end to end: real sockets, the log in SQLite, a process that can be killed.
 */
import * as Y from 'yjs'
import { afterEach, describe, expect, it } from 'vitest'
import type { Replica } from '@rejoin/client'
import { createClient, memory } from '@rejoin/client'
import { until } from '../support/until.ts'
import { Writer } from '../support/relay.ts'
import type { ChildRelay, WireClient } from '../support/wire-client.ts'
import { connectWire, inFolder, startRelay } from '../support/wire-client.ts'

const running: ChildRelay[] = []
afterEach(async () => {
  for (const relay of running.splice(0)) await relay.kill()
})

async function start(folder: string): Promise<ChildRelay> {
  const relay = await startRelay(folder)
  running.push(relay)
  return relay
}

async function open(client: WireClient, document: string): Promise<number> {
  client.send({ type: 'open', ref: 1, document })
  return (await client.next('opened')).handle
}

/** Everything the relay has of a document, as a fresh client receives it. */
async function read(url: string, document: string): Promise<Y.Doc> {
  const client = await connectWire(url)
  client.send({ type: 'open', ref: 1, document })
  const { head } = await client.next('opened')
  const doc = new Y.Doc()
  for (let seq = 0; seq < head;) {
    const frame = await client.next('state', 'entries')
    if (frame.type === 'state') {
      seq = frame.seq
      if (frame.total > 0) Y.applyUpdate(doc, frame.update)
    } else {
      for (const update of frame.updates) Y.applyUpdate(doc, update)
      seq = frame.first + frame.updates.length - 1
    }
  }
  client.socket.terminate()
  return doc
}

describe('a relay in a process of its own', () => {
  it('gives one client what another pushed', () =>
    inFolder(async (folder) => {
      const { url } = await start(folder)
      const [a, b] = [await connectWire(url), await connectWire(url)]
      const [handle] = [await open(a, 'clinic/ä'), await open(b, 'clinic/ä')]
      const pushed = new Writer().push(handle)
      a.send(pushed)
      const ack = await a.next('ack')
      expect(await b.next('entries')).toMatchObject({ first: 1, hash: ack.hash, updates: [new Uint8Array(pushed.update)] })
    }))

  it('carries an edit of several megabytes from one client to another', () =>
    inFolder(async (folder) => {
      const { url } = await start(folder)
      const clients = [createClient({ url, store: memory() }), createClient({ url, store: memory() })] as const
      const [a, b] = clients.map((client) => client.open('d')) as [Replica, Replica]
      await Promise.all([a.whenSynced(), b.whenSynced()])
      const long = 'lorem ipsum '.repeat(250_000)
      await a.edit(() => a.ydoc.getText('t').insert(0, long)).wait({ to: 'relay' })
      a.edit(() => a.ydoc.getText('t').insert(0, '!'))
      await until(() => b.ydoc.getText('t').toString() === `!${long}`)
      expect(b.status.get().connection.name).toBe('connected')
      await Promise.all(clients.map((client) => client.close()))
    }))

  it('still has everything it acknowledged after kill -9', () =>
    inFolder(async (folder) => {
      const relay = await start(folder)
      const client = await connectWire(relay.url)
      const handle = await open(client, 'd')
      const writer = new Writer()
      for (let i = 0; i < 200; i++) client.send(writer.push(handle, (doc) => doc.getMap('m').set(`k${i}`, i)))
      for (let acked = 0; acked < 100;) acked = (await client.next('ack')).n
      await relay.kill()
      const acked = Math.max(...client.frames.map((frame) => (frame.type === 'ack' ? frame.n : 0)))
      const map = (await read((await start(folder)).url, 'd')).getMap('m')
      for (let i = 0; i < acked; i++) expect(map.get(`k${i}`)).toBe(i)
    }))

  it('drains on SIGTERM: answers what it took, says goodbye, exits 0 within 5 s', () =>
    inFolder(async (folder) => {
      const relay = await start(folder)
      const client = await connectWire(relay.url)
      const handle = await open(client, 'd')
      const writer = new Writer()
      for (let i = 0; i < 50; i++) client.send(writer.push(handle))
      await client.next('ack')
      const began = performance.now()
      expect(await relay.kill('SIGTERM')).toEqual({ code: 0, signal: null })
      expect(performance.now() - began).toBeLessThan(5000)
      expect(client.frames.at(-1)).toMatchObject({ type: 'goaway', code: 'draining' })
      expect(await client.ended()).toEqual({ code: 4503, reason: 'the relay is going down' })
    }))
})
