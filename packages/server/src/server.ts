/**
 * Joins log, relay and network into a running relay: `createRelay` to embed in an HTTP server of one's own, `createServer` with a port.
 */
import type { IncomingMessage } from 'node:http'
import { STATUS_CODES } from 'node:http'
import type { Duplex } from 'node:stream'
import type { Hono } from 'hono'
import type { ErrorCode } from '@rejoin/shared'
import { ERRORS, SyncError, cryptoRandom, systemClock, toSyncError } from '@rejoin/shared'
import { startCompactionWork } from './compaction/start.ts'
import { createDocumentReader } from './documents/read.ts'
import { operatorRoutes, startDownstream } from './downstream.ts'
import { relayFigures } from './figures.ts'
import { createApp } from './http/app.ts'
import { checkedAuthorize, grantProblem } from './http/authorize.ts'
import { listen } from './http/listen.ts'
import { createMetrics } from './http/metrics.ts'
import { originPolicy, originProblem } from './http/origin.ts'
import { createNativeSockets } from './http/socket.ts'
import { Y_PREFIX, createYWebSockets } from './http/ywebsocket.ts'
import { createCompactor } from './log/compactor.ts'
import type { Log } from './log/log.ts'
import { checkOptions } from './options-check.ts'
import type { Options, ServerOptions } from './options.ts'
import type { Grant } from './relay/grant.ts'
import { createRelayCore } from './relay/relay.ts'
import { createPresence } from './relay/presence.ts'
import { openSqliteLog } from './storage/sqlite.ts'

/** A relay without a port. */
export interface Relay {
  /** Everything over plain HTTP: `/healthz`, `/readyz`, `/metrics`, `/v1/documents/<id>`, `/v1/sinks`, `/v1/changes`. */
  readonly app: Hono
  /** Takes an upgrade request of `/sync` and `/y/<document>`; false when the address is not one of its own, and the socket is still the caller's. */
  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): boolean
  /** Holds every open socket of `principal` to another grant from now on; with null, ends them. Whoever connects later gets what `auth` says then. Throws `bad_option` when it is no grant. */
  regrant(principal: string, grant: Grant | null): void
  /** Drains and closes: what was taken becomes durable and is answered, every peer is told when to come back. Within 5 s. */
  close(): Promise<void>
}

/** A relay that listens. */
export interface Server {
  /** `http://host:port`. */
  readonly url: string
  readonly port: number
  /** As `Relay.regrant`. */
  regrant(principal: string, grant: Grant | null): void
  /** Stops listening, drains and closes, within 5 s. */
  close(): Promise<void>
}

/** How long answers may take while draining, in ms. */
const DRAIN_MS = 3000
/** How long a peer may take to read why it was refused, in ms. */
const REFUSED_MS = 2000
/** Connections beyond `limits.connections`, for plain HTTP and for being told that there are too many. */
const SPARE_CONNECTIONS = 1000

/**
 * A relay on the log in `options.data`. Rejects with `SyncError`: `bad_option`, `store_in_use`, `store_failed`, `storage_failed`.
 * When a durability barrier fails, nothing is acknowledged any more and an error is thrown that nobody can catch: the process must end, and start again.
 */
export async function createRelay(options: ServerOptions = {}): Promise<Relay> {
  const checked = checkOptions(options)
  const stored = await openSqliteLog({ directory: checked.data })
  const started: Started = [() => stored.close()]
  try {
    return relayOn(stored, checked, started)
  } catch (thrown) {
    // The caller has nothing that could be closed: a log left open would keep the folder from the next attempt in this process.
    for (const end of started.toReversed())
      await Promise.resolve(end()).catch((error: unknown) =>
        checked.logger.warn({ reason: String(error) }, 'something that was started did not end'),
      )
    // Nothing waits for anything in between: what throws is what an option led to.
    throw toSyncError(thrown, 'bad_option')
  }
}

/** What ends each thing that was started, in the order in which they were. */
type Started = (() => unknown)[]

