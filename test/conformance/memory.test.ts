/**
 * The memory sink held to the conformance kit, which is held to itself by it.
 */
import { describeConformance } from '../support/conformance.ts'
import { open } from './memory.ts'

describeConformance('the memory sink', open, {
  'unique index in the way': 'a map has no unique indexes',
  'two rows swap unique values': 'a map has no unique indexes',
  'server restarted': 'it lives in this process',
})
