/**
 * The NATS sink as a stream of events under the conformance kit.
 */
import { nats, openSink } from '@rejoin/server/sinks/nats'
import type { Conformance, Destination } from '@rejoin/server/testing'
import type { OpenSubject } from '../support/conformance.ts'
import { foldMessages } from '../support/deliveries.ts'
import { natsCopy, natsMessages, natsPurge, natsVersion, natsWipe } from '../support/nats.ts'
import { startNats } from '../support/servers/nats.ts'
import type { TestServer } from '../support/servers/server.ts'

let made = 0

/** Starts a NATS server of its own, or uses the one at `url`, in streams of its own. */
export const open: OpenSubject = async (given) => {
  const server = given === undefined ? await startNats() : undefined
  const url = given ?? server?.url ?? ''
  const under: Conformance = {
    name: 'nats-stream',
    traits: { transactional: false, strategies: ['state', 'actions'], readable: false },
    powers: { fence: true, guard: true, identity: true, cursor: true },
    forward: { strategy: 'actions' },
    mechanism:
      'each event only behind the last one that we know of on its subject, with its id; a copy of the cursor in a bucket, changed by compare-and-set, is the fence',
    destination: async () => destinationIn(url, server),
  }
  return { under, server: `NATS ${await natsVersion(url)}`, close: async () => server?.stop() }
}

function destinationIn(url: string, server: TestServer | undefined): Destination {
  const stream = `CONFORMANCE-${process.pid}-${++made}`
  const clear = async (): Promise<void> => {
    await natsWipe(url, stream)
    await natsPurge(url, 'KV_rejoin', '$KV.rejoin.conformance')
  }
  return {
    open: (context) => openSink(nats({ servers: url, stream, timeout: 3 }).options, context),
    rows: async () => foldMessages((await natsMessages(url, stream)).map(({ text }) => text)),
    wipe: clear,
    ...(server === undefined ? {} : { restart: server.restart, backup: () => natsCopy(server) }),
    absent: {
      drop: 'events are not written anew',
      poison: 'a stream takes every message',
      unique: 'a stream has no indexes',
      tamper: 'messages are not read back',
      ...(server === undefined ? { restart: 'the server is not ours', backup: 'the server is not ours' } : {}),
    },
    close: clear,
  }
}
