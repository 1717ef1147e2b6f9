/**
 * Every limit of an edit at its edge, over real sockets: what is exactly at it passes, what is one above is refused with the documented code, costs nobody anything, and is kept.
 */
import { describe, expect, it } from 'vitest'
import * as Y from 'yjs'
import type { Replica, SyncError } from '@rejoin/client'
import type { ServerOptions } from '@rejoin/server'
import { expectAlive, open, textOf, updateOf } from '../support/edges.ts'
import { Writer, push } from '../support/relay.ts'
import { inScene, readOver } from '../support/scene.ts'

type Limits = NonNullable<ServerOptions['limits']>

/** As many structs: one a key. */
function structs(count: number): (doc: Y.Doc) => void {
  return (doc) => {
    for (let i = 0; i < count; i++) doc.getMap('m').set(`k${i}`, i)
  }
}

function nested(depth: number): (doc: Y.Doc) => void {
  let value: unknown = 1
  for (let i = 0; i < depth; i++) value = [value]
  return (doc) => doc.getMap('m').set('k', value)
}

function key(length: number): (doc: Y.Doc) => void {
  return (doc) => doc.getMap('m').set('k'.repeat(length), 1)
}

interface EdgeCase {
  readonly limit: keyof Limits
  readonly value: number
  readonly code: string
  readonly make: (size: number) => (doc: Y.Doc) => void
}

const EDGES: readonly EdgeCase[] = [
  { limit: 'edit', value: 100_000, code: 'too_large', make: textOf },
  { limit: 'structs', value: 50, code: 'limit', make: structs },
  { limit: 'depth', value: 5, code: 'limit', make: nested },
  { limit: 'key', value: 10, code: 'bad_key', make: key },
  { limit: 'document', value: 20_000, code: 'too_large', make: textOf },
]

describe('an edit', () => {
  it.each(EDGES)('at the limit $limit is taken, one above is refused with $code, and the socket goes on', ({ limit, value, code, make }) =>
    inScene(async (scene) => {
      const { url } = await scene.serve({ limits: { [limit]: value } })
      const wire = await scene.wire(url)
      const [at, above] = [await open(wire, 'at'), await open(wire, 'above')]
      const send = (handle: number, update: Uint8Array): string => {
        const { incarnation } = new Writer()
        // In parts where there is enough of it.
        const part = Math.max(1, Math.ceil(update.length / 3))
        for (let offset = 0; offset < update.length; offset += part) {
          wire.send(push(handle, incarnation, 1, update.subarray(offset, offset + part), { total: update.length, offset }))
        }
        return incarnation
      }
      const taken = send(at, updateOf(new Y.Doc(), make(value)))
      expect(await wire.next('ack', 'nack')).toMatchObject({ type: 'ack', handle: at, incarnation: taken, n: 1 })
      const refused = send(above, updateOf(new Y.Doc(), make(value + 1)))
      expect(await wire.next('ack', 'nack')).toMatchObject({ type: 'nack', handle: above, incarnation: refused, n: 1, expected: 1, code })
      await expectAlive(wire)
      send(above, updateOf(new Y.Doc(), make(1 + value / 2)))
      expect(await wire.next('ack', 'nack')).toMatchObject({ type: 'ack', handle: above })
    }),
  )

  it('that would make its document larger than the limit is refused; it may be as large', () =>
    inScene(async (scene) => {
      const limit = 20_000
      const { url } = await scene.serve({ limits: { document: limit } })
      const wire = await scene.wire(url)
      const handle = await open(wire, 'd')
      const writer = new Writer()
      const first = writer.push(handle, textOf(15_000))
      wire.send(first)
      await wire.next('ack')
      wire.send(writer.push(handle, textOf(limit - first.update.length)))
      expect(await wire.next('ack', 'nack')).toMatchObject({ type: 'ack', n: 2 })
      wire.send(writer.push(handle, (doc) => doc.getText('t').insert(0, 'x')))
      expect(await wire.next('ack', 'nack')).toMatchObject({ type: 'nack', n: 3, code: 'too_large' })
      await expectAlive(wire)
    }))

  it('with the key __proto__ is refused at any length', () =>
    inScene(async (scene) => {
      const { url } = await scene.serve()
      const wire = await scene.wire(url)
      const handle = await open(wire, 'd')
      wire.send(new Writer().push(handle, (doc) => doc.getMap('m').set('__proto__', 1)))
      expect(await wire.next('nack')).toMatchObject({ code: 'bad_key' })
      wire.send(new Writer().push(handle, (doc) => doc.getMap('m').set('k', JSON.parse('{"__proto__":1}'))))
      expect(await wire.next('nack')).toMatchObject({ code: 'bad_key' })
    }))

  it('above a limit lies in the quarantine of its device, with its code and its bytes; other documents go on; a higher limit lets it in after all', () =>
    inScene(async (scene) => {
      const limits = Object.fromEntries(EDGES.filter(({ limit }) => limit !== 'document').map(({ limit, value }) => [limit, value]))
      let server = await scene.serve({ limits })
      const client = scene.client(server.url)
      const good = client.open('good')
      await good.whenLoaded()
      const refused: { readonly replica: Replica; readonly expected: Uint8Array }[] = []
      for (const { limit, value, code, make } of EDGES) {
        if (limit === 'document') continue
        const replica = client.open(limit)
        await replica.whenLoaded()
        const edit = replica.edit(() => make(value + 1)(replica.ydoc))
        const error = await edit.wait({ to: 'relay' }).catch((thrown: unknown) => thrown as SyncError)
        expect(error).toMatchObject({ name: 'SyncError', code })
        const [entry, ...others] = replica.quarantine.list()
        expect([entry, others]).toMatchObject([{ id: edit.id, code }, []])
        const bytes = replica.quarantine.export(edit.id)
        const exported = new Y.Doc()
        Y.applyUpdate(exported, bytes)
        expect(exported.getMap('m').toJSON()).toEqual(replica.ydoc.getMap('m').toJSON())
        expect(exported.getText('t').length).toBe(replica.ydoc.getText('t').length)
        await good.edit(() => good.ydoc.getArray('log').push([limit])).wait({ to: 'relay' })
        refused.push({ replica, expected: Y.encodeStateVector(replica.ydoc) })
      }
      expect(client.status.get()).toMatchObject({ connection: { name: 'connected' }, quarantined: refused.length })

      const { port } = server
      await server.close()
      server = await scene.serve({ port })
      for (const { replica, expected } of refused) {
        const [entry] = replica.quarantine.list()
        replica.quarantine.retry(entry?.id ?? '')
        await replica.wait({ to: 'relay', signal: AbortSignal.timeout(20_000) })
        expect(Y.encodeStateVector(await readOver(server.url, replica.document))).toEqual(expected)
      }
      expect(client.status.get()).toMatchObject({ quarantined: 0, pending: { relay: 0 } })
    }))
})
