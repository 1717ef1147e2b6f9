/**
 * System calls of a process tree as strace writes them down, in order: what was written to which file, what was fsynced, what was said.
 */

/** One thing that happened. A call that another thread interrupted counts from where it began to where it ended. */
export interface SystemCall {
  readonly name: string
  /** Path, or `pipe:[…]`, of the file descriptor. */
  readonly file: string
  /** The arguments as strace prints them. */
  readonly text: string
  /** Lines at which it began and ended. */
  readonly began: number
  readonly ended: number
}

const CALL = /^(\d+) +(\w+)\((\d+)<([^>]*)>(.*)$/u
const RESUMED = /^(\d+) +<\.\.\. (\w+) resumed>(.*)$/u

/** Reads the output of `strace -f -y`. Calls that failed are left out. */
export function readStrace(output: string): SystemCall[] {
  const calls: SystemCall[] = []
  const open = new Map<string, Omit<SystemCall, 'ended'>>()
  output.split('\n').forEach((line, at) => {
    const begun = CALL.exec(line)
    const resumed = RESUMED.exec(line)
    const [, thread = ''] = begun ?? resumed ?? []
    if (begun !== null) {
      const [, , name = '', , file = '', text = ''] = begun
      const call = { name, file, text, began: at }
      if (line.endsWith('<unfinished ...>')) open.set(thread, call)
      else if (!line.includes(' = -1 ')) calls.push({ ...call, ended: at })
    } else if (resumed !== null) {
      const call = open.get(thread)
      open.delete(thread)
      if (call !== undefined && !line.includes(' = -1 ')) calls.push({ ...call, ended: at })
    }
  })
  return calls
}

/** Acks that were said although no fsync of the WAL lies between the writing of the edit and the ack. */
export function uncovered(calls: readonly SystemCall[]): number[] {
  const wal = calls.filter(({ file }) => file.endsWith('.db-wal'))
  const syncs = wal.filter(({ name }) => name === 'fsync' || name === 'fdatasync')
  return calls.flatMap(({ name, text, began }) => {
    const ack = name === 'write' ? /"ack (\d+)\\n"/u.exec(text)?.[1] : undefined
    if (ack === undefined) return []
    const marker = `<edit ${ack.padStart(6, '0')}>`
    const written = wal.find((call) => call.name === 'pwrite64' && call.text.includes(marker))
    const covered = written !== undefined && syncs.some((sync) => sync.began > written.ended && sync.ended < began)
    return covered ? [] : [Number(ack)]
  })
}

/** How many acks were said. */
export function acks(calls: readonly SystemCall[]): number {
  return calls.filter(({ name, text }) => name === 'write' && text.includes('"ack ')).length
}
