/**
 * The thread that folds documents and gives their state (beside step 5 of the path): its own connection to the log, and the only Y.Docs of the relay.
 */
import { workerData } from 'node:worker_threads'
import type { DocumentId } from '@rejoin/shared'
import type { DocumentState, Folded } from '../log/compactor.ts'
import { createCompactionWork } from '../log/work.ts'
import { absorbTrusted, createAdmission, encodeAdmission } from '../relay/admission.ts'
import { createLogReader, openSqliteReader } from '../storage/sqlite-read.ts'
import { serveThread } from '../storage/thread.ts'

/** What the main thread asks. */
export type WorkRequest =
  | { readonly type: 'fold'; readonly document: DocumentId }
  | { readonly type: 'state'; readonly document: DocumentId; readonly stateVector: Uint8Array | undefined }

/** What it is answered. */
export type WorkReply = Folded | DocumentState | undefined

const reader = openSqliteReader((workerData as { readonly directory: string }).directory)
const work = createCompactionWork({ reader: createLogReader(reader), admissionOf })

serveThread<WorkRequest, WorkReply>(async (request) => {
  const reply = request.type === 'fold' ? await work.fold(request.document) : await work.state(request.document, request.stateVector)
  return { reply, transfer: reply === undefined ? undefined : [reply.update.buffer as ArrayBuffer] }
})

function admissionOf(update: Uint8Array): Uint8Array {
  const admission = createAdmission()
  absorbTrusted(admission, update)
  return encodeAdmission(admission)
}
