/**
 * The view against the log (step 8 of the path): documents are folded from their updates and read with the schema, as if there were no view, and their records compared with it.
 */
import type { DocumentId } from '@rejoin/shared'
import { allRecords, createReadingDoc, project } from '../view/project.ts'
import type { Pace } from './pace.ts'
import type { Difference, ProverParts, Verdict } from './proof.ts'

export interface ViewProof {
  readonly verdict: Verdict
  /** The first of them. */
  readonly differences: readonly Difference[]
  readonly total: number
  readonly reasons: readonly string[]
  readonly looked: number
  /** Where the next round goes on; undefined: behind the last. */
  readonly next: DocumentId | undefined
}

const TOLD = 100
const PAGE = 100
/** A document that changes while it is read is read again, so often; the pause doubles from 10 ms. */
const TRIES = 8

/** Compares documents behind `from`, at most `limit`: all without it. */
export async function proveView(
  parts: ProverParts,
  pace: Pace,
  { limit = Infinity, from }: { readonly limit?: number | undefined; readonly from?: string | undefined },
): Promise<ViewProof> {
  const { log, view } = parts
  const slow = new Set(view.slow().map(({ document }) => document))
  const found: Difference[] = []
  const left = { parked: 0, restless: 0 }
  let [total, looked] = [0, 0]
  let after = from as DocumentId | undefined
  for (;;) {
    const documents = await log.documents(Math.min(PAGE, limit - looked), after)
    for (const document of documents) {
      looked++
      const outcome = slow.has(document) ? 'parked' : await compare(parts, pace, document)
      if (typeof outcome === 'string') left[outcome]++
      else {
        total += outcome.length
        if (found.length < TOLD) found.push(...outcome)
      }
      await pace.breathe()
    }
    after = documents.at(-1)
    if (documents.length === 0 || looked >= limit) break
  }
  if (from === undefined && after === undefined) {
    const gone = await forgotten(parts, pace)
    total += gone.length
    found.push(...gone)
  }
  return {
    verdict: total > 0 ? 'different' : left.restless > 0 ? 'cannot' : 'equal',
    differences: found.slice(0, TOLD),
    total,
    reasons: [
      ...(left.parked > 0 ? [`view: ${left.parked} documents are parked in the view: their records are what they were before`] : []),
      ...(left.restless > 0 ? [`view: ${left.restless} documents changed each time they were read, or the view does not keep up`] : []),
      ...(total > 0 ? ['view: it differs from the log; with the relay stopped, delete view.db: it is made anew'] : []),
    ],
    looked,
    next: after,
  }
}

/** Differences of one document; why it stays out of it otherwise. */
async function compare(
  { log, view, schema }: ProverParts,
  pace: Pace,
  document: DocumentId,
): Promise<readonly Difference[] | 'parked' | 'restless'> {
  for (let attempt = 0; attempt < TRIES; attempt++) {
    if (attempt > 0) await pace.rest(10 << attempt)
    const state = view.document(document)
    if (state?.parked !== undefined) return 'parked'
    const head = await log.head(document)
    if (head === undefined || head.seq === 0) {
      if (state === undefined || view.records(document).length === 0) return []
      continue
    }
    if (state === undefined) continue
    const loaded = await log.load(document, state.seq)
    const now = view.document(document)
    if (now?.seq !== loaded.seq || now.lineage !== loaded.lineage || now.parked !== undefined) continue
    const reading = createReadingDoc(schema)
    try {
      reading.apply(loaded.updates)
      const folded = project(reading.doc, schema, allRecords(reading.doc, schema))
      const right = new Map(folded.flatMap(({ collection, id, text }) => (text === null ? [] : [[nameOf(collection, id), text]])))
      return differencesOf(document, right, view.records(document))
    } finally {
      reading.doc.destroy()
    }
  }
  return 'restless'
}

function* compared(
  document: DocumentId,
  right: Map<string, string>,
  records: ReturnType<ProverParts['view']['records']>,
): Generator<Difference> {
  for (const { collection, id, value } of records) {
    const name = nameOf(collection, id)
    const text = right.get(name)
    right.delete(name)
    if (text === JSON.stringify(value)) continue
    yield { proof: 'view', what: text === undefined ? 'surplus' : 'differs', key: { collection, document, id }, document }
  }
  for (const name of right.keys()) {
    const [collection = '', id = ''] = JSON.parse(name) as readonly string[]
    yield { proof: 'view', what: 'missing', key: { collection, document, id }, document }
  }
}

function differencesOf(...args: Parameters<typeof compared>): readonly Difference[] {
  return [...compared(...args)]
}

function nameOf(collection: string, id: string): string {
  return JSON.stringify([collection, id])
}

/** Documents that the view still shows records of and the log does not know. */
async function forgotten({ log, view }: ProverParts, pace: Pace): Promise<readonly Difference[]> {
  const found: Difference[] = []
  for (let page = view.documents(PAGE); page.length > 0; page = view.documents(PAGE, page.at(-1)?.document)) {
    for (const { document } of page) {
      if ((await log.head(document)) !== undefined) continue
      // It may be on its way out.
      await pace.rest(100)
      for (const { collection, id } of view.records(document))
        found.push({ proof: 'view', what: 'surplus', key: { collection, document, id }, document })
    }
    await pace.breathe()
  }
  return found
}
