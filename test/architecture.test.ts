/**
 * The law of the tree as checks: who may import whom, what may not appear, and that PROTOCOL.md's tables are the code's.
 */
import { execFileSync } from 'node:child_process'
import { describe, expect, it } from 'vitest'
import { ERRORS } from '#shared/errors.js'
import { FRAME_TYPES } from '#shared/frames.js'
import { frameBodies, frameDirections, limitRows, table } from './support/protocol.ts'
import type { Source } from './support/sources.ts'
import { findCycles, parseSource, reachable, readSources, readText, root } from './support/sources.ts'
import { declaredNames, defaultExports, docsBuilt, freeNames, isBarrel, refusedSyntax, yjsValues } from './support/syntax.ts'

const sources = readSources('packages/shared/src', 'packages/client/src', 'packages/server/src')
const tests = readSources('test')
const MAX_LINES = 400

/** Main-thread entries of the relay. What a worker runs is started by URL, not imported, and so not reached from here. */
const MAIN_THREAD = ['index.ts', 'cli.ts', 'server.ts'].map((file) => `packages/server/src/${file}`)

/** Room of the server → rooms it may import from. Files directly in src are the rooms `pump`, `config`, `server` and so on. */
const SERVER_ROOMS: Readonly<Record<string, readonly string[]>> = {
  http: ['relay'],
  relay: ['log'],
  log: [],
  view: ['log', 'pump'],
  sinks: ['view', 'pump'],
  sources: ['relay', 'pump'],
  storage: ['log', 'view', 'sinks'],
  projection: ['view', 'sinks'],
  forwarding: ['log', 'storage', 'view', 'sinks', 'projection', 'pump', 'slow', 'load'],
  testing: ['view', 'sinks', 'storage', 'forwarding', 'projection'],
  compaction: ['log', 'relay', 'storage', 'slow'],
  documents: ['http', 'log', 'view', 'slow'],
  pump: [],
  slow: [],
  load: [],
}

const FRAMES = 'packages/shared/src/frames.ts'
const BODIES = 'packages/shared/src/bodies.ts'

/** Folders of adapters → the port beside them, and what else an adapter may import. */
const PORTS: Readonly<Record<string, readonly string[]>> = {
  'packages/client/src/stores/': ['store.ts'],
  'packages/client/src/transports/': ['transport.ts'],
  'packages/server/src/sinks/': ['sink.ts', 'spec.ts', 'delivery.ts', 'digest.ts', 'notes.ts', 'rows.ts', 'message.ts', 'connection.ts'],
  'packages/server/src/sources/': ['source.ts'],
}

