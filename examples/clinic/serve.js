/**
 * What `npm start` runs once everything is built: the relay by its command, and the app from dist on a port of its own.
 * PORT (4400) is the relay's, APP_PORT (PORT + 1) the app's, DATA (./rejoin-data) where the relay keeps its files; a port of 0 takes a free one.
 */
import { spawn } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { serve } from '@hono/node-server'
import { serveStatic } from '@hono/node-server/serve-static'
import { Hono } from 'hono'

const here = fileURLToPath(new URL('.', import.meta.url))
const data = resolve(process.env['DATA'] ?? 'rejoin-data')
const port = Number(process.env['PORT'] ?? 4400)
const appPort = Number(process.env['APP_PORT'] ?? (port === 0 ? 0 : port + 1))

const relay = startRelay()
const relayUrl = await relay.listening
const app = serve({ fetch: pages(relayUrl).fetch, hostname: '127.0.0.1', port: appPort }, ({ port: taken }) => {
  process.stdout.write(`\n  app     http://127.0.0.1:${taken}\n  relay   ${relayUrl}\n  mirror  ${join(data, 'mirror.db')}\n\n`)
})

// The relay drains and ends, and we with it. A terminal's Ctrl-C reaches it without us, and a second signal would cut its draining short.
process.on('SIGINT', () => process.stdin.isTTY || stop())
process.on('SIGTERM', stop)
relay.child.once('exit', (code) => {
  app.close()
  process.exit(code ?? 1)
})

function stop() {
  if (!relay.child.killed) relay.child.kill('SIGTERM')
}

/** Starts `rejoin serve`; `listening` is the address of its one line on standard output. */
function startRelay() {
  const cli = fileURLToPath(new URL('./cli.js', import.meta.resolve('@rejoin/server')))
  const options = ['serve', '--config', join(here, 'rejoin.config.ts'), '--data', data, '--port', String(port), '--log-level', 'error']
  const child = spawn(process.execPath, [cli, ...options], { stdio: ['ignore', 'pipe', 'inherit'], env: { ...process.env, DATA: data } })
  /** @type {Promise<string>} */
  const listening = new Promise((ready) => {
    createInterface({ input: child.stdout }).on('line', (line) => {
      const event = JSON.parse(line)
      if (event.event === 'listening') ready(event.url)
    })
  })
  child.once('exit', (code) => process.exit(code ?? 1))
  return { child, listening }
}

/**
 * The built app. The page and its service worker carry the relay's address, so that a new address is a new shell.
 * @param {string} relayUrl
 */
function pages(relayUrl) {
  const dist = join(here, 'dist')
  const hono = new Hono()
  /** @param {string} file */
  const filled = async (file) => (await readFile(join(dist, file), 'utf8')).replaceAll('%RELAY%', relayUrl)
  hono.get('/', async (c) => c.html(await filled('index.html'), 200, { 'Cache-Control': 'no-cache' }))
  hono.get('/sw.js', async (c) => c.body(await filled('sw.js'), 200, { 'Content-Type': 'text/javascript', 'Cache-Control': 'no-cache' }))
  // Names in assets/ carry a hash of their content.
  const forever = {
    root: dist,
    onFound: (/** @type {string} */ _path, /** @type {import('hono').Context} */ c) =>
      c.header('Cache-Control', 'public, max-age=31536000, immutable'),
  }
  hono.use('/assets/*', serveStatic(forever))
  hono.use('*', serveStatic({ root: dist }))
  return hono
}
