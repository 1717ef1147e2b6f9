/**
 * Reads the records of one whole document at a time, in a thread of its own (beside the path): the relay's main thread has no Y.Doc.
 */
import { parentPort } from 'node:worker_threads'
import type { Schema } from '@rejoin/shared'
import { readDocument } from '@rejoin/shared'
import { createReadingDoc } from '../view/project.ts'

/** What is asked: a whole document, and how to read it. */
export interface Ask {
  readonly update: Uint8Array
  readonly schema: Schema
}

/** What is answered. */
export type Answer = { readonly type: 'json'; readonly json: string } | { readonly type: 'failed'; readonly reason: string }

function answer({ update, schema }: Ask): Answer {
  const reading = createReadingDoc(schema)
  try {
    reading.apply([update])
    return { type: 'json', json: JSON.stringify(readDocument(schema, reading.doc)) }
  } catch (error) {
    return { type: 'failed', reason: error instanceof Error ? error.message : String(error) }
  } finally {
    reading.doc.destroy()
  }
}

parentPort?.on('message', (ask: Ask) => parentPort?.postMessage(answer(ask)))
