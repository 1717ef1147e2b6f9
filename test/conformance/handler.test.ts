/**
 * The handler sink held to the conformance kit.
 */
import { describeConformance } from '../support/conformance.ts'
import { open } from './handler.ts'

describeConformance('the handler sink', open, {
  'unique index in the way': 'its own',
  'two rows swap unique values': 'its own',
  'table dropped': 'keeps no cursor',
  'destination restored from backup': 'keeps no cursor',
  'relay restored from backup': 'keeps no cursor',
  "another log's config": 'whose it is',
  'server restarted': 'this process',
})
