/**
 * Who sits at this device: a name and a colour, kept in the browser, shown to everybody who is here.
 */
import { createReadable } from '@rejoin/shared'
import { replica } from './clinic.ts'

export interface Person {
  readonly id: string
  readonly name: string
  /** `#rrggbb`, dark enough for white text on it. */
  readonly color: string
}

export const COLORS: readonly string[] = ['#21614b', '#9a3b26', '#3b5ba5', '#7a4a8c', '#8a6212', '#1f6f7a', '#a0335f', '#4b5563']
const NAMES: readonly string[] = ['Ada', 'Bram', 'Chidi', 'Dalia', 'Emre', 'Freya', 'Goran', 'Hana', 'Ines', 'Jamal', 'Kaja', 'Leo']
const KEY = 'clinic-person'

const { readable, set } = createReadable<Person>(stored() ?? keep(invented()))
export const person = readable

export function changePerson(change: Partial<Omit<Person, 'id'>>): void {
  const next = { ...person.get(), ...change }
  set(keep(next))
  replica.presence.awareness.setLocalStateField('user', next)
}

/** Every tab of this browser is the same person. */
function keep(next: Person): Person {
  try {
    localStorage.setItem(KEY, JSON.stringify(next))
  } catch {
    // A browser without storage: the name lasts as long as the tab.
  }
  return next
}

function invented(): Person {
  const pick = (list: readonly string[]): string => list[Math.floor(Math.random() * list.length)] ?? ''
  return { id: crypto.randomUUID(), name: pick(NAMES), color: pick(COLORS) }
}

function stored(): Person | undefined {
  try {
    const { id, name, color } = JSON.parse(localStorage.getItem(KEY) ?? '') as Partial<Person>
    return typeof id === 'string' && typeof name === 'string' && COLORS.includes(color ?? '') ? { id, name, color: color ?? '' } : undefined
  } catch {
    return undefined
  }
}
