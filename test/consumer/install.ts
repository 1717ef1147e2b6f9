/**
 * Packs the packages as they would be published and installs the tarballs into an app outside the repository.
 *
 * By default third-party packages are links to the ones that the repository has, and only those that some package declares; with REJOIN_TEST=all
 * npm itself installs the tarballs and resolves what they declare.
 */
import { execFile } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { root } from '../support/sources.ts'

const run = promisify(execFile)
const names = ['shared', 'client', 'server'] as const

export interface Consumer {
  /** The app's folder. */
  readonly folder: string
  /** Package name → path of its tarball. */
  readonly tarballs: ReadonlyMap<string, string>
  remove(): void
}

interface Manifest {
  readonly dependencies?: Readonly<Record<string, string>>
  readonly peerDependencies?: Readonly<Record<string, string>>
}

export async function installConsumer(): Promise<Consumer> {
  // realpath: on some systems the temporary folder is itself a link, and TypeScript compares real paths.
  const folder = realpathSync(mkdtempSync(join(tmpdir(), 'rejoin-consumer-')))
  cpSync(join(root, 'test/consumer/app'), folder, { recursive: true })
  const tarballs = await packAll(folder)
  if (process.env['REJOIN_TEST'] === 'all') await installByNpm(folder, tarballs)
  else await unpackAndLink(folder, tarballs)
  // What the tests themselves bring: the type-checker's view of Node.
  link(folder, '@types/node')
  link(folder, 'undici-types')
  return { folder, tarballs, remove: () => rmSync(folder, { recursive: true, force: true }) }
}

async function packAll(folder: string): Promise<ReadonlyMap<string, string>> {
  const workspaces = names.flatMap((name) => ['-w', `@rejoin/${name}`])
  const { stdout } = await run('npm', ['pack', '--json', '--pack-destination', folder, ...workspaces], { cwd: root })
  const packed = JSON.parse(stdout) as readonly { name: string; filename: string }[]
  return new Map(packed.map(({ name, filename }) => [name, join(folder, filename)]))
}

async function unpackAndLink(folder: string, tarballs: ReadonlyMap<string, string>): Promise<void> {
  const wanted = new Set<string>()
  for (const [name, tarball] of tarballs) {
    const place = join(folder, 'node_modules', name)
    mkdirSync(place, { recursive: true })
    await run('tar', ['-xzf', tarball, '--strip-components=1', '-C', place])
    const { dependencies = {}, peerDependencies = {} } = JSON.parse(readFileSync(join(place, 'package.json'), 'utf8')) as Manifest
    for (const dependency of Object.keys({ ...dependencies, ...peerDependencies })) if (!tarballs.has(dependency)) wanted.add(dependency)
  }
  for (const name of wanted) link(folder, name)
}

async function installByNpm(folder: string, tarballs: ReadonlyMap<string, string>): Promise<void> {
  const manifest = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as Manifest
  // As overrides too: the packages ask for one another by version, and these versions are in no registry.
  const own = Object.fromEntries([...tarballs].map(([name, tarball]) => [name, `file:${tarball}`]))
  const dependencies = { ...manifest.dependencies, ...own }
  writeFileSync(join(folder, 'package.json'), JSON.stringify({ ...manifest, dependencies, overrides: own }))
  await run('npm', ['install', '--prefer-offline', '--ignore-scripts', '--no-audit', '--no-fund'], { cwd: folder })
  // Its install script would compile it again, for a minute.
  link(folder, 'better-sqlite3')
}

function link(folder: string, name: string): void {
  const place = join(folder, 'node_modules', name)
  rmSync(place, { recursive: true, force: true })
  mkdirSync(dirname(place), { recursive: true })
  symlinkSync(join(root, 'node_modules', name), place)
}
