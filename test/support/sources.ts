/**
 * The packages' sources as data for the architecture test: every file, what it imports, and where that leads.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative, resolve, sep } from 'node:path'
import { fileURLToPath } from 'node:url'
import ts from 'typescript'

/** The repository's root, with a trailing separator. */
export const root: string = fileURLToPath(new URL('../../', import.meta.url))

/** One import, re-export or `import()` of a file. */
export interface Import {
  /** As written. */
  readonly specifier: string
  /** The file it names, relative to the root with `/`; undefined for a package that is not ours. */
  readonly file: string | undefined
  /** Erased by the compiler: `import type`, or only `type` names. */
  readonly typeOnly: boolean
  readonly dynamic: boolean
  /** Imported names; `*` for a namespace or all, `default` for the default export. */
  readonly names: readonly string[]
}

export interface Source {
  /** Relative to the root, with `/`. */
  readonly path: string
  readonly text: string
  readonly tree: ts.SourceFile
  readonly imports: readonly Import[]
}

/** Entry of each package's public paths: specifier → source file, from its `exports`. */
const publicPaths: ReadonlyMap<string, string> = readPublicPaths()

/** Every TypeScript file below the folders, without what is installed or built. */
export function readSources(...folders: readonly string[]): readonly Source[] {
  return folders
    .flatMap((folder) => readdirSync(join(root, folder), { recursive: true, withFileTypes: true }))
    .filter((entry) => entry.isFile() && /\.tsx?$/u.test(entry.name))
    .map((entry) => relative(root, join(entry.parentPath, entry.name)).split(sep).join('/'))
    .filter((path) => !/(^|\/)(node_modules|dist|\.out)\//u.test(path))
    .map(readSource)
}

/** The text of a file of the repository. */
export function readText(path: string): string {
  return readFileSync(join(root, path), 'utf8')
}

function readSource(path: string): Source {
  const text = readText(path)
  return parseSource(path, text)
}

/** Parses text as if it stood at `path`. */
export function parseSource(path: string, text: string): Source {
  const tree = ts.createSourceFile(path, text, ts.ScriptTarget.ES2022, true)
  const imports: Import[] = []
  visit(tree, (node) => {
    const found = readImport(path, node)
    if (found !== undefined) imports.push(found)
  })
  return { path, text, tree, imports }
}

/** Calls `seen` for the node and everything below it. */
export function visit(node: ts.Node, seen: (node: ts.Node) => void): void {
  seen(node)
  ts.forEachChild(node, (child) => visit(child, seen))
}

function readImport(from: string, node: ts.Node): Import | undefined {
  if (ts.isImportDeclaration(node) && ts.isStringLiteral(node.moduleSpecifier)) {
    return { ...named(from, node.moduleSpecifier.text), ...clauseNames(node.importClause), dynamic: false }
  }
  if (ts.isExportDeclaration(node) && node.moduleSpecifier !== undefined && ts.isStringLiteral(node.moduleSpecifier)) {
    const elements = node.exportClause !== undefined && ts.isNamedExports(node.exportClause) ? node.exportClause.elements : undefined
    const typeOnly = node.isTypeOnly || (elements !== undefined && elements.length > 0 && elements.every((element) => element.isTypeOnly))
    const names = elements?.map((element) => (element.propertyName ?? element.name).text) ?? ['*']
    return { ...named(from, node.moduleSpecifier.text), typeOnly, names, dynamic: false }
  }
  if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) {
    const specifier = node.arguments[0]
    if (specifier !== undefined && ts.isStringLiteralLike(specifier)) {
      return { ...named(from, specifier.text), typeOnly: false, names: ['*'], dynamic: true }
    }
  }
  return undefined
}

function clauseNames(clause: ts.ImportClause | undefined): { typeOnly: boolean; names: string[] } {
  if (clause === undefined) return { typeOnly: false, names: [] }
  const names = clause.name === undefined ? [] : ['default']
  const bindings = clause.namedBindings
  if (bindings === undefined) return { typeOnly: clause.isTypeOnly, names }
  if (ts.isNamespaceImport(bindings)) return { typeOnly: clause.isTypeOnly, names: [...names, '*'] }
  const allTypes = names.length === 0 && bindings.elements.length > 0 && bindings.elements.every((element) => element.isTypeOnly)
  const values = bindings.elements.filter((element) => !element.isTypeOnly).map((element) => (element.propertyName ?? element.name).text)
  return { typeOnly: clause.isTypeOnly || allTypes, names: [...names, ...values] }
}

function named(from: string, specifier: string): { specifier: string; file: string | undefined } {
  if (specifier.startsWith('.')) {
    const file = relative(root, resolve(root, dirname(from), specifier))
      .split(sep)
      .join('/')
    return { specifier, file }
  }
  return { specifier, file: publicPaths.get(specifier) }
}

function readPublicPaths(): ReadonlyMap<string, string> {
  const paths = new Map<string, string>()
  for (const name of readdirSync(join(root, 'packages'))) {
    const manifest = join(root, 'packages', name, 'package.json')
    if (!existsSync(manifest)) continue
    const { exports } = JSON.parse(readFileSync(manifest, 'utf8')) as { exports: Record<string, { types: string }> }
    for (const [path, conditions] of Object.entries(exports)) {
      const source = conditions.types.replace(/^\.\/dist\//u, `packages/${name}/src/`).replace(/\.d\.ts$/u, '.ts')
      paths.set(`@rejoin/${name}${path.slice(1)}`, source)
    }
  }
  return paths
}

/** Files reachable from `entries` by static imports and `import()` of values, with the way to each. */
export function reachable(sources: readonly Source[], entries: readonly string[]): ReadonlyMap<string, readonly string[]> {
  const byPath = new Map(sources.map((source) => [source.path, source]))
  const ways = new Map<string, readonly string[]>(entries.filter((entry) => byPath.has(entry)).map((entry) => [entry, [entry]]))
  for (const [path, way] of ways) {
    for (const { file, typeOnly } of byPath.get(path)?.imports ?? []) {
      if (file !== undefined && !typeOnly && byPath.has(file) && !ways.has(file)) ways.set(file, [...way, file])
    }
  }
  return ways
}

/** Import cycles, as `a → b → a`; type imports count, since they tie a reader as much. */
export function findCycles(sources: readonly Source[]): readonly string[] {
  const byPath = new Map(sources.map((source) => [source.path, source]))
  const done = new Set<string>()
  const cycles = new Set<string>()
  const walk = (path: string, way: readonly string[]): void => {
    const start = way.indexOf(path)
    if (start >= 0) cycles.add([...way.slice(start), path].join(' → '))
    if (start >= 0 || done.has(path)) return
    for (const { file } of byPath.get(path)?.imports ?? []) if (file !== undefined && byPath.has(file)) walk(file, [...way, path])
    done.add(path)
  }
  for (const { path } of sources) walk(path, [])
  return [...cycles]
}
