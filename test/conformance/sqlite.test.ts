/**
 * The SQLite mirror held to the conformance kit.
 */
import { describeConformance } from '../support/conformance.ts'
import { open } from './sqlite.ts'

describeConformance('the SQLite mirror', open, { 'server restarted': 'a file has no server' })
