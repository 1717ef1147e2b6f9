/**
 * Loads a config file, JavaScript or TypeScript: on the relay's thread for its options, and in the worker for the functions of its sinks.
 */
import { pathToFileURL } from 'node:url'
import { SyncError } from '@rejoin/shared'

/** The default export of the file. Throws `SyncError('bad_option')` that names it. */
export async function loadConfig(path: string): Promise<object> {
  let loaded: unknown
  try {
    loaded = /\.[cm]?ts$/u.test(path)
      ? await loadTypeScript(path)
      : ((await import(pathToFileURL(path).href)) as { default?: unknown }).default
  } catch (cause) {
    throw new SyncError('bad_option', `${path} cannot be loaded: ${cause instanceof Error ? cause.message : String(cause)}`, { cause })
  }
  if (typeof loaded !== 'object' || loaded === null)
    throw new SyncError('bad_option', `${path} has no default export of options; write export default defineConfig({ … })`)
  return loaded
}

/** Loaded only when there is TypeScript to load. Our own packages and yjs are left to Node, so that there is one of each in the thread. */
async function loadTypeScript(path: string): Promise<unknown> {
  const { createJiti } = await import('jiti')
  const jiti = createJiti(import.meta.url, { nativeModules: ['@rejoin/server', '@rejoin/shared', 'yjs'], fsCache: false })
  return jiti.import(path, { default: true })
}
