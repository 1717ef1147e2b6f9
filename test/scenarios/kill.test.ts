/**
 * Story two: the relay, or a device, dies with kill -9 in the middle of everything, again and again. What was acknowledged is there, the rest is sent again, and nothing counts twice.
 */
import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'
import { memory } from '@rejoin/client'
import { sqlite } from '@rejoin/client/sqlite'
import type { Scene } from '../support/scene.ts'
import { inScene, readLog, readOver } from '../support/scene.ts'
import { Scribbler, inOrder, marksOf } from '../support/scribbler.ts'
import { canonical } from '../support/scripted-relay.ts'
import { until } from '../support/until.ts'

const CYCLES = 20
/** Acknowledged edits of each device before the next kill. */
const EDITS = 5
const LATE_MS = 30_000

it(
  `a relay that is killed ${CYCLES} times keeps every edit it acknowledged, and gets the others from the devices by themselves, each once`,
  { timeout: 120_000 },
  () =>
    inScene(async (scene) => {
      let relay = await scene.spawn()
      const { url } = relay
      const data = join(scene.folder, 'relay')
      const devices = [
        new Scribbler(scene, url, 'one', sqlite({ path: join(scene.folder, 'one.db') })),
        new Scribbler(scene, url, 'two', sqlite({ path: join(scene.folder, 'two.db') })),
        new Scribbler(scene, url, 'three', memory()),
      ]
      for (let cycle = 1; cycle <= CYCLES; cycle++) {
        const before = devices.map(({ acknowledged }) => acknowledged.length)
        await until(
          () => devices.every(({ acknowledged }, i) => acknowledged.length >= (before[i] ?? 0) + EDITS),
          `acks in cycle ${cycle}`,
          LATE_MS,
        )
        await relay.kill()
        // What it said before it died has been heard by then.
        await until(
          () => devices.every(({ client }) => client.status.get().connection.name !== 'connected'),
          'the devices to notice',
          LATE_MS,
        )
        const promised = devices.flatMap(({ acknowledged }) => acknowledged)
        const [found, next] = await Promise.all([readLog(data, 'clinic'), scene.spawn(url)])
        relay = next
        const marks = new Set(marksOf(found))
        expect(
          promised.filter((mark) => !marks.has(mark)),
          `acknowledged before kill ${cycle}, and lost`,
        ).toEqual([])
      }
      for (const device of devices) device.rest()
      await Promise.all(devices.map(({ client }) => client.wait({ to: 'relay', signal: AbortSignal.timeout(LATE_MS) })))
      const [first, ...others] = devices as [Scribbler, ...Scribbler[]]
      await until(() => others.every(({ ydoc }) => canonical(ydoc) === canonical(first.ydoc)), 'equal replicas', LATE_MS)

      const made = devices.flatMap((device) => device.made)
      const marks = marksOf(await readOver(url, 'clinic'))
      expect(marks).toHaveLength(made.length)
      expect(new Set(marks)).toEqual(new Set(made))
      for (const name of ['one', 'two', 'three']) expect(inOrder(marks, name), `the order of ${name}`).toBe(true)
      expect(canonical(first.ydoc)).toBe(canonical(await readOver(url, 'clinic')))
      for (const { client, refused } of devices) {
        expect(refused).toEqual([])
        expect(client.status.get()).toMatchObject({
          connection: { name: 'connected' },
          pending: { local: 0, relay: 0 },
          held: false,
          quarantined: 0,
        })
      }
    }),
)

const LOOP = fileURLToPath(new URL('../support/edit-loop.js', import.meta.url))

/** A device in a process of its own, and the marks it has seen on each rung. */
function startDevice(scene: Scene, url: string, path: string, name: string) {
  const child = spawn(process.execPath, [LOOP, url, path, 'clinic', name], { stdio: ['ignore', 'pipe', 'inherit'] })
  const rungs = { local: [] as string[], relay: [] as string[] }
  createInterface(child.stdout).on('line', (line) => {
    const [, rung, mark] = /^(local|relay) (.+)$/u.exec(line) ?? []
    if (mark !== undefined) rungs[rung as 'local' | 'relay'].push(mark)
  })
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()))
  const kill = async (): Promise<void> => {
    child.kill('SIGKILL')
    await ended
  }
  scene.onEnd(kill)
  return { ...rungs, kill }
}

it(
  'a device that is killed while it edits, with the relay up and then down, delivers what its store has when it comes back, document open or not',
  { timeout: 60_000 },
  () =>
    inScene(async (scene) => {
      const relay = await scene.spawn()
      const { url } = relay
      const path = join(scene.folder, 'device.db')

      const online = startDevice(scene, url, path, 'online')
      await until(() => online.relay.length >= 50, 'acks', LATE_MS)
      await online.kill()

      const offline = startDevice(scene, url, path, 'offline')
      await until(() => offline.relay.length >= 50, 'acks of the second life', LATE_MS)
      await relay.kill()
      const heard = offline.local.length
      await until(() => offline.local.length >= heard + 50, 'edits without a relay', LATE_MS)
      await offline.kill()
      expect(offline.relay.length).toBeLessThan(offline.local.length)

      // Nobody opens the document: its outbox goes all the same.
      const client = scene.client(url, { store: sqlite({ path }) })
      await until(() => client.status.get().pending.relay > 0, 'the outbox to be read', LATE_MS)
      await scene.spawn(url)
      await client.wait({ to: 'relay', signal: AbortSignal.timeout(LATE_MS) })
      expect(client.status.get()).toMatchObject({ pending: { local: 0, relay: 0 }, quarantined: 0 })

      const marks = marksOf(await readOver(url, 'clinic'))
      const found = new Set(marks)
      expect(
        [...online.local, ...offline.local].filter((mark) => !found.has(mark)),
        'committed on the device, and lost',
      ).toEqual([])
      expect(found.size, 'each once').toBe(marks.length)
      for (const name of ['online', 'offline']) expect(inOrder(marks, name)).toBe(true)
      const replica = client.open('clinic')
      await replica.whenSynced()
      expect(canonical(replica.ydoc)).toBe(canonical(await readOver(url, 'clinic')))
    }),
)
