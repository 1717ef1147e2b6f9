/**
 * Every limit of a socket at its edge: what is exactly at it passes, what is one above is answered with the documented code and costs at most that socket.
 */
import { connect } from 'node:net'
import { beforeEach, describe, expect, it } from 'vitest'
import { WebSocket } from 'ws'
import { Awareness, encodeAwarenessUpdate, removeAwarenessStates } from 'y-protocols/awareness'
import * as Y from 'yjs'
import type { Replica } from '@rejoin/client'
import type { ClientFrame } from '@rejoin/shared/wire'
import { PING, expectAlive, open, padded, textOf } from '../support/edges.ts'
import { Writer } from '../support/relay.ts'
import { inScene, readOver } from '../support/scene.ts'
import { until } from '../support/until.ts'
import type { WireClient } from '../support/wire-client.ts'
import { connectWire } from '../support/wire-client.ts'

const HELLO: ClientFrame = { type: 'hello', revisionMin: 1, revisionMax: 1, agent: 'test', token: '' }

describe('a message', () => {
  const message = 10_000

  it('of exactly the limit is read; one byte more ends its socket, and only that one', () =>
    inScene(async (scene) => {
      const { url } = await scene.serve({ limits: { message } })
      const [wire, other] = [await scene.wire(url), await scene.wire(url)]
      wire.socket.send(padded(PING, message))
      await wire.next('pong')
      wire.socket.send(padded(PING, message + 1))
      expect((await wire.ended()).code).toBe(1009)
      await expectAlive(other)
    }))

  it('that is the first may be as long as a hello, and no longer; a much longer one is not even gathered', () =>
    inScene(async (scene) => {
      const helloMessage = 2000
      const { url } = await scene.serve({ limits: { helloMessage } })
      const silent = async (): Promise<WireClient> => {
        const wire = await connectWire(url, null)
        scene.onEnd(() => wire.socket.terminate())
        return wire
      }
      const fits = await silent()
      fits.socket.send(padded(HELLO, helloMessage))
      await fits.next('welcome')
      const above = await silent()
      above.socket.send(padded(HELLO, helloMessage + 1))
      expect(await above.next('goaway')).toMatchObject({ code: 'bad_frame' })
      expect((await above.ended()).code).toBe(4400)
      const long = await silent()
      long.socket.send(padded(HELLO, 900_000))
      expect((await long.ended()).code).toBe(1006)
      // Once it is welcome, other limits hold.
      fits.socket.send(padded(PING, helloMessage + 1000))
      await fits.next('pong')
    }))

  it('that does not come in time ends the socket', () =>
    inScene(async (scene) => {
      const helloMs = 200
      const { url } = await scene.serve({ limits: { helloMs } })
      const welcomed = await scene.wire(url)
      const began = performance.now()
      const wire = await connectWire(url, null)
      expect(await wire.next('goaway')).toMatchObject({ code: 'timeout' })
      expect((await wire.ended()).code).toBe(4408)
      expect(performance.now() - began).toBeGreaterThanOrEqual(helloMs - 1)
      await expectAlive(welcomed)
    }))

  it('of y-websocket has a limit of its own', () =>
    inScene(async (scene) => {
      const { url } = await scene.serve({ limits: { yMessage: 5000 } })
      const [socket, other] = [new WebSocket(`${url.replace('http', 'ws')}/y/d`), new WebSocket(`${url.replace('http', 'ws')}/y/d`)]
      scene.onEnd(() => [socket, other].map((each) => each.terminate()))
      await Promise.all([socket, other].map((each) => new Promise((resolve) => each.once('open', resolve))))
      const ended = new Promise<number>((resolve) => socket.once('close', resolve))
      // Messages of unknown type are other people's additions.
      socket.send(new Uint8Array(5000).fill(100))
      socket.send(new Uint8Array(5001).fill(100))
      expect(await ended).toBe(4413)
      expect(other.readyState).toBe(WebSocket.OPEN)
    }))
})

