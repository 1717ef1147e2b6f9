/**
 * NATS JetStream (step 8 of the path): every row or event as a message of a stream, in order per key; or a key-value bucket that can be proved.
 */
import { SyncError } from '@rejoin/shared'
import type { Delivery } from './delivery.ts'
import { deliverySink } from './delivery.ts'
import type { CursorContext } from './nats-cursor.ts'
import type { NatsServers } from './nats-link.ts'
import { connectNats } from './nats-link.ts'
import type { Shape } from './nats-messages.ts'
import { createNatsDelivery } from './nats-messages.ts'
import { tokenOf } from './nats-names.ts'
import type { OpenSink, SinkContext, SinkSpec, SinkTraits } from './sink.ts'
import type { ForwardOptions } from './spec.ts'
import { sinkSpec } from './spec.ts'

const NAMES = ['servers', 'as', 'stream', 'subject', 'bucket', 'replicas', 'user', 'pass', 'token', 'creds', 'timeout']

/** Where the servers are, who we are there, and whether rows become messages of a stream or keys of a bucket. Checked by `nats()`, before anything connects. */
export interface NatsOptions extends ForwardOptions {
  /** Addresses, such as 'nats://127.0.0.1:4222', or with who we are: 'nats://me:secret@127.0.0.1:4222'. TLS is used wherever the server offers it. */
  readonly servers: string | readonly string[] | undefined
  /** 'stream': a message for every row or event. 'kv': the value of a key. @default 'stream' */
  readonly as?: 'stream' | 'kv' | undefined
  /** Of 'stream': its name; made when it is missing. */
  readonly stream?: string | undefined
  /** Of 'stream': messages go to `<subject>.<target>.<document>/<id>`. @default the stream's name in lower case */
  readonly subject?: string | undefined
  /** Of 'kv': its name, made when it is missing. Keys are `<target>.<document>/<id>`. */
  readonly bucket?: string | undefined
  /** Of a stream that is made. @default 1 */
  readonly replicas?: number | undefined
  /** Name and password, or a token, instead of those in `servers`. @default none */
  readonly user?: string | undefined
  readonly pass?: string | undefined
  readonly token?: string | undefined
  /** Text of a credentials file. */
  readonly creds?: string | undefined
  /** Until the server has answered, in seconds. @default 10 */
  readonly timeout?: number | undefined
}

/** A JetStream: `sinks: { feed: nats({ servers: process.env.NATS_URL, stream: 'CLINIC', strategy: 'actions' }) }`. Needs `@nats-io/transport-node` and `@nats-io/jetstream`. Throws `SyncError('bad_option')`. */
export function nats(options: NatsOptions): SinkSpec {
  const own = Object.fromEntries(NAMES.map((name) => [name, options[name as keyof NatsOptions]]))
  const isKv = parse(own).as === 'kv'
  const traits: SinkTraits = { transactional: false, strategies: ['state', 'actions'], readable: isKv }
  return sinkSpec('nats', import.meta.url, traits, { ...options }, { options: own, names: NAMES })
}

/** Connects, in the worker. */
export const openSink: OpenSink = async (options, context) => deliverySink(createNats(options, context), context)

/** The delivery. */
export function createNats(
  options: Readonly<Record<string, unknown>>,
  context: CursorContext & Pick<SinkContext, 'collections'>,
): Delivery {
  const settings = parse(options)
  const sink = tokenOf(encodeURIComponent(context.name))
  const { as, name, replicas } = settings
  const shape: Shape =
    as === 'kv'
      ? {
          as,
          stream: `KV_${name}`,
          root: `$KV.${name}`,
          replicas,
          cursor: { stream: `KV_${name}`, subject: `$KV.${name}.rejoin-cursor.${sink}` },
        }
      : { as, stream: name, root: settings.subject, replicas, cursor: { stream: 'KV_rejoin', subject: `$KV.rejoin.${sink}` } }
  return createNatsDelivery(shape, context, () => connectNats(settings.servers, settings.timeout))
}

interface Settings {
  readonly servers: NatsServers
  readonly as: 'stream' | 'kv'
  /** Of the stream or the bucket. */
  readonly name: string
  readonly subject: string
  readonly replicas: number
  /** ms. */
  readonly timeout: number
}

function parse({
  servers,
  as = 'stream',
  stream,
  subject,
  bucket,
  replicas = 1,
  timeout = 10,
  ...access
}: Readonly<Record<string, unknown>>): Settings {
  const list: readonly unknown[] = Array.isArray(servers) ? servers : [servers]
  // Addresses are not repeated: they may hold passwords.
  if (list.length === 0 || !list.every((each) => typeof each === 'string' && each !== ''))
    refuse("servers is an address or several: 'nats://127.0.0.1:4222'")
  if (as !== 'stream' && as !== 'kv') refuse("as is 'stream' or 'kv'")
  if (as === 'kv' && (stream !== undefined || subject !== undefined)) refuse("stream and subject are for as: 'stream'; write bucket")
  if (as === 'stream' && bucket !== undefined) refuse("bucket is for as: 'kv'; write stream")
  const name = as === 'kv' ? bucket : stream
  if (typeof name !== 'string' || !/^[A-Za-z0-9_-]{1,200}$/u.test(name))
    refuse(`${as === 'kv' ? 'bucket' : 'stream'} is a name of letters, digits, - and _`)
  if (as === 'kv' && name === 'rejoin') refuse('the bucket rejoin holds the cursors of streams; write another name')
  const root = subject ?? name.toLowerCase()
  if (typeof root !== 'string' || !/^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$/u.test(root))
    refuse('subject is words of letters, digits, - and _, with dots between them')
  if (typeof replicas !== 'number' || ![1, 3, 5].includes(replicas)) refuse('replicas is 1, 3 or 5')
  if (typeof timeout !== 'number' || !(timeout > 0)) refuse('timeout is a number of seconds above 0')
  for (const [option, value] of Object.entries(access)) if (value !== undefined && typeof value !== 'string') refuse(`${option} is a text`)
  const [me, secret] = userOf(list as readonly string[])
  const { user = me, pass = secret, token, creds } = access as Readonly<Record<string, string | undefined>>
  return {
    servers: { servers: list as readonly string[], user, pass, token, creds },
    as,
    name,
    subject: root,
    replicas,
    timeout: timeout * 1000,
  }
}

/** User and password of the first address that has them. */
function userOf(servers: readonly string[]): readonly (string | undefined)[] {
  const found = servers.map((server) => /^(?:\w+:\/\/)?([^@/]*)@/u.exec(server)?.[1]).find((each) => each !== undefined)
  try {
    return found?.split(':').map(decodeURIComponent) ?? []
  } catch {
    return refuse('user and password in servers are percent-encoded')
  }
}

function refuse(problem: string): never {
  throw new SyncError('bad_option', `nats(): ${problem}`)
}
