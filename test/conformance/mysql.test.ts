/**
 * The MySQL sink held to the conformance kit.
 */
import { describeConformance } from '../support/conformance.ts'
import { describeMariadb } from '../support/servers/mariadb.ts'
import { open } from './mysql.ts'

describeMariadb('with MariaDB', () => {
  describeConformance('the MySQL sink', open)
})
