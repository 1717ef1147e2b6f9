/**
 * The Redis sink as a stream, held to the conformance kit.
 */
import { describeConformance } from '../support/conformance.ts'
import { describeRedis } from '../support/servers/redis.ts'
import { open } from './redis-stream.ts'

describeRedis('with Redis', () => {
  describeConformance('the Redis sink as a stream', open, {
    'partial bulk failure': 'takes every entry',
    'poison row': 'takes every entry',
    'delete, then a late insert during a refresh': 'not written anew',
    'unique index in the way': 'no indexes',
    'two rows swap unique values': 'no indexes',
    'table dropped': 'not written anew',
  })
})
