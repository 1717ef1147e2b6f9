/**
 * The JSON lines sink held to the conformance kit.
 */
import { describeConformance } from '../support/conformance.ts'
import { open } from './jsonl.ts'

describeConformance('the JSON lines sink', open, {
  'partial bulk failure': 'takes every line',
  'poison row': 'takes every line',
  'unique index in the way': 'no indexes',
  'two rows swap unique values': 'no indexes',
  'table dropped': 'share a file',
  'relay restored from backup': 'not read back',
  'server restarted': 'no server',
})
