/**
 * The NATS sink, as a bucket, under the conformance kit.
 */
import type { RecordValue } from '@rejoin/shared'
import { nats, openSink } from '@rejoin/server/sinks/nats'
import { CONFORMANCE_SCHEMA } from '@rejoin/server/testing'
import type { Conformance, Destination } from '@rejoin/server/testing'
import { keyOf, subjectOf } from '#server/sinks/nats-names.js'
import type { OpenSubject } from '../support/conformance.ts'
import { natsCopy, natsMessages, natsPut, natsVersion, natsWipe } from '../support/nats.ts'
import { startNats } from '../support/servers/nats.ts'
import type { TestServer } from '../support/servers/server.ts'

let made = 0

/** Starts a NATS server of its own, or uses the one at `url`, in buckets of its own. */
export const open: OpenSubject = async (given) => {
  const server = given === undefined ? await startNats() : undefined
  const url = given ?? server?.url ?? ''
  const under: Conformance = {
    name: 'nats',
    traits: { transactional: false, strategies: ['state', 'actions'], readable: true },
    powers: { fence: true, guard: true, identity: true, cursor: true },
    mechanism:
      'each message only behind the last one that we know of on its subject; a copy of the cursor in the bucket, changed by compare-and-set, is the fence',
    destination: async () => destinationIn(url, server),
  }
  return { under, server: `NATS ${await natsVersion(url)}`, close: async () => server?.stop() }
}

function destinationIn(url: string, server: TestServer | undefined): Destination {
  const bucket = `conformance-${process.pid}-${++made}`
  const [stream, root] = [`KV_${bucket}`, `$KV.${bucket}`]
  const clear = () => natsWipe(url, stream)
  return {
    open: (context) => openSink(nats({ servers: url, as: 'kv', bucket, timeout: 3 }).options, context),
    rows: async () =>
      (await natsMessages(url, stream)).flatMap(({ subject, headers, text }) => {
        const key = keyOf(root, subject, headers['Rejoin-Key'], Object.keys(CONFORMANCE_SCHEMA.collections))
        return key === undefined || 'KV-Operation' in headers ? [] : [{ key, value: JSON.parse(text) as RecordValue }]
      }),
    wipe: clear,
    ...(server === undefined ? {} : { restart: server.restart, backup: () => natsCopy(server) }),
    tamper: async (key, field, value) => {
      const subject = subjectOf(root, key)
      const there = (await natsMessages(url, stream)).find((message) => message.subject === subject)
      await natsPut(url, subject, JSON.stringify({ ...(JSON.parse(there?.text ?? '{}') as object), [field]: value }))
    },
    absent: {
      drop: 'the rows of a target are keys of their own, which nobody drops together',
      poison: 'NATS has no constraints',
      unique: 'NATS has no unique indexes',
      ...(server === undefined ? { restart: 'the server is not ours', backup: 'the server is not ours' } : {}),
    },
    close: clear,
  }
}
