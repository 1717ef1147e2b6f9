/**
 * What the client adds to an application that has Yjs already.
 */
import { gzipSync } from 'node:zlib'
import { build } from 'esbuild'
import { expect, it } from 'vitest'
import { root } from '../support/sources.ts'

/** gzip -9 of the minified browser client, without yjs, lib0 and y-protocols. */
const LIMIT = 12_000

it(`the client weighs at most ${LIMIT} bytes, minified and compressed`, async () => {
  const { outputFiles, metafile } = await build({
    stdin: { contents: "export { createClient } from '@rejoin/client'", resolveDir: root },
    bundle: true,
    minify: true,
    format: 'esm',
    platform: 'browser',
    target: 'es2022',
    write: false,
    metafile: true,
    external: ['yjs', 'lib0/*', 'y-protocols/*'],
  })
  const bytes = outputFiles.reduce((sum, file) => sum + gzipSync(file.contents, { level: 9 }).length, 0)
  const inputs = Object.keys(metafile.inputs)
  expect(inputs.some((path) => path.includes('indexeddb'))).toBe(true)
  expect(inputs.filter((path) => path.includes('node_modules/') && !path.includes('@rejoin'))).toEqual([])
  console.log(`client: ${bytes} bytes compressed`)
  expect(bytes).toBeLessThanOrEqual(LIMIT)
})
