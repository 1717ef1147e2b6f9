/**
 * Watches view and sinks for whoever runs the relay (steps 7 and 8 of the path): what is wrong with them is told once when it begins and once when it is over,
 * and the last status is at hand for /metrics.
 */
import type { Clock } from '@rejoin/shared'
import type { WorkerStatus } from './messages.ts'
import type { Forwarding } from './start.ts'

/** What a watch needs. */
export interface ForwardingWatchOptions {
  readonly forwarding: Pick<Forwarding, 'status'>
  readonly clock: Clock
  /** Something is wrong with `what`, or something else than before. */
  readonly wrong: (what: string, why: string) => void
  /** It is not any more. */
  readonly righted: (what: string) => void
  /** How often it looks, in ms. @default 2000 */
  readonly every?: number | undefined
}

/** A running watch. */
export interface ForwardingWatch {
  /** As of the last look; undefined while there is no worker to ask. */
  readonly last: WorkerStatus | undefined
  stop(): void
}

/** Looks until it is stopped. */
export function watchForwarding({ forwarding, clock, wrong, righted, every = 2000 }: ForwardingWatchOptions): ForwardingWatch {
  const told = new Map<string, string>()
  let last: WorkerStatus | undefined
  let stopped = false
  let cancel = clock.after(every, () => void look())

  async function look(): Promise<void> {
    const { detail } = await forwarding.status()
    if (stopped) return
    last = detail
    if (detail !== undefined) for (const [what, why] of troubles(detail)) tell(what, why)
    cancel = clock.after(every, () => void look())
  }

  function tell(what: string, why: string | undefined): void {
    if (told.get(what) === why) return
    if (why === undefined) {
      told.delete(what)
      righted(what)
    } else {
      told.set(what, why)
      wrong(what, why)
    }
  }

  return {
    get last() {
      return last
    },
    stop() {
      stopped = true
      cancel()
    },
  }
}

/** What is wrong with the view and each sink, or undefined. */
function troubles({ view, sinks }: WorkerStatus): readonly (readonly [what: string, why: string | undefined])[] {
  return [
    ['the view', view.state === 'failing' ? (view.error ?? 'it fails') : parkedProblem(view.parked.total, 'documents')],
    ...Object.entries(sinks).map(([name, sink]) => [`sink ${name}`, sinkProblem(sink)] as const),
  ]
}

function sinkProblem({ state, error, warning, parked, letters, proof }: WorkerStatus['sinks'][string]): string | undefined {
  switch (state) {
    case 'fenced':
      return 'another forwarder has taken over; when this one is to go on: rejoin sinks resume'
    case 'failing':
      return error ?? 'it fails'
    case 'cut-off':
    case 'poisoned':
      return error ?? `it is ${state}`
    default:
      if (proof !== null && !proof.equal && proof.differences.total > 0)
        return `${proof.differences.total} differences from the documents were found; rejoin sinks repair mends them`
      if (parked.total > 0) return parkedProblem(parked.total, 'rows')
      return letters > 0 ? `${letters} dead letters` : warning
  }
}

function parkedProblem(count: number, what: string): string | undefined {
  return count === 0 ? undefined : `${count} ${what} are parked`
}
