/**
 * Lets the forwarder of consistency `latest` be steered until the one that can be is there (step 8 of the path).
 */
import { SyncError } from '@rejoin/shared'
import type { Forwarder, ForwarderOptions } from './control.ts'
import { startForwarder as startPlain } from './forwarder.ts'

/** Starts it: pause and resume are a stop and a start. */
export function startForwarder({ view, transform, forward, notes, open, clock, random, onCommit }: ForwarderOptions): Forwarder {
  const start = (): ReturnType<typeof startPlain> =>
    startPlain({ view, collections: transform.targets, open: () => open({ adopt: false }), clock, random, onCommit, limits: forward.batch })
  let running = start()
  let paused = false
  const cannot = (): never => {
    throw new SyncError('internal', 'this forwarder cannot do that yet')
  }
  const stop = async (): Promise<void> => {
    if (!paused) await running.stop()
  }
  return {
    poke: () => running.poke(),
    status: () => {
      const { state, lag, ...rest } = running.status()
      const { strategy, consistency } = forward
      const more = { commits: 0, rows: 0, rate: 0, letters: notes.letters(1).total, strategy, consistency }
      return { ...more, ...rest, state: paused ? 'paused' : state, lag: { entries: lag, seconds: 0, bytes: 0 } }
    },
    cursor: () => running.status().cursor,
    begun: running.begun,
    needs: () => running.needs(),
    reached: (version) => ({ type: running.status().cursor >= version ? 'reached' : 'behind' }),
    parked: () => running.status().parked.first,
    digestAt: () => undefined,
    write: cannot,
    pause: async () => {
      await stop()
      paused = true
    },
    resume: async () => {
      if (paused) running = start()
      paused = false
    },
    rewind: cannot,
    refresh: async () => {
      await stop()
      running = start()
      paused = false
    },
    adopt: cannot,
    drop: cannot,
    requeue: cannot,
    discard: cannot,
    stop,
  }
}
