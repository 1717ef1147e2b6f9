/**
 * Pets and owners: a list to choose from, and the chosen record as a form whose every keystroke is an edit.
 */
import type { ReactNode } from 'react'
import { useState } from 'react'
import type { CollectionName } from './clinic.ts'
import { addExamples, addRecord, collectionOf } from './clinic.ts'
import { OwnerForm, PetForm } from './forms.tsx'
import type { Entry, Peer } from './hooks.ts'
import { textOf, usePeers, useRecords } from './hooks.ts'
import { Monogram } from './monogram.tsx'
import { ageOf, kindHue } from './pets.ts'
import { person } from './person.ts'

const WORDS = {
  pets: { one: 'pet', many: 'Pets', first: { name: '', kind: 'Dog' } },
  owners: { one: 'owner', many: 'Owners', first: { name: '' } },
} as const

export function Records({ section, id }: { readonly section: CollectionName; readonly id: string }): ReactNode {
  const pets = useRecords(collectionOf('pets'))
  const owners = useRecords(collectionOf('owners'))
  const entries = section === 'pets' ? pets : owners
  const chosen = entries.find((entry) => entry.id === id)
  return (
    <>
      <List
        key={section}
        section={section}
        entries={entries}
        chosen={chosen?.id}
        describe={(entry) => (section === 'pets' ? describePet(entry, owners) : describeOwner(entry, pets))}
      />
      <section className="detail" aria-label={chosen === undefined ? 'Nothing chosen' : textOf(chosen, 'name')}>
        {chosen === undefined ? <Nothing section={section} empty={entries.length === 0} gone={id !== ''} /> : null}
        {chosen !== undefined && section === 'pets' ? <PetForm key={chosen.id} pet={chosen} owners={owners} /> : null}
        {chosen !== undefined && section === 'owners' ? <OwnerForm key={chosen.id} owner={chosen} pets={pets} /> : null}
      </section>
    </>
  )
}

interface ListProps {
  readonly section: CollectionName
  readonly entries: readonly Entry[]
  readonly chosen: string | undefined
  readonly describe: (entry: Entry) => string
}

function List({ section, entries, chosen, describe }: ListProps): ReactNode {
  const [search, setSearch] = useState('')
  const peers = usePeers()
  const words = WORDS[section]
  const wanted = search.trim().toLowerCase()
  const shown = entries.filter((entry) => `${textOf(entry, 'name')} ${describe(entry)}`.toLowerCase().includes(wanted))
  const add = (): void => {
    location.hash = `#/${section}/${addRecord(section, words.first)}`
  }
  return (
    <section className="list" aria-label={words.many}>
      <div className="list-head">
        <h1>
          {words.many} <span className="count">{entries.length}</span>
        </h1>
        <button type="button" className="primary" onClick={add}>
          <Plus /> New {words.one}
        </button>
      </div>
      {entries.length > 3 ? (
        <input
          type="search"
          className="search"
          placeholder={`Search ${words.many.toLowerCase()}`}
          aria-label={`Search ${words.many.toLowerCase()}`}
          value={search}
          onChange={(event) => setSearch(event.target.value)}
        />
      ) : null}
      <ul>
        {shown.map((entry) => (
          <li key={entry.id}>
            <a href={`#/${section}/${entry.id}`} className="row" aria-current={entry.id === chosen ? 'true' : undefined}>
              <Monogram name={textOf(entry, 'name')} hue={section === 'pets' ? kindHue(textOf(entry, 'kind')) : 42} />
              <span className="row-words">
                <strong>{textOf(entry, 'name') || <i>No name yet</i>}</strong>
                <span>{describe(entry)}</span>
              </span>
              <Watchers peers={peers.filter((peer) => peer.place === `${section}/${entry.id}` && peer.id !== person.get().id)} />
            </a>
          </li>
        ))}
      </ul>
      {entries.length > 0 && shown.length === 0 ? <p className="quiet">Nobody here is called “{search}”.</p> : null}
    </section>
  )
}

function describePet(pet: Entry, owners: readonly Entry[]): string {
  const owner = owners.find((entry) => entry.id === textOf(pet, 'ownerId'))
  return [textOf(pet, 'kind'), ageOf(textOf(pet, 'dob')), textOf(owner, 'name')].filter((part) => part !== '').join(' · ')
}

function describeOwner(owner: Entry, pets: readonly Entry[]): string {
  const own = pets.filter((pet) => textOf(pet, 'ownerId') === owner.id).map((pet) => textOf(pet, 'name') || 'no name yet')
  return own.length === 0 ? 'No pets yet' : own.join(', ')
}

function Nothing({
  section,
  empty,
  gone,
}: {
  readonly section: CollectionName
  readonly empty: boolean
  readonly gone: boolean
}): ReactNode {
  if (gone) return <Message title="That record is gone">Somebody removed it, or it has not arrived on this device yet.</Message>
  if (!empty)
    return (
      <Message title={`Choose ${section === 'pets' ? 'a pet' : 'an owner'}`}>
        Everything you type is saved on this device at once, with or without a network.
      </Message>
    )
  return (
    <Message title="A fresh start">
      Add the first {WORDS[section].one}, or look around with a few examples.
      <button type="button" className="secondary" onClick={addExamples}>
        Fill in examples
      </button>
    </Message>
  )
}

function Message({ title, children }: { readonly title: string; readonly children: ReactNode }): ReactNode {
  return (
    <div className="message">
      <svg viewBox="12 10 40 48" aria-hidden="true">
        <path d="M47 13C28 14 17 24 17 37c0 4 1 7 3 10 3 2 6 3 10 3 13 0 20-13 17-37Z" />
        <path className="vein" d="M14 55c4-11 11-20 21-27" />
      </svg>
      <h2>{title}</h2>
      <div className="quiet">{children}</div>
    </div>
  )
}

function Watchers({ peers }: { readonly peers: readonly Peer[] }): ReactNode {
  if (peers.length === 0) return null
  return (
    <span className="watchers" title={`${peers.map((peer) => peer.name).join(', ')} here`}>
      {peers.slice(0, 3).map((peer) => (
        <span key={peer.clientId} style={{ background: peer.color }} />
      ))}
    </span>
  )
}

function Plus(): ReactNode {
  return (
    <svg viewBox="0 0 16 16" className="icon" aria-hidden="true">
      <path d="M8 3v10M3 8h10" />
    </svg>
  )
}