describe('a socket', () => {
  it('has so many documents open and no more, until it closes one', () =>
    inScene(async (scene) => {
      const { url } = await scene.serve({ limits: { documents: 3 } })
      const wire = await scene.wire(url)
      const handles: number[] = []
      for (const document of ['a', 'b', 'c']) handles.push(await open(wire, document))
      wire.send({ type: 'open', ref: 4, document: 'd' })
      expect(await wire.next('refused')).toMatchObject({ ref: 4, code: 'too_many' })
      wire.send(new Writer().push(handles[0] ?? 0))
      await wire.next('ack')
      wire.send({ type: 'close', handle: handles[1] ?? 0 }, { type: 'open', ref: 5, document: 'd' })
      expect(await wire.next('opened', 'refused')).toMatchObject({ type: 'opened', ref: 5 })

      // A client with one document too many gets it as soon as there is room.
      const client = scene.client(url)
      const replicas = ['a', 'b', 'c', 'd'].map((document) => client.open(document))
      await Promise.all(replicas.map((replica) => replica.whenLoaded()))
      const last = replicas[3] as Replica
      const edit = last.edit(() => last.ydoc.getArray('log').push(['waits']))
      await Promise.all(replicas.slice(0, 3).map((replica) => replica.whenSynced()))
      replicas[0]?.close()
      await edit.wait({ to: 'relay', signal: AbortSignal.timeout(20_000) })
    }))

  it('beyond the limit of connections is sent away, without harm to the others, and let in when one leaves', () =>
    inScene(async (scene) => {
      const { url } = await scene.serve({ limits: { connections: 2 } })
      const [one, two] = [await scene.wire(url), await scene.wire(url)]
      const third = await scene.wire(url)
      expect(third.frames[0]).toMatchObject({ type: 'goaway', code: 'too_many' })
      expect((await third.ended()).code).toBe(4429)
      const stranger = new WebSocket(`${url.replace('http', 'ws')}/y/d`)
      scene.onEnd(() => stranger.terminate())
      expect(
        await new Promise((resolve) => {
          stranger.once('error', ({ message }) => resolve(message))
          stranger.once('open', () => resolve('open'))
        }),
      ).toContain('429')
      const client = scene.client(url)
      await until(() => client.status.get().connection.name === 'offline')
      expect(client.status.get().connection.reason).toContain('at most 2 connections')
      await expectAlive(one)
      two.socket.close()
      await until(() => client.status.get().connection.name === 'connected')
    }))

  it('that pushes faster than the log writes is not read meanwhile: what waits stays small, and nothing is lost', () =>
    inScene(async (scene) => {
      const window = 16 * 1024
      const { url } = await scene.serve({ limits: { window } })
      const wire = await scene.wire(url)
      const handle = await open(wire, 'd')
      const writer = new Writer()
      const text = 'x'.repeat(1000)
      const pushes = Array.from({ length: 3000 }, () => writer.push(handle, (doc) => doc.getText('t').insert(0, text)))
      const size = pushes[0]?.update.length ?? 0
      for (const each of pushes) wire.send(each)
      let most = 0
      const acks = (): number => wire.frames.reduce((n, frame) => (frame.type === 'ack' ? Math.max(n, frame.n) : n), 0)
      await until(
        async () => {
          const metrics = await (await fetch(`${url}/metrics`)).text()
          most = Math.max(most, Number(/^rejoin_pushes_waiting (\d+)/mu.exec(metrics)?.[1]))
          return acks() === pushes.length
        },
        'every ack',
        30_000,
      )
      // Twice the window, and what one read of the network brought.
      expect(most * size).toBeLessThan(2 * window + 128 * 1024)
      expect(most).toBeGreaterThan(0)
      expect((await readOver(url, 'd')).getText('t').length).toBe(pushes.length * text.length)
    }))

  it('is given a document in pieces of the limit', () =>
    inScene(async (scene) => {
      const fragment = 8000
      const { url } = await scene.serve({ limits: { fragment } })
      const [writer, reader] = [await scene.wire(url), await scene.wire(url)]
      const pushed = new Writer().push(await open(writer, 'd'), textOf(30_000))
      writer.send(pushed)
      await writer.next('ack')
      await open(reader, 'd')
      const pieces = await until(() => {
        const states = reader.frames.filter((frame) => frame.type === 'state' && frame.total > 0) as {
          readonly update: Uint8Array
          readonly total: number
        }[]
        return states.reduce((sum, { update }) => sum + update.length, 0) >= pushed.update.length && states
      })
      expect(Math.max(...pieces.map(({ update }) => update.length))).toBe(fragment)
      expect(pieces).toHaveLength(Math.ceil(pushed.update.length / fragment))
    }))
})

