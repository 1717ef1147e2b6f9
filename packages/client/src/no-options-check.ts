/**
 * No check of options, for a browser's production bundle: who wrote the options has seen it in development. See options-check.ts.
 */
import type { ClientOptions } from './client.ts'
import type { StoreFactory } from './stores/store.ts'

/** Takes whatever is given. */
export function checkOptions(_options: ClientOptions, _defaultStore?: () => StoreFactory): void {}
