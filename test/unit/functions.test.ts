/**
 * Functions of an application, called from a thread that does not have them: what crosses, in what order, how long at a time, and what becomes of one that never ends.
 */
import { MessageChannel } from 'node:worker_threads'
import { afterEach, describe, expect, it } from 'vitest'
import type { DocumentId } from '@rejoin/shared'
import { SyncError, collection, defineSchema, number, string } from '@rejoin/shared'
import { defineProjection } from '@rejoin/server'
import { createCalls, outcomeOf } from '#server/forwarding/calls.js'
import { createFunctionRunner, remoteFunctions } from '#server/forwarding/functions.js'
import {
  SELECT_MS,
  SELECT_NAME_BYTES,
  callText,
  functionOf,
  guardedFunctions,
  guardedSelects,
  withSlowSelect,
} from '#server/forwarding/guard.js'
import type { FunctionCall } from '#server/forwarding/messages.js'
import { differenceOf, plainSpec, runningForward } from '#server/forwarding/plain.js'
import { createTurnMemory, tellTurns, watchTurns } from '#server/forwarding/turn.js'
import type { SinkSpec } from '#server/sinks/sink.js'
import { sqlite } from '#server/sinks/sqlite.js'
import { createVirtualClock } from '../support/virtual-clock.ts'

const schema = defineSchema({ pets: collection({ name: string(), age: number() }) })
const card = defineProjection(schema, {
  from: 'pets',
  to: 'cards',
  revision: 1,
  fields: { title: string() },
  select: ({ pet }) => {
    if (pet.age === null) throw new Error('no age')
    return { title: `${pet.name}, ${pet.age}` }
  },
})
const clock = createVirtualClock()
const ends: (() => void)[] = []
afterEach(() => {
  for (const end of ends.splice(0)) end()
})

const spec = (functions: Record<string, (...args: never[]) => unknown> = {}): SinkSpec => ({
  ...sqlite({ path: 'x.db', projection: card }),
  functions,
})
const input = (id: string, fields: Record<string, unknown>) => ({
  key: { collection: 'pets', document: 'd' as DocumentId, id },
  input: { pet: fields, document: 'd', id },
})

/** A worker and the thread that has the functions, with a real structured clone in between. */
function connect(functions: Record<string, (...args: never[]) => unknown> = {}) {
  const sinks = { mirror: spec(functions) }
  const { port1: worker, port2: main } = new MessageChannel()
  ends.push(() => worker.close())
  let breaths = 0
  let time = 0
  const runner = createFunctionRunner(sinks, {
    now: () => (time += 2),
    breathe: () => {
      breaths++
      return Promise.resolve()
    },
  })
  const calls = createCalls(clock)
  main.on('message', ({ id, call }: { id: number; call?: FunctionCall }) => {
    if (call === undefined) runner.abort(id)
    else void runner.run(id, call).then((outcome) => main.postMessage({ id, outcome }))
  })
  worker.on('message', ({ id, outcome }: { id: number; outcome: Parameters<typeof calls.answer>[1] }) => calls.answer(id, outcome))
  const plain = structuredClone(plainSpec(sinks.mirror))
  const remote = remoteFunctions('mirror', plain.functions, (call, { ms, signal }) =>
    calls.ask((id) => worker.postMessage({ id, call }), { ms, what: 'a function', signal, giveUp: (id) => worker.postMessage({ id }) }),
  )
  return { ...remote, plain, breaths: () => breaths }
}

