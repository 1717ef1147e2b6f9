/**
 * Files of JSON lines: whole lines only, nothing confirmed that is not there, rotation without loss, and one writer.
 */
import {
  appendFileSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { jsonl } from '@rejoin/server/sinks/jsonl'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Delivery } from '#server/sinks/delivery.js'
import { createJsonl } from '#server/sinks/jsonl.js'
import type { Message } from '#server/sinks/message.js'
import type { SinkRow } from '#server/sinks/sink.js'
import { forwardOf } from '#server/sinks/spec.js'
import { LOG, NEVER, at, change, pet } from '../support/deliveries.ts'
import { createVirtualClock } from '../support/virtual-clock.ts'

const TRAITS = { transactional: false, strategies: ['state', 'actions'], readable: false } as const
let folder: string
let path: string
const open: Delivery[] = []
const clock = createVirtualClock()

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'rejoin-jsonl-'))
  path = join(folder, 'events.jsonl')
})
afterEach(async () => {
  for (const each of open.splice(0)) await each.close()
  rmSync(folder, { recursive: true })
})

function make(
  options: Readonly<Record<string, unknown>> = {},
  told: { log?: string; name?: string; adopt?: boolean; strategy?: 'state' | 'actions' } = {},
): Delivery {
  const { log = LOG, name = 'events', adopt = false, strategy = 'state' } = told
  const delivery = createJsonl(
    { path, fsync: false, ...options },
    { name, log, adopt, forward: forwardOf('test', TRAITS, { strategy }) },
    clock,
  )
  open.push(delivery)
  return delivery
}

async function write(delivery: Delivery, version: number, ...rows: SinkRow[]): Promise<void> {
  expect(await delivery.deliver(rows, { to: at(version) }, NEVER)).toEqual([])
  await delivery.moved?.(at(version))
}

function lines(file = path): Message[] {
  const text = readFileSync(file, 'utf8')
  expect(text === '' || text.endsWith('\n')).toBe(true)
  return text
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line) as Message)
}

const big = { name: 'x'.repeat(600) }

