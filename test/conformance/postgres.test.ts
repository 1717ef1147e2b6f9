/**
 * The Postgres sink held to the conformance kit.
 */
import { describeConformance } from '../support/conformance.ts'
import { describePostgres } from '../support/servers/postgres.ts'
import { open } from './postgres.ts'

describePostgres('with PostgreSQL', () => {
  describeConformance('the Postgres sink', open)
})