describe('functions on another thread', () => {
  it('select for many records in slices, in order, an error in the place of its record', async () => {
    const { select, breaths } = connect()
    const inputs = Array.from({ length: 1200 }, (_, n) => input(`p${n}`, { name: `Rex ${n}`, age: n === 7 ? null : n }))
    const selected = await select(0, inputs)
    expect(selected.length).toBe(1200)
    expect(selected[7]).toEqual({ error: 'no age' })
    expect(selected[1199]).toEqual({ rows: [{ part: undefined, value: { title: 'Rex 1199, 1199' } }] })
    // With calls of two units of time each, a slice of five is over after the third.
    expect(breaths()).toBeGreaterThan(300)
    await expect(select(3, inputs)).rejects.toMatchObject({ code: 'not_found' })
  })

  it('take plain data and a signal, and give plain data or an error', async () => {
    const seen: unknown[] = []
    const { functions } = connect({
      handle: async (changes: unknown, { signal, more }: { signal: AbortSignal; more: number }) => {
        seen.push(changes, more, signal.aborted)
        await new Promise((resolve) => signal.addEventListener('abort', resolve))
        seen.push('aborted')
      },
      fail: () => {
        throw new SyncError('too_large', 'no room for it')
      },
      strange: () => () => undefined,
    })
    const controller = new AbortController()
    const handled = functions['handle']?.([{ id: 1 }], { signal: controller.signal, more: 2 })
    await expect.poll(() => seen.length).toBe(3)
    controller.abort()
    await expect(handled).rejects.toMatchObject({ code: 'aborted' })
    await expect.poll(() => seen).toEqual([[{ id: 1 }], 2, false, 'aborted'])
    await expect(functions['fail']?.()).rejects.toMatchObject({ code: 'too_large', reason: 'no room for it' })
    await expect(functions['strange']?.()).rejects.toMatchObject({ code: 'bad_option' })
  })

  it('are aborted when the worker that called them has gone', async () => {
    let seen: AbortSignal | undefined
    const handle = (_changes: unknown, { signal }: { signal: AbortSignal }): Promise<void> => {
      seen = signal
      return new Promise((resolve) => signal.addEventListener('abort', () => resolve()))
    }
    const runner = createFunctionRunner({ crm: spec({ handle }) }, { now: () => 0, breathe: () => Promise.resolve() })
    const running = runner.run(1, { type: 'function', sink: 'crm', name: 'handle', args: [[], {}], signals: [[1, 'signal']] })
    expect(seen?.aborted).toBe(false)
    runner.end()
    expect([await running, seen?.aborted]).toEqual([{ ok: true, value: undefined }, true])
  })

  it('leave a sink as plain data, which says so when it is called all the same', () => {
    const { plain } = connect({ handle: () => undefined })
    expect(plain.functions).toEqual(['handle'])
    expect(() => runningForward(plain).projections[0]?.select({})).toThrow('this thread has no functions')
  })

  it('are those of the file only as long as that has the same sinks', () => {
    const plain = { mirror: plainSpec(spec({ handle: () => undefined })) }
    expect(differenceOf(plain, { mirror: spec({ handle: () => 'another' }), other: spec() })).toBeUndefined()
    expect(differenceOf(plain, {})).toBe('it has no sink mirror')
    expect(differenceOf(plain, { mirror: spec() })).toBe('the functions of sink mirror were changed')
    const { projections } = spec().forward
    const [projection] = projections
    if (projection === undefined) throw new Error('no projection')
    const changed = { ...spec(), forward: { ...spec().forward, projections: [{ ...projection, source: 'other' }] } }
    expect(differenceOf(plain, { mirror: changed })).toBe('the projections of sink mirror were changed')
  })
})

describe('questions between threads', () => {
  it('are answered once, given up in time, and all end with the thread', async () => {
    const calls = createCalls(clock)
    const sent: number[] = []
    const given: number[] = []
    const ask = (signal?: AbortSignal) =>
      calls.ask((id) => sent.push(id), { ms: 1000, what: 'an answer', signal, giveUp: (id) => given.push(id) })
    const [answered, late, aborted, orphan] = [ask(), ask(), ask(AbortSignal.timeout(1)), ask()]
    calls.answer(1, { ok: true, value: 5 })
    calls.answer(1, { ok: true, value: 6 })
    expect(await answered).toBe(5)
    await expect(aborted).rejects.toMatchObject({ code: 'aborted' })
    calls.failAll(new SyncError('overloaded', 'gone'))
    await expect(late).rejects.toMatchObject({ code: 'overloaded' })
    await expect(orphan).rejects.toMatchObject({ code: 'overloaded' })
    const slow = ask()
    await Promise.all([expect(slow).rejects.toMatchObject({ code: 'timeout' }), clock.advance(1000)])
    expect([sent, given]).toEqual([
      [1, 2, 3, 4, 5],
      [3, 5],
    ])
    expect(await outcomeOf(() => Promise.reject(new Error('broken')))).toEqual({ ok: false, error: { code: 'internal', reason: 'broken' } })
  })
})

