/**
 * What notes of a sink must do, in memory and in a file.
 */
import type { DocumentId } from '@rejoin/shared'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { DeadLetter, SinkNotes } from '#server/sinks/notes.js'
import type { Key } from '#server/view/view.js'
import { compareKeys } from '#server/view/view.js'

/** What an adapter gives to be tested. */
export interface NotesUnderTest {
  of(sink: string): SinkNotes
  /** Closes and opens again; absent where nothing survives. */
  reopen?(): void
  dispose(): void
}

const key = (id: string, document = 'd', collection = 'pets'): Key => ({ collection, document: document as DocumentId, id })
const letter = (id: string, more: Partial<DeadLetter> = {}): DeadLetter => ({
  id,
  key: key(id),
  value: { name: id, list: [1, { a: null }] },
  version: 7,
  reason: 'no',
  state: 'refused',
  at: 5,
  ...more,
})

export function describeNotes(name: string, make: () => NotesUnderTest): void {
  describe(`notes ${name}`, () => {
    let under: NotesUnderTest
    beforeEach(() => {
      under = make()
    })
    afterEach(() => under.dispose())

    it('keep values by name, each sink its own', () => {
      const [a, b] = [under.of('a'), under.of('b')]
      a.write({ values: { place: { view: 'v', version: 3 }, paused: null, n: 0, text: '' } })
      b.write({ values: { n: 9 } })
      expect([a.get('place'), a.get('paused'), a.get('n'), a.get('text'), a.get('none')]).toEqual([
        { view: 'v', version: 3 },
        null,
        0,
        '',
        undefined,
      ])
      a.write({ values: { place: undefined, n: 1 } })
      expect([a.get('place'), a.get('n'), b.get('n')]).toEqual([undefined, 1, 9])
      a.write({ clear: 'all', values: { n: 2 } })
      expect([a.get('paused'), a.get('n'), b.get('n')]).toEqual([undefined, 2, 9])
    })

    it('keep dead letters in the order they came, a letter that comes again in its place', () => {
      const notes = under.of('a')
      const held = letter('2', { state: 'held', value: null, event: { id: 'e', before: null } })
      notes.write({ putLetters: [letter('9'), held] })
      notes.write({ putLetters: [letter('1'), letter('9', { reason: 'still no' })] })
      expect(notes.letters(10)).toEqual({ total: 3, first: [letter('9', { reason: 'still no' }), held, letter('1')] })
      expect(notes.letters(1, '9')).toEqual({ total: 3, first: [held] })
      expect(notes.letter('2')).toEqual(held)
      notes.write({ removeLetters: ['2', 'none'] })
      expect(notes.letters(10).first.map(({ id }) => id)).toEqual(['9', '1'])
      expect(notes.letter('2')).toBeUndefined()
      expect(under.of('b').letters(10)).toEqual({ total: 0, first: [] })
      notes.write({ clear: 'letters', putLetters: [letter('5')] })
      expect(notes.letters(10).first.map(({ id }) => id)).toEqual(['5'])
    })

    it('keep what was confirmed, in the order of keys', () => {
      const notes = under.of('a')
      const keys = ['b', 'a', '😀', '\uffee', '', "it's"].map((id) => key(id)).concat(key('a', 'ü/c'), key('z', 'd', 'owners'))
      notes.write({ images: keys.map((each) => ({ key: each, hash: 'x' })) })
      under.of('b').write({ images: [{ key: key('other'), hash: 'y' }] })
      const sorted = [...keys].sort(compareKeys)
      expect(notes.keys(100)).toEqual(sorted)
      const paged: Key[] = []
      for (let page = notes.keys(3); page.length > 0; page = notes.keys(3, page.at(-1))) paged.push(...page)
      expect(paged).toEqual(sorted)
      notes.write({
        images: [
          { key: key('a'), hash: null },
          { key: key('b'), hash: 'z' },
        ],
      })
      expect([notes.image(key('a')), notes.image(key('b')), notes.image(key('none'))]).toEqual([undefined, 'z', undefined])
      notes.write({ clear: 'images' })
      expect([notes.keys(10).length, under.of('b').keys(10).length]).toEqual([0, 1])
    })

    it('outlive the process', () => {
      if (under.reopen === undefined) return
      under.of('a').write({ values: { n: 1 }, putLetters: [letter('1')], images: [{ key: key('k'), hash: 'h' }] })
      under.reopen()
      const notes = under.of('a')
      expect([notes.get('n'), notes.letters(9).first, notes.keys(9)]).toEqual([1, [letter('1')], [key('k')]])
    })
  })
}
