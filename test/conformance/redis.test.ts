/**
 * The Redis sink held to the conformance kit.
 */
import { describeConformance } from '../support/conformance.ts'
import { describeRedis } from '../support/servers/redis.ts'
import { open } from './redis.ts'

describeRedis('with Redis', () => {
  describeConformance('the Redis sink', open, {
    'partial bulk failure': 'no constraints',
    'poison row': 'no constraints',
    'unique index in the way': 'no unique indexes',
    'two rows swap unique values': 'no unique indexes',
    'table dropped': 'nobody drops together',
  })
})
