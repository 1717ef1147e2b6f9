/**
 * The path end to end: real clients with SQLite stores, a real relay in a process that is killed, edits made offline; exactly once in effect.
 */
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import * as Y from 'yjs'
import type { Client } from '@rejoin/client'
import { createClient, memory } from '@rejoin/client'
import { sqlite } from '@rejoin/client/sqlite'
import { canonical } from '../support/scripted-relay.ts'
import { until } from '../support/until.ts'
import type { ChildRelay } from '../support/wire-client.ts'
import { inFolder, startRelay } from '../support/wire-client.ts'

const relays: ChildRelay[] = []
const clients: Client[] = []
afterEach(async () => {
  await Promise.all(clients.splice(0).map((client) => client.close()))
  for (const relay of relays.splice(0)) await relay.kill()
})

async function start(folder: string, url?: string): Promise<ChildRelay> {
  const relay = await startRelay(folder, ...(url === undefined ? [] : ['--port', new URL(url).port]))
  relays.push(relay)
  return relay
}

function connect(url: string, path?: string): Client {
  const client = createClient({ url, store: path === undefined ? memory() : sqlite({ path }) })
  clients.push(client)
  return client
}

async function read(url: string, document: string): Promise<Y.Doc> {
  const response = await fetch(`${url}/v1/documents/${document}`)
  const doc = new Y.Doc()
  Y.applyUpdate(doc, new Uint8Array(await response.arrayBuffer()))
  return doc
}

describe('two clients in Node', () => {
  it('edit offline, are killed off from their relay, restart, and end equal with every edit once', () =>
    inFolder(async (folder) => {
      const relay = await start(folder)
      const { url } = relay
      const paths = [join(folder, 'a.db'), join(folder, 'b.db')]
      let [a, b] = paths.map((path) => connect(url, path)) as [Client, Client]
      let [one, two] = [a.open('clinic'), b.open('clinic')]
      await Promise.all([one.whenSynced(), two.whenSynced()])

      // Rung by rung.
      const first = one.edit(() => one.ydoc.getArray('log').push(['first']))
      await first.wait({ to: 'local' })
      expect(one.status.get().pending.local).toBe(0)
      await first.wait({ to: 'relay' })
      expect((await read(url, 'clinic')).getArray('log').toJSON()).toEqual(['first'])
      await until(() => two.ydoc.getArray('log').length === 1)

      // The relay dies in the middle of a burst.
      for (let n = 0; n < 200; n++) {
        one.edit(() => one.ydoc.getArray('log').push([`one ${n}`]))
        two.edit(() => two.ydoc.getArray('log').push([`two ${n}`]))
        if (n === 100) await until(() => one.status.get().pending.relay < 50)
      }
      await relay.kill()
      await until(() => one.status.get().connection.name !== 'connected')
      for (let n = 0; n < 50; n++) two.edit(() => two.ydoc.getArray('log').push([`offline ${n}`]))
      await two.wait({ to: 'local' })
      expect(two.status.get().pending.relay).toBeGreaterThanOrEqual(50)

      // One client restarts while everything is down.
      const left = two.status.get().pending.relay
      expect(await b.close()).toEqual({ unsent: left })
      b = connect(url, paths[1])
      two = b.open('clinic')
      await two.whenLoaded()
      expect(two.ydoc.getArray('log').toJSON()).toContain('offline 49')
      expect(b.status.get().pending.relay).toBe(left)

      await start(folder, url)
      await Promise.all([a.wait({ to: 'relay' }), b.wait({ to: 'relay' })])
      await until(() => canonical(one.ydoc) === canonical(two.ydoc), 'the replicas to be equal')
      const log = one.ydoc.getArray<string>('log').toJSON() as string[]
      expect(log).toHaveLength(1 + 400 + 50)
      expect(new Set(log).size).toBe(log.length)
      expect(canonical(await read(url, 'clinic'))).toBe(canonical(one.ydoc))
      for (const client of [a, b])
        expect(client.status.get()).toMatchObject({
          connection: { name: 'connected' },
          storage: { name: 'durable' },
          pending: { local: 0, relay: 0 },
        })

      // A restart of the client resumes: nothing is fetched again.
      await a.close()
      a = connect(url, paths[0])
      one = a.open('clinic')
      const fetched: unknown[] = []
      one.progress.subscribe((progress) => fetched.push(progress))
      await one.whenSynced()
      expect(canonical(one.ydoc)).toBe(canonical(two.ydoc))
      expect(fetched).toEqual([])
    }))

  it('give back to a relay that lost its log what it had acknowledged', () =>
    inFolder((folder) =>
      inFolder(async (another) => {
        const before = await start(folder)
        const a = connect(before.url, join(folder, 'a.db'))
        const one = a.open('notes')
        await one.whenLoaded()
        await one.edit(() => one.ydoc.getText('t').insert(0, 'kept')).wait({ to: 'relay' })
        await before.kill()
        one.edit(() => one.ydoc.getText('t').insert(4, ' and on'))
        await one.wait({ to: 'local' })
        await start(another, before.url)
        await one.wait({ to: 'relay' })
        expect((await read(before.url, 'notes')).getText('t').toString()).toBe('kept and on')
      }),
    ))

  it('carry a large edit in parts, and a first sync in fragments', () =>
    inFolder(async (folder) => {
      const { url } = await start(folder)
      const a = connect(url).open('large')
      await a.whenLoaded()
      const text = 'x'.repeat(3_000_000)
      await a.edit(() => a.ydoc.getText('t').insert(0, text)).wait({ to: 'relay' })
      const b = connect(url).open('large')
      const seen: number[] = []
      b.progress.subscribe((progress) => seen.push(progress?.received ?? -1))
      await b.whenSynced()
      expect(b.ydoc.getText('t').length).toBe(text.length)
      expect(seen.length === 0 || seen.at(-1) === -1).toBe(true)
      expect(a.quarantine.list()).toEqual([])
    }))

  it('keep each other in sight', () =>
    inFolder(async (folder) => {
      const { url } = await start(folder)
      const [one, two] = [connect(url).open('room'), connect(url).open('room')]
      await Promise.all([one.whenSynced(), two.whenSynced()])
      one.presence.awareness.setLocalStateField('name', 'Ada')
      const names = () => [...two.presence.awareness.getStates().values()].map((state) => state['name'] as unknown)
      await until(() => names().includes('Ada'))
      one.close()
      await until(() => !names().includes('Ada'), 'Ada to be gone')
    }))
})
