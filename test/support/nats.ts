/**
 * Looking into a NATS server from a test, without the sink's code.
 */
import { execFileSync } from 'node:child_process'
import { jetstream, jetstreamManager } from '@nats-io/jetstream'
import { connect, headers } from '@nats-io/transport-node'
import type { TestServer } from './servers/server.ts'

/** A message of a stream. */
export interface StoredMessage {
  readonly subject: string
  readonly headers: Readonly<Record<string, string>>
  readonly text: string
}

/** All messages that a stream holds, in order; none when it is not there. */
export async function natsMessages(url: string, stream: string): Promise<StoredMessage[]> {
  return withNats(url, async ({ manager }) => {
    const state = await manager.streams.info(stream).then(
      (info) => info.state,
      () => undefined,
    )
    const found: StoredMessage[] = []
    for (let seq = state?.first_seq ?? 1; seq <= (state?.last_seq ?? 0); seq++) {
      const message = await manager.streams.getMessage(stream, { seq }).catch(() => null)
      if (message === null) continue
      const own = Object.fromEntries([...message.header].map(([name, [value = '']]) => [name, value]))
      found.push({ subject: message.subject, headers: own, text: new TextDecoder().decode(message.data) })
    }
    return found
  })
}

/** Publishes as a stranger would. */
export async function natsPut(url: string, subject: string, text: string, given: Readonly<Record<string, string>> = {}): Promise<void> {
  await withNats(url, async ({ client }) => {
    const own = headers()
    for (const [name, value] of Object.entries(given)) own.set(name, value)
    await client.publish(subject, text, { headers: own })
  })
}

/** Deletes these streams, as far as they are there. */
export async function natsWipe(url: string, ...streams: readonly string[]): Promise<void> {
  await withNats(url, async ({ manager }) => {
    for (const stream of streams) await manager.streams.delete(stream).catch(() => false)
  })
}

/** Copies all that a server holds, while it is down; what it gives puts that back. */
export async function natsCopy(server: TestServer): Promise<() => Promise<void>> {
  const [data, copy] = [`${server.folder}/jetstream`, `${server.folder}/copy`]
  const whileDown = async (...steps: readonly (readonly string[])[]): Promise<void> => {
    await server.kill()
    // With owners and times, which `fs.cp` leaves out.
    for (const [program = '', ...args] of steps) execFileSync(program, args)
    await server.restart()
  }
  await whileDown(['rm', '-rf', copy], ['cp', '-a', data, copy])
  return () => whileDown(['rm', '-rf', data], ['cp', '-a', copy, data])
}

/** Removes what a stream holds on a subject. */
export async function natsPurge(url: string, stream: string, subject: string): Promise<void> {
  await withNats(url, async ({ manager }) => {
    await manager.streams.purge(stream, { filter: subject }).catch(() => undefined)
  })
}

/** Of the server. */
export async function natsVersion(url: string): Promise<string> {
  const connection = await connect({ servers: url, reconnect: false })
  const version = connection.info?.version ?? ''
  await connection.close()
  return version
}

type Both = { readonly manager: Awaited<ReturnType<typeof jetstreamManager>>; readonly client: ReturnType<typeof jetstream> }

async function withNats<T>(url: string, use: (nats: Both) => Promise<T>): Promise<T> {
  const connection = await connect({ servers: url, reconnect: false })
  try {
    return await use({ manager: await jetstreamManager(connection), client: jetstream(connection) })
  } finally {
    await connection.close()
  }
}
