/**
 * The NATS sink as a stream, held to the conformance kit.
 */
import { describeConformance } from '../support/conformance.ts'
import { describeNats } from '../support/servers/nats.ts'
import { open } from './nats-stream.ts'

describeNats('with NATS', () => {
  describeConformance('the NATS sink as a stream', open, {
    'partial bulk failure': 'takes every message',
    'poison row': 'takes every message',
    'delete, then a late insert during a refresh': 'not written anew',
    'unique index in the way': 'no indexes',
    'two rows swap unique values': 'no indexes',
    'table dropped': 'not written anew',
  })
})
