/**
 * Prints the pets as the mirror holds them, while the relay runs or after: `node mirror.js [file]`.
 */
import Database from 'better-sqlite3'
import { mirror } from './folder.js'

const path = process.argv[2] ?? mirror
try {
  const database = new Database(path, { readonly: true })
  const rows = database.prepare('SELECT * FROM pets').all()
  if (rows.length === 0) process.stdout.write('The mirror has no pets yet.\n')
  else console.table(rows)
} catch (error) {
  const why = error instanceof Error ? error.message : String(error)
  process.stderr.write(`The mirror cannot be read at ${path}: ${why}. Is this the one that npm start printed?\n`)
  process.exitCode = 1
}
