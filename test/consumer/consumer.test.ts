/**
 * The packages as their users get them: packed, installed elsewhere, type-checked, bundled, run.
 */
import { execFile } from 'node:child_process'
import { createServer as createHttpServer } from 'node:http'
import { readFile } from 'node:fs/promises'
import { mkdtempSync, rmSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { extname, join } from 'node:path'
import { promisify } from 'node:util'
import { publint } from 'publint'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createServer } from '@rejoin/server'
import { launchChromium } from '../support/browser.ts'
import { describeChromium } from '../support/requires.ts'
import { root } from '../support/sources.ts'
import type { Consumer } from './install.ts'
import { installConsumer } from './install.ts'

const run = promisify(execFile)
let consumer: Consumer

beforeAll(async () => {
  consumer = await installConsumer()
})
afterAll(() => consumer.remove())

describe('a consumer', () => {
  it('type-checks with nodenext, and its output runs in Node against a relay of its own', async () => {
    await typeCheck('tsconfig.nodenext.json')
    const { stdout } = await run(process.execPath, ['out/node.js'], { cwd: consumer.folder })
    expect(JSON.parse(stdout)).toEqual({ read: 'hello', refused: 'bad_document', fields: ['name', 'dob', 'weight'], storage: 'durable' })
  })

  it('type-checks with bundler', () => typeCheck('tsconfig.bundler.json'))

  it('builds with vite', () => viteBuild())

  it.each(['shared', 'client', 'server'])('finds nothing wrong with the tarball of @rejoin/%s', async (name) => {
    const tarball = await readFile(consumer.tarballs.get(`@rejoin/${name}`) ?? '')
    const { messages } = await publint({
      pack: { tarball: tarball.buffer.slice(tarball.byteOffset, tarball.byteOffset + tarball.length) },
      level: 'warning',
    })
    expect(messages).toEqual([])
  })
})

describeChromium('a consumer in Chromium', () => {
  it('edits, and knows when the relay has it', async () => {
    await viteBuild()
    const data = mkdtempSync(join(tmpdir(), 'consumer-relay-'))
    const [relay, pages, browser] = await Promise.all([
      createServer({ port: 0, data }),
      servePages(join(consumer.folder, 'dist')),
      launchChromium(),
    ])
    try {
      const page = await browser.newPage()
      const problems: string[] = []
      page.on('pageerror', (error) => problems.push(String(error)))
      await page.goto(`${pages.url}/?relay=${encodeURIComponent(relay.url)}`)
      const output = page.locator('output:not(:empty)')
      await output.waitFor({ state: 'attached' })
      expect(JSON.parse((await output.textContent()) ?? '')).toEqual({
        value: 1,
        storage: expect.stringMatching(/durable|ephemeral/u),
        pending: { local: 0, relay: 0 },
      })
      expect(problems).toEqual([])
    } finally {
      await browser.close()
      pages.close()
      await relay.close()
      rmSync(data, { recursive: true, force: true })
    }
  })
})

/** Runs the compiler; what it says is the failure. */
async function typeCheck(project: string): Promise<void> {
  await run(join(root, 'node_modules/.bin/tsc'), ['-p', project], { cwd: consumer.folder }).catch((error: unknown) => {
    throw new Error((error as { stdout?: string }).stdout ?? '', { cause: error })
  })
}

async function viteBuild(): Promise<void> {
  await run(
    process.execPath,
    [join(root, 'node_modules/vite/bin/vite.js'), 'build', '--logLevel', 'warn', '--outDir', 'dist', '--emptyOutDir'],
    {
      cwd: consumer.folder,
      // Vitest's own is 'test', which would build for development.
      env: { ...process.env, NODE_ENV: 'production' },
    },
  )
}

function servePages(folder: string): Promise<{ url: string; close: () => void }> {
  const types: Readonly<Record<string, string>> = { '.html': 'text/html', '.js': 'text/javascript' }
  const server = createHttpServer((request, response) => {
    const { pathname } = new URL(request.url ?? '/', 'http://localhost')
    const file = pathname === '/' ? 'index.html' : pathname.slice(1)
    readFile(join(folder, file)).then(
      (bytes) => response.writeHead(200, { 'Content-Type': types[extname(file)] ?? 'text/plain' }).end(bytes),
      () => response.writeHead(404).end(),
    )
  })
  return new Promise((ready) => {
    server.listen(0, '127.0.0.1', () =>
      ready({ url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, close: () => server.close() }),
    )
  })
}
