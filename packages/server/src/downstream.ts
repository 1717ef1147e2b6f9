/**
 * View and sinks of a relay (steps 7 and 8 of the path): starts the worker behind them, tells whoever runs the relay what goes wrong there, and gives HTTP its way to them.
 */
import { join } from 'node:path'
import { systemClock } from '@rejoin/shared'
import { parseCommand } from './forwarding/commands.ts'
import type { Forwarding, WorkerEvent } from './forwarding/start.ts'
import { startForwarding } from './forwarding/start.ts'
import type { ForwardingWatch } from './forwarding/watch.ts'
import { watchForwarding } from './forwarding/watch.ts'
import type { ChangeFeeds } from './http/changes.ts'
import { createChangeFeeds } from './http/changes.ts'
import type { ReceiptParts } from './http/receipts.ts'
import type { SinkControl } from './http/sinks.ts'
import type { Logger } from './logger.ts'
import type { Options } from './options.ts'
import { makeSecret, withSecret } from './secret.ts'
import { ownView } from './storage/folder.ts'

/** What reads the log of a relay. */
export interface Downstream {
  readonly forwarding: Forwarding
  readonly watch: ForwardingWatch
  /** For `/v1/sinks`. */
  readonly control: SinkControl
  close(): Promise<void>
}

/** Starts it; undefined without a schema, when there is nothing to derive. `who` is told to another process that wants the same. Throws `SyncError('store_in_use')`. */
export function startDownstream(
  { data, schema, sinks, config, historyMs, logger }: Pick<Options, 'data' | 'schema' | 'sinks' | 'config' | 'historyMs' | 'logger'>,
  who: string,
): Downstream | undefined {
  if (schema === undefined) return undefined
  const release = ownView(data, who)
  const viewPath = join(data, 'view.db')
  const forwarding = startForwarding({ logDirectory: data, viewPath, schema, sinks, config, historyMs, onWorker: reporter(logger) })
  const watch = watchForwarding({
    forwarding,
    clock: systemClock,
    wrong: (what, why) => logger.warn({ what, why }, 'the mirroring of records meets a problem'),
    righted: (what) => logger.info({ what }, 'the mirroring of records goes on'),
  })
  return {
    forwarding,
    watch,
    control: {
      list: async () => {
        const { detail } = await forwarding.status()
        return Object.keys(sinks).map((name) => detail?.sinks[name] ?? { name, state: 'starting' })
      },
      command: (sink, name, body, signal) => {
        const command = parseCommand(name, body)
        if (command.type !== 'dead') logger.info({ sink, command }, 'an operator asks something of a sink')
        return forwarding.command(sink, command, signal)
      },
    },
    close: async () => {
      watch.stop()
      await forwarding.close()
      release()
    },
  }
}

/** What HTTP needs of it: `/v1/sinks` and `/v1/changes`, for tokens and for the secret that is made in the folder. */
export function operatorRoutes(
  { forwarding, control }: Downstream,
  { data, authorize, head }: { readonly data: string; readonly authorize: ReceiptParts['authorize']; readonly head: ReceiptParts['head'] },
): {
  readonly control: { readonly authorize: ReceiptParts['authorize']; readonly sinks: SinkControl; readonly receipts: ReceiptParts }
  readonly changes: ChangeFeeds
} {
  const forOperators = withSecret(makeSecret(data), authorize)
  const parts = { authorize: forOperators, clock: systemClock }
  return {
    control: { authorize: forOperators, sinks: control, receipts: { ...parts, rungs: forwarding, head } },
    changes: createChangeFeeds({ ...parts, read: (request, signal) => forwarding.changes(request, signal) }),
  }
}

/** The worker is started again by itself; somebody should know why it had to be. */
function reporter(logger: Logger): (event: WorkerEvent) => void {
  return (event) => {
    switch (event.type) {
      case 'slow':
        return logger.error({ ...event }, 'a document takes too long to project: it is parked, and the worker goes on without it')
      case 'slow-select':
        return logger.error(
          { ...event },
          'a function of the config file takes too long: the worker goes on without that record, or without the function for a while',
        )
      case 'died':
        return logger.error({ ...event }, 'the worker that keeps view and sinks died; it is started again')
      case 'warning':
        return logger.warn({}, event.message)
      case 'running':
    }
  }
}
