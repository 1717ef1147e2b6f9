/**
 * What an operator does with a sink: pause, rewind, refresh, and what the forwarder does by itself when a sink is cut off, migrates, is capped, or follows another.
 */
import { describe, expect, it } from 'vitest'
import { makeStage, namesIn, shout } from '../support/sink-stage.ts'

describe('an operator', () => {
  it('pauses a sink, also across a restart, and lets it go on', async () => {
    const { clock, write, start, names } = makeStage()
    write({ a: 'Rex' })
    const first = start()
    await clock.advance(10)
    await first.pause()
    write({ a: 'Max' })
    first.poke()
    await clock.advance(5_000)
    expect(first.status()).toMatchObject({ state: 'paused', cursor: 1, lag: { entries: 1 } })
    await expect(first.write([], { force: true })).rejects.toThrow(/sink_paused/u)
    await first.stop()
    const second = start()
    await second.begun
    await clock.advance(5_000)
    expect([second.status().state, names()]).toEqual(['paused', { a: 'Rex' }])
    await second.resume()
    await clock.advance(10)
    expect([second.status().state, names()]).toEqual(['current', { a: 'Max' }])
    await second.stop()
  })

  it('resumes a sink that waits after a failure at once, and twice is once', async () => {
    const { clock, destination, write, start, names } = makeStage()
    write({ a: 'Rex' })
    destination.log = 'another'
    const forwarder = start()
    await clock.advance(60_000)
    expect(forwarder.status().state).toBe('failing')
    destination.log = undefined
    await Promise.all([forwarder.resume(), forwarder.resume()])
    await clock.advance(10)
    expect([names(), destination.fence]).toEqual([{ a: 'Rex' }, 1])
    await forwarder.stop()
  })

  it('adopts a destination that another log wrote', async () => {
    const { clock, destination, write, start, names } = makeStage()
    write({ a: 'Rex' })
    destination.log = 'another'
    const forwarder = start()
    await clock.advance(60_000)
    expect(forwarder.status().error).toMatch(/another/u)
    await forwarder.adopt()
    await clock.advance(10)
    expect([forwarder.status().state, names()]).toEqual(['current', { a: 'Rex' }])
    await forwarder.stop()
  })

  it('drops what was made there, and the sink stays paused', async () => {
    const { clock, destination, notes, write, start, count } = makeStage()
    write({ a: 'Rex' })
    const forwarder = start()
    await clock.advance(10)
    await forwarder.drop()
    expect([count(), destination.place, notes.get('began'), forwarder.status().state]).toEqual([0, undefined, undefined, 'paused'])
    await forwarder.resume()
    await clock.advance(10)
    expect(count()).toBe(1)
    await forwarder.stop()
  })

  it('rewinds a state: what changed since is written again, whoever changed it there', async () => {
    const { clock, destination, commits, write, start, names } = makeStage()
    write({ a: 'Rex', b: 'Mia' })
    write({ b: 'Ada' })
    write({ c: 'Tom' })
    const forwarder = start()
    await clock.advance(10)
    for (const [text, row] of destination.rows) destination.rows.set(text, { ...row, value: { name: 'by hand' } })
    commits.length = 0
    await forwarder.rewind(1)
    expect(forwarder.cursor(), 'it is not whole until then').toBeUndefined()
    await clock.advance(10)
    expect(commits.flatMap(({ rows }) => namesIn(rows))).toEqual(['b Ada', 'c Tom'])
    expect(names()).toEqual({ a: 'by hand', b: 'Ada', c: 'Tom' })
    expect(forwarder.cursor()).toBe(3)
    await forwarder.refresh()
    await clock.advance(10)
    expect(names()).toEqual({ a: 'Rex', b: 'Ada', c: 'Tom' })
    await forwarder.stop()
  })

  it('rewinds actions: the same ids once more, marked as replay, or leaves some out', async () => {
    const { clock, commits, view, write, start } = makeStage()
    write({ a: 'Rex' })
    const forwarder = start({ strategy: 'actions', from: 'beginning' })
    await clock.advance(10)
    write({ a: 'Max' })
    forwarder.poke()
    await clock.advance(10)
    const ids = commits.flatMap(({ rows }) => rows.map(({ event }) => event?.id))
    expect(ids).toHaveLength(2)
    commits.length = 0
    await forwarder.rewind('oldest')
    await clock.advance(10)
    write({ a: 'Tom' })
    forwarder.poke()
    await clock.advance(10)
    const events = commits.flatMap(({ rows }) => rows.map(({ event }) => event))
    expect(events.map((event) => event?.id).slice(0, 2)).toEqual(ids)
    expect(events.map((event) => event?.replay)).toEqual([true, true, false])
    await expect(forwarder.rewind(9)).rejects.toThrow(/the last one is 3/u)
    await forwarder.pause()
    write({ a: 'left out' })
    await forwarder.rewind('now')
    await forwarder.resume()
    await clock.advance(10)
    expect(commits.flatMap(({ rows }) => rows)).toHaveLength(3)
    view.trim(3, 1_000)
    await expect(forwarder.rewind(1)).rejects.toThrow(/from version 3 on/u)
    await forwarder.stop()
  })

  it('repairs keys of the destination at its cursor, past any stamp, and removes what T does not give', async () => {
    const { clock, destination, write, start, names } = makeStage()
    write({ a: 'Rex', b: 'Mia' })
    const forwarder = start()
    await clock.advance(10)
    for (const [text, row] of destination.rows) destination.rows.set(text, { ...row, value: { name: 'by hand' }, stamp: 1e9 })
    const [key] = [...destination.rows.values()].map((row) => row.key)
    if (key === undefined) throw new Error('no row')
    destination.rows.set('surplus', { key: { ...key, id: 'z' }, value: { name: 'surplus' }, stamp: 1 })
    await Promise.all([forwarder.write([key, { ...key, id: 'z' }, { ...key, id: 'b' }], { force: true }), clock.advance(1_000)])
    expect(names()).toMatchObject({ a: 'Rex', b: 'Mia' })
    await forwarder.stop()
  })
})

