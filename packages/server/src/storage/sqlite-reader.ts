/**
 * The reader's thread (beside step 5 of the path): reads never wait behind a commit.
 */
import { workerData } from 'node:worker_threads'
import type { DocumentId, Seq } from '@rejoin/shared'
import type { DocumentHead, FindWhat, Found, ReadFrom } from '../log/log.ts'
import { packEntries } from './pack.ts'
import { openSqliteReader } from './sqlite-read.ts'
import type { Served } from './thread.ts'
import { serveThread } from './thread.ts'

/** What the main thread asks: the methods of `LogReader`. */
export type ReadRequest =
  | { readonly type: 'head'; readonly document: DocumentId }
  | { readonly type: 'find'; readonly document: DocumentId; readonly what: FindWhat }
  | { readonly type: 'read'; readonly from: ReadFrom; readonly maxBytes: number }
  | { readonly type: 'snapshot'; readonly document: DocumentId; readonly seq: Seq; readonly offset: number; readonly length: number }

/** What it is answered. Entries come packed. */
export type ReadReply = DocumentHead | Found | Uint8Array | 'trimmed' | undefined

const reader = openSqliteReader((workerData as { directory: string }).directory)

serveThread<ReadRequest, ReadReply>((request) => {
  switch (request.type) {
    case 'head':
      return { reply: reader.head(request.document) }
    case 'find':
      return { reply: reader.find(request.document, request.what) }
    case 'read': {
      const entries = reader.read(request.from, request.maxBytes)
      return entries === 'trimmed' ? { reply: entries } : given(packEntries(entries))
    }
    case 'snapshot':
      return given(reader.snapshot(request.document, request.seq, request.offset, request.length))
  }
})

function given(bytes: Uint8Array<ArrayBuffer> | undefined): Served<Uint8Array | undefined> {
  return bytes === undefined ? { reply: undefined } : { reply: bytes, transfer: [bytes.buffer] }
}
