/**
 * Builds one whole document at a time, in a thread of its own (beside the path): the relay's main thread has no Y.Doc.
 */
import { parentPort } from 'node:worker_threads'
import type { Schema } from '@rejoin/shared'
import { readDocument } from '@rejoin/shared'
import { encodeStateAsUpdate } from 'yjs'
import { createReadingDoc } from '../view/project.ts'

/** What is asked: updates that give the document, and how to show it. */
export interface Ask {
  readonly updates: readonly Uint8Array[]
  readonly as: { readonly type: 'update' } | { readonly type: 'json'; readonly schema: Schema }
}

/** What is answered. */
export type Answer =
  | { readonly type: 'update'; readonly update: Uint8Array<ArrayBuffer> }
  | { readonly type: 'json'; readonly json: string }
  | { readonly type: 'failed'; readonly reason: string }

function answer({ updates, as }: Ask): Answer {
  const schema: Schema = as.type === 'json' ? as.schema : { collections: {} }
  const reading = createReadingDoc(schema)
  try {
    reading.apply(updates)
    if (as.type === 'update') return { type: 'update', update: new Uint8Array(encodeStateAsUpdate(reading.doc)) }
    return { type: 'json', json: JSON.stringify(readDocument(schema, reading.doc)) }
  } catch (error) {
    return { type: 'failed', reason: error instanceof Error ? error.message : String(error) }
  } finally {
    reading.doc.destroy()
  }
}

parentPort?.on('message', (ask: Ask) => {
  const answered = answer(ask)
  parentPort?.postMessage(answered, answered.type === 'update' ? [answered.update.buffer] : [])
})
