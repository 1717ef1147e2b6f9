/**
 * A relay that is asked to stop, in the middle of traffic: alone with its port, and inside somebody else's HTTP server.
 */
import { createServer as createHttpServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { WebSocket, WebSocketServer } from 'ws'
import type { ConnectionStatus } from '@rejoin/client'
import { memory } from '@rejoin/client'
import { sqlite } from '@rejoin/client/sqlite'
import { createRelay } from '@rejoin/server'
import type { GoawayFrame } from '@rejoin/shared/wire'
import { expectAlive, open } from '../support/edges.ts'
import { Writer } from '../support/relay.ts'
import { inScene, readLog, readOver } from '../support/scene.ts'
import { Scribbler, inOrder, marksOf } from '../support/scribbler.ts'
import { canonical } from '../support/scripted-relay.ts'
import { until } from '../support/until.ts'

const LATE_MS = 30_000
const DRAIN_MS = 5000

it(
  'SIGTERM in the middle of traffic: all that was acknowledged is durable, peers are told to come back one after the other, exit 0 within 5 s; clients go on with the next relay by themselves',
  { timeout: 60_000 },
  () =>
    inScene(async (scene) => {
      const relay = await scene.spawn()
      const { url } = relay
      const devices = [
        new Scribbler(scene, url, 'one', sqlite({ path: join(scene.folder, 'one.db') })),
        new Scribbler(scene, url, 'two', memory()),
      ]
      const wires = await Promise.all(Array.from({ length: 20 }, () => scene.wire(url)))
      await until(() => devices.every(({ acknowledged }) => acknowledged.length >= 30), 'acks', LATE_MS)
      // What each device was told: by the time the relay is gone the first have dialled again, in vain.
      const told = devices.map(({ client }) => {
        const seen: ConnectionStatus[] = []
        scene.onEnd(client.status.subscribe(({ connection }) => seen.push(connection)))
        return seen
      })
      const began = performance.now()
      expect(await relay.kill('SIGTERM')).toEqual({ code: 0, signal: null })
      expect(performance.now() - began).toBeLessThan(DRAIN_MS)

      const goodbyes = await Promise.all(
        wires.map(async (wire) => {
          expect((await wire.ended()).code).toBe(4503)
          return wire.frames.at(-1) as GoawayFrame
        }),
      )
      expect(new Set(goodbyes.map(({ type, code }) => `${type} ${code}`))).toEqual(new Set(['goaway draining']))
      const pauses = goodbyes.map(({ retryAfter }) => retryAfter)
      // Twenty uniform draws from a second and more: all in one tenth of it once in 10^16 drains.
      expect(Math.max(...pauses) - Math.min(...pauses)).toBeGreaterThan(100)
      await expect(fetch(`${url}/readyz`)).rejects.toThrow()

      await until(() => devices.every(({ client }) => client.status.get().connection.name === 'offline'), 'devices to notice')
      for (const seen of told)
        expect(seen).toContainEqual({ name: 'offline', reason: 'the relay is going down', retryAt: expect.any(Number) })
      const marks = new Set(marksOf(await readLog(join(scene.folder, 'relay'), 'clinic')))
      expect(devices.flatMap(({ acknowledged }) => acknowledged).filter((mark) => !marks.has(mark))).toEqual([])

      await scene.spawn(url)
      const before = devices.map(({ made }) => made.length)
      await until(() => devices.every(({ acknowledged }, i) => acknowledged.length > (before[i] ?? 0)), 'devices to come back', LATE_MS)
      for (const device of devices) device.rest()
      await Promise.all(devices.map(({ client }) => client.wait({ to: 'relay', signal: AbortSignal.timeout(LATE_MS) })))
      const now = await readOver(url, 'clinic')
      const made = devices.flatMap((device) => device.made)
      expect(marksOf(now)).toHaveLength(made.length)
      expect(new Set(marksOf(now))).toEqual(new Set(made))
      for (const name of ['one', 'two']) expect(inOrder(marksOf(now), name)).toBe(true)
      await until(() => devices.every(({ ydoc }) => canonical(ydoc) === canonical(now)), 'equal replicas')
      expect(devices.flatMap(({ refused }) => refused)).toEqual([])
    }),
)

it('inside an HTTP server of the application the relay takes its own addresses and leaves the others, and says that it is not ready before it goes', () =>
  inScene(async (scene) => {
    const data = join(scene.folder, 'relay')
    const relay = await createRelay({ data })
    scene.onEnd(() => relay.close())
    const echo = new WebSocketServer({ noServer: true })
    echo.on('connection', (socket) => socket.on('message', (said) => socket.send(said)))
    const http = createHttpServer((request, response) => {
      if (request.url === '/hello') {
        response.end('hello')
        return
      }
      const answer = async (): Promise<void> => {
        const { status, headers, body } = await relay.app.fetch(new Request(`http://${request.headers.host}${request.url}`))
        response.writeHead(status, Object.fromEntries(headers))
        response.end(new Uint8Array(await new Response(body).arrayBuffer()))
      }
      answer().catch((error: unknown) => response.destroy(error as Error))
    })
    http.on('upgrade', (request, socket, head) => {
      if (relay.upgrade(request, socket, head)) return
      if (request.url === '/echo') echo.handleUpgrade(request, socket, head, (ws) => echo.emit('connection', ws))
      else socket.end('HTTP/1.1 404 Not Found\r\n\r\n')
    })
    await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve))
    scene.onEnd(() => {
      http.closeAllConnections()
      return new Promise((resolve) => http.close(resolve))
    })
    const url = `http://127.0.0.1:${(http.address() as AddressInfo).port}`
    const statusOf = async (path: string): Promise<number> => (await fetch(url + path)).status
    const socketAt = (path: string): Promise<string> =>
      new Promise((resolve) => {
        const socket = new WebSocket(url.replace('http', 'ws') + path)
        scene.onEnd(() => socket.terminate())
        socket.once('error', ({ message }) => resolve(message))
        socket.once('open', () => socket.send('anybody?'))
        socket.once('message', (said: Buffer) => resolve(said.toString()))
      })

    expect(await Promise.all(['/hello', '/healthz', '/readyz', '/metrics', '/nothing'].map(statusOf))).toEqual([200, 200, 200, 200, 404])
    expect(await socketAt('/echo')).toBe('anybody?')
    expect(await socketAt('/syncs')).toContain('404')
    const client = scene.client(url)
    const replica = client.open('clinic')
    await replica.whenLoaded()
    await replica.edit(() => replica.ydoc.getArray('log').push(['embedded'])).wait({ to: 'relay' })
    expect(marksOf(await readOver(url, 'clinic'))).toEqual(['embedded'])

    // A peer that does not answer goodbyes makes the drain last.
    const stopped = await scene.wire(url)
    await expectAlive(stopped)
    stopped.socket.pause()
    const writing = await scene.wire(url)
    const handle = await open(writing, 'clinic')
    const writer = new Writer()
    for (let i = 0; i < 100; i++) writing.send(writer.push(handle, (doc) => doc.getArray('log').push([`pushed ${i}`])))
    await writing.next('ack')
    const began = performance.now()
    const closed = relay.close()
    expect(await Promise.all(['/readyz', '/hello', '/healthz', '/v1/documents/clinic'].map(statusOf))).toEqual([503, 200, 200, 503])
    expect(await socketAt('/sync')).toContain('503')
    expect(await socketAt('/echo')).toBe('anybody?')
    await closed
    expect(performance.now() - began).toBeLessThan(DRAIN_MS)
    expect((await writing.ended()).code).toBe(4503)
    expect(writing.frames.at(-1)).toMatchObject({ type: 'goaway', code: 'draining' })
    // Everything that was said to be durable is.
    const acked = writing.frames.reduce((n, frame) => (frame.type === 'ack' ? Math.max(n, frame.n) : n), 0)
    const kept = new Set(marksOf(await readLog(data, 'clinic')))
    expect(Array.from({ length: acked }, (_, i) => `pushed ${i}`).filter((mark) => !kept.has(mark))).toEqual([])
    expect(kept).toContain('embedded')
    expect(await statusOf('/hello')).toBe(200)
  }))
