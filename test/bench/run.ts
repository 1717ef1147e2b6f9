/** `npm run bench -- <lane>`: builds and installs the contestants on first use, then runs a lane. */
import { execFileSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const here = fileURLToPath(new URL('.', import.meta.url))
const root = fileURLToPath(new URL('../..', import.meta.url))
const lanes: Readonly<Record<string, string>> = { relay: './relay.ts', forward: './forward.ts' }
const lane = lanes[process.argv[2] ?? '']
if (lane === undefined) {
  process.stderr.write(`usage: npm run bench -- <${Object.keys(lanes).join(' | ')}>\n`)
  process.exit(2)
}
const npm = (args: readonly string[], cwd: string): void => void execFileSync('npm', args, { cwd, stdio: ['ignore', 2, 2] })
if (!existsSync(`${root}packages/server/dist/cli.js`)) npm(['run', 'build'], root)
// npm writes this file last: what an installation that was interrupted left does not count.
if (!existsSync(`${here}node_modules/.package-lock.json`)) npm(['ci'], here)
await import(lane)
