/**
 * What a slip of the hand in `createClient`'s options is told. Node and development builds read this file; production bundles for browsers read no-options-check.ts in its place (package.json, `imports`).
 */
import { SyncError } from '@rejoin/shared'
import type { ClientOptions } from './client.ts'
import type { StoreFactory } from './stores/store.ts'
import { syncUrl } from './sync-url.ts'

const KNOWN: Readonly<Record<keyof ClientOptions, true>> = { url: true, token: true, store: true, schema: true }

/** Throws `bad_option` for a name that is no option's, and for a token of a wrong type: a client without its token would wait for a grant for ever. */
export function checkOptions(options: ClientOptions, defaultStore?: () => StoreFactory): void {
  for (const name of Object.keys(options))
    if (!Object.hasOwn(KNOWN, name))
      throw new SyncError('bad_option', `there is no option "${name}"; there are url, token, store and schema`)
  syncUrl(options.url)
  const store: unknown = options.store ?? defaultStore?.()
  // JavaScript callers also pass `memory` without calling it.
  if (typeof store !== 'object' || store === null || !('open' in store))
    throw new SyncError('bad_option', 'store: where to keep documents, as sqlite({ path }) or memory()')
  const token: unknown = options.token
  if (token !== undefined && typeof token !== 'string' && typeof token !== 'function')
    throw new SyncError('bad_option', `token: a string or a function that gives one, not ${token === null ? 'null' : typeof token}`)
}
