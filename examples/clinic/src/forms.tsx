/**
 * The chosen record: each field shows what the replica holds and writes what is typed.
 */
import type { ReactNode } from 'react'
import { useEffect, useRef, useState } from 'react'
import type { CollectionName } from './clinic.ts'
import { removeRecord, setField } from './clinic.ts'
import type { Entry } from './hooks.ts'
import { textOf } from './hooks.ts'
import { Monogram } from './monogram.tsx'
import { ageOf, KINDS, kindHue } from './pets.ts'

export function PetForm({ pet, owners }: { readonly pet: Entry; readonly owners: readonly Entry[] }): ReactNode {
  const owner = owners.find((entry) => entry.id === textOf(pet, 'ownerId'))
  return (
    <Card
      section="pets"
      entry={pet}
      hue={kindHue(textOf(pet, 'kind'))}
      under={[textOf(pet, 'kind'), ageOf(textOf(pet, 'dob'))].filter((part) => part !== '').join(', ')}
    >
      <Field section="pets" entry={pet} field="name" label="Name" wide autoFocus={textOf(pet, 'name') === ''} />
      <Choice section="pets" entry={pet} field="kind" label="Kind" options={KINDS.map((kind) => [kind, kind])} />
      <Field section="pets" entry={pet} field="dob" label="Born" type="date" />
      <Weight entry={pet} />
      <Choice
        section="pets"
        entry={pet}
        field="ownerId"
        label="Owner"
        options={owners.map((entry) => [entry.id, textOf(entry, 'name') || 'No name yet'])}
      />
      {owner === undefined ? null : (
        <p className="contact">
          <a href={`#/owners/${owner.id}`}>{textOf(owner, 'name') || 'Owner'}</a>
          <span>{[textOf(owner, 'phone'), textOf(owner, 'email')].filter((part) => part !== '').join(' · ')}</span>
        </p>
      )}
    </Card>
  )
}

export function OwnerForm({ owner, pets }: { readonly owner: Entry; readonly pets: readonly Entry[] }): ReactNode {
  const own = pets.filter((pet) => textOf(pet, 'ownerId') === owner.id)
  return (
    <Card
      section="owners"
      entry={owner}
      hue={42}
      under={own.length === 0 ? 'No pets yet' : `${own.length} pet${own.length === 1 ? '' : 's'}`}
    >
      <Field section="owners" entry={owner} field="name" label="Name" wide autoFocus={textOf(owner, 'name') === ''} />
      <Field section="owners" entry={owner} field="phone" label="Telephone" type="tel" />
      <Field section="owners" entry={owner} field="email" label="E-mail" type="email" />
      <Field section="owners" entry={owner} field="city" label="City" />
      {own.length === 0 ? null : (
        <p className="contact">
          {own.map((pet) => (
            <a key={pet.id} href={`#/pets/${pet.id}`}>
              {textOf(pet, 'name') || 'No name yet'}
            </a>
          ))}
        </p>
      )}
    </Card>
  )
}

interface CardProps {
  readonly section: CollectionName
  readonly entry: Entry
  readonly hue: number
  readonly under: string
  readonly children: ReactNode
}

function Card({ section, entry, hue, under, children }: CardProps): ReactNode {
  return (
    <form className="card" onSubmit={(event) => event.preventDefault()}>
      <a className="back" href={`#/${section}`}>
        ‹ {section === 'pets' ? 'Pets' : 'Owners'}
      </a>
      <div className="card-head">
        <Monogram name={textOf(entry, 'name')} hue={hue} />
        <div>
          <h2>{textOf(entry, 'name') || 'No name yet'}</h2>
          <p className="quiet">{under}</p>
        </div>
        <Remove section={section} id={entry.id} name={textOf(entry, 'name')} />
      </div>
      <div className="fields">{children}</div>
    </form>
  )
}

/** Asks once more, on a row of its own below the name. */
function Remove({ section, id, name }: { readonly section: CollectionName; readonly id: string; readonly name: string }): ReactNode {
  const [asked, setAsked] = useState(false)
  if (!asked) {
    return (
      <button type="button" className="ghost" onClick={() => setAsked(true)}>
        Remove
      </button>
    )
  }
  const remove = (): void => {
    location.hash = `#/${section}`
    removeRecord(section, id)
  }
  return (
    <div className="asked" role="group" aria-label="Remove?">
      <p>Remove {name || 'this record'} for everybody?</p>
      <button type="button" className="danger" onClick={remove}>
        Remove
      </button>
      <button type="button" className="ghost" autoFocus onClick={() => setAsked(false)}>
        Keep
      </button>
    </div>
  )
}

interface FieldProps {
  readonly section: CollectionName
  readonly entry: Entry
  readonly field: string
  readonly label: string
  readonly type?: 'text' | 'date' | 'tel' | 'email'
  readonly wide?: boolean
  readonly autoFocus?: boolean
}

function Field({ section, entry, field, label, type = 'text', wide = false, autoFocus = false }: FieldProps): ReactNode {
  const input = useRef<HTMLInputElement>(null)
  // Only when the form opens: a record that becomes nameless elsewhere must not take the focus.
  useEffect(() => {
    if (autoFocus) input.current?.focus()
    // oxlint-disable-next-line react/exhaustive-deps -- see above
  }, [])
  return (
    <label className={wide ? 'wide' : undefined}>
      <span>{label}</span>
      <input
        ref={input}
        name={field}
        type={type}
        autoComplete="off"
        value={textOf(entry, field)}
        onChange={(event) => setField(section, entry.id, field, event.target.value || undefined)}
      />
    </label>
  )
}

/** A number is written once it is one, so that `4.` may be typed on the way to `4.2`. */
function Weight({ entry }: { readonly entry: Entry }): ReactNode {
  const held = textOf(entry, 'weight')
  const [typed, setTyped] = useState<string>()
  const write = (text: string): void => {
    setTyped(text)
    const value = Number(text.replace(',', '.'))
    if (text.trim() === '') setField('pets', entry.id, 'weight', undefined)
    else if (Number.isFinite(value) && value >= 0 && value < 2000) setField('pets', entry.id, 'weight', value)
  }
  return (
    <label>
      <span>Weight, kg</span>
      <input
        name="weight"
        inputMode="decimal"
        autoComplete="off"
        value={typed ?? held}
        onChange={(event) => write(event.target.value)}
        onBlur={() => setTyped(undefined)}
      />
    </label>
  )
}

interface ChoiceProps {
  readonly section: CollectionName
  readonly entry: Entry
  readonly field: string
  readonly label: string
  readonly options: readonly (readonly [value: string, label: string])[]
}

function Choice({ section, entry, field, label, options }: ChoiceProps): ReactNode {
  const held = textOf(entry, field)
  const isKnown = options.some(([value]) => value === held)
  return (
    <label>
      <span>{label}</span>
      <select
        name={field}
        value={isKnown ? held : ''}
        onChange={(event) => setField(section, entry.id, field, event.target.value || undefined)}
      >
        <option value="">—</option>
        {options.map(([value, words]) => (
          <option key={value} value={value}>
            {words}
          </option>
        ))}
      </select>
    </label>
  )
}
