/**
 * Rows, places and events for tests of sinks that deliver, and a receiver of webhooks.
 */
import type { IncomingHttpHeaders, IncomingMessage, RequestListener, Server, ServerResponse } from 'node:http'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { DocumentId, Position, RecordValue, Seq } from '@rejoin/shared'
import type { Message } from '#server/sinks/message.js'
import type { SinkEvent, SinkPlace, SinkRow } from '#server/sinks/sink.js'
import type { Key } from '#server/view/view.js'

export const VIEW = 'b'.repeat(32)
export const LOG = 'a'.repeat(32)

export function petKey(id: string, document = 'clinic', collection = 'pets'): Key {
  return { collection, document: document as DocumentId, id }
}

export function pet(id: string, value: RecordValue | null, document?: string): SinkRow {
  return { key: petKey(id, document), value }
}

export function at(version: number, view: string = VIEW): SinkPlace {
  return { view, version }
}

/** A change at `version`, as strategy 'actions' tells it. */
export function change(id: string, version: number, before: RecordValue | null, value: RecordValue | null, replay = false): SinkRow {
  const key = petKey(id)
  const op: SinkEvent['op'] = before === null ? 'create' : value === null ? 'delete' : 'update'
  const origin = {
    partition: 0,
    position: version as Position,
    epoch: 1,
    seq: version as Seq,
    document: key.document,
    actor: 'jill',
    at: 1_700_000_000_000 + version,
  }
  return { key, value, event: { id: `${LOG}/1/clinic/${version}/0/1`, op, before, version, origin, replay } }
}

/** What a reader of messages (as JSON) holds in the end: of each record the newest, if it is not gone. */
export function foldMessages(texts: readonly string[]): { readonly key: Key; readonly value: RecordValue }[] {
  const newest = new Map<string, Message>()
  for (const text of texts) {
    const message = JSON.parse(text) as Message
    const name = JSON.stringify([message.collection, message.document, message.record])
    const stored = newest.get(name)
    // The same version once more is the same row, or a repair of it.
    if (stored === undefined || message.version >= stored.version) newest.set(name, message)
  }
  return [...newest.values()].flatMap(({ collection, document, record, value }) =>
    value === null ? [] : [{ key: petKey(record, document, collection), value }],
  )
}

export const NEVER: AbortSignal = new AbortController().signal

/** A request as it came. */
export interface Received {
  readonly headers: IncomingHttpHeaders
  readonly body: string
}

export interface Receiver {
  readonly url: string
  readonly port: number
  readonly requests: readonly Received[]
  readonly connections: () => number
  close(): Promise<void>
}

/** An HTTP server on loopback that keeps what it gets and answers as `answer` says; 204 unless it does. */
export async function startReceiver(
  answer: (request: Received, response: ServerResponse, count: number) => void = (_, response) => response.writeHead(204).end(),
  make: (listener: RequestListener) => Server = createServer,
  at = 0,
): Promise<Receiver> {
  const requests: Received[] = []
  let connections = 0
  const server = make((request, response) => {
    void read(request).then((body) => {
      const received = { headers: request.headers, body }
      requests.push(received)
      answer(received, response, requests.length)
    })
  })
  server.on('connection', () => connections++)
  await new Promise<void>((resolve) => server.listen(at, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  return {
    url: `http://127.0.0.1:${port}/hook`,
    port,
    requests,
    connections: () => connections,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

async function read(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks).toString('utf8')
}
