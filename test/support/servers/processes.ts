/**
 * Processes of this machine as /proc shows them: a server's whole tree, since a server's children may have process groups of their own.
 */
import { readFileSync, readdirSync } from 'node:fs'

interface Entry {
  readonly pid: number
  readonly parent: number
  /** The kernel's letter: R, S, D, T (stopped), Z (ended, not yet collected)… */
  readonly state: string
}

/** `pid` and all its descendants that have not ended, parents first. */
export function processTree(pid: number): number[] {
  const entries = readdirSync('/proc').flatMap((name) => (/^\d+$/u.test(name) ? (readEntry(Number(name)) ?? []) : []))
  const tree = entries.filter((entry) => entry.pid === pid && lives(entry))
  // The list grows while it is walked: each one's children are appended and walked in turn.
  for (const { pid: parent } of tree) tree.push(...entries.filter((entry) => entry.parent === parent && lives(entry)))
  return tree.map((entry) => entry.pid)
}

/** Whether `pid` runs or is stopped. What has ended but was not collected by its parent does not count. */
export function isAlive(pid: number): boolean {
  const entry = readEntry(pid)
  return entry !== undefined && lives(entry)
}

/** Whether `pid` is stopped, as by SIGSTOP. */
export function isStopped(pid: number): boolean {
  return readEntry(pid)?.state === 'T'
}

/** Sends `signal` to those of `pids` that are still there. */
export function signalAll(pids: readonly number[], signal: NodeJS.Signals): void {
  for (const pid of pids) {
    try {
      process.kill(pid, signal)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
    }
  }
}

function lives({ state }: Entry): boolean {
  return state !== 'Z' && state !== 'X'
}

function readEntry(pid: number): Entry | undefined {
  try {
    const line = readFileSync(`/proc/${pid}/stat`, 'utf8')
    // The name in parentheses may itself hold parentheses and blanks: what follows the last one is regular.
    const [state = 'X', parent = '0'] = line.slice(line.lastIndexOf(')') + 2).split(' ')
    return { pid, parent: Number(parent), state }
  } catch {
    return undefined
  }
}
