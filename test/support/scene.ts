/**
 * A stage for scenarios: relays in this process and beside it, clients and sockets; all of it is closed, and the folder gone, when the test is over.
 */
import { cpSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Client, ClientOptions } from '@rejoin/client'
import { memory } from '@rejoin/client'
import type { Server, ServerOptions } from '@rejoin/server'
import { createServer } from '@rejoin/server'
import type { DocumentId } from '@rejoin/shared'
import { cryptoRandom, systemClock } from '@rejoin/shared'
import { WebSocket } from 'ws'
import * as Y from 'yjs'
import { assembleClient } from '#client/assembly.js'
import type { WebSocketLike } from '#client/transports/websocket.js'
import { webSocketTransport } from '#client/transports/websocket.js'
import { openSqliteLog } from '#server/storage/sqlite.js'
import type { ChildRelay, WireClient } from './wire-client.ts'
import { connectWire, startRelay } from './wire-client.ts'

/** Delays between two tries of a client here are this share of what they are for users: some scenarios break the connection twenty times. */
const HURRY = 1 / 50

/** What one test has opened. */
export class Scene {
  readonly folder: string = mkdtempSync(join(tmpdir(), 'rejoin-scene-'))
  /** Every line that relays in this process gave their logger, as JSON. */
  readonly lines: string[] = []
  readonly #closing: (() => unknown)[] = []

  /** Calls `close` when the test is over, the last one first. */
  onEnd(close: () => unknown): void {
    this.#closing.push(close)
  }

  /** A relay in this process, on a free port. */
  async serve(options: ServerOptions = {}): Promise<Server> {
    const line =
      (level: string) =>
      (...said: readonly unknown[]): void =>
        void this.lines.push(JSON.stringify([level, ...said]))
    const logger = { debug: line('debug'), info: line('info'), warn: line('warn'), error: line('error') }
    const server = await createServer({ port: 0, data: join(this.folder, 'relay'), logger, ...options })
    this.onEnd(() => server.close())
    return server
  }

  /** A relay in a process of its own; with `url`, where an earlier one was. */
  async spawn(url?: string, ...flags: readonly string[]): Promise<ChildRelay> {
    const port = url === undefined ? [] : ['--port', new URL(url).port]
    const relay = await startRelay(this.folder, '--data', join(this.folder, 'relay'), ...port, ...flags)
    this.onEnd(() => relay.kill())
    return relay
  }

  /** A client over real sockets, as Node's, which is quick to come back. Without a store it keeps everything in memory. */
  client(url: string, options: Partial<ClientOptions> = {}): Client {
    const client = assembleClient(
      { url, store: memory(), ...options },
      {
        clock: systemClock,
        random: () => Math.random() * HURRY,
        randomBytes: cryptoRandom,
        transport: webSocketTransport((address) => new WebSocket(address, { perMessageDeflate: false }) as unknown as WebSocketLike),
        wake: () => () => undefined,
      },
    )
    this.onEnd(() => client.close())
    return client
  }

  /** A raw socket that has said hello. */
  async wire(url: string, token?: string): Promise<WireClient> {
    const wire = await connectWire(url, token)
    this.onEnd(() => wire.socket.terminate())
    return wire
  }

  async end(): Promise<void> {
    for (const close of this.#closing.splice(0).toReversed()) await close()
    rmSync(this.folder, { recursive: true, force: true })
  }
}

export async function inScene(run: (scene: Scene) => Promise<void>): Promise<void> {
  const scene = new Scene()
  try {
    await run(scene)
  } finally {
    await scene.end()
  }
}

/** What the log in `directory` holds of a document, read from a copy, so that whoever opens it next finds it as its last process left it. */
export async function readLog(directory: string, document: string): Promise<Y.Doc> {
  const copy = mkdtempSync(join(tmpdir(), 'rejoin-copy-'))
  try {
    cpSync(directory, copy, { recursive: true })
    const log = await openSqliteLog({ directory: copy })
    try {
      const id = document as DocumentId
      const doc = new Y.Doc()
      const head = await log.head(id)
      if (head === undefined) return doc
      const { seq, bytes } = head.snapshot
      if (bytes > 0) Y.applyUpdate(doc, (await log.snapshot(id, seq, 0, bytes)) ?? new Uint8Array())
      const entries = await log.read({ document: id, after: seq }, Infinity)
      if (entries === 'trimmed') throw new Error('the log was trimmed')
      for (const { update } of entries) Y.applyUpdate(doc, update)
      if (entries.length !== head.seq - seq) throw new Error(`the log ends at ${seq + entries.length}, its head is ${head.seq}`)
      return doc
    } finally {
      await log.close()
    }
  } finally {
    rmSync(copy, { recursive: true, force: true })
  }
}

/** What the relay at `url` answers over HTTP. */
export async function readOver(url: string, document: string, token?: string): Promise<Y.Doc> {
  const headers = token === undefined ? {} : { headers: { authorization: `Bearer ${token}` } }
  const answer = await fetch(`${url}/v1/documents/${document}`, headers)
  if (!answer.ok) throw new Error(`the relay answered ${answer.status}`)
  const doc = new Y.Doc()
  Y.applyUpdate(doc, new Uint8Array(await answer.arrayBuffer()))
  return doc
}
