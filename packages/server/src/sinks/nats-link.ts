/**
 * The connection of the NATS sink: streams made where they are missing, the last message of a subject, and publishing on the condition that nobody else has published there since.
 */
import type { JetStreamClient, JetStreamManager, StoredMsg, StreamConfig } from '@nats-io/jetstream'
import type { MsgHdrs, NatsConnection, NodeConnectionOptions } from '@nats-io/transport-node'
import { SyncError } from '@rejoin/shared'
import { missingPeer } from './connection.ts'

/** How to reach the servers. */
export interface NatsServers {
  readonly servers: readonly string[]
  readonly user?: string | undefined
  readonly pass?: string | undefined
  readonly token?: string | undefined
  /** Text of a credentials file. */
  readonly creds?: string | undefined
}

/** Headers of a message. */
export type Headers = Readonly<Record<string, string>>

/** A message; seq 0 when there is none. */
export interface Last {
  readonly seq: number
  readonly headers: Headers
  readonly data: Uint8Array
}

export interface StreamState {
  /** Whether it was made just now. */
  readonly isNew: boolean
  /** When it was made, by which one that was deleted and made again is told. */
  readonly created: string
  readonly lastSeq: number
}

export interface Link {
  /** Bytes of a message, headers included. */
  readonly maxPayload: number
  /** Makes the stream if it is missing; one that is there is left as it is. */
  ensure(config: StreamOptions): Promise<StreamState>
  /** Its last seq; undefined when there is no such stream. */
  lastSeq(stream: string): Promise<number | undefined>
  last(stream: string, subject: string): Promise<Last>
  /** The last message of the stream, whatever its subject. */
  newest(stream: string): Promise<Last>
  /** Publishes if the subject's last message is `after` (0: none). The new seq, or 'changed'. */
  publish(
    stream: string,
    subject: string,
    message: { readonly data: Uint8Array; readonly headers: Headers; readonly id?: string | undefined; readonly after: number },
  ): Promise<number | 'changed'>
  /** All messages of the subject's tree, the oldest first, each subject's last one only where the stream keeps no more. */
  all(stream: string, filter: string, headersOnly: boolean): AsyncIterable<Found>
  remove(stream: string): Promise<void>
  purge(stream: string, filter: string): Promise<void>
  close(): Promise<void>
}

export interface Found {
  readonly subject: string
  readonly headers: Headers
  readonly data: Uint8Array
}

export interface StreamOptions {
  readonly name: string
  readonly subjects: readonly string[]
  readonly replicas: number
  /** A key-value bucket: the last message of each subject. */
  readonly isBucket: boolean
}

const WRONG_LAST_SEQUENCE: readonly number[] = [10_071, 10_164]
const STREAM_NOT_FOUND = 10_059
const NOTHING_THERE: readonly number[] = [10_037, STREAM_NOT_FOUND]
const DUPLICATE_WINDOW = 120_000_000_000

/** Connects, by the optional peers. It never connects again by itself: the forwarder begins anew. `timeout` in ms. */
export async function connectNats({ servers, user, pass, token, creds }: NatsServers, timeout: number): Promise<Link> {
  const { transport, jetstream } = await loadClient()
  const options: NodeConnectionOptions = {
    servers: servers.map(withoutUser),
    timeout,
    reconnect: false,
    maxPingOut: 2,
    pingInterval: 30_000,
  }
  if (user !== undefined) Object.assign(options, { user, pass })
  if (token !== undefined) Object.assign(options, { token })
  if (creds !== undefined) Object.assign(options, { authenticator: transport.credsAuthenticator(new TextEncoder().encode(creds)) })
  const connection = await guarded('connect', () => transport.connect(options))
  // How it ended is told by every call that fails for it.
  connection.closed().catch(() => undefined)
  try {
    const manager = await guarded('reach JetStream', () => jetstream.jetstreamManager(connection, { timeout }))
    const client = jetstream.jetstream(connection, { timeout })
    return linkOf({ connection, manager, client, toHeaders: (from) => headersOf(transport.headers(), from), kinds: jetstream })
  } catch (error) {
    await connection.close()
    throw error
  }
}

/** The client wants who we are apart from where it goes. */
function withoutUser(server: string): string {
  return server.replace(/^(\w+:\/\/)?[^@/]*@/u, '$1')
}

async function loadClient() {
  try {
    return { transport: await import('@nats-io/transport-node'), jetstream: await import('@nats-io/jetstream') }
  } catch (error) {
    throw missingPeer(error, 'nats()', '@nats-io/transport-node', '@nats-io/jetstream')
  }
}

type Kinds = Pick<
  Awaited<ReturnType<typeof loadClient>>['jetstream'],
  'DiscardPolicy' | 'StorageType' | 'RetentionPolicy' | 'DeliverPolicy'
>

interface Parts {
  readonly connection: NatsConnection
  readonly manager: JetStreamManager
  readonly client: JetStreamClient
  readonly toHeaders: (headers: Headers) => MsgHdrs
  readonly kinds: Kinds
}

