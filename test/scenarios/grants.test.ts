/**
 * Grants on open sockets: what may not be written waits and is not lost, what is granted goes, what ends ends at once, and no token is ever written down.
 */
import { SignJWT } from 'jose'
import { expect, it } from 'vitest'
import { WebSocket } from 'ws'
import type { Client, Replica } from '@rejoin/client'
import { SyncError } from '@rejoin/client'
import type { Grant } from '@rejoin/server'
import { jwt } from '@rejoin/server'
import type { Scene } from '../support/scene.ts'
import { inScene, readOver } from '../support/scene.ts'
import { until } from '../support/until.ts'

const SECRET = 'a secret of the tests that is long enough'
const SECOND = 1000
/** Every token that a test of this file has made. */
const tokens = new Set<string>()

/** Ends at a whole second, `seconds` or up to one less from now. */
async function sign(docs: Grant['documents'], seconds = 3600, sub = 'alice'): Promise<{ readonly token: string; readonly endsAt: number }> {
  const exp = Math.floor(Date.now() / SECOND) + seconds
  const token = await new SignJWT({ docs })
    .setProtectedHeader({ alg: 'HS256' })
    .setSubject(sub)
    .setExpirationTime(exp)
    .sign(new TextEncoder().encode(SECRET))
  tokens.add(token)
  return { token, endsAt: exp * SECOND }
}

/** No part of a token of this file stands in any line that the relay logged. */
function expectNoToken(lines: readonly string[]): void {
  const said = lines.join('\n')
  for (const token of tokens) for (const part of [token, ...token.split('.').slice(1)]) expect(said).not.toContain(part)
}

function inHall(run: (scene: Scene) => Promise<void>): Promise<void> {
  return inScene(async (scene) => {
    await run(scene)
    expectNoToken(scene.lines)
  })
}

/** The client's connection, each time it became another. */
function connectionsOf(client: Client): string[] {
  const names = [client.status.get().connection.name as string]
  client.status.subscribe(({ connection: { name } }) => {
    if (names.at(-1) !== name) names.push(name)
  })
  return names
}

function say(replica: Replica, text: string): void {
  const log = replica.ydoc.getArray('log')
  replica.edit(() => log.push([text]))
}

/** The document's lines on the relay, in the order of the alphabet. */
async function heardBy(url: string, document: string, token?: string): Promise<string[]> {
  return (await readOver(url, document, token)).getArray<string>('log').toArray().toSorted()
}

it('who may only read is held, connected, and told; a fresh token that allows more lets the outbox go on the same socket', () =>
  inHall(async (scene) => {
    const { url } = await scene.serve({ auth: jwt({ secret: SECRET }) })
    const writer = scene.client(url, { token: (await sign({ '*': 'write' }, 3600, 'bob')).token }).open('clinic')
    await writer.whenLoaded()
    say(writer, 'written')
    await writer.wait({ to: 'relay' })

    // The first token is about to end and is asked to be renewed; until then the application has only this one.
    const short = await sign({ '*': 'read' }, 4)
    const long = await sign({ '*': 'write' })
    let asked = 0
    let raise: () => void = () => undefined
    const raised = new Promise<void>((resolve) => {
      raise = resolve
    })
    const client = scene.client(url, { token: () => (asked++ === 0 ? short.token : raised.then(() => long.token)) })
    const replica = client.open('clinic')
    await replica.whenSynced()
    const connections = connectionsOf(client)
    say(replica, 'held')
    await until(() => replica.status.get().held)
    expect(client.status.get()).toMatchObject({ connection: { name: 'connected' }, pending: { relay: 1 }, held: true, quarantined: 0 })
    expect(replica.ydoc.getArray('log').toArray()).toContain('held')
    expect(await heardBy(url, 'clinic', long.token)).toEqual(['written'])
    say(writer, 'more')
    await until(() => replica.ydoc.getArray('log').toArray().includes('more'), 'a reader to go on reading')

    raise()
    await replica.wait({ to: 'relay', signal: AbortSignal.timeout(20_000) })
    expect(await heardBy(url, 'clinic', long.token)).toEqual(['held', 'more', 'written'])
    expect([asked, connections]).toEqual([2, ['connected']])
    expect(client.status.get()).toMatchObject({ pending: { local: 0, relay: 0 }, held: false })
  }))

