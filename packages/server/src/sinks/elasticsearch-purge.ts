/**
 * Deleted rows in Elasticsearch (step 8 of the path): their documents stay, marked, until no attempt of an older write can still be under way; a document that is really deleted is forgotten with its version after a minute, and what comes late would bring it back.
 */
import type { Clock } from '@rejoin/shared'
import type { Ask } from './elasticsearch-http.ts'
import type { Target } from './elasticsearch-index.ts'
import { DELETED, STAMP } from './elasticsearch-index.ts'

export interface Graveyard {
  /** Rows up to this stamp are deleted now. */
  dig(stamp: number): void
  /** Removes what has lain long enough, a slice at a time. */
  purge(): Promise<void>
}

/** Documents that are removed at once. */
const SLICE = 5_000
/** Moments that are told apart. */
const MOMENTS = 16

/** `rest`: how long they lie, in ms. */
export function createGraveyard(ask: Ask, targets: readonly Target[], rest: number, clock: Clock): Graveyard {
  const graves: { stamp: number; began: number; ended: number }[] = []
  return {
    dig: (stamp) => {
      const last = graves.at(-1)
      const now = clock.now()
      // Those of one moment go together, counted from its end.
      if (last !== undefined && Math.abs(now - last.began) < rest / MOMENTS)
        Object.assign(last, { stamp: Math.max(last.stamp, stamp), ended: now })
      else graves.push({ stamp, began: now, ended: now })
    },
    purge: async () => {
      const now = clock.now()
      // A clock that was set back would keep them for ever.
      const young = graves.findIndex(({ ended }) => now - ended < rest && now >= ended)
      const ripe = graves.splice(0, young === -1 ? graves.length : young)
      const last = ripe.at(-1)
      if (last === undefined) return
      const path = `/${targets.map(({ write }) => write).join(',')}/_delete_by_query?conflicts=proceed&max_docs=${SLICE}`
      const gone = [{ term: { [DELETED]: true } }, { range: { [STAMP]: { lte: last.stamp } } }]
      const { body } = await ask({ method: 'POST', path, body: { query: { bool: { filter: gone } } } })
      if (body['deleted'] === SLICE) graves.unshift(last)
    },
  }
}
