/**
 * A destination that is away for long: what changes meanwhile waits in the view, not in memory, also over a restart; when the destination comes back it gets all of it.
 */
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Replica } from '@rejoin/client'
import Database from 'better-sqlite3'
import { expect, it } from 'vitest'
import * as Y from 'yjs'
import type { Serving } from '../support/cli.ts'
import { startServe } from '../support/cli.ts'
import { requires } from '../support/requires.ts'
import type { Scene } from '../support/scene.ts'
import { inScene } from '../support/scene.ts'
import { until } from '../support/until.ts'

/** Changes of records that wait. REJOIN_CHANGES makes it a campaign: 200000, or 1000000. */
const CHANGES = Number(process.env['REJOIN_CHANGES'] ?? 10_000)
/** Of one edit. */
const RECORDS = 1_000
const ROUNDS = CHANGES / RECORDS
const SLACK_MIB = 100
const LATE_MS = 300_000

const describeLinux = requires('/proc', () => (existsSync('/proc/self/status') ? undefined : 'no /proc to read a process’s memory from'))

describeLinux('a sink that is away', () => {
  it(`lets ${CHANGES} changes wait in memory that stays flat, over a kill, and gets all of them`, { timeout: 900_000 }, () =>
    inScene(async (scene) => {
      const place = join(scene.folder, 'place')
      mkdirSync(place)
      let relay = await serve(scene, 'relay', place)
      const replica = await registry(scene, relay)
      // Does the same with a sink that is there: heaps of every thread grow to what the work takes, and only what is above that is waiting.
      const other = await serve(scene, 'other', join(scene.folder, 'other-place'))
      const control = await registry(scene, other)
      await edit([replica], 0, 1)
      await until(async () => isCurrent(relay), 'the sink to follow', LATE_MS)

      // A file where the mirror's folder was: it cannot be opened.
      renameSync(place, `${place}.away`)
      writeFileSync(place, '')
      await edit([replica, control], 1, ROUNDS + 1)
      await until(async () => (await sink(relay)).lag.entries === ROUNDS, 'all of them to wait', LATE_MS)
      await until(async () => isCurrent(other), 'the other sink to have them all', LATE_MS)
      const [waiting, usual] = [memory(relay), memory(other)]
      relay.child.kill('SIGKILL')
      await relay.ended
      relay = await serve(scene, 'relay', place, new URL(relay.url).port)
      await until(async () => (await sink(relay)).state === 'failing', 'the sink to be tried again', LATE_MS)
      const restarted = memory(relay)

      rmSync(place)
      renameSync(`${place}.away`, place)
      let peak = 0
      await until(
        async () => {
          peak = Math.max(peak, memory(relay))
          return isCurrent(relay)
        },
        'the sink to have them all',
        LATE_MS,
      )
      console.log(
        `MiB: ${waiting} with ${CHANGES} changes waiting, ${usual} with a sink that took them, ${restarted} after the restart, ${peak} at most while they were written`,
      )
      expect(waiting).toBeLessThan(usual + SLACK_MIB)
      expect(peak).toBeLessThan(usual + SLACK_MIB)
      expect(restarted).toBeLessThan(usual + SLACK_MIB)
      const db = new Database(join(place, 'mirror.db'), { readonly: true })
      const last = ROUNDS
      expect(db.prepare('SELECT count(*) AS n, min(round) AS low, max(round) AS high FROM pets').get()).toEqual({
        n: RECORDS,
        low: last,
        high: last,
      })
      db.close()
    }),
  )
})

async function registry(scene: Scene, relay: Serving): Promise<Replica> {
  const replica = scene.client(relay.url).open('registry')
  await replica.whenLoaded()
  return replica
}

/** Each round is one edit that changes every record. */
async function edit(replicas: readonly Replica[], from: number, to: number): Promise<void> {
  for (let round = from; round < to; round++) {
    for (const replica of replicas) {
      const pets = replica.ydoc.getMap<Y.Map<unknown>>('pets')
      replica.edit(() => {
        for (let i = 0; i < RECORDS; i++) {
          const pet = pets.get(`p${i}`)
          if (pet === undefined) pets.set(`p${i}`, new Y.Map<unknown>(Object.entries({ name: `pet ${i}`, round })))
          else pet.set('round', round)
        }
      })
    }
    await Promise.all(replicas.map((replica) => replica.wait({ to: 'relay' })))
  }
}

function configText(path: string): string {
  const [server, sqlite, shared] = ['@rejoin/server', '@rejoin/server/sinks/sqlite', '@rejoin/shared'].map((name) =>
    JSON.stringify(import.meta.resolve(name)),
  )
  return `import { defineConfig } from ${server}
import { sqlite } from ${sqlite}
import { collection, defineSchema, number, string } from ${shared}
export default defineConfig({
  schema: defineSchema({ pets: collection({ name: string(), round: number() }) }),
  sinks: { mirror: sqlite({ path: ${JSON.stringify(path)} }) },
})
`
}

async function serve(scene: Scene, name: string, place: string, port = '0'): Promise<Serving> {
  const config = join(scene.folder, `${name}.config.mjs`)
  writeFileSync(config, configText(join(place, 'mirror.db')))
  const relay = await startServe(['--config', config, '--data', join(scene.folder, name), '--port', port])
  scene.onEnd(() => relay.child.kill('SIGKILL'))
  return relay
}

/** What the process has in memory now, in MiB. */
function memory(relay: Serving): number {
  const status = readFileSync(`/proc/${relay.child.pid}/status`, 'utf8')
  return Math.round(Number(/VmRSS:\s+(\d+)/u.exec(status)?.[1]) / 1024)
}

async function isCurrent(relay: Serving): Promise<boolean> {
  const { state, lag, cursor } = await sink(relay)
  return state === 'current' && lag.entries === 0 && cursor > 0
}

async function sink(
  relay: Serving,
): Promise<{ readonly state: string; readonly cursor: number; readonly lag: { readonly entries: number } }> {
  const answer = await fetch(`${relay.url}/v1/sinks/mirror`)
  if (!answer.ok) throw new Error(await answer.text())
  return (await answer.json()) as { state: string; cursor: number; lag: { entries: number } }
}
