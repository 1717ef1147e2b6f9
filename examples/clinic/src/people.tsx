/**
 * Who is here: everybody's initial, and one's own name and colour to change.
 */
import type { ReactNode } from 'react'
import { useReadable, usePeers } from './hooks.ts'
import type { Peer } from './hooks.ts'
import { changePerson, COLORS, person } from './person.ts'

const SHOWN = 5

export function People(): ReactNode {
  const self = useReadable(person)
  const others = onePerPerson(usePeers()).filter((peer) => peer.id !== self.id)
  const rest = others.length - SHOWN
  return (
    <div className="people">
      <ul aria-label="Who is here">
        {others.slice(0, SHOWN).map((peer) => (
          <li key={peer.id} className="face" style={{ background: peer.color }} title={peer.name} data-peer={peer.name}>
            <span aria-hidden="true">{initial(peer.name)}</span>
            <span className="unseen">{peer.name}</span>
          </li>
        ))}
        {rest > 0 ? <li className="face more">+{rest}</li> : null}
      </ul>
      <button type="button" className="self" popoverTarget="self" aria-label={`You are ${self.name}. Change your name`}>
        <span className="face" style={{ background: self.color }} aria-hidden="true">
          {initial(self.name)}
        </span>
        <span className="self-name">{self.name}</span>
      </button>
      <div id="self" popover="auto" className="popover">
        <label>
          <span>Your name</span>
          <input
            name="person"
            value={self.name}
            maxLength={24}
            autoComplete="off"
            onChange={(event) => changePerson({ name: event.target.value })}
          />
        </label>
        <div className="colors" role="radiogroup" aria-label="Your colour">
          {COLORS.map((color, index) => (
            <label key={color} style={{ background: color }}>
              <input
                type="radio"
                name="color"
                aria-label={`Colour ${index + 1}`}
                checked={color === self.color}
                onChange={() => changePerson({ color })}
              />
            </label>
          ))}
        </div>
      </div>
    </div>
  )
}

/** Somebody with two tabs is still one person. */
function onePerPerson(peers: readonly Peer[]): readonly Peer[] {
  return [...new Map(peers.map((peer) => [peer.id, peer])).values()]
}

function initial(name: string): string {
  return [...name.trim()][0]?.toUpperCase() ?? '·'
}
