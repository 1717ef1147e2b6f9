/**
 * One POST of a webhook: to an address that is looked at on the socket that was connected, before a byte is sent; within a time; without following anybody elsewhere; reading little of what comes back.
 */
import type { LookupAddress } from 'node:dns'
import { lookup } from 'node:dns/promises'
import type { ClientRequest, IncomingMessage } from 'node:http'
import { Agent as HttpAgent, request as httpRequest } from 'node:http'
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https'
import type { LookupFunction, Socket } from 'node:net'
import { connect, isIP } from 'node:net'
import { connect as connectTls } from 'node:tls'
import type { Clock } from '@rejoin/shared'
import { SyncError, systemClock } from '@rejoin/shared'
import { isPublicAddress } from './webhook-address.ts'

/** What surrounds a poster; tests bring their own. */
export interface World {
  readonly clock: Clock
  /** All addresses of a name. */
  readonly resolve: (host: string) => Promise<readonly LookupAddress[]>
  /** Certificates to trust in place of Node's, as PEM. */
  readonly ca?: string | undefined
}

/** The platform's. */
export const platform: World = { clock: systemClock, resolve: (host) => lookup(host, { all: true }) }

export interface Answer {
  readonly status: number
  /** When the receiver wants to be asked again, in ms since 1970. */
  readonly retryAt: number | undefined
  /** The first words of the answer, on one line. */
  readonly excerpt: string
}

export interface Poster {
  /** Rejects with a SyncError that names no more of the URL than its origin. */
  post(headers: Readonly<Record<string, string>>, body: Buffer, signal: AbortSignal): Promise<Answer>
  close(): void
}

/** What of an answer is kept for a reason, in characters; read for the sake of the connection, in bytes; and how long an answer may take to end once its status is known, in ms. */
const EXCERPT = 200
const MAX_ANSWER = 64 << 10
const ANSWER_TIME = 2000

/** A poster to one URL. `timeout` in ms is for all of it: name, connection, request, status. */
export function createPoster(
  url: URL,
  { timeout, allowPrivate }: { timeout: number; allowPrivate: boolean },
  world: World = platform,
): Poster {
  const secure = url.protocol === 'https:'
  const options = { keepAlive: true, maxSockets: 64 }
  const agent = Object.assign(secure ? new HttpsAgent(options) : new HttpAgent(options), {
    createConnection: (_: unknown, done: (error: Error | null, socket?: Socket) => void): undefined => {
      dial(url, { timeout, allowPrivate, secure }, world, done)
    },
  })
  const once = async (headers: Readonly<Record<string, string>>, body: Buffer, signal: AbortSignal): Promise<Answer | 'stale'> => {
    const request = (secure ? httpsRequest : httpRequest)(url, {
      agent,
      method: 'POST',
      headers: { ...headers, 'content-length': body.length },
      maxHeaderSize: 16 << 10,
      signal,
    })
    try {
      return await answerTo(request, body, world.clock)
    } catch (error) {
      // The receiver closed a resting connection just as we used it.
      if (request.reusedSocket && !signal.aborted && ['ECONNRESET', 'EPIPE'].includes(codeOf(error))) return 'stale'
      throw error
    }
  }
  return {
    post: async (headers, body, signal) => {
      const time = new AbortController()
      const stop = world.clock.after(timeout, () => time.abort())
      const either = AbortSignal.any([signal, time.signal])
      try {
        for (let attempt = 0; attempt < 3; attempt++) {
          const answer = await once(headers, body, either)
          if (answer !== 'stale') return answer
        }
        throw new SyncError('timeout', `${url.origin} closed the connection again and again`)
      } catch (error) {
        if (error instanceof SyncError) throw error
        if (signal.aborted) throw new SyncError('aborted', `the delivery to ${url.origin} was given up`, { cause: signal.reason })
        if (time.signal.aborted) throw new SyncError('timeout', `${url.origin} did not answer within ${timeout} ms`)
        // The cause is not kept: Node's errors may carry the request.
        throw new SyncError('timeout', `${url.origin} cannot be reached: ${codeOf(error) || 'the connection failed'}`)
      } finally {
        stop()
      }
    },
    close: () => agent.destroy(),
  }
}

interface DialOptions {
  readonly timeout: number
  readonly allowPrivate: boolean
  readonly secure: boolean
}

