/**
 * Where the relay keeps its files, and the mirror among them: DATA, else rejoin-data in the root of the repository.
 */
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../..', import.meta.url))

/** npm runs its scripts in the folder of their package; a relative DATA is meant from where npm was started. */
export const startedIn = process.env['INIT_CWD'] ?? process.cwd()

export const data = process.env['DATA'] ? resolve(startedIn, process.env['DATA']) : join(root, 'rejoin-data')
export const mirror = join(data, 'mirror.db')
