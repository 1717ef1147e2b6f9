/**
 * The NATS sink as a bucket, held to the contract of sinks on a real server.
 */
import type { RecordValue, Schema } from '@rejoin/shared'
import { afterAll, beforeAll } from 'vitest'
import { keyOf, subjectOf } from '#server/sinks/nats-names.js'
import { nats, openSink } from '#server/sinks/nats.js'
import { createMemoryNotes } from '#server/storage/notes-memory.js'
import { compareKeys } from '#server/view/view.js'
import { natsMessages, natsPut, natsWipe } from '../support/nats.ts'
import type { NatsServer } from '../support/servers/nats.ts'
import { describeNats, startNats } from '../support/servers/nats.ts'
import { describePowers } from './sink-powers.contract.ts'
import type { SinkUnderTest } from './sink.contract.ts'
import { contextOf, describeSink } from './sink.contract.ts'

describeNats('the NATS sink', () => {
  let server: NatsServer
  let serial = 0
  beforeAll(async () => {
    server = await startNats()
  })
  afterAll(async () => {
    await server.stop()
  })

  const make = (): SinkUnderTest => {
    const bucket = `b${serial++}`
    const root = `$KV.${bucket}`
    const notes = createMemoryNotes()
    const rows = async ({ collections }: Schema) =>
      (await natsMessages(server.url, `KV_${bucket}`))
        .flatMap(({ subject, headers, text }) => {
          const key = keyOf(root, subject, headers['Rejoin-Key'], Object.keys(collections))
          return key === undefined || 'KV-Operation' in headers ? [] : [{ key, value: JSON.parse(text) as RecordValue }]
        })
        .sort((a, b) => compareKeys(a.key, b.key))
    return {
      // A server takes messages up to 1 MiB, headers included.
      refuses: (id) => id.length > 100_000,
      open: (schema, options) =>
        openSink(nats({ servers: server.url, as: 'kv', bucket }).options, { ...contextOf('live', schema, options), notes }),
      rows,
      wipe: () => natsWipe(server.url, `KV_${bucket}`),
      dispose: () => natsWipe(server.url, `KV_${bucket}`),
      tamper: async (key, field, value) => {
        const subject = subjectOf(root, key)
        if (value === undefined) return natsPut(server.url, subject, '', { 'KV-Operation': 'DEL' })
        const there = (await natsMessages(server.url, `KV_${bucket}`)).find((message) => message.subject === subject)
        // Key and version stay, or it would be a stranger's row.
        const { 'Rejoin-Key': address = '', 'Rejoin-Version': version = '' } = there?.headers ?? {}
        const changed = JSON.stringify({ ...(JSON.parse(there?.text ?? '{}') as object), [field]: value })
        return natsPut(server.url, subject, changed, { 'Rejoin-Key': address, 'Rejoin-Version': version })
      },
      intrude: (key, name) => natsPut(server.url, subjectOf(root, key), JSON.stringify({ name })),
    }
  }
  describeSink('in a NATS bucket', make)
  describePowers('in a NATS bucket', make)
})