/** Connects. The name is looked up once, here, so that nobody can answer differently between a check and the connection; and the connected socket is looked at again. */
function dial(
  url: URL,
  { timeout, allowPrivate, secure }: DialOptions,
  world: World,
  done: (error: Error | null, socket?: Socket) => void,
): void {
  const host = url.hostname.replace(/^\[|\]$/gu, '')
  const mayBe = (address: string): boolean => allowPrivate || isPublicAddress(address)
  const refusal = (address: string): SyncError =>
    new SyncError(
      'bad_option',
      `webhook: ${url.host} is at ${address}, which is not of the public internet; allowPrivate: true lets it through`,
    )
  if (isIP(host) !== 0 && !mayBe(host)) return done(refusal(host))
  const socket = connect({
    host,
    port: Number(url.port) || (secure ? 443 : 80),
    lookup: lookupWith(world, mayBe, refusal),
    autoSelectFamily: true,
  })
  const stop = world.clock.after(timeout, () =>
    socket.destroy(new SyncError('timeout', `${url.origin} did not accept a connection within ${timeout} ms`)),
  )
  const fail = (error: Error): void => {
    stop()
    socket.destroy()
    done(error)
  }
  socket.once('error', fail)
  socket.once('connect', () => {
    const address = socket.remoteAddress ?? 'an unknown address'
    if (!mayBe(address)) return fail(refusal(address))
    const ready = (open: Socket): void => {
      stop()
      socket.off('error', fail)
      open.off('error', fail)
      open.setNoDelay(true)
      done(null, open)
    }
    if (!secure) return ready(socket)
    const named = isIP(host) === 0 ? { servername: host } : {}
    const over = connectTls({ socket, host, ...named, ALPNProtocols: ['http/1.1'], ...(world.ca === undefined ? {} : { ca: world.ca }) })
    over.once('error', fail)
    over.once('secureConnect', () => ready(over))
  })
}

function lookupWith(world: World, mayBe: (address: string) => boolean, refusal: (address: string) => SyncError): LookupFunction {
  return (host, { all }, callback) => {
    world.resolve(host).then(
      (found) => {
        const allowed = found.filter(({ address }) => mayBe(address))
        const [first] = allowed
        if (first === undefined)
          callback(found[0] === undefined ? new SyncError('timeout', `${host} has no address`) : refusal(found[0].address), [])
        else if (all === true) callback(null, [...allowed])
        else callback(null, first.address, first.family)
      },
      (error: unknown) => callback(error instanceof Error ? error : new Error(String(error)), []),
    )
  }
}

function answerTo(request: ClientRequest, body: Buffer, clock: Clock): Promise<Answer> {
  return new Promise((resolve, reject) => {
    request.once('error', reject)
    request.once('response', (response) => {
      const status = response.statusCode ?? 0
      const retryAt = retryAtOf(response.headers['retry-after'], clock.now())
      void firstWords(response, clock).then((excerpt) => resolve({ status, retryAt, excerpt }))
    })
    request.end(body)
  })
}

/** Reads an answer to its end if that is near, so that the connection can be used again; otherwise the connection goes. The status counts already. */
function firstWords(response: IncomingMessage, clock: Clock): Promise<string> {
  return new Promise((resolve) => {
    let text = ''
    let bytes = 0
    const end = (): void => {
      stop()
      if (!response.readableEnded) response.destroy()
      resolve(
        text
          .replaceAll(/[\p{C}\s]+/gu, ' ')
          .trim()
          .slice(0, EXCERPT),
      )
    }
    const stop = clock.after(ANSWER_TIME, end)
    response.on('data', (chunk: Buffer) => {
      bytes += chunk.length
      if (text.length < EXCERPT) text += chunk.subarray(0, EXCERPT * 4).toString('utf8')
      if (bytes > MAX_ANSWER) end()
    })
    response.once('end', end)
    response.once('error', end)
    response.once('close', end)
  })
}

/** Seconds, or a date. */
function retryAtOf(header: string | undefined, now: number): number | undefined {
  if (header === undefined) return undefined
  const at = /^\d{1,9}$/u.test(header.trim()) ? now + Number(header) * 1000 : Date.parse(header)
  return Number.isNaN(at) ? undefined : at
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : ''
}
