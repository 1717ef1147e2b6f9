/**
 * The whole page: who is here, the records, the note, and the status line.
 */
import type { ReactNode } from 'react'
import { useEffect, useState } from 'react'
import { replica } from './clinic.ts'
import { usePlace } from './hooks.ts'
import { Note } from './note.tsx'
import { People } from './people.tsx'
import { person } from './person.ts'
import { Records } from './records.tsx'
import { StatusLine } from './status.tsx'

const SECTIONS = [
  ['pets', 'Pets'],
  ['owners', 'Owners'],
  ['note', 'Note'],
] as const

export function App(): ReactNode {
  const place = usePlace()
  const loaded = useLoaded()
  useEffect(() => replica.presence.awareness.setLocalStateField('user', person.get()), [])
  useEffect(() => replica.presence.awareness.setLocalStateField('place', place.id === '' ? '' : `${place.section}/${place.id}`), [place])
  return (
    <div className="app" data-section={place.section} data-open={place.id !== ''} data-loaded={loaded}>
      <header className="top">
        <a className="brand" href="#/pets">
          <Mark />
          <span>
            Willow Lane <small>Veterinary</small>
          </span>
        </a>
        <nav className="sections" aria-label="Sections">
          {SECTIONS.map(([section, label]) => (
            <a
              key={section}
              href={`#/${section}`}
              className={`to-${section}`}
              aria-current={place.section === section ? 'page' : undefined}
            >
              {label}
            </a>
          ))}
        </nav>
        <People />
      </header>
      {loaded ? (
        <main className="desk">
          <Records section={place.section === 'owners' ? 'owners' : 'pets'} id={place.id} />
          <Note />
        </main>
      ) : (
        <main className="desk" aria-busy="true">
          <p className="opening">Opening the clinic…</p>
        </main>
      )}
      <StatusLine />
    </div>
  )
}

/** True once this device's own copy is here; that needs no network. */
function useLoaded(): boolean {
  const [loaded, setLoaded] = useState(false)
  useEffect(() => {
    const end = new AbortController()
    replica.whenLoaded({ signal: end.signal }).then(
      () => setLoaded(true),
      (error: unknown) => {
        if (!end.signal.aborted) throw error
      },
    )
    return () => end.abort()
  }, [])
  return loaded
}

function Mark(): ReactNode {
  return (
    <svg className="mark" viewBox="0 0 64 64" aria-hidden="true">
      <rect width="64" height="64" rx="18" fill="var(--accent)" />
      <path d="M47 13C28 14 17 24 17 37c0 4 1 7 3 10 3 2 6 3 10 3 13 0 20-13 17-37Z" fill="var(--on-accent)" />
      <path d="M14 54c4-11 11-19 21-26" fill="none" stroke="var(--accent)" strokeWidth="3" strokeLinecap="round" />
    </svg>
  )
}
