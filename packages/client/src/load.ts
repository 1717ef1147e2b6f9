/**
 * From the device's store into a Y.Doc (step 2 of the path, the other way).
 */
import type * as Y from 'yjs'
import { ORIGINS, applyUpdates } from './capture.ts'
import type { DocumentStore, Loaded } from './stores/store.ts'

/** Applies what the store holds of the document. What cannot be applied invalidates the cursor, and is set aside by the store. */
export async function loadDocument(store: DocumentStore, ydoc: Y.Doc): Promise<Loaded> {
  const loaded = await store.load()
  if (applyUpdates(ydoc, loaded.updates, ORIGINS.store, false) !== 'failed') return loaded
  const verified = await store.load({ verify: true })
  const applied = applyUpdates(ydoc, verified.updates, ORIGINS.store, false)
  return applied === 'failed' ? { ...verified, cursor: undefined } : verified
}