describe('presence', () => {
  let awareness: Awareness
  beforeEach(() => {
    awareness = new Awareness(new Y.Doc())
    return () => awareness.destroy()
  })
  const say = (state: Record<string, unknown>): Uint8Array => {
    awareness.setLocalState(state)
    return encodeAwarenessUpdate(awareness, [awareness.clientID])
  }

  it('of exactly the limit is shown; one byte more is not, and the socket goes on', () =>
    inScene(async (scene) => {
      const presence = 500
      const { url } = await scene.serve({ limits: { presence } })
      const [wire, other] = [await scene.wire(url), await scene.wire(url)]
      const [handle] = [await open(wire, 'd'), await open(other, 'd')]
      const state = (bytes: number): Record<string, unknown> => ({ s: 'x'.repeat(bytes - '{"s":""}'.length) })
      wire.send({ type: 'presence', handle, awareness: say(state(presence)) })
      await other.next('presence')
      wire.send({ type: 'presence', handle, awareness: say(state(presence + 1)) })
      await expectAlive(wire)
      wire.send({ type: 'presence', handle, awareness: say({ s: 'last' }) })
      // What comes next is the last: the one above the limit went to nobody.
      expect(new TextDecoder().decode((await other.next('presence')).awareness)).toContain('last')
    }))

  it('that is said too often is thinned out, and ends with what was said last', () =>
    inScene(async (scene) => {
      const presencePerSecond = 10
      const { url } = await scene.serve({ limits: { presencePerSecond } })
      const [wire, other] = [await scene.wire(url), await scene.wire(url)]
      const [handle, heard] = [await open(wire, 'd'), await open(other, 'd')]
      const began = performance.now()
      const told = 100
      for (let i = 1; i <= told; i++) wire.send({ type: 'presence', handle, awareness: say({ at: i }) })
      const shown = (): number[] =>
        other.frames.flatMap((frame) =>
          frame.type === 'presence' ? [Number(/"at":(\d+)/u.exec(new TextDecoder().decode(frame.awareness))?.[1])] : [],
        )
      await until(() => shown().at(-1) === told)
      const seconds = (performance.now() - began) / 1000
      expect(shown().length).toBeGreaterThanOrEqual(presencePerSecond)
      expect(shown().length).toBeLessThanOrEqual(presencePerSecond * (1 + seconds) + 1)
      await expectAlive(wire)
      // Others are not held to what one has used up, and goodbye is heard.
      const late = new Awareness(new Y.Doc())
      late.setLocalState({ at: -1 })
      other.send({ type: 'presence', handle: heard, awareness: encodeAwarenessUpdate(late, [late.clientID]) })
      await wire.next('presence')
      late.destroy()
      removeAwarenessStates(awareness, [awareness.clientID], 'test')
      wire.send({ type: 'presence', handle, awareness: encodeAwarenessUpdate(awareness, [awareness.clientID]) })
      await until(() => Number.isNaN(shown().at(-1)))
    }))
})

describe('an upgrade that is refused', () => {
  it('is over even for a peer that keeps its own half of the connection open', () =>
    inScene(async (scene) => {
      const { url } = await scene.serve()
      const { hostname, port } = new URL(url)
      const socket = connect({ host: hostname, port: Number(port), allowHalfOpen: true })
      scene.onEnd(() => void socket.destroy())
      let answer = ''
      let ended = false
      let lost = false
      socket.on('data', (chunk) => (answer += String(chunk)))
      socket.on('end', () => (ended = true))
      socket.on('error', () => (lost = true))
      socket.write(
        `GET /nope HTTP/1.1\r\nHost: ${hostname}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n`,
      )
      await until(() => ended)
      expect(answer).toContain('not_found')
      // The kernel refuses what comes for a descriptor that was given back.
      await until(() => {
        if (!lost) socket.write('x')
        return lost
      })
    }))
})
