/**
 * NATS with JetStream for tests. Streams of tests that share one are kept apart by their names.
 */
import type { Probe } from '../requires.ts'
import { findProgram, requires } from '../requires.ts'
import { ask } from './ask.ts'
import type { TestServer } from './server.ts'
import { startServer } from './server.ts'

export interface NatsServer extends TestServer {
  readonly url: string
}

export interface NatsOptions {
  /** More arguments of nats-server. */
  readonly args?: readonly string[]
}

/** Why there is no NATS here, if so. */
export const natsProbe: Probe = () =>
  findProgram('nats-server') === undefined ? 'no NATS on this machine (apt-get install nats-server)' : undefined

/** `describe` of suites that need NATS. */
export const describeNats: (suite: string, body: () => void) => void = requires('NATS', natsProbe)

/** Starts an empty NATS. */
export async function startNats({ args = [] }: NatsOptions = {}): Promise<NatsServer> {
  const server = await startServer({
    name: 'NATS',
    command: ({ folder, port }) => [
      findProgram('nats-server') ?? 'nats-server',
      ...['-a', '127.0.0.1', '-p', `${port}`, '-js', '-sd', `${folder}/jetstream`],
      ...args,
    ],
    // It greets everybody with what it can do.
    answers: async ({ port }) => /^INFO \{.*"jetstream":true/u.test((await ask(port, '')).toString()),
  })
  return { ...server, url: `nats://127.0.0.1:${server.port}` }
}
