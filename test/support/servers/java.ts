/**
 * Servers that run on Java: their jars, which install.sh copies into test/.servers, and the command that runs them.
 */
import { cpSync, existsSync, statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Probe } from '../requires.ts'
import { findProgram } from '../requires.ts'
import type { Place } from './place.ts'

export type JavaServer = 'kafka' | 'connect' | 'opensearch'

/** A program source that Java compiles by itself, or a class in the jars. */
export interface JavaProgram {
  readonly server: JavaServer
  /** A class, or the path of a source file. */
  readonly main: string
  readonly args: readonly string[]
  /** Limit of the heap in MiB. */
  readonly heap: number
  /** System properties. */
  readonly properties?: Readonly<Record<string, string>>
}

const here = fileURLToPath(new URL('.', import.meta.url))

/** Probe of Java and the jars of `server`. */
export function javaProbe(server: JavaServer): Probe {
  return () => {
    if (findProgram('java') === undefined) return 'no Java on this machine (apt-get install default-jdk-headless)'
    return existsSync(join(cache(server), 'pom.xml')) ? undefined : 'no jars in test/.servers (run test/support/servers/install.sh)'
  }
}

/** A source file of `server`, committed beside its pom.xml. */
export function javaSource(server: JavaServer, name: string): string {
  return join(here, 'java', server, name)
}

/** Makes `path` readable to the server's user: as it is, or as a copy in the server's folder when it lies below somebody's private one. */
export function readable({ folder }: Place, path: string): string {
  if (isPublic(path)) return path
  const copy = join(folder, `copy-${path.replaceAll('/', '-')}`)
  if (!existsSync(copy)) cpSync(path, copy, { recursive: true })
  return copy
}

/** The command of a program. The compiler's first stage and the plain collector start sooner and leave the other core to the tests. */
export function javaCommand(place: Place, { server, main, args, heap, properties = {} }: JavaProgram): string[] {
  const jars = `${readable(place, join(cache(server), 'lib'))}/*`
  const given = Object.entries({ 'java.io.tmpdir': place.folder, ...properties }).map(([name, value]) => `-D${name}=${value}`)
  const how = [`-Xmx${heap}m`, '-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1']
  const program = main.includes('/') ? readable(place, main) : main
  return [findProgram('java') ?? 'java', ...how, ...given, '-cp', jars, program, ...args]
}

/** Lines of a .properties file. */
export function properties(values: Readonly<Record<string, string>>): string {
  return Object.entries(values)
    .map(([name, value]) => `${name}=${value.replaceAll('\\', '\\\\')}\n`)
    .join('')
}

function cache(server: JavaServer): string {
  return join(here, '../../.servers', server)
}

/** Whether every folder on the way lets others pass. */
function isPublic(path: string): boolean {
  for (let folder = dirname(path); folder !== '/'; folder = dirname(folder)) {
    if ((statSync(folder).mode & 0o001) === 0) return false
  }
  return true
}
