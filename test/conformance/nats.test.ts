/**
 * The NATS sink held to the conformance kit.
 */
import { describeConformance } from '../support/conformance.ts'
import { describeNats } from '../support/servers/nats.ts'
import { open } from './nats.ts'

describeNats('with NATS', () => {
  describeConformance('the NATS sink', open, {
    'partial bulk failure': 'no constraints',
    'poison row': 'no constraints',
    'unique index in the way': 'no unique indexes',
    'two rows swap unique values': 'no unique indexes',
    'table dropped': 'nobody drops together',
  })
})
