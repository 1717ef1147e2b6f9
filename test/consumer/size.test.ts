/**
 * What the client adds to an application that has Yjs already: what a page must have before it can show and edit a document, and all that follows.
 */
import { basename } from 'node:path'
import { gzipSync } from 'node:zlib'
import type { BuildOptions, Metafile, Plugin } from 'esbuild'
import { build } from 'esbuild'
import { describe, expect, it } from 'vitest'
import { root } from '../support/sources.ts'

/** Bytes, minified, gzip -9, without yjs, lib0 and y-protocols. `whole`: the same in one file, as a bundler that splits nothing makes it. */
const LIMITS = { core: 12_000, first: 17_000, whole: 26_200 }

const OPTIONS = {
  stdin: { contents: "export { createClient } from '@rejoin/client'", resolveDir: root },
  bundle: true,
  minify: true,
  format: 'esm',
  platform: 'browser',
  target: 'es2022',
  write: false,
  metafile: true,
  outdir: 'out',
  external: ['yjs', 'lib0/*', 'y-protocols/*'],
} satisfies BuildOptions

/** In the place of the store's code. */
const NO_STORE: Plugin = {
  name: 'no store',
  // oxlint-disable-next-line require-unicode-regexp -- esbuild takes it for Go's
  setup: ({ onLoad }) => onLoad({ filter: /indexeddb-store\.js$/ }, () => ({ contents: 'export const openIndexeddb = undefined' })),
}

interface Chunk {
  readonly bytes: number
  readonly inputs: readonly string[]
  /** Chunks that are loaded with this one. */
  readonly needs: readonly string[]
}

describe('the client', async () => {
  const split = await bundle({ ...OPTIONS, splitting: true })
  const first = closure(split, 'stdin.js')
  const later = [...split.keys()].filter((name) => !first.has(name))
  const sum = (names: Iterable<string>, chunks = split): number =>
    [...names].reduce((bytes, name) => bytes + (chunks.get(name)?.bytes ?? 0), 0)
  const inputs = (names: Iterable<string>): readonly string[] => [...names].flatMap((name) => split.get(name)?.inputs ?? [])

  it(`weighs at most ${LIMITS.core} bytes without store and wire`, async () => {
    const bare = await bundle({ ...OPTIONS, splitting: true, plugins: [NO_STORE] })
    const bytes = sum(closure(bare, 'stdin.js'), bare)
    console.log(`client, core: ${bytes} bytes compressed`)
    expect(bytes).toBeLessThanOrEqual(LIMITS.core)
    expect(inputs(first)).toEqual(expect.arrayContaining([expect.stringContaining('indexeddb-store')]))
    expect([...bare.values()].flatMap((chunk) => chunk.inputs).filter((path) => path.includes('indexeddb-document'))).toEqual([])
  })

  it(`weighs at most ${LIMITS.first} bytes with its default store, before the wire, which is loaded at once behind it`, () => {
    console.log(`client, first: ${sum(first)} bytes compressed; later: ${later.map((name) => `${name} ${sum([name])}`).join(', ')}`)
    expect(sum(first)).toBeLessThanOrEqual(LIMITS.first)
    expect(inputs(first)).toEqual(expect.arrayContaining(['packages/client/dist/replica.js', 'packages/shared/dist/no-hints.js']))
    expect(
      inputs(first).filter((path) => /codec|client\/dist\/connection\.js|memory|\/hints\.js|\/options-check\.js|record|schema/u.test(path)),
    ).toEqual([])
  })

  it(`weighs at most ${LIMITS.whole} bytes with everything that a browser application gets, the store and the wire included`, async () => {
    const whole = await bundle({ ...OPTIONS, splitting: false })
    const [one] = whole.values()
    console.log(`client, whole: ${one?.bytes} bytes compressed`)
    expect(whole.size).toBe(1)
    expect(one?.bytes).toBeLessThanOrEqual(LIMITS.whole)
    for (const part of ['indexeddb-document', 'exchange', 'codec'])
      expect(
        one?.inputs.some((path) => path.includes(part)),
        part,
      ).toBe(true)
    expect(
      [...(one?.inputs ?? []), ...inputs(split.keys())].filter((path) => path.includes('node_modules/') && !path.includes('@rejoin')),
    ).toEqual([])
  })
})

async function bundle(options: BuildOptions & { readonly metafile: true; readonly write: false }): Promise<ReadonlyMap<string, Chunk>> {
  const { outputFiles, metafile } = await build(options)
  const bytes = new Map(outputFiles.map(({ path, contents }) => [basename(path), gzipSync(contents, { level: 9 }).length]))
  return new Map(
    Object.entries(metafile.outputs).map(([path, output]) => [
      basename(path),
      { bytes: bytes.get(basename(path)) ?? 0, inputs: Object.keys(output.inputs), needs: needsOf(output) },
    ]),
  )
}

function needsOf({ imports }: Metafile['outputs'][string]): readonly string[] {
  return imports.filter(({ kind, external }) => kind === 'import-statement' && external !== true).map(({ path }) => basename(path))
}

/** The chunk and all that its imports bring with it; not what it imports when it runs. */
function closure(chunks: ReadonlyMap<string, Chunk>, start: string): ReadonlySet<string> {
  const found = new Set([start])
  for (const name of found) for (const next of chunks.get(name)?.needs ?? []) found.add(next)
  return found
}