describe('the sources', () => {
  it('were read: the checks below would pass on nothing', () => {
    for (const [name, atLeast] of [
      ['shared', 5],
      ['client', 8],
      ['server', 15],
    ] as const) {
      expect(inPackage(name).length, `files of ${name}`).toBeGreaterThanOrEqual(atLeast)
    }
    expect(sources.flatMap((source) => source.imports).length).toBeGreaterThan(100)
  })

  it('import only files that exist', () => {
    const paths = new Set(sources.map((source) => source.path))
    const broken = each(sources, ({ imports }) =>
      imports.filter(({ file }) => file !== undefined && !paths.has(file)).map(({ specifier }) => specifier),
    )
    expect(broken).toEqual([])
  })

  it(`have at most ${MAX_LINES} lines each`, () => {
    expect(each([...sources, ...tests], ({ text }) => over(text.trimEnd().split('\n').length, MAX_LINES))).toEqual([])
  })

  it('open with what the file is for', () => {
    expect(each([...sources, ...tests], ({ text }) => (/^(#!.*\n)?\/\*\*\s+(\* )?\S/u.test(text) ? [] : ['no opening comment']))).toEqual(
      [],
    )
  })

  it('have named exports only', () => {
    expect(each(sources, ({ tree }) => defaultExports(tree))).toEqual([])
  })

  it('have no barrels beside the index files', () => {
    const isIndex = (path: string): boolean => /^packages\/\w+\/src\/(index(\.\w+)?|wire)\.ts$/u.test(path)
    expect(
      each(
        sources.filter(({ path }) => !isIndex(path)),
        ({ tree }) => (isBarrel(tree) ? ['only re-exports'] : []),
      ),
    ).toEqual([])
  })

  it('use no enum, any, non-null assertion or namespace', () => {
    expect(each(sources, ({ tree }) => refusedSyntax(tree))).toEqual([])
  })

  it('have no import cycles', () => {
    expect(findCycles(sources)).toEqual([])
  })

  it('have no names that say nothing', () => {
    const empty = /(Manager|Service|Helper|Util|Utils|Base|Impl|Subsystem)$/u
    expect(each(sources, ({ tree }) => declaredNames(tree).filter((name) => empty.test(name)))).toEqual([])
  })
})

describe('directions', () => {
  it('client → shared ← server', () => {
    const allowed: Readonly<Record<string, readonly string[]>> = { shared: [], client: ['shared'], server: ['shared'] }
    const wrong = each(sources, ({ path, imports }) => {
      const own = packageOf(path)
      return imports
        .map(({ file }) => file)
        .filter((file) => file !== undefined && packageOf(file) !== own && !allowed[own]?.includes(packageOf(file)))
    })
    expect(wrong).toEqual([])
  })

  it('packages meet through their public paths', () => {
    const wrong = each(sources, ({ path, imports }) =>
      imports
        .filter(({ specifier, file }) => file !== undefined && specifier.startsWith('.') && packageOf(file) !== packageOf(path))
        .map(({ specifier }) => specifier),
    )
    expect(wrong).toEqual([])
  })

  it('inside the server follow the path of an edit', () => {
    const wrong = each(inPackage('server'), ({ path, imports }) => {
      const allowed = SERVER_ROOMS[room(path)]
      if (allowed === undefined) return isTopLevel(path) ? [] : ['a room that SERVER_ROOMS does not know']
      return imports
        .map(({ file }) => file)
        .filter((file) => file !== undefined && packageOf(file) === 'server' && room(file) !== room(path) && !allowed.includes(room(file)))
    })
    expect(wrong).toEqual([])
  })

  it('nothing imports server.ts but the entries', () => {
    const wrong = each(inPackage('server'), ({ path, imports }) =>
      MAIN_THREAD.includes(path)
        ? []
        : imports.filter(({ file }) => file !== undefined && MAIN_THREAD.includes(file)).map(({ specifier }) => specifier),
    )
    expect(wrong).toEqual([])
  })

  it('an adapter imports its own port and nothing beside it', () => {
    const wrong = Object.entries(PORTS).flatMap(([folder, ports]) =>
      each(
        sources.filter(({ path }) => path.startsWith(folder) && !ports.includes(path.slice(folder.length)) && isAdapter(path, folder)),
        ({ path, imports }) =>
          imports
            .map(({ file }) => file)
            .filter(
              (file) =>
                file !== undefined &&
                packageOf(file) === packageOf(path) &&
                !(file.startsWith(folder) && ports.includes(file.slice(folder.length))) &&
                !isPrivatePart(folder, path, file),
            ),
      ),
    )
    expect(wrong).toEqual([])
  })

  it('shared knows neither Node nor the DOM', () => {
    const globals = new Set(['window', 'document', 'navigator', 'localStorage', 'indexedDB', 'process', 'Buffer', 'WebSocket', 'fetch'])
    const wrong = each(inPackage('shared'), ({ tree, imports }) => [
      ...imports.filter(({ specifier }) => specifier.startsWith('node:')).map(({ specifier }) => specifier),
      ...freeNames(tree).filter((name) => globals.has(name)),
    ])
    expect(wrong).toEqual([])
  })
})

describe("the relay's main thread", () => {
  const main = reachable(sources, MAIN_THREAD)

  it('is reached from its entries', () => {
    expect(main.size).toBeGreaterThan(15)
    expect([...main.keys()]).toEqual(expect.arrayContaining(['packages/server/src/relay/admission.ts', 'packages/shared/src/codec.ts']))
  })

  it('never imports yjs as a value in the server: no Y.Doc is built there', () => {
    expect(
      each(on(main, 'packages/server/'), ({ path, imports }) =>
        yjsValues(imports).map((name) => `${name} by way of ${main.get(path)?.join(' → ')}`),
      ),
    ).toEqual([])
  })

  it('never reaches Doc in shared', () => {
    const wrong = each(on(main, 'packages/shared/'), ({ tree, imports }) => [
      ...yjsValues(imports).filter((name) => name === 'Doc'),
      ...(yjsValues(imports).length > 0 ? docsBuilt(tree) : []),
    ])
    expect(wrong).toEqual([])
  })
})

describe('PROTOCOL.md', () => {
  const page = readText('packages/shared/PROTOCOL.md')

  it('has the frames of the code, with their numbers and directions', () => {
    const written = table(page, '| type | frame |').map(([type, name, direction]) => ({ name, type: Number(type), direction }))
    const { client, relay } = frameDirections(parseSource(FRAMES, readText(FRAMES)).tree)
    const coded = Object.entries(FRAME_TYPES).map(([name, type]) => ({
      name,
      type,
      direction: client.has(name) && relay.has(name) ? 'both' : client.has(name) ? 'client → relay' : 'relay → client',
    }))
    expect(coded.length).toBeGreaterThan(15)
    expect(written).toEqual(coded)
  })

  it('has the bodies of the code, field by field', () => {
    const written = Object.fromEntries(table(page, '| type | frame |').map(([, name, , body]) => [name, body]))
    const coded = frameBodies(parseSource(BODIES, readText(BODIES)).tree)
    const byHand = Object.keys(coded).filter((name) => coded[name] === undefined)
    expect(byHand).toEqual(['entries'])
    expect({ ...coded, entries: written['entries'] }).toEqual(written)
  })

  it('has the errors of the code', () => {
    const written = table(page, '| number | code |').map(([number, code, retry, close, http]) => ({
      number: Number(number),
      code,
      retry,
      close: Number(close),
      http: Number(http),
    }))
    const coded = Object.entries(ERRORS).map(([code, { number, retry, close, http }]) => ({ number, code, retry, close, http }))
    expect(coded.length).toBeGreaterThan(20)
    expect(written).toEqual(coded)
  })

  it('has the limits of the code', () => {
    expect(Object.fromEntries(table(page, '| what | default |').map(([what, value]) => [what, value]))).toEqual(limitRows())
  })
})

describe('what is committed', () => {
  /** Spelled in pieces, so that this file does not find itself. */
  const refused: readonly (readonly [string, RegExp])[] = [
    ['notes that are not part of the tree', new RegExp(String.raw`(?<!\.\./)\.\./shared/(?:[A-Z][A-Z-]+\.md|da` + 'ta)', 'u')],
    ['a path of one machine', new RegExp('(?<![\\w.])/(?:wo' + 'rk|ho' + 'me)/\\w', 'u')],
    ['an issue number', new RegExp('\\bissue' + 's? #?\\d', 'iu')],
    ['a private tool', new RegExp('/tmp/(?:tb|gc)\\b|issues ' + 'show', 'u')],
    ['a registry host other than the public one', new RegExp('"resolved": "https?://(?!registry\\.npmjs' + '\\.org/)', 'u')],
  ]

  it('names nothing of the place where it was written', () => {
    const files = committedFiles()
    expect(files.length).toBeGreaterThan(50)
    const found = files.flatMap((path) => {
      const text = readText(path)
      return refused.filter(([, pattern]) => pattern.test(text)).map(([what]) => `${path}: ${what}`)
    })
    expect(found).toEqual([])
  })
})

function each(files: readonly Source[], problems: (source: Source) => readonly (string | undefined)[]): readonly string[] {
  return files.flatMap((source) => problems(source).map((problem) => `${source.path}: ${problem}`))
}

function over(count: number, limit: number): readonly string[] {
  return count > limit ? [`${count} lines`] : []
}

function inPackage(name: string): readonly Source[] {
  return sources.filter(({ path }) => packageOf(path) === name)
}

function on(ways: ReadonlyMap<string, unknown>, folder: string): readonly Source[] {
  return sources.filter(({ path }) => path.startsWith(folder) && ways.has(path))
}

function packageOf(path: string): string {
  return path.split('/')[1] ?? ''
}

/** `packages/server/src/relay/x.ts` → relay; `packages/server/src/pump.ts` → pump. */
function room(path: string): string {
  return (path.split('/')[3] ?? '').replace(/\.ts$/u, '')
}

/** `packages/server/src/config.ts` joins what it likes; the rooms do not import it. */
function isTopLevel(path: string): boolean {
  return path.split('/').length === 4
}

/** In a family, the port and the files that drive every adapter are not adapters. */
function isAdapter(path: string, folder: string): boolean {
  return !['verify.ts', 'merge.ts', 'ingester.ts', 'worker.ts'].includes(path.slice(folder.length))
}

/** `indexeddb-rows.ts`, or `indexeddb/…`, is a part of the adapter `indexeddb.ts`; parts may import one another. */
function isPrivatePart(folder: string, path: string, file: string): boolean {
  const adapter = (name: string): string => /^[a-z0-9]+/u.exec(name.slice(folder.length))?.[0] ?? ''
  return file.startsWith(folder) && adapter(path) === adapter(file)
}

/** Text files under version control; in an unpacked archive, without it, what the packages and the root hold. */
function committedFiles(): readonly string[] {
  try {
    const listed = execFileSync('git', ['ls-files', '-z', '--cached', '--others', '--exclude-standard'], { cwd: root, encoding: 'utf8' })
    return listed.split('\0').filter((path) => path !== '' && !/\.(bin|png|woff2|ico)$/u.test(path))
  } catch {
    return [...sources, ...tests].map(({ path }) => path)
  }
}
