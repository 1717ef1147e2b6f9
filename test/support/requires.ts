/**
 * Suites that need something this machine may not have: a browser, a server, strace. Absent, the suite does not run and says so by name at the
 * end of the test run (reporter.ts); with REJOIN_TEST=all its absence is a failure.
 */
import { accessSync, constants, existsSync, readdirSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { describe, it } from 'vitest'

declare module 'vitest' {
  interface TaskMeta {
    /** Set on the place-holder of a suite that did not run: what it lacks. */
    notRun?: string
  }
}

/** Looks for what a suite needs. Undefined: it is here; otherwise why it is not, in words. */
export type Probe = () => string | undefined

/** A `describe` for suites that need `name`. The body is only evaluated when the probe finds it. */
export function requires(name: string, probe: Probe): (suite: string, body: () => void) => void {
  const missing = probe()
  return (suite, body) => {
    if (missing === undefined) describe(suite, body)
    else describe(suite, () => absent(name, missing))
  }
}

function absent(name: string, missing: string): void {
  const reason = `${name}: ${missing}`
  if (process.env['REJOIN_TEST'] === 'all') {
    it(`has ${name}`, { meta: { notRun: reason } }, () => {
      throw new Error(`REJOIN_TEST=all wants every suite to run, but this one lacks ${reason}`)
    })
    return
  }
  it(`not run: ${reason}`, { meta: { notRun: reason } }, (test) => test.skip(reason))
}

/** The probe of a program: one of `names`, absolute or on PATH (and where Debian keeps server programs). */
export function program(...names: string[]): Probe {
  return () => (findProgram(...names) === undefined ? `no ${names.join(' or ')} on this machine` : undefined)
}

/** The first of `names` that can be executed, as a path. */
export function findProgram(...names: string[]): string | undefined {
  const folders = [...(process.env['PATH'] ?? '').split(delimiter), '/usr/sbin', '/sbin', ...postgresFolders()]
  const paths = names.flatMap((name) =>
    name.includes('/') ? [name] : folders.filter((folder) => folder !== '').map((folder) => join(folder, name)),
  )
  return paths.find(isExecutable)
}

/** Debian keeps each PostgreSQL in a folder of its own, outside of PATH; the newest first, and all programs from the same. */
function postgresFolders(): string[] {
  const versions = existsSync('/usr/lib/postgresql') ? readdirSync('/usr/lib/postgresql').map(Number).filter(Number.isInteger) : []
  return versions.sort((one, other) => other - one).map((version) => `/usr/lib/postgresql/${version}/bin`)
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}

/** Debian's Chromium, or the one that CHROMIUM names, and then no other. */
export const chromiumPath: string | undefined =
  process.env['CHROMIUM'] === undefined
    ? findProgram('chromium', 'chromium-browser', 'google-chrome')
    : findProgram(process.env['CHROMIUM'])

/** `describe` of suites that need a Chromium. */
export const describeChromium: (suite: string, body: () => void) => void = requires('Chromium', () =>
  chromiumPath === undefined ? 'no chromium on this machine (apt-get install chromium)' : undefined,
)
