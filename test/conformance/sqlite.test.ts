/**
 * The SQLite mirror held to the conformance kit, also with events in order and with a commit for each entry.
 */
import { describeConformance } from '../support/conformance.ts'
import type { OpenSubject } from '../support/conformance.ts'
import { open } from './sqlite.ts'

const as =
  (forward: NonNullable<Awaited<ReturnType<OpenSubject>>['under']['forward']>): OpenSubject =>
  async () => {
    const subject = await open()
    return { ...subject, under: { ...subject.under, forward } }
  }

describeConformance('the SQLite mirror', open, { 'server restarted': 'a file has no server' })

describeConformance("the SQLite mirror with consistency 'every'", as({ consistency: 'every' }), {
  'server restarted': 'a file has no server',
})

describeConformance("the SQLite mirror with strategy 'actions'", as({ strategy: 'actions' }), {
  'delete, then a late insert during a refresh': 'events are not written anew',
  'table dropped': 'events are not written anew',
  'server restarted': 'a file has no server',
})