it('a grant that ends acts on open sockets within a second, and the edits wait for the next token', () =>
  inHall(async (scene) => {
    const { url } = await scene.serve({ auth: jwt({ secret: SECRET }) })
    const short = await sign({ '*': 'write' }, 3)
    let token = short.token
    const client = scene.client(url, { token: () => token })
    const replica = client.open('clinic')
    const stranger = new WebSocket(`${url.replace('http', 'ws')}/y/clinic?token=${short.token}`)
    const strangerEnded = new Promise<{ readonly code: number; readonly at: number }>((resolve) => {
      stranger.once('close', (code) => resolve({ code, at: Date.now() }))
    })
    scene.onEnd(() => stranger.terminate())
    await replica.whenSynced()
    say(replica, 'in time')
    await replica.wait({ to: 'relay' })

    const late = await until(() => client.status.get().connection.name === 'needs-auth' && Date.now() - short.endsAt)
    expect(late).toBeGreaterThanOrEqual(0)
    expect(late).toBeLessThan(SECOND)
    const y = await strangerEnded
    expect(y.code).toBe(4401)
    expect(y.at - short.endsAt).toBeGreaterThanOrEqual(0)
    expect(y.at - short.endsAt).toBeLessThan(SECOND)

    say(replica, 'too late')
    await replica.wait({ to: 'local' })
    expect(client.status.get()).toMatchObject({ pending: { local: 0, relay: 1 }, quarantined: 0 })
    const fresh = await sign({ '*': 'write' })
    expect(await heardBy(url, 'clinic', fresh.token)).toEqual(['in time'])
    token = fresh.token
    await replica.wait({ to: 'relay', signal: AbortSignal.timeout(20_000) })
    expect(await heardBy(url, 'clinic', fresh.token)).toEqual(['in time', 'too late'])
  }))

it('what the application takes away is gone from open sockets within a second, what it gives is there', () =>
  inHall(async (scene) => {
    let admitted = true
    const grant = (clinic: 'none' | 'read' | 'write'): Grant => ({ principal: 'alice', documents: { clinic, 'open*': 'write' } })
    const auth = ({ token }: { readonly token: string }): Promise<Grant | null> =>
      Promise.resolve(token === 'operator' ? { principal: 'operator', documents: { '*': 'write' } } : admitted ? grant('write') : null)
    const server = await scene.serve({ auth })
    const client = scene.client(server.url, { token: 'alice' })
    const [replica, other] = [client.open('clinic'), client.open('open')]
    const writer = scene.client(server.url, { token: 'operator' }).open('clinic')
    await Promise.all([replica, other, writer].map((each) => each.whenSynced()))
    const connections = connectionsOf(client)
    const stranger = new WebSocket(`${server.url.replace('http', 'ws')}/y/clinic?token=alice`)
    let strangerCode: number | undefined
    stranger.once('close', (code) => (strangerCode = code))
    scene.onEnd(() => stranger.terminate())
    await new Promise((resolve) => stranger.once('open', resolve))
    const after = async (change: () => void, acted: () => boolean): Promise<void> => {
      const began = performance.now()
      change()
      await until(acted)
      expect(performance.now() - began).toBeLessThan(SECOND)
    }

    await after(
      () => {
        server.regrant('alice', grant('read'))
        say(replica, 'held')
      },
      () => replica.status.get().held,
    )
    say(other, 'goes on')
    await other.wait({ to: 'relay' })
    say(writer, 'seen')
    await until(() => replica.ydoc.getArray('log').toArray().includes('seen'))
    expect(await heardBy(server.url, 'clinic', 'operator')).toEqual(['seen'])

    await after(
      () => server.regrant('alice', grant('write')),
      () => !replica.status.get().held,
    )
    await replica.wait({ to: 'relay' })

    await after(
      () => {
        server.regrant('alice', grant('none'))
        say(replica, 'at last')
      },
      () => replica.status.get().held && strangerCode !== undefined,
    )
    expect(strangerCode).toBe(4403)
    say(writer, 'unseen')
    await writer.wait({ to: 'relay' })
    say(other, 'behind it')
    await other.wait({ to: 'relay' })
    expect(replica.ydoc.getArray('log').toArray()).not.toContain('unseen')
    expect(connections).toEqual(['connected'])

    admitted = false
    await after(
      () => server.regrant('alice', null),
      () => client.status.get().connection.name === 'needs-auth',
    )
    admitted = true
    await replica.wait({ to: 'relay', signal: AbortSignal.timeout(20_000) })
    expect(await heardBy(server.url, 'clinic', 'operator')).toEqual(['at last', 'held', 'seen', 'unseen'])
    await until(() => replica.ydoc.getArray('log').length === 4, 'what was hidden meanwhile')
  }))

