/**
 * Waiting for a sink with a real relay, its worker and a mirror: what `edit.wait({ to: 'sink:…' })` promises is true when it resolves, and what stands in the way is told.
 */
import { join } from 'node:path'
import type { Replica } from '@rejoin/client'
import { collection, defineSchema, string } from '@rejoin/shared'
import type { SyncError } from '@rejoin/shared'
import { sqlite } from '@rejoin/server/sinks/sqlite'
import Database from 'better-sqlite3'
import { expect, it } from 'vitest'
import * as Y from 'yjs'
import type { Scene } from '../support/scene.ts'
import { inScene } from '../support/scene.ts'

const SCHEMA = defineSchema({ pets: collection({ name: string() }) })

const serve = (scene: Scene): ReturnType<Scene['serve']> =>
  scene.serve({ schema: SCHEMA, sinks: { mirror: sqlite({ path: join(scene.folder, 'mirror.db') }) } })

const command = async (url: string, name: string): Promise<void> => {
  const answer = await fetch(`${url}/v1/sinks/mirror/${name}`, { method: 'POST' })
  if (!answer.ok) throw new Error(await answer.text())
}

const namesIn = (scene: Scene): readonly unknown[] => {
  const db = new Database(join(scene.folder, 'mirror.db'), { readonly: true })
  try {
    return db.prepare('SELECT name FROM pets ORDER BY name').pluck().all()
  } finally {
    db.close()
  }
}

const add = (replica: Replica, name: string) =>
  replica.edit(() => replica.ydoc.getMap<Y.Map<unknown>>('pets').set(name, new Y.Map<unknown>([['name', name]])))

const refusalOf = (wait: Promise<void>): Promise<string> =>
  wait.then(
    () => 'none',
    ({ code }: SyncError) => code,
  )

it('an edit is in the mirror when its wait resolves, each of twenty, and the whole document after replica.wait', () =>
  inScene(async (scene) => {
    const { url } = await serve(scene)
    const client = scene.client(url)
    const replica = client.open('clinic')
    await replica.whenLoaded()
    for (let i = 10; i < 30; i++) {
      await add(replica, `pet ${i}`).wait({ to: 'sink:mirror' })
      expect(namesIn(scene)).toContain(`pet ${i}`)
    }
    for (let i = 30; i < 40; i++) add(replica, `pet ${i}`)
    await client.wait({ to: 'sink:mirror' })
    expect(namesIn(scene)).toHaveLength(30)
  }))

it('a sink that was paused refuses, goes on waiting once it is resumed, and one that there is not is not found', () =>
  inScene(async (scene) => {
    const { url } = await serve(scene)
    const replica = scene.client(url).open('clinic')
    await replica.whenLoaded()
    await add(replica, 'before').wait({ to: 'sink:mirror' })
    await command(url, 'pause')
    const edit = add(replica, 'after')
    expect(await refusalOf(edit.wait({ to: 'sink:mirror' }))).toBe('sink_paused')
    expect(await refusalOf(edit.wait({ to: 'sink:nowhere' }))).toBe('not_found')
    const answer = await fetch(`${url}/v1/sinks/mirror?after=${edit.receipt}`)
    expect([answer.status, ((await answer.json()) as { error: { code: string } }).error.code]).toEqual([409, 'sink_paused'])
    await command(url, 'resume')
    await edit.wait({ to: 'sink:mirror' })
    expect(namesIn(scene)).toEqual(['after', 'before'])
  }))

it('a wait outlives the relay: it is asked again of the next one', () =>
  inScene(async (scene) => {
    const first = await serve(scene)
    const replica = scene.client(first.url).open('clinic')
    await replica.whenLoaded()
    await add(replica, 'before').wait({ to: 'sink:mirror' })
    await first.close()
    const edit = add(replica, 'meanwhile')
    const wait = edit.wait({ to: 'sink:mirror' })
    await scene.serve({ port: first.port, schema: SCHEMA, sinks: { mirror: sqlite({ path: join(scene.folder, 'mirror.db') }) } })
    await wait
    expect(namesIn(scene)).toEqual(['before', 'meanwhile'])
  }))

it('a record that the mirror refuses rejects the wait of the entry that holds it, and no other', () =>
  inScene(async (scene) => {
    const { url } = await serve(scene)
    const replica = scene.client(url).open('clinic')
    await replica.whenLoaded()
    await add(replica, 'before').wait({ to: 'sink:mirror' })
    const db = new Database(join(scene.folder, 'mirror.db'))
    db.exec("CREATE TRIGGER never BEFORE INSERT ON pets WHEN NEW.name = 'Nobody' BEGIN SELECT RAISE(ABORT, 'nobody is called that'); END")
    db.close()
    expect(await refusalOf(add(replica, 'Nobody').wait({ to: 'sink:mirror' }))).toBe('sink_parked')
    // An edit of its own: what is made in one turn travels as one entry, and is refused as one.
    await add(replica, 'Somebody').wait({ to: 'sink:mirror' })
    expect(namesIn(scene)).toEqual(['Somebody', 'before'])
  }))
