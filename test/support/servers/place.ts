/**
 * Where a test's server lives: ports nobody else uses, and a folder that is removed also when the process that made it was killed.
 */
import { chownSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { randomInt } from 'node:crypto'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { isAlive } from './processes.ts'

/** Debian's user `nobody` and group `nogroup`: databases refuse to run as root. */
const NOBODY = 65_534
const PREFIX = 'rejoin-server-'

/** Where one server lives. It keeps its place when it restarts. */
export interface Place {
  /** Of the server alone; its working directory and $HOME. */
  readonly folder: string
  /** On 127.0.0.1, for clients. */
  readonly port: number
  /** A second port, for those that need one of their own. */
  readonly innerPort: number
}

/** Ports and a folder. */
export async function makePlace(): Promise<Place> {
  removeLeftFolders()
  const folder = mkdtempSync(join(tmpdir(), `${PREFIX}${process.pid}-`))
  if (isRoot()) chownSync(folder, NOBODY, NOBODY)
  const port = await freePort()
  let innerPort = await freePort()
  while (innerPort === port) innerPort = await freePort()
  return { folder, port, innerPort }
}

/** The arguments of setpriv: never root, and killed by the kernel when this process ends, however it ends. */
export function identity(): string[] {
  const user = isRoot() ? [`--reuid=${NOBODY}`, `--regid=${NOBODY}`, '--clear-groups'] : []
  return [...user, '--pdeathsig=KILL', '--']
}

function isRoot(): boolean {
  return process.getuid?.() === 0
}

/** Folders whose maker no longer lives: it was killed before it could remove them. */
function removeLeftFolders(): void {
  for (const name of readdirSync(tmpdir())) {
    if (!name.startsWith(PREFIX)) continue
    const maker = Number(name.slice(PREFIX.length).split('-')[0])
    if (!Number.isInteger(maker) || isAlive(maker)) continue
    try {
      rmSync(join(tmpdir(), name), { recursive: true, force: true })
    } catch {
      // Another user's, or another test run removes it at this moment: whoever comes next tries again.
    }
  }
}

/** A port below those that the kernel hands to outgoing connections, so that it is still free when a server that was down comes back. */
async function freePort(): Promise<number> {
  for (let attempt = 0; attempt < 50; attempt++) {
    const port = randomInt(20_000, 32_768)
    if (await isFree(port)) return port
  }
  throw new Error('no free port between 20000 and 32767 in 50 attempts')
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createServer()
    probe.once('error', () => resolve(false))
    probe.listen(port, '127.0.0.1', () => probe.close(() => resolve(true)))
  })
}