it('without a token a client says needs-auth, keeps its edits, and goes on by itself when its application gives one', () =>
  inHall(async (scene) => {
    const { url } = await scene.serve({ auth: jwt({ secret: SECRET }) })
    const signedIn: { token?: string } = {}
    const client = scene.client(url, {
      token: () => {
        if (signedIn.token === undefined) throw new SyncError('unauthorized', 'nobody is signed in')
        return signedIn.token
      },
    })
    const bare = scene.client(url)
    const replica = client.open('clinic')
    await replica.whenLoaded()
    say(replica, 'before signing in')
    await until(() => client.status.get().connection.name === 'needs-auth')
    expect(client.status.get()).toMatchObject({ connection: { reason: 'nobody is signed in' }, pending: { relay: 1 } })
    await until(() => bare.status.get().connection.name === 'needs-auth', 'a client without any token')
    const { token } = await sign({ clinic: 'write' })
    signedIn.token = token
    await replica.wait({ to: 'relay', signal: AbortSignal.timeout(20_000) })
    expect(client.status.get()).toMatchObject({ connection: { name: 'connected' }, held: false })
    expect(await heardBy(url, 'clinic', token)).toEqual(['before signing in'])
  }))

it('a document that the grant does not name is refused on every door, and the others go on', () =>
  inHall(async (scene) => {
    const { url } = await scene.serve({ auth: jwt({ secret: SECRET }) })
    const { token } = await sign({ 'clinic-*': 'write', 'clinic-8': 'none' })
    const client = scene.client(url, { token })
    const [mine, forbidden, other] = [client.open('clinic-7'), client.open('clinic-8'), client.open('office')] as const
    await Promise.all([mine, forbidden, other].map((each) => each.whenLoaded()))
    for (const replica of [mine, forbidden, other]) say(replica, 'hello')
    await mine.wait({ to: 'relay' })
    await until(() => forbidden.status.get().held && other.status.get().held)
    expect(mine.status.get()).toMatchObject({ held: false, pending: { relay: 0 } })
    expect(client.status.get()).toMatchObject({ connection: { name: 'connected' }, held: true, pending: { relay: 2 }, quarantined: 0 })

    const wire = await scene.wire(url, token)
    wire.send({ type: 'open', ref: 1, document: 'clinic-8' }, { type: 'open', ref: 2, document: 'clinic-7' })
    expect(await wire.next('refused')).toMatchObject({ ref: 1, code: 'forbidden' })
    expect(await wire.next('opened')).toMatchObject({ ref: 2, grant: 'write' })
    const stranger = new WebSocket(`${url.replace('http', 'ws')}/y/clinic-8?token=${token}`)
    expect(await new Promise((resolve) => stranger.once('error', ({ message }) => resolve(message)))).toContain('403')
    const answer = await fetch(`${url}/v1/documents/clinic-8`, { headers: { authorization: `Bearer ${token}` } })
    expect(answer.status).toBe(403)
  }))

it('no token is written down, whatever is wrong with it or with the auth that judges it', () =>
  inHall(async (scene) => {
    const { token } = await sign({ '*': 'write' })
    const broken = `${token.slice(0, -4)}AAAA`
    tokens.add(broken)
    const auths = [
      jwt({ secret: SECRET, issuer: 'somebody else' }),
      // What people write when they look for a fault.
      ({ token: given }: { readonly token: string }): Promise<null> => Promise.reject(new Error(`cannot judge ${given}`)),
      ({ url }: { readonly url: string }): Promise<null> => Promise.reject(new TypeError(`nobody at ${url}`)),
    ]
    for (const auth of auths) {
      const { url } = await scene.serve({ auth, data: `${scene.folder}/${auths.indexOf(auth)}` })
      for (const given of [token, broken]) {
        await scene.wire(url, given)
        await fetch(`${url}/v1/documents/a?token=${given}`, { headers: { authorization: `Bearer ${given}` } })
        for (const [address, protocols] of [
          [`y/a?token=${given}`, []],
          ['y/a', [`token.${given}`]],
          [`sync?token=${given}`, []],
        ] as const) {
          const socket = new WebSocket(`${url.replace('http', 'ws')}/${address}`, [...protocols])
          const over = new Promise((resolve) => socket.once('close', resolve))
          socket.once('error', () => undefined)
          socket.once('open', () => socket.terminate())
          await over
        }
      }
    }
    expect(scene.lines.length).toBeGreaterThan(0)
  }))
