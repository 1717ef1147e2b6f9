/**
 * `npm run example:downstream` as its reader runs it, only shorter: it tells what it promises to tell, and leaves nothing behind.
 */
import { spawn } from 'node:child_process'
import { chmodSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { describePostgres } from '../support/servers/postgres.ts'
import { root } from '../support/sources.ts'

/** It takes some 20 s; on a machine that is busy with other tests, longer. */
const LATE_MS = 150_000

describePostgres('the example with a Postgres downstream', () => {
  it('loses nothing when relay, forwarder and Postgres are killed, and proves it', { timeout: LATE_MS + 10_000 }, async () => {
    const { code, text, left } = await runExample({ DOWNSTREAM_SECONDS: '2' })
    expect(code, text).toBe(0)
    const lines = text.split('\n').map((line) => line.replace(/^ *[\d.]+ s [✓✗ ] /u, '').trim())
    // The whole of each of these lines, in this order, with others between them.
    const story = [
      /^Postgres [\d.]+ runs, /u,
      /^the relay listens on port \d+; its forwarder keeps the sinks warehouse, cards, mirror /u,
      /^Jill's tablet loses its network, and goes on editing$/u,
      /^kill -9: the relay$/u,
      /^Jill's tablet is back, with [1-9]\d* edits that nobody has seen$/u,
      /^a pet that was added meanwhile is in Postgres, [\d.]+ s after the kill$/u,
      /^kill -9: the forwarder$/u,
      /^a pet that was added meanwhile is in Postgres, [\d.]+ s after the kill$/u,
      /^kill -9: Postgres$/u,
      /^a pet that was added meanwhile is in Postgres, [\d.]+ s after the kill$/u,
      /^everybody rests: (\d+) edits, \1 acknowledged, 5 of 5 devices online$/u,
      /^rejoin sinks verify warehouse: equal at version [1-9]\d* \([1-9]\d* rows, 0 parked\)$/u,
      /^rejoin sinks verify cards: equal at version [1-9]\d* \([1-9]\d* rows, 0 parked\)$/u,
      /^rejoin sinks verify mirror: equal at version [1-9]\d* \([1-9]\d* rows, 0 parked\)$/u,
      /^SELECT shows what the front desk has: [1-9]\d* rows of pets, owners and pet_cards$/u,
      /^somebody changes a row by hand: UPDATE pets /u,
      /^rejoin sinks verify warehouse: NOT EQUAL at version [1-9]\d* \([1-9]\d* rows, 0 parked\)$/u,
      /^differs +pets clinic-(north|south)\/[0-9a-f-]{36}$/u,
      /^rejoin sinks repair warehouse: 1 rows? repaired$/u,
      /^warehouse: equal at version [1-9]\d* \([1-9]\d* rows, 0 parked\)$/u,
      /^everything is equal, after [1-9]\d* edits and three kills$/u,
    ]
    let at = 0
    for (const pattern of story) {
      const found = lines.findIndex((line, i) => i >= at && pattern.test(line))
      expect(found, `${pattern} in\n${text}`).not.toBe(-1)
      at = found + 1
    }
    expect(text).not.toContain('\u001B')
    expect(left).toEqual([])
  })

  it('refuses a length of time that is none', { timeout: LATE_MS }, async () => {
    const { code, text } = await runExample({ DOWNSTREAM_SECONDS: 'soon' })
    expect([code, text]).toEqual([2, 'DOWNSTREAM_SECONDS is a number from 2 to 3600, not "soon".\n'])
  })
})

interface Ran {
  readonly code: number | null
  readonly text: string
  /** Files that it left, and commands that still run on them. */
  readonly left: readonly string[]
}

/** Runs it to its end, without a terminal, with a folder for temporary files of its own. It gets a SIGTERM when it takes too long. */
async function runExample(env: Readonly<Record<string, string>>): Promise<Ran> {
  const folder = mkdtempSync(join(tmpdir(), 'rejoin-example-'))
  // Postgres may run as another user.
  chmodSync(folder, 0o711)
  try {
    const args = ['--import', 'jiti/register', 'examples/clinic/downstream/run.ts']
    const all = { ...process.env, ...env, TMPDIR: folder, JITI_FS_CACHE: 'false' }
    const child = spawn(process.execPath, args, { cwd: root, env: all, stdio: ['ignore', 'pipe', 'pipe'], timeout: LATE_MS })
    let text = ''
    const collect = (chunk: string): void => void (text += chunk)
    child.stdout.setEncoding('utf8').on('data', collect)
    child.stderr.setEncoding('utf8').on('data', collect)
    const code = await new Promise<number | null>((resolve) => child.once('close', resolve))
    const commands = readdirSync('/proc')
      .filter((name) => /^\d+$/u.test(name))
      .map((pid) => commandOf(pid))
    return { code, text, left: [...readdirSync(folder), ...commands.filter((command) => command.includes(folder))] }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

function commandOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ')
  } catch {
    return ''
  }
}