describe('the forwarder by itself', () => {
  it('goes on with changes during a long refresh, three commits of four', async () => {
    const { clock, destination, commits, write, start, count } = makeStage()
    write(Object.fromEntries(Array.from({ length: 40 }, (_, i) => [`r${String(i).padStart(2, '0')}`, 'Rex'])))
    let edits = 0
    destination.hook = (at) => {
      if (at === 'after commit' && edits < 60) write({ z: `live ${++edits}` })
    }
    const forwarder = start({ batch: { items: 2 } })
    await clock.advance(5_000)
    const pages = commits.map(({ rows }) => rows.every(({ before }) => before === undefined))
    const inRefresh = commits.findLastIndex((_, i) => pages[i] === true)
    expect(pages.slice(0, 24).filter(Boolean).length, 'pages while changes wait').toBeLessThanOrEqual(8)
    expect(inRefresh, 'the refresh ends after changes that came later').toBeGreaterThan(24)
    expect(count()).toBe(41)
    expect(forwarder.status()).toMatchObject({ state: 'current', cursor: 61 })
    await forwarder.stop()
  })

  it('stands still when events are missing, and says what to do', async () => {
    const { clock, view, write, start } = makeStage()
    write({ a: 'Rex' })
    const first = start({ strategy: 'actions', from: 'beginning' })
    await clock.advance(10)
    await first.stop()
    for (let i = 0; i < 5; i++) write({ a: `Rex ${i}` })
    view.trim(4, 1_000)
    const late = start({ strategy: 'actions', from: 'beginning' })
    await clock.advance(5_000)
    expect(late.status()).toMatchObject({ state: 'cut-off', cursor: 0 })
    expect(late.status().error).toMatch(/version 1 and the oldest that is kept is 4.*rewind it to 'oldest'.*or to 'now'/u)
    await late.rewind('oldest')
    await clock.advance(10)
    expect(late.status()).toMatchObject({ state: 'current', cursor: 6 })
    await late.stop()
  })

  it('writes everything anew when the projection has another revision, and warns when only its text changed', async () => {
    const { clock, write, start, names } = makeStage()
    write({ a: 'Rex' })
    const first = start({ projection: shout(1) })
    await clock.advance(10)
    await first.stop()
    const edited = start({ projection: shout(1, 'b') })
    await clock.advance(10)
    expect(edited.status().warning).toMatch(/raise its revision/u)
    expect(names()).toEqual({ a: 'REX1' })
    await edited.stop()
    const second = start({ projection: shout(2, 'b') })
    await clock.advance(0)
    await clock.advance(10)
    expect([names(), second.status().state, second.status().warning]).toEqual([{ a: 'REX2' }, 'current', undefined])
    await second.stop()
  })

  it('begins where it is told to', async () => {
    for (const [options, expected] of [
      [{ from: 'now' }, { b: 'new' }],
      [{ mode: 'changes' }, { b: 'new' }],
      [{ from: 'beginning' }, { a: 'Rex', b: 'new' }],
      [{ mode: 'refresh-once' }, { a: 'Rex' }],
    ] as const) {
      const { clock, write, start, names } = makeStage()
      write({ a: 'Rex' })
      const forwarder = start(options)
      await clock.advance(10)
      write({ b: 'new' })
      forwarder.poke()
      await clock.advance(10)
      expect(names(), JSON.stringify(options)).toEqual(expected)
      if ('mode' in options && options.mode === 'refresh-once') {
        expect(forwarder.status().state).toBe('paused')
        await forwarder.resume()
        await clock.advance(10)
        expect([names(), forwarder.status().state], 'once more').toEqual([{ a: 'Rex', b: 'new' }, 'paused'])
      }
      await forwarder.stop()
    }
  })

  it('never passes the sink that it follows', async () => {
    const { clock, write, start } = makeStage()
    let ceiling: number | undefined
    write({ a: 'Rex' })
    const forwarder = start({ after: 'other' }, { ceiling: () => ceiling })
    await clock.advance(2_000)
    expect(forwarder.cursor()).toBeUndefined()
    write({ a: 'Max' })
    write({ a: 'Tom' })
    for (const at of [1, 2, 3]) {
      ceiling = at
      forwarder.poke()
      await clock.advance(10)
      expect(forwarder.cursor()).toBe(at)
    }
    await forwarder.stop()
  })

  it('keeps to its rate', async () => {
    const { clock, write, start, count } = makeStage()
    write(Object.fromEntries(Array.from({ length: 50 }, (_, i) => [`${i}`, 'Rex'])))
    const forwarder = start({ rate: 10 })
    await clock.advance(2_500)
    expect(count()).toBeLessThanOrEqual(30)
    await clock.advance(4_000)
    expect(count()).toBe(50)
    expect(forwarder.status().rate).toBeGreaterThan(4)
    await forwarder.stop()
  })

  it('can tell the digest of the versions it stood at', async () => {
    const { clock, write, start } = makeStage()
    write({ a: 'Rex' })
    const forwarder = start()
    await clock.advance(10)
    const first = forwarder.digestAt(1)
    write({ a: 'Max', b: 'Mia' })
    forwarder.poke()
    await clock.advance(10)
    const second = forwarder.digestAt(2)
    write({ a: 'Rex', b: null })
    forwarder.poke()
    await clock.advance(10)
    expect(forwarder.digestAt(3)).toEqual(first)
    expect(second).not.toEqual(first)
    expect([forwarder.digestAt(1), forwarder.digestAt(2), forwarder.digestAt(4)]).toEqual([first, second, undefined])
    await forwarder.recount()
    await clock.advance(2_000)
    expect(forwarder.digestAt(3)).toEqual(first)
    await forwarder.stop()
    const again = start()
    await clock.advance(10)
    expect(again.digestAt(3)).toEqual(first)
    await again.stop()
  })
})
