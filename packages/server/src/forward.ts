/**
 * `rejoin forward`: view and sinks in a process of their own (steps 7 and 8 of the path), beside a relay that serves the same folder and is told `forward: 'elsewhere'`.
 */
import { existsSync, statSync } from 'node:fs'
import { join } from 'node:path'
import type { ErrorCode, Position } from '@rejoin/shared'
import { SyncError, systemClock, toSyncError } from '@rejoin/shared'
import { operatorRoutes, startDownstream } from './downstream.ts'
import { forwardingFigures } from './figures.ts'
import { createApp } from './http/app.ts'
import { checkedAuthorize } from './http/authorize.ts'
import { listen } from './http/listen.ts'
import { createMetrics } from './http/metrics.ts'
import { originPolicy } from './http/origin.ts'
import { checkOptions } from './options-check.ts'
import type { ServerOptions } from './options.ts'
import { openSqliteSource } from './storage/sqlite-source.ts'

/** View and sinks that run, and listen. */
export interface ForwardServer {
  readonly url: string
  readonly port: number
  /** Ends after the batch under way, within 5 s. */
  close(): Promise<void>
}

/** How often it looks whether the log has grown, in ms: just after it had, and otherwise. */
const BUSY_MS = 25
const IDLE_MS = 200
/** For how many looks without growth it is still counted as busy. */
const BUSY_LOOKS = 80
/** Of so many quiet looks one acts as if there were something. */
const NOW_AND_THEN = 25
const CONNECTIONS = 1_000

/**
 * Keeps view and sinks of the log in `options.data`, and listens on `options.host` and `options.port` for `/healthz`, `/readyz`, `/metrics`, `/v1/sinks` and `/v1/changes`.
 * Rejects with `SyncError`: `bad_option`, `store_in_use` when another process does.
 */
export async function createForwardServer(options: ServerOptions): Promise<ForwardServer> {
  const checked = checkOptions(options)
  const { data, auth, host, port, logger } = checked
  if (!existsSync(join(data, 'log.db')))
    throw new SyncError('bad_option', `data: there is no log in ${data}; start the relay on this folder first`)
  const downstream = startDownstream(checked, 'rejoin forward')
  if (downstream === undefined)
    throw new SyncError('bad_option', 'schema: there is nothing to forward without one; give schema: defineSchema({ … })')
  let unready: ErrorCode | undefined
  const source = openSqliteSource(data)
  const file = fileAt(join(data, 'log.db'))
  const stopLooking = followLog(source, {
    grown: () => {
      downstream.forwarding.poke()
      // What is open here would be read for ever, and nobody writes to it.
      if (fileAt(join(data, 'log.db')) !== file) replaced(data)
    },
    failed: (error) => logger.warn({ reason: toSyncError(error).reason }, 'the log could not be looked at'),
  })
  const end = async (): Promise<void> => {
    unready = 'draining'
    stopLooking()
    await downstream.close()
    source.close()
  }
  try {
    const authorize = checkedAuthorize(auth, systemClock)
    const app = createApp({
      authorize,
      origin: originPolicy(checked),
      metrics: createMetrics(forwardingFigures(downstream.watch)),
      ...operatorRoutes(downstream, { data, authorize, head: (id) => source.head(id) }),
      unready: () => unready,
      failed: (error) => logger.error({ code: error.code, reason: error.reason }, 'a request failed'),
    })
    const listening = await listen({ host, port, maxConnections: CONNECTIONS, app })
    return { url: listening.url, port: listening.port, close: () => listening.close(end) }
  } catch (thrown) {
    await end()
    throw thrown
  }
}

/** Which file lies at the path now. */
function fileAt(path: string): string {
  const stat = statSync(path, { bigint: true, throwIfNoEntry: false })
  return stat === undefined ? '' : `${stat.dev}:${stat.ino}`
}

/** The process ends, as a relay's does whose storage fails; whoever keeps it running starts it again. */
function replaced(data: string): void {
  process.nextTick(() => {
    throw new SyncError('storage_failed', `the log in ${data} was replaced by another file`)
  })
}

/** Calls `grown` when the log has, and now and then. Nobody tells another process. */
function followLog(
  source: { ends(): Promise<ReadonlyMap<number, Position>> },
  { grown, failed }: { readonly grown: () => void; readonly failed: (error: unknown) => void },
): () => void {
  let last = ''
  let quiet = 0
  let stopped = false
  let cancel = (): void => undefined
  const look = async (): Promise<void> => {
    try {
      const ends = JSON.stringify([...(await source.ends())])
      quiet = ends === last ? quiet + 1 : 0
      if (quiet === 0 || quiet % NOW_AND_THEN === 0) grown()
      last = ends
    } catch (error) {
      failed(error)
    }
    if (!stopped) cancel = systemClock.after(quiet < BUSY_LOOKS ? BUSY_MS : IDLE_MS, () => void look())
  }
  void look()
  return () => {
    stopped = true
    cancel()
  }
}
