/**
 * Notes of a sink in memory, for tests and the conformance kit (step 8 of the path).
 */
import type { JsonValue } from '@rejoin/shared'
import type { DeadLetter, NotesChanges, SinkNotes } from '../sinks/notes.ts'
import type { Key } from '../view/view.ts'
import { compareKeys, keyText } from '../view/view.ts'

/** Empty notes. What is written is copied, as a file would. */
export function createMemoryNotes(): SinkNotes {
  const values = new Map<string, JsonValue>()
  const letters = new Map<string, DeadLetter>()
  const images = new Map<string, { readonly key: Key; readonly hash: string }>()
  return {
    get: (name) => structuredClone(values.get(name)),
    write: ({ values: set = {}, putLetters = [], removeLetters = [], images: held = [], clear }: NotesChanges) => {
      if (clear === 'letters' || clear === 'all') letters.clear()
      if (clear === 'images' || clear === 'all') images.clear()
      if (clear === 'all') values.clear()
      for (const [name, value] of Object.entries(set)) {
        if (value === undefined) values.delete(name)
        else values.set(name, structuredClone(value))
      }
      for (const letter of putLetters) letters.set(letter.id, structuredClone(letter))
      for (const id of removeLetters) letters.delete(id)
      for (const { key, hash } of held) {
        if (hash === null) images.delete(keyText(key))
        else images.set(keyText(key), { key, hash })
      }
    },
    letters: (limit, from) => {
      const all = [...letters.values()]
      const behind = from === undefined ? 0 : all.findIndex(({ id }) => id === from) + 1
      return { total: all.length, first: all.slice(behind, behind + limit) }
    },
    letter: (id) => letters.get(id),
    keys: (limit, from) =>
      [...images.values()]
        .map(({ key }) => key)
        .sort(compareKeys)
        .filter((key) => from === undefined || compareKeys(key, from) > 0)
        .slice(0, limit),
    image: (key) => images.get(keyText(key))?.hash,
  }
}