describe('a function that never lets go of its thread', () => {
  it('is told by name, and refused for a while by the next worker', async () => {
    const memory = createTurnMemory()
    const names: string[] = []
    const turns = { begin: (name: string) => names.push(name), end: () => names.push('end') }
    const handle = (): Promise<unknown> => Promise.resolve(names.push('run'))
    const first = guardedFunctions('crm', { handle }, { slow: [], turns: { ...tellTurns(memory), ...turns }, clock })
    await first['handle']?.([])
    const [turn = ''] = names
    expect([names.slice(1), callText(functionOf(turn) ?? ''), functionOf('clinic-1')]).toEqual([
      ['run', 'end'],
      'the function handle of sink crm',
      undefined,
    ])
    const slow = withSlowSelect([], functionOf(turn) ?? '', clock.now())
    const next = guardedFunctions('crm', { handle }, { slow, turns: tellTurns(memory), clock })
    await expect(next['handle']?.([])).rejects.toMatchObject({
      code: 'timeout',
      reason: expect.stringContaining('did not let go of its thread') as string,
    })
  })
})

describe('a select function that never ends', () => {
  const projections = spec().forward.projections
  const guarded = (slow: Parameters<typeof guardedSelects>[2]['slow']) => {
    const memory = createTurnMemory(SELECT_NAME_BYTES)
    return { memory, select: guardedSelects('mirror', projections, { slow, turns: tellTurns(memory), clock }) }
  }

  it('is told by name to the other thread, which says the sink, the projection and the record', async () => {
    const memory = createTurnMemory(SELECT_NAME_BYTES)
    const names: string[] = []
    ends.push(watchTurns(memory, { clock, patience: SELECT_MS, overrun: ({ name }) => names.push(name) }))
    let seen: (() => void) | undefined
    const [projection] = projections
    if (projection === undefined) throw new Error('no projection')
    const stuck = { ...projection, select: () => (seen?.(), { title: 'x' }) }
    const select = guardedSelects('mirror', [stuck], { slow: [], turns: tellTurns(memory), clock })
    // What another thread would see while this one is busy.
    const during = new Promise<SharedArrayBuffer>((resolve) => {
      seen = () => {
        const copy = new SharedArrayBuffer(memory.byteLength)
        new Uint8Array(copy).set(new Uint8Array(memory))
        resolve(copy)
      }
    })
    select(0, [input('rex'.repeat(500), { name: 'Rex', age: 1 })])
    ends.push(watchTurns(await during, { clock, patience: SELECT_MS, overrun: ({ name }) => names.push(name) }))
    await clock.advance(2000)
    expect(names.length).toBe(1)
    expect(callText(names[0] ?? '')).toMatch(/^the projection "cards" of sink mirror, at the record pets\/d\/rex.*… [0-9a-f]{32},$/u)
  })

  it('is not tried again at that record; the others are', () => {
    const first = guarded([])
    expect(first.select(0, [input('rex', { name: 'Rex', age: 1 })])).toHaveLength(1)
    const slow = withSlowSelect([], ['mirror', 'cards', 'pets/d/rex'].join('\u001f'), clock.now())
    const { select } = guarded(slow)
    expect(select(0, [input('rex', { name: 'Rex', age: 1 }), input('tom', { name: 'Tom', age: 2 })])).toEqual([
      { error: expect.stringContaining('the projection "cards" took longer than 1000 ms') as string },
      { rows: [{ part: undefined, value: { title: 'Tom, 2' } }] },
    ])
    const long = { ...slow[0], name: '', sink: 'mirror', projection: 'cards', at: clock.now() - 700_000 }
    expect(guarded([long]).select(0, [input('rex', { name: 'Rex', age: 1 })])[0]).toHaveProperty('rows')
  })

  it('refuses the projection as a whole when that has become a habit', () => {
    let slow: ReturnType<typeof withSlowSelect> = []
    for (const id of ['a', 'b', 'c']) slow = withSlowSelect(slow, ['mirror', 'cards', `pets/d/${id}`].join('\u001f'), clock.now())
    expect(() => guarded(slow).select(0, [input('tom', { name: 'Tom', age: 2 })])).toThrow(
      'the projection "cards" of sink mirror took longer than 1000 ms on 3 records',
    )
  })
})
