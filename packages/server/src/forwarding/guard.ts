/**
 * Select functions that never end (step 8 of the path): in the worker every call is told before it begins, so that the relay's thread can end a worker that is stuck in one, and the next worker refuses that record.
 */
import { hash } from 'node:crypto'
import type { Clock } from '@rejoin/shared'
import { SyncError } from '@rejoin/shared'
import type { SelectInput, Selected } from '../projection/select.ts'
import { runSelect } from '../projection/select.ts'
import type { Projection, SinkContext } from '../sinks/sink.ts'
import type { Key } from '../view/view.ts'
import type { TurnTeller } from './turn.ts'

/** How long one call may take, in ms. */
export const SELECT_MS = 1_000
/** Bytes of the name of a call in shared memory. */
export const SELECT_NAME_BYTES = 1_024

/** A record on which a select function had to be ended by force. */
export interface SlowSelect {
  /** What `nameOf` gives. */
  readonly name: string
  readonly sink: string
  readonly projection: string
  /** When, in ms since 1970. */
  readonly at: number
}

/** How long such a record is not tried again, in ms. */
const AVOIDED_MS = 600_000
/** After so many records the whole projection is refused: every further one would cost a worker. */
const MAX_RECORDS = 3
const MAX_SLOW = 1_000

/** `slow` with the call of this name, the oldest forgotten when there are too many. */
export function withSlowSelect(slow: readonly SlowSelect[], name: string, at: number): readonly SlowSelect[] {
  const [sink = '', projection = ''] = name.split('\u001f')
  return [...slow.filter((each) => each.name !== name), { name, sink, projection, at }].slice(-MAX_SLOW)
}

/** The call in words. */
export function callText(name: string): string {
  const [sink, projection, record] = name.split('\u001f')
  if (record === undefined) return `the function ${projection} of sink ${sink}`
  return `the projection ${JSON.stringify(projection)} of sink ${sink}, at the record ${record},`
}

/** Of one call; two calls have two names. */
function nameOf(sink: string, projection: string, { collection, document, id }: Key): string {
  const record = `${collection}/${document}/${id}`
  const short = record.length <= 200 ? record : `${record.slice(0, 200)}… ${hash('md5', record, 'hex')}`
  return [sink, projection, short].join('\u001f')
}

/** Stands before the name of a function among names of documents, which hold no control characters. */
const FUNCTION = '\u001f'

/** The function that a turn is of, when it is not a document's. */
export function functionOf(turn: string): string | undefined {
  return turn.startsWith(FUNCTION) ? turn.slice(FUNCTION.length) : undefined
}

/** The functions of one sink, each told before it begins; what it does until its first await counts. One that had to be ended by force is refused for a while. */
export function guardedFunctions(
  sink: string,
  functions: SinkContext['functions'],
  { slow, turns, clock }: { readonly slow: readonly SlowSelect[]; readonly turns: TurnTeller; readonly clock: Clock },
): SinkContext['functions'] {
  return Object.fromEntries(
    Object.entries(functions).map(([name, run]) => {
      const turn = [sink, name].join('\u001f')
      const last = slow.find((each) => each.name === turn)
      return [
        name,
        async (...args: readonly unknown[]) => {
          if (last !== undefined && Math.abs(clock.now() - last.at) < AVOIDED_MS)
            throw new SyncError(
              'timeout',
              `the function ${name} of sink ${sink} did not let go of its thread; it is tried again after ten minutes`,
            )
          turns.begin(FUNCTION + turn, 0)
          try {
            return run(...args)
          } finally {
            turns.end()
          }
        },
      ]
    }),
  )
}

/** Runs the selects of one sink, telling each call. Throws `SyncError('timeout')` for a projection that took too long again and again. */
export function guardedSelects(
  sink: string,
  projections: readonly Projection[],
  { slow, turns, clock }: { readonly slow: readonly SlowSelect[]; readonly turns: TurnTeller; readonly clock: Clock },
): (projection: number, inputs: readonly SelectInput[]) => readonly Selected[] {
  // A clock that was set back must not lock a record out.
  const avoided = slow.filter((each) => each.sink === sink && Math.abs(clock.now() - each.at) < AVOIDED_MS)
  const names = new Set(avoided.map(({ name }) => name))
  return (index, inputs) => {
    const projection = projections[index]
    if (projection === undefined) throw new Error(`sink ${sink} has no projection ${index}`)
    const records = avoided.filter((each) => each.projection === projection.to)
    if (records.length >= MAX_RECORDS)
      throw new SyncError(
        'timeout',
        `the projection ${JSON.stringify(projection.to)} of sink ${sink} took longer than ${SELECT_MS} ms on ${records.length} records; mend it and start the relay again`,
      )
    return inputs.map((input) => {
      const name = nameOf(sink, projection.to, input.key)
      if (names.has(name))
        return {
          error: `the projection ${JSON.stringify(projection.to)} took longer than ${SELECT_MS} ms; it is tried again at a change, after ten minutes`,
        }
      turns.begin(name, 0)
      const [selected] = runSelect(projection, [input])
      turns.end()
      return selected ?? { error: 'select gave nothing' }
    })
  }
}