function linkOf({ connection, manager, client, toHeaders, kinds }: Parts): Link {
  const info = async (stream: string) => {
    try {
      return await guarded('look at the stream', () => manager.streams.info(stream), [STREAM_NOT_FOUND])
    } catch (error) {
      if (codeOf(error) === STREAM_NOT_FOUND) return undefined
      throw error
    }
  }
  const message = async (stream: string, query: { readonly last_by_subj: string } | { readonly seq: number }): Promise<Last> => {
    try {
      const found = await guarded('read a message', () => manager.streams.getMessage(stream, query), NOTHING_THERE)
      return found === null ? NOTHING : lastOf(found)
    } catch (error) {
      if (NOTHING_THERE.includes(codeOf(error))) return NOTHING
      throw error
    }
  }
  return {
    maxPayload: connection.info?.max_payload ?? 1 << 20,
    ensure: async (options) => {
      const there = await info(options.name)
      const found = there ?? (await guarded('make the stream', () => manager.streams.add(configOf(options, kinds))))
      return { isNew: there === undefined, created: found.created, lastSeq: found.state.last_seq }
    },
    lastSeq: async (stream) => (await info(stream))?.state.last_seq,
    last: (stream, subject) => message(stream, { last_by_subj: subject }),
    newest: async (stream) => {
      const seq = (await info(stream))?.state.last_seq ?? 0
      return seq === 0 ? NOTHING : message(stream, { seq })
    },
    publish: async (stream, subject, { data, headers, id, after }) => {
      try {
        const expect = { streamName: stream, lastSubjectSequence: after }
        const options = { expect, headers: toHeaders(headers), ...(id === undefined ? {} : { msgID: id }) }
        const { seq } = await guarded(`publish to ${stream}`, () => client.publish(subject, data, options), WRONG_LAST_SEQUENCE)
        return seq
      } catch (error) {
        if (WRONG_LAST_SEQUENCE.includes(codeOf(error))) return 'changed'
        throw error
      }
    },
    all: async function* (stream, filter, headersOnly) {
      if ((await info(stream)) === undefined) return
      const options = { filter_subjects: filter, headers_only: headersOnly, deliver_policy: kinds.DeliverPolicy.LastPerSubject }
      const consumer = await guarded('read the stream', () => client.consumers.get(stream, options))
      const { num_pending: pending } = await guarded('read the stream', () => consumer.info())
      if (pending === 0) return
      const messages = await guarded('read the stream', () => consumer.consume({ max_messages: 1000 }))
      for await (const each of messages) {
        yield { subject: each.subject, headers: plainHeaders(each.headers), data: each.data }
        if (each.info.pending === 0) break
      }
      await messages.close()
    },
    remove: async (stream) => {
      if ((await info(stream)) !== undefined) await guarded('remove the stream', () => manager.streams.delete(stream))
    },
    purge: async (stream, filter) => {
      if ((await info(stream)) !== undefined) await guarded('purge the stream', () => manager.streams.purge(stream, { filter }))
    },
    close: () => connection.close(),
  }
}

const NOTHING: Last = { seq: 0, headers: {}, data: new Uint8Array() }

function configOf(
  { name, subjects, replicas, isBucket }: StreamOptions,
  { DiscardPolicy, StorageType, RetentionPolicy }: Kinds,
): Partial<StreamConfig> & { name: string } {
  const config = {
    name,
    subjects: [...subjects],
    num_replicas: replicas,
    storage: StorageType.File,
    retention: RetentionPolicy.Limits,
    allow_direct: true,
    duplicate_window: DUPLICATE_WINDOW,
  }
  // As every NATS client makes a bucket (its ADR 8).
  return isBucket ? { ...config, max_msgs_per_subject: 1, discard: DiscardPolicy.New, allow_rollup_hdrs: true, deny_delete: true } : config
}

function lastOf({ seq, header, data }: StoredMsg): Last {
  return { seq, headers: plainHeaders(header), data }
}

function plainHeaders(headers: MsgHdrs | undefined): Headers {
  return Object.fromEntries(headers === undefined ? [] : [...headers].map(([name, [value = '']]) => [name, value]))
}

function headersOf(empty: MsgHdrs, from: Headers): MsgHdrs {
  for (const [name, value] of Object.entries(from)) empty.set(name, value)
  return empty
}

/** The client's errors as ours, without the addresses that may hold passwords. Those with a code in `known` go through as they are. */
async function guarded<T>(what: string, call: () => Promise<T>, known: readonly number[] = []): Promise<T> {
  try {
    return await call()
  } catch (error) {
    if (known.includes(codeOf(error))) throw error
    const words = error instanceof Error ? error.message.replaceAll(/\/\/[^@\s/]*@/gu, '//•••@') || error.name : String(error)
    throw new SyncError('timeout', `NATS: cannot ${what}: ${words}`)
  }
}

function codeOf(error: unknown): number {
  return error instanceof Error && 'code' in error && typeof error.code === 'number' ? error.code : 0
}
