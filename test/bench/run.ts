/** `npm run bench -- <lane>`: installs the contestants on first use, then runs a lane. */
import { execFileSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const here = fileURLToPath(new URL('.', import.meta.url))
const lanes: Readonly<Record<string, string>> = { relay: './relay.ts' }
const lane = lanes[process.argv[2] ?? '']
if (lane === undefined) {
  process.stderr.write(`usage: npm run bench -- <${Object.keys(lanes).join(' | ')}>\n`)
  process.exit(2)
}
if (!existsSync(`${here}node_modules/yjs`)) execFileSync('npm', ['ci'], { cwd: here, stdio: 'inherit' })
await import(lane)
