/**
 * Y.Docs of recently changed documents, kept so that an entry costs what it changes and not what its document holds (step 7 of the path).
 */
import type { DocumentId, Lineage, Schema, Seq } from '@rejoin/shared'
import type { ReadingDoc } from './project.ts'
import { createReadingDoc } from './project.ts'
import type { LoadedDocument } from './source.ts'

/** A document as of `seq`. */
export interface OpenDocument {
  readonly reading: ReadingDoc
  readonly lineage: Lineage
  seq: Seq
  /** Of the updates applied to it: an upper bound of its size when encoded. A Y.Doc takes some twenty times that. */
  bytes: number
}

/** The most recently used documents, bounded by their bytes. */
export interface OpenDocuments {
  get(document: DocumentId): OpenDocument | undefined
  /** Builds it from its updates. Throws when they do not integrate. */
  build(document: DocumentId, loaded: LoadedDocument): OpenDocument
  drop(document: DocumentId): void
  /** Forgets the least recently used until the rest fits. The last used one stays, whatever its size. */
  shrink(): void
  clear(): void
}

/** `maxBytes` is the limit of the sum of `bytes`. */
export function createOpenDocuments(schema: Schema, maxBytes: number): OpenDocuments {
  // A Map keeps the order of insertion: the first is the least recently used.
  const open = new Map<DocumentId, OpenDocument>()
  const drop = (document: DocumentId): void => {
    open.get(document)?.reading.doc.destroy()
    open.delete(document)
  }
  return {
    get: (document) => {
      const found = open.get(document)
      if (found === undefined) return undefined
      open.delete(document)
      open.set(document, found)
      return found
    },
    build: (document, { lineage, seq, updates }) => {
      drop(document)
      const reading = createReadingDoc(schema)
      reading.apply(updates)
      const built = { reading, lineage, seq, bytes: updates.reduce((sum, update) => sum + update.length, 0) }
      open.set(document, built)
      return built
    },
    drop,
    shrink: () => {
      let bytes = 0
      for (const document of open.values()) bytes += document.bytes
      for (const [id, document] of open) {
        if (bytes <= maxBytes || open.size === 1) break
        bytes -= document.bytes
        drop(id)
      }
    },
    clear: () => {
      for (const document of open.keys()) drop(document)
    },
  }
}
