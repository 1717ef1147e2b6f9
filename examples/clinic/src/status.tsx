/**
 * The status line: what is true of this device's connection, its storage, and its edits on the way. It claims no more than it knows.
 */
import type { ReactNode } from 'react'
import { client } from './clinic.ts'
import { useNow, useReadable } from './hooks.ts'

type Status = ReturnType<typeof client.status.get>

export function StatusLine(): ReactNode {
  const status = useReadable(client.status)
  const { connection, storage, pending } = status
  const retryAt = connection.name === 'offline' ? connection.retryAt : undefined
  const now = useNow(retryAt !== undefined)
  return (
    <footer
      className="status"
      data-connection={connection.name}
      data-storage={storage.name}
      data-pending-local={pending.local}
      data-pending-relay={pending.relay}
      data-quarantined={status.quarantined}
    >
      <p role="status">
        <span className="lamp" aria-hidden="true" />
        <strong>{connectionWords(status)}</strong>
      </p>
      <p className="retry">{retryAt !== undefined && retryAt > now ? `Trying again in ${Math.ceil((retryAt - now) / 1000)} s` : ''}</p>
      <p>{storageWords(status)}</p>
      <p className={pending.relay > 0 ? 'waiting' : undefined}>{pendingWords(status)}</p>
      {status.quarantined > 0 ? <p className="refused">{count(status.quarantined, 'edit')} refused and kept</p> : null}
    </footer>
  )
}

function connectionWords({ connection, held }: Status): string {
  switch (connection.name) {
    case 'connecting':
      return 'Connecting…'
    case 'connected':
      return held ? 'Connected, reading only' : 'Connected'
    case 'offline':
      return 'Offline'
    case 'needs-auth':
      return 'Please sign in again'
    case 'closed':
      return 'Closed'
  }
}

function storageWords({ storage, pending }: Status): string {
  if (pending.local > 0) return 'Saving…'
  switch (storage.name) {
    case 'durable':
      return 'Saved on this device'
    case 'ephemeral':
      return 'Saved in this browser'
    case 'memory':
      return 'Kept in memory only'
    case 'failed':
      return `Not saved here: ${storage.reason ?? 'the store failed'}`
  }
}

function pendingWords({ pending }: Status): string {
  return pending.relay === 0 ? 'Everything is sent' : `${count(pending.relay, 'edit')} to send`
}

function count(number: number, word: string): string {
  return `${number} ${word}${number === 1 ? '' : 's'}`
}