/** The relay on its open log. Whatever it starts, it adds to `started` at once. */
function relayOn(stored: Log, options: Options, started: Started): Relay {
  const { auth, data, limits, logger, schema, retainMs } = options
  const report = (what: string, details: Readonly<Record<string, unknown>>): void => logger.error(details, what)
  const downstream = options.forward === 'here' ? startDownstream(options, 'rejoin serve') : undefined
  if (downstream !== undefined) started.push(() => downstream.close())
  const forwarding = downstream?.forwarding
  const log: Log =
    forwarding === undefined ? stored : { ...stored, append: (batch) => stored.append(batch).finally(() => forwarding.poke()) }
  const compactor = createCompactor({
    log,
    clock: systemClock,
    report,
    work: startCompactionWork({ directory: data, clock: systemClock }),
    retain: retainMs,
  })
  started.push(() => compactor.close())
  const authorize = checkedAuthorize(auth, systemClock)
  const origin = originPolicy(options)
  const routes = downstream && operatorRoutes(downstream, { data, authorize, head: (id) => log.head(id) })
  let unready: ErrorCode | undefined
  let closing = false
  const presence = createPresence({ clock: systemClock, limits })
  const core = createRelayCore({
    log,
    clock: systemClock,
    random: Math.random,
    limits,
    authorize,
    presence,
    compactor,
    rungs: forwarding,
    others: () => ySockets.count,
    report,
    defer: (run) => void setImmediate(run),
    fatal: (error) => {
      // Who still waits for a log that is being closed is told that it is: what was acknowledged is durable, and nobody listens any more.
      if (closing) {
        logger.warn({ reason: error.message }, 'the log was used while it closed')
        return
      }
      unready = 'storage_failed'
      logger.error({ reason: error.message }, 'the storage failed: nothing is acknowledged any more, and the process ends')
      process.nextTick(() => {
        throw error
      })
    },
  })
  started.push(() => core.drain())
  const fault = (error: unknown): void => logger.error({ reason: String(error) }, 'a socket met a fault of the relay')
  const sockets = createNativeSockets({ limits, connect: (socket, request) => core.connect(socket, request), fault })
  const ySockets = createYWebSockets({
    clock: systemClock,
    randomBytes: cryptoRandom,
    limits,
    presence,
    state: (id, vector) => compactor.state(id, vector),
    authorize,
    hold: (id) => core.hold(id),
    others: () => core.stats().peers,
    refuse,
    fault,
    report,
  })
  started.push(() => ySockets.closed(0))
  const metrics = createMetrics(relayFigures(core, ySockets, downstream?.watch))
  const documents = createDocumentReader({ state: (id) => compactor.state(id), schema, clock: systemClock })
  const app = createApp({
    authorize,
    origin,
    metrics,
    documents,
    ...routes,
    unready: () => unready,
    failed: (error) => logger.error({ code: error.code, reason: error.reason }, 'a request failed'),
  })
  return {
    app,
    upgrade(request, socket, head) {
      const path = pathOf(request)
      const kind = path === '/sync' ? sockets : path.startsWith(Y_PREFIX) ? ySockets : undefined
      if (kind === undefined) return false
      socket.on('error', () => undefined)
      const problem = originProblem({ host: request.headers.host, origin: request.headers.origin }, origin)
      if (problem !== undefined) refuse(socket, 'forbidden', problem)
      else if (unready !== undefined) refuse(socket, unready, 'the relay is not ready')
      else kind.upgrade(request, socket, head)
      return true
    },
    regrant(principal, grant) {
      const problem = grant === null ? undefined : grantProblem(grant)
      if (problem !== undefined) throw new SyncError('bad_option', `regrant: this is no grant: ${problem}`)
      core.regrant(principal, grant)
      ySockets.regrant(principal, grant)
      routes?.changes.regrant(principal, grant)
    },
    async close() {
      unready ??= 'draining'
      ySockets.stopReading()
      await within(DRAIN_MS, core.drain())
      await Promise.all([sockets.closed(DRAIN_MS / 2), ySockets.closed(DRAIN_MS / 2)])
      await Promise.all([documents.close(), compactor.close(), downstream?.close()])
      closing = true
      await log.close()
    },
  }
}

/** A relay that listens on `options.host` and `options.port`. Rejects as `createRelay` does, or with `bad_option` when the address cannot be had. */
export async function createServer(options: ServerOptions = {}): Promise<Server> {
  const { host, port, limits } = checkOptions(options)
  const relay = await createRelay(options)
  const upgrade = (request: IncomingMessage, socket: Duplex, head: Buffer): void => {
    if (!relay.upgrade(request, socket, head)) refuse(socket, 'not_found', 'there is nothing to upgrade to at this address')
  }
  const maxConnections = limits.connections + SPARE_CONNECTIONS
  const listening = await listen({ host, port, maxConnections, app: relay.app, upgrade }).catch(async (thrown: unknown) => {
    await relay.close()
    throw thrown
  })
  return {
    url: listening.url,
    port: listening.port,
    regrant: (principal, grant) => relay.regrant(principal, grant),
    close: () => listening.close(() => relay.close()),
  }
}

function pathOf(request: IncomingMessage): string {
  const url = request.url ?? '/'
  const end = url.indexOf('?')
  return end < 0 ? url : url.slice(0, end)
}

/** Answers an upgrade that cannot be. */
function refuse(socket: Duplex, code: ErrorCode, message: string): void {
  const { http, hint } = ERRORS[code]
  const body = JSON.stringify({ error: { code, message, hint } })
  // Ending is half of it: a peer that keeps its own half open would keep the descriptor too.
  const cancel = systemClock.after(REFUSED_MS, () => socket.destroy())
  socket.on('close', cancel)
  socket.end(
    `HTTP/1.1 ${http} ${STATUS_CODES[http] ?? ''}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\n${http === 503 ? 'Retry-After: 1\r\n' : ''}\r\n${body}`,
    () => socket.destroy(),
  )
}

async function within(ms: number, work: Promise<void>): Promise<void> {
  let cancel: () => void = () => undefined
  const late = new Promise<void>((resolve) => {
    cancel = systemClock.after(ms, resolve)
  })
  await Promise.race([work, late])
  cancel()
}
