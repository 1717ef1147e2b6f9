/**
 * Finding a document's entries by seq (under step 5 of the path) without an index. An index on (document, seq) would be written at another place for every
 * document of a transaction: with 200 documents it cost five times what the entries cost. Instead each entry names the position of its predecessor and,
 * to skip, of the entry whose seq is its own without the lowest set bit; so any seq is found from the head in O(log² n) steps.
 *
 *     seq       1  2  3  4  5  6  7  8        12 = 1100 skips to 8 = 1000, 11 = 1011 to 10 = 1010, that to 8
 *     skips to  0  0  2  0  4  4  6  0
 */
import { LogError } from '../log/log.ts'
import type { Connection } from './sqlite-file.ts'
import type { DocumentRow } from './sqlite-rows.ts'

interface Link {
  readonly document: number
  readonly seq: number
  readonly previous: number
  readonly skip: number
}

/** Entries of a document, by seq. Those asked for must be retained. */
export interface Links {
  /** Position of the entry. Throws `corrupt` when the links do not lead to it. */
  locate(document: DocumentRow, seq: number): number
  /** Positions of the entries that the next ones will skip to: the newest last. Those that were trimmed are left out. */
  path(document: DocumentRow): number[]
}

/** Parameters of `WALK`. */
export interface Walk {
  /** Position to begin at. */
  readonly from: number
  /** Key of the document. */
  readonly document: number
  /** The walk ends at the entry behind this seq. */
  readonly after: number
}

/** SQL: the rows `walk(position, seq, previous)`, backwards. */
export const WALK = `WITH RECURSIVE walk (position, seq, previous) AS (
  SELECT position, seq, previous FROM entries WHERE position = @from AND document = @document
  UNION ALL SELECT e.position, e.seq, e.previous FROM walk w JOIN entries e ON e.position = w.previous WHERE w.seq > @after + 1 AND e.document = @document AND e.seq = w.seq - 1
)`

/** The links on `db`. */
export function createLinks(db: Connection): Links {
  const at = db.prepare<[number], Link>('SELECT document, seq, previous, skip FROM entries WHERE position = ?')

  return {
    locate(document, seq) {
      let position = document.last
      for (let here = document.seq; here !== seq;) {
        const link = at.get(position)
        if (link === undefined || link.document !== document.key || link.seq !== here) {
          throw new LogError('corrupt', `the way to entry ${seq} of document ${document.id} breaks at entry ${here}`, {
            document: document.id,
          })
        }
        const skipped = withoutLowestBit(here)
        position = skipped >= seq ? link.skip : link.previous
        here = skipped >= seq ? skipped : here - 1
      }
      return position
    },
    path(document) {
      const positions: number[] = []
      for (let here = document.seq, position = document.last; here > 0; here = withoutLowestBit(here)) {
        const link = at.get(position)
        if (link === undefined || link.document !== document.key || link.seq !== here) break
        positions.push(position)
        position = link.skip
      }
      return positions.reverse()
    },
  }
}

/** Links the entry behind `seq` at `position`, and brings `path` up to it. */
export function link(path: number[], seq: number, position: number): { readonly previous: number; readonly skip: number } {
  const previous = path.at(-1) ?? 0
  // seq + 1 without its lowest set bit is seq without its trailing ones.
  for (let rest = seq; rest % 2 === 1; rest = (rest - 1) / 2) path.pop()
  const skip = path.at(-1) ?? 0
  path.push(position)
  return { previous, skip }
}

/** Arithmetic, not bits: those would end at 2^31. */
function withoutLowestBit(seq: number): number {
  let bit = 1
  while (seq % (bit * 2) === 0) bit *= 2
  return seq - bit
}