describe('a file of lines', () => {
  it('holds a line a row, with its version and event, and the place for the next forwarder', async () => {
    const delivery = make({ fsync: true })
    expect(await delivery.begin()).toEqual({ place: undefined, stamp: 0, isNew: true })
    await write(delivery, 3, pet('rex', { name: 'Rex\n\u2028' }), pet('mia', null))
    await write(delivery, 5, change('rex', 4, null, { name: 'R' }))
    expect(lines()).toMatchObject([
      { type: 'record.state', version: 3, record: 'rex', value: { name: 'Rex\n\u2028' } },
      { type: 'record.state', version: 3, record: 'mia', value: null },
      { type: 'record.created', version: 4, record: 'rex', id: `${LOG}/1/clinic/4/0/1` },
    ])
    expect(await make().begin()).toEqual({ place: at(5), stamp: 5, isNew: false })
  })

  it('is cut where a line was torn; what was whole stays, confirmed or not', async () => {
    const delivery = make()
    await delivery.begin()
    await write(delivery, 1, pet('a', {}))
    await delivery.deliver([pet('b', {})], { to: at(2) }, NEVER)
    appendFileSync(path, `{"id":"torn${'x'.repeat(200_000)}`)
    expect(await make().begin()).toEqual({ place: at(1), stamp: 2, isNew: false })
    expect(lines().map(({ record }) => record)).toEqual(['a', 'b'])
  })

  it('tells a line that came twice by key and version: Jill and Jack', async () => {
    const delivery = make()
    await delivery.begin()
    for (const [version, name] of [
      [1, 'Jill'],
      [2, 'Jack'],
      [1, 'Jill'],
      [2, 'Jack'],
    ] as const) {
      await delivery.deliver([pet('rex', { name })], { to: at(version) }, NEVER)
    }
    expect(new Set(lines().map(({ id }) => id)).size).toBe(2)
    const newest = new Map<string, Message>()
    for (const line of lines().reverse()) if (line.version > (newest.get(line.record)?.version ?? 0)) newest.set(line.record, line)
    expect(newest.get('rex')?.value).toEqual({ name: 'Jack' })
  })

  it('goes on below its last line when it was cut, or replaced by an older copy', async () => {
    const delivery = make()
    await delivery.begin()
    await write(delivery, 3, pet('a', {}))
    const size = readFileSync(path).length
    await write(delivery, 4, pet('b', {}))
    truncateSync(path, size)
    expect(await delivery.deliver([pet('c', {})], { to: at(5) }, NEVER)).toBe('lost')
    expect(await make().begin()).toEqual({ place: at(2), stamp: 4, isNew: false })
  })

  it('is begun anew when it is gone; with actions it goes on, as its reader may have taken it away', async () => {
    const delivery = make()
    await delivery.begin()
    await write(delivery, 3, pet('a', {}))
    renameSync(path, join(folder, 'taken'))
    expect(await delivery.deliver([pet('c', {})], { to: at(5) }, NEVER)).toBe('lost')
    expect(existsSync(path)).toBe(false)
    expect(await make({}, { strategy: 'actions' }).begin()).toEqual({ place: at(3), stamp: 3, isNew: false })
    rmSync(path)
    expect(await make().begin()).toEqual({ place: undefined, stamp: 3, isNew: true })
  })

  it('refuses an older forwarder, and one of another log or name unless it adopts the file', async () => {
    const zombie = make()
    await zombie.begin()
    const next = make()
    await next.begin()
    expect(await zombie.deliver([pet('a', {})], { to: at(1) }, NEVER)).toBe('fenced')
    await zombie.moved?.(at(9))
    await write(next, 1, pet('a', {}))
    expect((await make().begin()).place).toEqual(at(1))
    await expect(make({}, { log: 'c'.repeat(32) }).begin()).rejects.toMatchObject({ code: 'bad_option' })
    await expect(make({}, { name: 'other' }).begin()).rejects.toThrow('the sink events')
    expect(await make({}, { log: 'c'.repeat(32), adopt: true }).begin()).toMatchObject({ place: undefined, stamp: 1, isNew: true })
  })

  it('is put aside before it grows too large, and nothing is lost between the files, wherever it stops', async () => {
    const delivery = make({ rotate: { bytes: 1024 } })
    await delivery.begin()
    for (let version = 1; version <= 4; version++) await write(delivery, version, pet(`${version}`, big))
    expect(readdirSync(folder).sort()).toEqual([
      'events.000001.jsonl',
      'events.000002.jsonl',
      'events.000003.jsonl',
      'events.jsonl',
      'events.jsonl.cursor',
    ])
    // Written and rotated, and the cursor did not move.
    await delivery.deliver([pet('5', big)], { to: at(5) }, NEVER)
    const again = make({ rotate: { bytes: 1024 } })
    expect(await again.begin()).toEqual({ place: at(4), stamp: 5, isNew: false })
    await write(again, 6, pet('6', big))
    const files = readdirSync(folder)
      .filter((name) => name.endsWith('.jsonl'))
      .sort()
    expect(files.flatMap((name) => lines(join(folder, name)).map(({ record }) => record))).toEqual(['1', '2', '3', '4', '5', '6'])
  })

  it('goes on when files that were put aside have been taken away, and never gives a number twice', async () => {
    const delivery = make({ rotate: { bytes: 1024 } })
    await delivery.begin()
    for (let version = 1; version <= 3; version++) await write(delivery, version, pet(`${version}`, big))
    for (const number of [1, 2]) rmSync(join(folder, `events.00000${number}.jsonl`))
    const again = make({ rotate: { bytes: 1024 } })
    expect(await again.begin()).toMatchObject({ place: at(3), isNew: false })
    await write(again, 4, pet('4', big))
    expect(existsSync(join(folder, 'events.000003.jsonl'))).toBe(true)
  })

  it('is put aside when the day is over', async () => {
    const delivery = make({ rotate: { daily: true } })
    await delivery.begin()
    await write(delivery, 1, pet('1', {}))
    await write(delivery, 2, pet('2', {}))
    await clock.advance(86_400_000)
    await write(delivery, 3, pet('3', {}))
    expect(lines(join(folder, 'events.000001.jsonl')).map(({ record }) => record)).toEqual(['1', '2'])
    expect(lines().map(({ record }) => record)).toEqual(['3'])
  })

  it('says so when its cursor is no JSON, and is removed with all that belongs to it', async () => {
    const delivery = make({ rotate: { bytes: 1024 } })
    await delivery.begin()
    for (let version = 1; version <= 3; version++) await write(delivery, version, pet(`${version}`, big))
    writeFileSync(`${path}.cursor`, '{"sink"')
    await expect(make().begin()).rejects.toThrow(/JSON/u)
    writeFileSync(join(folder, 'events.notes.jsonl'), '')
    await delivery.drop?.()
    expect(readdirSync(folder)).toEqual(['events.notes.jsonl'])
  })

  it('has options that are plain data, and refuses others', () => {
    expect(jsonl({ path: 'x.jsonl', strategy: 'actions' })).toMatchObject({
      options: { path: join(process.cwd(), 'x.jsonl') },
      forward: { consistency: 'key', from: 'now' },
    })
    expect(() => jsonl({ path: '' })).toThrow('path')
    expect(() => jsonl({ path: 'x', rotate: { bytes: 10 } })).toThrow('1024')
  })
})
