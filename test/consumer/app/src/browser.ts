/**
 * The browser half of a consumer: one edit, awaited up to the relay.
 */
import type { Edit, Replica, Status } from '@rejoin/client'
import { createClient } from '@rejoin/client'
import { schema } from './schema.js'

const url = new URLSearchParams(location.search).get('relay') ?? ''
const client = createClient({ url, schema })
const replica: Replica = client.open('consumer')
const signal = AbortSignal.timeout(10_000)
await replica.whenLoaded({ signal })
const edit: Edit<number> = replica.edit(() => {
  const visits = replica.ydoc.getMap<number>('visits')
  const count = (visits.get('browser') ?? 0) + 1
  visits.set('browser', count)
  return count
})
await edit.wait({ to: 'relay', signal })
const status: Status = client.status.get()
const output = document.querySelector('output')
if (output !== null) output.textContent = JSON.stringify({ value: edit.value, storage: status.storage.name, pending: status.pending })
